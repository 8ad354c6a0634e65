"""Two steps that belong together as a board: both trees, what differs between them, masks, commits and margins. Pure.

Knows records and what a comparison said of them; which steps belong together was decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from specscope.schemas.verdict import Difference, Side
from specscope.tracer.naming.text import counted
from specscope.viewer.drawing.board import Board, board_of, card, columns, panel, raw_record
from specscope.viewer.drawing.fragments import Tone, note, quiet
from specscope.viewer.drawing.frames import box, folded
from specscope.viewer.drawing.labels.nodes import node_notes
from specscope.viewer.drawing.markup import NOTHING, Markup, joined, markup
from specscope.viewer.drawing.pair.differences import difference_table, node_table, pair_note
from specscope.viewer.drawing.pair.margins import margin_picture
from specscope.viewer.drawing.pair.sides import PairSide, PairSides
from specscope.viewer.drawing.step import parts as step_parts
from specscope.viewer.drawing.step.raw import raw_text
from specscope.viewer.drawing.svg.mask import Cell, left_out_note, mask_cells, pointed_at_mask, step_mask

#: Deeper trees are drawn one above the other, so that they can be read.
STACKED_FROM_DEPTH = 7
HALF_WIDTH, WHOLE_WIDTH = 560.0, 1180.0
NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class About:
    """What the comparison says of this pair, in words."""

    tone: Tone
    title: str
    lines: Sequence[str] = ()
    root: int | None = None  # of the verdict's roots: the one to go to from here


@dataclass(frozen=True, kw_only=True)
class PairLook:
    """Two steps, and what is known of them."""

    a: PairSide
    b: PairSide | None  # None: the candidate has no step there
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
    """What stands above the two steps: the card, and beside it proof and commands."""

    card: Markup = NOTHING
    aside: Markup = NOTHING
    raw: Mapping[str, str] = field(default_factory=dict)


def pair_board(front: Front, look: PairLook | None, *, strip: Markup, show_all: bool = False) -> Board:
    """The board of a comparison.

    Args:
        front: what stands above.
        look: the two steps; None where no steps can be shown.
        strip: the overview above all.
        show_all: draw every node of large trees.
    """
    about = [about_note(look.about)] if look is not None else []
    top = columns([front.card, *about], [front.aside], kind="wide-narrow") if front.card else joined(about)
    if look is None:
        return Board(board_of(top), raw=front.raw, strip=strip)
    raw = {**front.raw, "a": raw_text(look.a.step)}
    records = [raw_record("a", "Raw record of the baseline")]
    if look.b is not None:
        raw["b"] = raw_text(look.b.step)
        records.append(raw_record("b", "Raw record of the candidate"))
    parts = [
        top,
        pair_trees(look, show_all=show_all),
        *_details(look),
        columns(*([box(record)] for record in records), kind="halves"),
    ]
    return Board(board_of(*parts), notes=_notes(look), raw=raw, strip=strip)


def _details(look: PairLook) -> list[Markup]:
    """Everything below the trees but the raw records."""
    sides = look.sides
    if sides is None:
        return [_only_node()]
    compared = _compared(look, sides) if look.compared else _only_node()
    return [compared, pair_masks(sides), pair_commits(sides, look.differences)]


def about_note(about: About) -> Markup:
    """The note, with a button that goes to the root where this follows from one."""
    words = note(about.tone, about.title, about.lines)
    if about.root is None:
        return words
    return markup(
        '<div class="ss-about">{words}<button type="button" data-do="root:{at}">Go to root {number}</button></div>',
        words=words,
        at=about.root,
        number=about.root + 1,
    )


def pair_trees(look: PairLook, *, show_all: bool = False, buttons: bool = True) -> Markup:
    """Both trees, side by side or, where they are deep, one above the other; with ``buttons`` to open each step."""
    sizes = _TreeSizes(WHOLE_WIDTH if is_deep(look) else HALF_WIDTH, show_all, buttons)
    cards = [_tree("a", look.a, sizes, is_compared=look.compared)]
    if look.b is not None:
        cards.append(_tree("b", look.b, sizes, is_compared=look.compared))
    if is_deep(look) or len(cards) == 1:
        return joined(cards)
    return columns(*([tree] for tree in cards), kind="halves")


def is_deep(look: PairLook) -> bool:
    """Whether the trees are too wide to stand side by side."""
    trees = [side.step.tree for side in (look.a, look.b) if side is not None]
    return max((depth for tree in trees if tree is not None for depth in tree.depths), default=0) >= STACKED_FROM_DEPTH


@dataclass(frozen=True)
class _TreeSizes:
    """How both trees are drawn."""

    width: float
    show_all: bool
    buttons: bool


ROLES: dict[Side, str] = {"a": "Baseline", "b": "Candidate"}


def _tree(name: Side, side: PairSide, sizes: _TreeSizes, *, is_compared: bool) -> Markup:
    drawn = step_parts.step_tree(
        side,
        target_width=sizes.width,
        folding=step_parts.LIVE_FOLDING if sizes.buttons else step_parts.NO_FOLDING,
        show_all=sizes.show_all,
    )
    opens = markup(
        '<button type="button" data-do="open:{side}">Open step {step}</button>',
        side=markup("a") if name == "a" else markup("b"),
        step=side.step.step,
    )
    below = markup(
        '<div class="ss-under">{facts}{opens}</div>',
        facts=step_parts.step_facts(side),
        opens=opens if sizes.buttons else NOTHING,
    )
    words = _differ_text(side) if is_compared else NOT_COMPARED
    aside = f"{side.run}: {words}" if side.run else words
    return card(f"tree-{name}", f"{ROLES[name]}, step {side.step.step}", aside, joined([drawn, below]))


def _differ_text(side: PairSide) -> str:
    count = len(side.marks.divergent)
    if count == 1:
        return "1 node differs, marked ≠"
    return f"{count} nodes differ, marked ≠" if count else "no node differs"


def _compared(look: PairLook, sides: PairSides) -> Markup:
    how_many = counted(len(look.differences), "difference")
    floor = "" if look.floor is None else "the teacher's choices against the noise floor"
    margins = card("margins", "Margins", floor, margin_picture(sides, look.floor))
    table = difference_table(sides, look.differences, look.origin)
    parts = [
        columns([margins], [_node_card()], kind="halves"),
        card("differences", "What differs", f"{how_many}, in the order of the phases", table),
    ]
    if sides.marked:
        aside = "how they were fed, and the outcome"
        parts.append(card("nodes", "Nodes that differ", aside, node_table(sides, look.differences)))
    return joined(parts)


def _only_node() -> Markup:
    return columns([_node_card()], kind="whole")


def _node_card() -> Markup:
    return card("node", "Node", "in both runs", panel("Point at a node in a tree, a mask or a table."))


def _notes(look: PairLook) -> dict[str, Markup]:
    sides = look.sides
    if sides is None:
        return node_notes(look.a)
    return {node.name: pair_note(sides, node) for node in sides.nodes}


def pair_masks(sides: PairSides) -> Markup:
    """Both masks; folded where they agree, slots matched by path."""
    bits = sides.mask_differences if sides.compared else None
    if bits is not None and (bits.a or bits.b):
        both = (("Baseline's mask", sides.a, bits.a), ("Candidate's mask", sides.b, bits.b))
        cards = (card("mask", title, _bits(len(cells)), _mask(side, cells)) for title, side, cells in both)
        return columns(*([mask] for mask in cards), kind="halves")
    words = "not compared: a mask was not recorded" if sides.compared else NOT_COMPARED
    if bits is not None:
        same_nodes = sides.a.slots.keys() == sides.b.slots.keys()
        words = "✓ equal, slots matched by path" if same_nodes else "✓ equal at the nodes that both trees have"
    both_masks = columns(*([step_mask(side)] for side in (sides.a, sides.b)), kind="halves")
    return _folded("masks", "Tree masks", words, both_masks)


def _bits(count: int) -> str:
    return "1 bit differs from the other mask" if count == 1 else f"{count} bits differ from the other mask"


def _mask(side: PairSide, differing: Sequence[Cell]) -> Markup:
    """A mask with a dashed outline around the bits that are not the other mask's."""
    cells = mask_cells(side.step)
    assert cells is not None
    words = "Dashed outline: differs from the other mask. Solid outline: does not fit this tree."
    return joined([pointed_at_mask(side, cells, apart=differing), left_out_note(cells), quiet(words)])


def pair_commits(sides: PairSides, differences: Sequence[Difference]) -> Markup:
    """Both commits; folded where nothing of them differs."""
    of_commit = [difference for difference in differences if difference.phase == "commit"]
    both = [step_parts.step_commit(side) for side in (sides.a, sides.b)]
    if of_commit:
        aside = "; ".join(f"{difference.field}: {difference.a} ≠ {difference.b}" for difference in of_commit)
        titles = ("Baseline's commit", "Candidate's commit")
        cards = (card("commit", title, aside, part) for title, part in zip(titles, both, strict=True))
        return columns(cards, kind="whole")  # one above the other: ribbons are wide
    recorded = all(side.step.commit is not None for side in (sides.a, sides.b))
    words = "✓ no difference" if sides.compared and recorded else NOT_COMPARED
    return _folded("commits", "Cache commits", words, columns(*([part] for part in both), kind="halves"))


def _folded(name: str, title: str, aside: str, content: Markup) -> Markup:
    return folded(title, content, aside=aside, kind=f"ss-box ss-folded ss-folded-{name}")
