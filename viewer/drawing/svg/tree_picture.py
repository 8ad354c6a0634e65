"""A step as labels, flags and tooltips, ready to be drawn. Knows records and token text, no pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from specscope.schemas import BonusDraw, Step
from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.labels.nodes import describe_node, draft_probability
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.tree_layout import connected_path, fold

LABEL_LIMIT = 14
MAX_TITLE = 200  # characters of a line in a tooltip: a token may have any length
#: Above this many nodes the unlikely ones are folded, unless the user wants them all.
FOLD_ABOVE = 64


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class TreePicture:
    """A whole tree to be drawn."""

    parents: list[int]
    nodes: list[PictureNode]  # those that are shown
    path: list[int] | None
    bonus: Bonus | None
    num_folded: int


def picture_of(view: StepView, *, fold_above: int | None = FOLD_ABOVE) -> TreePicture | None:
    """What to draw of a step; None where it records no tree, or an empty one.

    Args:
        view: the step.
        fold_above: fold trees of more nodes than this; None shows everything.
    """
    tree = view.step.tree
    if tree is None or not tree.tokens:
        return None
    size = len(tree.tokens)
    parents = [*tree.parents[:size], *[0] * (size - len(tree.parents))]
    path = None if view.step.accept is None else connected_path(parents, view.step.accept.path)
    shown = frozenset(range(size))
    hidden: dict[int, int] = {}
    if fold_above is not None and size - 1 > fold_above:
        keep = {*(path or ()), *view.marks.divergent, *view.marks.violated}
        shown, hidden = fold(parents, _scores(view.step, size), keep, fold_above + 1)
    accepted = frozenset([0, *path]) if path is not None else frozenset[int]()
    return TreePicture(
        parents=parents,
        nodes=[_node(view, slot, hidden.get(slot, 0), is_accepted=slot in accepted) for slot in sorted(shown)],
        path=path,
        bonus=_bonus(view),
        num_folded=size - len(shown),
    )


def _node(view: StepView, slot: int, num_hidden: int, *, is_accepted: bool) -> PictureNode:
    return PictureNode(
        slot=slot,
        name=view.name(slot),
        label=shorten(view.shown(view.tokens[slot]), LABEL_LIMIT),
        tooltip=_tooltip(view, slot, num_hidden),
        probability=draft_probability(view.step, slot),
        accepted=is_accepted,
        divergent=slot in view.marks.divergent,
        origin=slot == view.marks.origin,
        violated=slot in view.marks.violated,
        hidden_below=num_hidden,
    )


def _scores(step: Step, size: int) -> list[float]:
    scores = (step.tree.scores if step.tree is not None else None) or []
    padded = [*scores, *[-math.inf] * (size - len(scores))]
    return [-math.inf if math.isnan(score) else score for score in padded]


def _bonus(view: StepView) -> Bonus | None:
    accept = view.step.accept
    if accept is None:
        return None
    token = accept.bonus_token
    lines = (
        f"bonus token {view.shown(token)} (id {token})",
        f"the teacher's own {_choice(accept.bonus_draw)} at slot {accept.bonus_slot}",
        "the root of the next step",
    )
    return Bonus(shorten(view.shown(token), LABEL_LIMIT), lines)


def _choice(draw: BonusDraw | None) -> str:
    return "choice" if draw is None else f"draw, coin {draw.coin:.3g} in {draw.low:.3g} to {draw.high:.3g},"


def _tooltip(view: StepView, slot: int, num_hidden: int) -> tuple[str, ...]:
    words = describe_node(view, slot)
    lines = [f"{shorten(words.title, MAX_TITLE)}: {words.aside}"]
    lines += [f"{name}: {shorten(value, MAX_TITLE)}" for name, value in words.rows]
    lines += [f"{num_hidden} unlikely nodes below are folded"] if num_hidden else []
    return tuple(lines)
