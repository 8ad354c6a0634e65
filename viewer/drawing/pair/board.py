"""Two steps that belong together as a board: both trees, what differs between them, masks, commits and margins. Pure.

Knows records and what a comparison said of them; which steps belong together was decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from specscope.schemas.verdict import Difference, Side
from specscope.tracer.naming.text import counted
from specscope.tracer.report.card import one_line
from specscope.tracer.report.values import SideTexts, value_text
from specscope.viewer.drawing.board import Board, board_of, card, columns, panel, raw_record
from specscope.viewer.drawing.fragments import Tone, note, quiet
from specscope.viewer.drawing.frames import box, folded
from specscope.viewer.drawing.labels.nodes import node_notes
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.pair.differences import difference_table, node_table, pair_note
from specscope.viewer.drawing.pair.margins import margin_picture
from specscope.viewer.drawing.pair.sides import PairSide, PairSides
from specscope.viewer.drawing.step import parts as step_parts
from specscope.viewer.drawing.step.raw import raw_text
from specscope.viewer.drawing.svg.mask import Cell, left_out_note, mask_cells, pointed_at_mask, step_mask
from specscope.viewer.drawing.svg.tree_picture import Branches, Medium

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


@dataclass(frozen=True, kw_only=True)
class Front:
    """What stands above the two steps: the card, and beside it proof and commands."""

    card: Markup = NOTHING
    aside: Markup = NOTHING
    raw: Mapping[str, str] = field(default_factory=dict)
    notes: Markup = NOTHING  # what somebody noted on the two steps
    key: Markup = NOTHING  # what the strip above all shows


def pair_board(
    front: Front,
    look: PairLook | None,
    *,
    strip: Markup,
    branches: Branches = Branches(),  # noqa: B008  (immutable)
) -> Board:
    """The board of a comparison.

    Args:
        front: what stands above.
        look: the two steps; None where no steps can be shown.
        strip: the overview above all.
        branches: what to show of large trees.
    """
    about = [about_note(look.about)] if look is not None else []
    top = columns([front.card, *about], [front.aside], kind="wide-narrow") if front.card else joined(about)
    top = joined([front.key, top])
    if look is None:
        return Board(board_of(top), raw=front.raw, strip=strip)
    top = joined([top, front.notes])
    raw = {**front.raw, "a": raw_text(look.a.step)}
    records = [raw_record("a", "Raw record of the baseline")]
    if look.b is not None:
        raw["b"] = raw_text(look.b.step)
        records.append(raw_record("b", "Raw record of the candidate"))
    parts = [top, *_evidence(look, branches), columns(*([box(record)] for record in records), kind="halves")]
    return Board(board_of(*parts), notes=_notes(look), raw=raw, strip=strip)


def _evidence(look: PairLook, branches: Branches) -> list[Markup]:
    """Everything below the card but the raw records: first what shows where the divergence begins."""
    trees, sides = pair_trees(look, medium="page", branches=branches), look.sides
    if sides is None:
        return [trees, _only_node()]
    parts = {
        "trees": trees,
        "margins": _margins(look, sides) if look.compared else _only_node(),
        "masks": pair_masks(sides),
        "commits": pair_commits(sides, look.differences),
    }
    if look.compared:
        parts["differences"] = _differences(look, sides)
        parts["nodes"] = _nodes(look, sides)
    first = [name for name in evidence_of(look.origin) if name in parts]
    return [parts[name] for name in dict.fromkeys([*first, *parts])]


#: By the phase where a divergence begins: the drawings that show it, the most telling first.
EVIDENCE: dict[str, tuple[str, ...]] = {
    "draft": ("differences", "trees"),
    "tree": ("trees", "differences"),
    "tensors": ("nodes", "trees", "masks"),
    "verify": ("margins", "trees"),
    "accept": ("trees", "nodes"),
    "commit": ("commits", "trees"),
    "stop": ("differences", "trees"),
}


def evidence_of(origin: Difference | None) -> tuple[str, ...]:
    """The drawings to look at first; empty where no divergence begins here."""
    if origin is None:
        return ()
    return ("masks", "trees", "nodes") if origin.field == "mask" else EVIDENCE.get(origin.phase, ())


def about_note(about: About) -> Markup:
    """The note, with a button that goes to the root where this follows from one."""
    if about.tone == "parted":  # the card says the rest
        words = ", ".join(about.lines)
        return markup('<p class="ss-begins"><b>≠</b> {words}</p>', words=html_text(f"{about.title}; {words}"))
    words = note(about.tone, about.title, about.lines)
    if about.root is None:
        return words
    return markup(
        '<div class="ss-about">{words}<button type="button" data-do="root:{at}">Go to root {number}</button></div>',
        words=words,
        at=about.root,
        number=about.root + 1,
    )


def pair_trees(
    look: PairLook,
    *,
    medium: Medium,
    branches: Branches = Branches(),  # noqa: B008  (immutable)
) -> Markup:
    """Both trees, side by side or, where they are deep, one above the other; on a page with buttons that open each."""
    sizes = _TreeSizes(WHOLE_WIDTH if is_deep(look) else HALF_WIDTH, branches, medium)
    cards = [_tree("a", look.a, sizes, is_compared=look.compared)]
    if look.b is not None:
        same = look.compared and step_parts.step_facts(look.a) == step_parts.step_facts(look.b)
        cards.append(_tree("b", look.b, sizes, is_compared=look.compared, same_facts=same))
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
    branches: Branches
    medium: Medium


ROLES: dict[Side, str] = {"a": "Baseline", "b": "Candidate"}


def _tree(name: Side, side: PairSide, sizes: _TreeSizes, *, is_compared: bool, same_facts: bool = False) -> Markup:
    drawn = step_parts.step_tree(
        side,
        target_width=sizes.width,
        medium=sizes.medium,
        branches=sizes.branches,
        fold_above=step_parts.FOLD_PAIR_ABOVE,
    )
    opens = markup(
        '<button type="button" data-do="open:{side}">Open step {step}</button>',
        side=markup("a") if name == "a" else markup("b"),
        step=side.step.step,
    )
    below = markup(
        '<div class="ss-under">{facts}{opens}</div>',
        facts=quiet("Lengths and tokens as in the baseline.") if same_facts else step_parts.step_facts(side),
        opens=opens if sizes.medium == "page" else NOTHING,
    )
    words = _differ_text(side) if is_compared else NOT_COMPARED
    aside = f"{side.run}: {words}" if side.run else words
    return card(f"tree-{name}", f"{ROLES[name]}, step {side.step.step}", aside, joined([drawn, below]))


def _differ_text(side: PairSide) -> str:
    count, because = len(side.marks.independent), len(side.marks.inherited)
    also = f"; {because} more because of {'it' if count == 1 else 'them'}" if because else ""
    if count == 1:
        return f"1 node differs, marked ≠{also}"
    return f"{count} nodes differ, marked ≠{also}" if count else "no node differs"


def _margins(look: PairLook, sides: PairSides) -> Markup:
    floor = "" if look.floor is None else "the teacher's choices against the noise floor"
    margins = card("margins", "Margins", floor, margin_picture(sides, look.floor))
    return columns([margins], [_node_card()], kind="halves")


def _differences(look: PairLook, sides: PairSides) -> Markup:
    aside = f"{counted(len(look.differences), 'difference')}, in the order of the phases"
    return card("differences", "What differs", aside, difference_table(sides, look.differences, look.origin))


def _nodes(look: PairLook, sides: PairSides) -> Markup:
    if not sides.marked:
        return NOTHING
    aside = "how they were fed, and the outcome"
    return card("nodes", "Nodes that differ", aside, node_table(sides, look.differences))


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
        aside = "; ".join(_commit_text(sides, difference) for difference in of_commit)
        titles = ("Baseline's commit", "Candidate's commit")
        cards = (card("commit", title, aside, part) for title, part in zip(titles, both, strict=True))
        return columns(cards, kind="whole")  # one above the other: ribbons are wide
    recorded = all(side.step.commit is not None for side in (sides.a, sides.b))
    words = "✓ no difference" if sides.compared and recorded else NOT_COMPARED
    return _folded("commits", "Cache commits", words, columns(*([part] for part in both), kind="halves"))


def _commit_text(sides: PairSides, difference: Difference) -> str:
    texts = SideTexts(sides.a.texts, sides.b.texts)
    a, b = (one_line(value_text(difference, side, texts), 200) for side in get_args(Side))
    return f"{difference.field}: {a} ≠ {b}"


def _folded(name: str, title: str, aside: str, content: Markup) -> Markup:
    return folded(title, content, aside=aside, kind=f"ss-box ss-folded ss-folded-{name}")
