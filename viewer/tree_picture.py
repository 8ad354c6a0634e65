"""A step's records as what is to be drawn: labels, flags and tooltips. Knows records and token text, no pixels."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from specscope.schemas import AcceptSection, BonusDraw, Step, Trial
from specscope.tracer.text import shorten
from specscope.tracer.tokens import TokenTexts
from specscope.viewer.tree_layout import connected_path, fold

LABEL_LIMIT = 14
#: Above this many nodes the unlikely ones are folded, unless the user wants them all.
FOLD_ABOVE = 72


@dataclass(frozen=True)
class PictureNode:
    """One node to be drawn. Texts are visible, but not yet escaped for markup."""

    slot: int
    label: str
    tooltip: tuple[str, ...]  # lines
    probability: float | None  # the drafter's, given the parent; None where it is unknown or not finite
    accepted: bool
    divergent: bool
    origin: bool  # where the divergence begins
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
    divergent: Collection[int] = (),
    *,
    origin: int | None = None,
    fold_above: int | None = FOLD_ABOVE,
) -> TreePicture | None:
    """What to draw of ``step``; None where it records no tree, or an empty one.

    Args:
        divergent: slots to be marked.
        origin: the one of them where the divergence begins, if it begins at a node.
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
        shown, hidden = fold(parents, _scores(step, size), {*(path or ()), *divergent}, fold_above + 1)
    accepted = frozenset([0, *path]) if path is not None else frozenset[int]()
    nodes = [
        PictureNode(
            slot,
            shorten(texts.shown(tree.tokens[slot]), LABEL_LIMIT),
            _tooltip(step, slot, texts, accepted=slot in accepted, folded=hidden.get(slot, 0)),
            draft_probability(step, slot),
            slot in accepted,
            slot in divergent,
            slot == origin,
            hidden.get(slot, 0),
        )
        for slot in sorted(shown)
    ]
    return TreePicture(parents, nodes, path, _bonus(step, texts), size - len(shown))


def draft_probability(step: Step, slot: int) -> float | None:
    """The drafter's probability of a node given its parent; None for the root and where it is unknown."""
    logprobs = step.tree.logprobs if step.tree is not None else None
    if slot == 0 or logprobs is None or slot >= len(logprobs) or math.isnan(logprobs[slot]):
        return None
    return math.exp(min(0.0, logprobs[slot]))


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


def trial_of(accept: AcceptSection, slot: int) -> Trial | None:
    """The trial of ``slot``; None where it was not tried."""
    trials = (trial for visit in accept.visited or [] for trial in visit.trials or [])
    return next((trial for trial in trials if trial.slot == slot), None)


def _outcome(accept: AcceptSection, slot: int, *, accepted: bool) -> str:
    """What became of a slot, and by what."""
    if slot == 0:
        return "the pending token: root of the tree"
    word = "accepted" if accepted else "rejected"
    trial = trial_of(accept, slot)
    if trial is None:
        return word if accept.rule == "greedy" else f"{word}: not tried"
    weighed, value = ("coin", trial.coin) if trial.coin is not None else ("teacher probability", trial.target_prob)
    sign = "<" if value < trial.threshold else ">" if value > trial.threshold else "="
    return f"{word}: {weighed} {value:.3g} {sign} threshold {trial.threshold:.3g}"


def _tooltip(step: Step, slot: int, texts: TokenTexts, *, accepted: bool, folded: int) -> tuple[str, ...]:
    assert step.tree is not None
    token = step.tree.tokens[slot]
    lines = [f"slot {slot}: {texts.shown(token)} (id {token})"]
    if step.tensors is not None and slot < len(step.tensors.positions):
        lines.append(f"position {step.tensors.positions[slot]}")
    probability = draft_probability(step, slot)
    if probability is not None:
        lines.append(f"draft probability {probability:.3g}")
    tokens, logits = (step.verify.top_tokens, step.verify.top_logits) if step.verify is not None else (None, None)
    if tokens is not None and logits is not None and slot < min(len(tokens), len(logits)):
        best = zip(tokens[slot], logits[slot], strict=False)
        lines.append("teacher wants next: " + ", then ".join(f"{texts.shown(t)} ({v:.2f})" for t, v in best))
    if step.accept is not None:
        lines.append(_outcome(step.accept, slot, accepted=accepted))
    if folded:
        lines.append(f"{folded} unlikely nodes below are folded")
    return tuple(lines)
