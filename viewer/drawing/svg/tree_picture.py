"""A step's records as what is to be drawn: labels, flags and tooltips. Knows records and token text, no pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from specscope.schemas import BonusDraw, Step
from specscope.tracer.words.text import shorten
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.svg.tree_layout import connected_path, fold
from specscope.viewer.drawing.words.nodes import describe_node, draft_probability

LABEL_LIMIT = 14
MAX_TITLE = 200  # characters of a line in a tooltip: a token may be as long as it likes
#: Above this many nodes the unlikely ones are folded, unless the user wants them all.
FOLD_ABOVE = 64


@dataclass(frozen=True)
class PictureNode:
    """One node to be drawn. Texts are visible, but not yet escaped for markup."""

    slot: int
    name: str  # that of ``NodeMarks``
    label: str
    tooltip: tuple[str, ...]  # lines
    probability: float | None  # the drafter's, given the parent; None where it is unknown or not finite
    accepted: bool
    divergent: bool
    origin: bool  # where the divergence begins
    violated: bool = False  # a violated invariant names it
    hidden_below: int = 0


@dataclass(frozen=True)
class Bonus:
    """The teacher's own token at the end of the accepted path."""

    label: str
    tooltip: tuple[str, ...]


@dataclass(frozen=True)
class TreePicture:
    """A whole tree to be drawn."""

    parents: list[int]
    nodes: list[PictureNode]  # those that are shown
    path: list[int] | None
    bonus: Bonus | None
    num_folded: int


def picture_of(
    step: Step,
    texts: TokenTexts,
    marks: NodeMarks = NodeMarks(),  # noqa: B008  (immutable)
    *,
    fold_above: int | None = FOLD_ABOVE,
) -> TreePicture | None:
    """What to draw of ``step``; None where it records no tree, or an empty one.

    Args:
        marks: nodes to be marked, and the names of all.
        fold_above: fold trees of more nodes than this; None shows everything.
    """
    tree = step.tree
    if tree is None or not tree.tokens:
        return None
    size = len(tree.tokens)
    parents = [*tree.parents[:size], *[0] * (size - len(tree.parents))]
    path = None if step.accept is None else connected_path(parents, step.accept.path)
    shown, hidden = frozenset(range(size)), dict[int, int]()
    if fold_above is not None and size - 1 > fold_above:
        shown, hidden = fold(
            parents, _scores(step, size), {*(path or ()), *marks.divergent, *marks.violated}, fold_above + 1
        )
    accepted = frozenset([0, *path]) if path is not None else frozenset[int]()
    nodes = [
        PictureNode(
            slot,
            marks.name(slot),
            shorten(texts.shown(tree.tokens[slot]), LABEL_LIMIT),
            _tooltip(step, slot, texts, hidden.get(slot, 0)),
            draft_probability(step, slot),
            slot in accepted,
            slot in marks.divergent,
            slot == marks.origin,
            slot in marks.violated,
            hidden.get(slot, 0),
        )
        for slot in sorted(shown)
    ]
    return TreePicture(parents, nodes, path, _bonus(step, texts), size - len(shown))


def _scores(step: Step, size: int) -> list[float]:
    scores = (step.tree.scores if step.tree is not None else None) or []
    padded = [*scores, *[-math.inf] * (size - len(scores))]
    return [-math.inf if math.isnan(score) else score for score in padded]


def _bonus(step: Step, texts: TokenTexts) -> Bonus | None:
    if step.accept is None:
        return None
    token = step.accept.bonus_token
    lines = (
        f"bonus token {texts.shown(token)} (id {token})",
        f"the teacher's own {_choice(step.accept.bonus_draw)} at slot {step.accept.bonus_slot}",
        "the root of the next step",
    )
    return Bonus(shorten(texts.shown(token), LABEL_LIMIT), lines)


def _choice(draw: BonusDraw | None) -> str:
    return "choice" if draw is None else f"draw, coin {draw.coin:.3g} in {draw.low:.3g} to {draw.high:.3g},"


def _tooltip(step: Step, slot: int, texts: TokenTexts, folded: int) -> tuple[str, ...]:
    words = describe_node(step, slot, texts)
    lines = [f"{shorten(words.title, MAX_TITLE)}: {words.aside}"]
    lines += [f"{name}: {shorten(value, MAX_TITLE)}" for name, value in words.rows]
    return (*lines, f"{folded} unlikely nodes below are folded") if folded else tuple(lines)
