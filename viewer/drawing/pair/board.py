"""Two steps that belong together as a board: both trees, what differs between them, masks, commits and margins. Pure.

Knows records and what a comparison said of them; which steps belong together was decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from specscope.schemas.verdict import Difference
from specscope.tracer.words.text import counted
from specscope.viewer.drawing.board import Board, board_of, card, columns, raw_record
from specscope.viewer.drawing.fragments import Tone, note, quiet
from specscope.viewer.drawing.frames import box, folded
from specscope.viewer.drawing.pair.differences import difference_table, node_table, pair_note
from specscope.viewer.drawing.pair.margins import margin_picture
from specscope.viewer.drawing.pair.sides import PairSide, PairSides
from specscope.viewer.drawing.step import parts as step_parts
from specscope.viewer.drawing.svg.mask import Cell, draw_mask, left_out_note, mask_cells, quiet_cell, step_mask
from specscope.viewer.drawing.words.nodes import node_notes

#: Deeper trees are drawn one above the other, so that they can be read.
STACKED_FROM_DEPTH = 7
HALF_WIDTH, WHOLE_WIDTH = 560.0, 1180.0


@dataclass(frozen=True)
class About:
    """What the comparison says of this pair, in words."""

    tone: Tone
    title: str
    lines: Sequence[str] = ()
    root: int | None = None  # of the verdict's roots: the one to go to from here


@dataclass(frozen=True)
class PairLook:
    """Two steps, and what is known of them."""

    a: PairSide
    b: PairSide | None  # None: no step of the candidate stands there
    about: About
    differences: Sequence[Difference] = ()
    origin: Difference | None = None  # where the divergence begins
    compared: bool = True  # off where the two cannot be compared
    floor: float | None = None  # noise floor of logits

    @property
    def sides(self) -> PairSides | None:
        """Both, where there are two."""
        return None if self.b is None else PairSides(self.a, self.b, self.compared)


@dataclass(frozen=True)
class Front:
    """What stands above the two steps, as markup: the card, and beside it proof and commands."""

    card: str = ""
    aside: str = ""
    raw: Mapping[str, str] = field(default_factory=dict)


def pair_board(front: Front, look: PairLook | None, *, strip: str, show_all: bool = False) -> Board:
    """The board of a comparison.

    Args:
        front: what stands above.
        look: the two steps; None where no steps can be shown.
        strip: the overview above all.
        show_all: draw every node of large trees.
    """
    about = [about_note(look.about)] if look is not None else []
    top = columns([front.card, *about], [front.aside], kind="wide-narrow") if front.card else "".join(about)
    if look is None:
        return Board(board_of(top), raw=front.raw, strip=strip)
    parts = [top, pair_trees(look, show_all=show_all)]
    raw = {**front.raw, "a": step_parts.raw_text(look.a.step)}
    records = [raw_record("a", "Raw record of the baseline")]
    sides = look.sides
    if sides is not None:
        parts.append(_compared(look, sides) if look.compared else _only_node())
        parts += [pair_masks(sides), pair_commits(sides, look.differences)]
        raw["b"] = step_parts.raw_text(sides.b.step)
        records.append(raw_record("b", "Raw record of the candidate"))
    else:
        parts.append(_only_node())
    parts.append(columns(*([box(record)] for record in records), kind="halves"))
    return Board(board_of(*parts), notes=_notes(look), raw=raw, strip=strip)


def about_note(about: About) -> str:
    """The note, with a button that goes to the root where this follows from one."""
    made = note(about.tone, about.title, about.lines)
    if about.root is None:
        return made
    button = f'<button type="button" data-do="root:{about.root}">Go to root {about.root + 1}</button>'
    return f'<div class="ss-about">{made}{button}</div>'


def pair_trees(look: PairLook, *, show_all: bool = False, buttons: bool = True) -> str:
    """Both trees, side by side or, where they are deep, one above the other; with ``buttons`` to open each step."""
    stacked = is_deep(look)
    width = WHOLE_WIDTH if stacked else HALF_WIDTH
    cards = [_tree("a", "Baseline", look.a, look.compared, width, show_all=show_all, button=buttons)]
    if look.b is not None:
        cards.append(_tree("b", "Candidate", look.b, look.compared, width, show_all=show_all, button=buttons))
    return "".join(cards) if stacked or len(cards) == 1 else columns(*([one] for one in cards), kind="halves")


def is_deep(look: PairLook) -> bool:
    """Whether the trees are too wide to stand side by side."""
    trees = [side.step.tree for side in (look.a, look.b) if side is not None]
    return max((depth for tree in trees if tree is not None for depth in tree.depths), default=0) >= STACKED_FROM_DEPTH


def _tree(name: str, title: str, side: PairSide, compared: bool, width: float, *, show_all: bool, button: bool) -> str:
    count = len(side.marks.divergent)
    differ = "1 node differs, marked ≠" if count == 1 else f"{count} nodes differ, marked ≠"
    said = "not compared" if not compared else differ if count else "no node differs"
    folding = step_parts.LIVE_FOLDING if button else step_parts.NO_FOLDING
    opens = f'<button type="button" data-do="open:{name}">Open step {side.step.step}</button>' if button else ""
    return card(
        f"tree-{name}",
        f"{title}, step {side.step.step}",
        f"{side.run}: {said}" if side.run else said,
        step_parts.step_tree(side.step, side.texts, side.marks, target_width=width, folding=folding, show_all=show_all),
        f'<div class="ss-under">{step_parts.step_facts(side.step, side.texts)}{opens}</div>',
    )


def _compared(look: PairLook, sides: PairSides) -> str:
    how_many = counted(len(look.differences), "difference")
    floor = "" if look.floor is None else "the teacher's choices against the noise floor"
    table = difference_table(sides, look.differences, look.origin)
    parts = [
        columns([card("margins", "Margins", floor, margin_picture(sides, look.floor))], [_node_card()], kind="halves"),
        card("differences", "What differs", f"{how_many}, in the order of the phases", table),
    ]
    if sides.marked:
        parts.append(
            card(
                "nodes",
                "Nodes that differ",
                "how they were fed, and what came of it",
                node_table(sides, look.differences),
            )
        )
    return "".join(parts)


def _only_node() -> str:
    return columns([_node_card()], kind="whole")


def _node_card() -> str:
    hint = quiet("Point at a node in a tree, a mask or a table.")
    return card("node", "Node", "in both runs", f'<div class="ss-panel">{hint}</div>')


def _notes(look: PairLook) -> dict[str, str]:
    sides = look.sides
    if sides is None:
        return node_notes(look.a.step, look.a.texts, look.a.marks)
    return {node.name: pair_note(sides, node) for node in sides.nodes}


def pair_masks(sides: PairSides) -> str:
    """Both masks; folded where they agree, slots matched by path."""
    found = sides.mask_differences if sides.compared else None
    if found is not None and (found.a or found.b):
        both = (("Baseline's mask", sides.a, found.a), ("Candidate's mask", sides.b, found.b))
        cards = (card("mask", title, _bits(len(cells)), _mask(side, cells)) for title, side, cells in both)
        return columns(*([one] for one in cards), kind="halves")
    said = "not compared: a mask was not recorded" if sides.compared else "not compared"
    if found is not None:
        said = "✓ equal, slots matched by path" if sides.a.slots.keys() == sides.b.slots.keys() else _common_agree()
    both_masks = columns(
        *([step_mask(side.step, side.texts, side.marks)] for side in (sides.a, sides.b)), kind="halves"
    )
    return _folded("masks", "Tree masks", said, both_masks)


def _common_agree() -> str:
    return "✓ equal at the nodes that both trees have"


def _bits(count: int) -> str:
    return "1 bit differs from the other's" if count == 1 else f"{count} bits differ from the other's"


def _mask(side: PairSide, differing: Sequence[Cell]) -> str:
    """A mask with a dashed outline around the bits that are not the other mask's."""
    cells = mask_cells(side.step)
    assert cells is not None
    drawn = draw_mask(side.step, cells, side.texts, side.marks, apart=differing)
    words = quiet("Dashed: what the other mask does not have alike. Full outline: what is not this tree's own mask.")
    return f"<div>{drawn}{quiet_cell()}</div>{left_out_note(cells)}{words}"


def pair_commits(sides: PairSides, differences: Sequence[Difference]) -> str:
    """Both commits; folded where nothing of them differs."""
    found = [one for one in differences if one.phase == "commit"]
    both = [step_parts.step_commit(side.step, side.texts, side.marks) for side in (sides.a, sides.b)]
    if found:
        aside = "; ".join(f"{one.field}: {one.a} ≠ {one.b}" for one in found)
        titles = ("Baseline's commit", "Candidate's commit")
        cards = (card("commit", title, aside, part) for title, part in zip(titles, both, strict=True))
        return columns(cards, kind="whole")  # one above the other: ribbons are wide
    recorded = all(side.step.commit is not None for side in (sides.a, sides.b))
    said = "✓ no difference" if sides.compared and recorded else "not compared"
    return _folded("commits", "Cache commits", said, columns(*([part] for part in both), kind="halves"))


def _folded(name: str, title: str, said: str, markup: str) -> str:
    return folded(title, markup, aside=said, kind=f"ss-box ss-folded ss-folded-{name}")
