"""A step as labels, flags and tooltips, ready to be drawn. Knows records and token text, no pixels."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from specscope.schemas import BonusDraw, Step
from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.labels.nodes import describe_node, draft_probability, teacher_probability
from specscope.viewer.drawing.labels.stopped import left_out
from specscope.viewer.drawing.labels.tokens import label_text
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.tree_layout import Fold, connected_path, fold, fold_below, sound_parents, toggle

MAX_TITLE = 200  # characters of a line in a tooltip: a token may have any length
#: Above this many nodes the unlikely ones are folded, unless the user wants them all.
FOLD_ABOVE = 64
#: At most this many nodes are drawn where all are asked for.
MOST_UNFOLDED = 1024
#: Of nodes that differ, or are violated, so many are kept unfolded: where everything is marked, nothing is.
MOST_KEPT = 48
#: Of trees with more nodes, branches can be folded one by one.
BRANCHES_FROM = 24
#: What a tree is drawn for. On a page, clicks fold and unfold, and a panel says what is known of a node, so
#: that its tooltip only names it. In a report tooltips are all there is; in a small one, they too only name it.
Medium = Literal["page", "report", "small report"]


@dataclass(frozen=True, kw_only=True)
class PictureNode:
    """One node to be drawn. Texts are visible, but not yet escaped for markup."""

    slot: int
    name: str  # that of ``NodeMarks``
    label: str
    tooltip: tuple[str, ...]  # lines
    probability: float | None  # the drafter's, given the parent; None where it is unknown or not finite
    by_teacher: float | None = None  # the teacher's, likewise
    entropy: float | None = None  # of the teacher's choice after it, in nats, likewise
    accepted: bool
    divergent: bool
    origin: bool  # where the divergence begins
    inherits: bool = False  # it differs only because others do
    violated: bool = False  # a violated invariant names it
    hidden_below: int = 0
    branch: Literal["open", "closed"] | None = None  # what is below it can be folded, or unfolded


class Branches(NamedTuple):
    """What the user wants to see of large trees."""

    show_all: bool = False  # every node
    toggled: frozenset[str] = frozenset()  # names of nodes: unfolded where they would be folded, and the reverse
    least: float | None = None  # fold what has a smaller path probability; None: as many as do not fit


@dataclass(frozen=True)
class Bonus:
    """The teacher's own token at the end of the accepted path."""

    label: str
    tooltip: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ghost:
    """A child that the tree could have had: the teacher's choice, which the drafter proposed."""

    parent: int  # slot
    label: str
    tooltip: tuple[str, ...]
    probability: float  # the drafter's


@dataclass(frozen=True, kw_only=True)
class TreePicture:
    """A whole tree to be drawn."""

    parents: list[int]
    nodes: list[PictureNode]  # those that are shown
    path: list[int] | None
    bonus: Bonus | None
    num_folded: int
    ghost: Ghost | None = None


def picture_of(
    view: StepView,
    *,
    fold_above: int | None = FOLD_ABOVE,
    most_shown: int | None = None,
    medium: Medium = "report",
    toggled: frozenset[str] = frozenset(),
    least: float | None = None,
) -> TreePicture | None:
    """What to draw of a step; None where it records no tree, or an empty one.

    Args:
        view: the step.
        fold_above: fold trees of more nodes than this; None shows everything.
        most_shown: so many nodes stay where it is folded, except for those that must; None: as many as ``fold_above``.
        medium: what it is drawn for.
        toggled: names of nodes whose branches the user has folded or unfolded.
        least: instead of ``fold_above``, fold the nodes whose paths have a smaller probability.
    """
    tree = view.step.tree
    if tree is None or not tree.tokens:
        return None
    size = len(tree.tokens)
    parents = [*tree.parents[:size], *[0] * (size - len(tree.parents))]
    path = None if view.step.accept is None else connected_path(parents, view.step.accept.path)
    shown = frozenset(range(size))
    hidden: dict[int, int] = {}
    scores, keep = _scores(view.step, size), _kept(view, path or ())
    if least is not None and has_scores(view):
        shown, hidden = fold_below(parents, scores, keep, least=math.log(least), limit=MOST_UNFOLDED + 1)
    elif fold_above is not None and size - 1 > fold_above:
        shown, hidden = fold(parents, scores, keep, (most_shown or fold_above) + 1)
    if toggled:
        slots = [slot for slot in range(size) if view.name(slot) in toggled]
        shown, hidden = toggle(parents, Fold(shown, hidden), slots, path or ())
    has_branches = medium == "page" and size > BRANCHES_FROM
    inner = {parent for slot, parent in enumerate(sound_parents(parents)) if slot in shown and slot not in (path or ())}
    accepted = frozenset([0, *path]) if path is not None else frozenset[int]()
    return TreePicture(
        parents=parents,
        nodes=[
            replace(
                _node(view, slot, hidden.get(slot, 0), is_accepted=slot in accepted, medium=medium),
                branch=_branch(slot, hidden, inner) if has_branches else None,
            )
            for slot in sorted(shown)
        ],
        path=path,
        bonus=_bonus(view),
        num_folded=size - len(shown),
        ghost=_ghost(view, shown),
    )


def _kept(view: StepView, path: Collection[int]) -> set[int]:
    """What is never folded: the accepted path, and what is marked."""
    marks = view.marks
    marked = sorted(marks.independent | marks.violated)[:MOST_KEPT]
    return {*path, *marked, *([marks.origin] if marks.origin is not None else [])}


def has_scores(view: StepView) -> bool:
    """Whether the drafter's probabilities of whole paths were recorded."""
    return any(math.isfinite(score) for score in _scores(view.step, len(view.tokens))[1:])


def _branch(slot: int, hidden: dict[int, int], inner: set[int]) -> Literal["open", "closed"] | None:
    return "closed" if hidden.get(slot) else "open" if slot in inner and slot else None


def _node(view: StepView, slot: int, num_hidden: int, *, is_accepted: bool, medium: Medium) -> PictureNode:
    named = (_name(view, slot, is_accepted=is_accepted),)
    tooltip = _tooltip(view, slot, num_hidden) if medium == "report" else named
    return PictureNode(
        slot=slot,
        name=view.name(slot),
        label=label_text(view.shown(view.tokens[slot])),
        tooltip=tooltip,
        probability=draft_probability(view.step, slot),
        by_teacher=teacher_probability(view.step, slot),
        entropy=_entropy(view.step, slot),
        accepted=is_accepted,
        divergent=slot in view.marks.divergent,
        origin=slot == view.marks.origin,
        inherits=slot in view.marks.inherited,
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
    return Bonus(label_text(view.shown(token)), lines)


def _entropy(step: Step, slot: int) -> float | None:
    entropy = (step.verify.entropy or []) if step.verify is not None else []
    return entropy[slot] if slot < len(entropy) and math.isfinite(entropy[slot]) else None


def _ghost(view: StepView, shown: Collection[int]) -> Ghost | None:
    missed = left_out(view.step)
    if missed is None or missed.parent not in shown:
        return None
    token = view.shown(missed.token)
    lines = (
        f"{shorten(token, MAX_TITLE)} is not in the tree",
        "the teacher chose it here",
        f"the drafter proposed it as number {missed.number}, with probability {missed.probability:.2g}",
    )
    return Ghost(parent=missed.parent, label=label_text(token), tooltip=lines, probability=missed.probability)


def _choice(draw: BonusDraw | None) -> str:
    return "choice" if draw is None else f"draw, coin {draw.coin:.3g} in {draw.low:.3g} to {draw.high:.3g},"


def _name(view: StepView, slot: int, *, is_accepted: bool) -> str:
    """Who a node is, for those who cannot see where it stands."""
    tree = view.step.tree
    assert tree is not None
    depth = f", depth {tree.depths[slot]}" if slot < len(tree.depths) else ""
    outcome = "" if view.step.accept is None or slot == 0 else ", accepted" if is_accepted else ", rejected"
    return f"{shorten(view.shown(tree.tokens[slot]), MAX_TITLE)}: slot {slot}{depth}{outcome}"


def _tooltip(view: StepView, slot: int, num_hidden: int) -> tuple[str, ...]:
    words = describe_node(view, slot)
    lines = [f"{shorten(words.title, MAX_TITLE)}: {words.aside}"]
    lines += [f"{name}: {shorten(value, MAX_TITLE)}" for name, value in words.rows]
    lines += [f"{num_hidden} unlikely nodes below are folded"] if num_hidden else []
    return tuple(lines)
