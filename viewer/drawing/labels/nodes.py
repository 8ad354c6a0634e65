"""What there is to say of each node of a step: its place, its scores, and why it was accepted or not.

Knows records, no pages. The words are the same in tooltips and in the inspector's panel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from specscope.schemas import AcceptSection, Step, Trial
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.fragments import rows
from specscope.viewer.drawing.labels.stopped import proposals_text, stop_slot
from specscope.viewer.drawing.markup import Markup, html_text, markup
from specscope.viewer.drawing.step_view import StepView


class NodeWords(NamedTuple):
    """A node in words. Texts are visible, but not yet escaped for markup."""

    title: str  # the token
    aside: str  # slot and id
    rows: list[tuple[str, str]]  # names and values, only of what was recorded


def describe_node(view: StepView, slot: int) -> NodeWords:
    """The node at ``slot``, which must be one of the tree's."""
    step = view.step
    place = "root, the pending token" if slot == 0 else f"slot {slot}"
    lines = []
    if step.accept is not None:
        lines.append(("outcome", _outcome(view, step.accept, slot)))
    lines.append(("in the tree", _place(step, slot)))
    probability = draft_probability(step, slot)
    if probability is not None:
        lines.append(("draft probability", f"{probability:.3g}{_path_probability(step, slot)}"))
    by_teacher = teacher_probability(step, slot)
    if by_teacher is not None:
        lines.append(("teacher's probability", f"{by_teacher:.3g}, before temperature and cuts"))
    choices = teacher_choices(step, slot)
    if choices:
        lines.append(("teacher's top tokens", _choices_text(choices, view.texts)))
    entropy = step.verify.entropy if step.verify is not None else None
    if entropy is not None and slot < len(entropy) and math.isfinite(entropy[slot]):
        lines.append(("teacher's entropy", f"{entropy[slot]:.3g} nats"))
    proposals = proposals_text(view, slot) if slot == stop_slot(step) else None
    if proposals is not None:
        lines.append(("drafter's proposals", proposals))
    token = view.tokens[slot]
    return NodeWords(view.shown(token), f"{place}, id {token}", lines)


def _path_probability(step: Step, slot: int) -> str:
    scores = step.tree.scores if step.tree is not None else None
    if scores is None or slot >= len(scores) or math.isnan(scores[slot]):
        return ""
    return f", of the whole path {math.exp(min(0.0, scores[slot])):.3g}"


def node_notes(view: StepView) -> dict[str, Markup]:
    """By node name, what the inspector's panel shows of it: XHTML of one element."""
    return {view.name(slot): node_note(describe_node(view, slot)) for slot in range(len(view.tokens))}


def node_note(words: NodeWords) -> Markup:
    """One node's words as XHTML."""
    return markup(
        '<div xmlns="http://www.w3.org/1999/xhtml" class="ss-node">'
        '<p><b class="ss-mono">{title}</b><span>{aside}</span></p>{rows}</div>',
        title=html_text(words.title),
        aside=html_text(words.aside),
        rows=rows(words.rows),
    )


def draft_probability(step: Step, slot: int) -> float | None:
    """The drafter's probability of a node given its parent; None for the root and where it is unknown."""
    logprobs = step.tree.logprobs if step.tree is not None else None
    if slot == 0 or logprobs is None or slot >= len(logprobs) or math.isnan(logprobs[slot]):
        return None
    return math.exp(min(0.0, logprobs[slot]))


def teacher_probability(step: Step, slot: int) -> float | None:
    """The teacher's probability of a node's token after its parent, of the plain logits; None for the root, and where
    the token's logit or the normaliser was not recorded."""
    tree, verify = step.tree, step.verify
    if tree is None or verify is None or not 0 < slot < min(len(tree.tokens), len(tree.parents)):
        return None
    parent = tree.parents[slot]
    rows = (verify.top_tokens or [], verify.top_logits or [], verify.logsumexp or [])
    if not all(0 <= parent < len(row) for row in rows):
        return None
    logits = dict(zip(rows[0][parent], rows[1][parent], strict=False))
    share = logits.get(tree.tokens[slot], math.nan) - rows[2][parent]
    return math.exp(min(0.0, share)) if math.isfinite(share) else None


class Choice(NamedTuple):
    """A token that the teacher may choose next."""

    token: int
    logit: float | None  # None where it was not recorded


def teacher_choices(step: Step, slot: int) -> list[Choice]:
    """What the teacher chooses after ``slot``, then the best of the others; as far as they were recorded.

    The choice is ``argmax``, whatever comes first among the top tokens: with equal logits that may be another.
    """
    verify = step.verify
    if verify is None or slot < 0:
        return []
    tokens = verify.top_tokens or []
    logits = verify.top_logits or []
    ranked: list[Choice] = []
    if slot < len(tokens):
        known = logits[slot] if slot < len(logits) else []
        ranked = [Choice(token, known[rank] if rank < len(known) else None) for rank, token in enumerate(tokens[slot])]
    if slot >= len(verify.argmax):
        return ranked[:2]
    chosen = verify.argmax[slot]
    first = next((choice for choice in ranked if choice.token == chosen), Choice(chosen, None))
    return [first, *(choice for choice in ranked if choice.token != chosen)][:2]


def trial_of(accept: AcceptSection, slot: int) -> Trial | None:
    """The trial of ``slot``; None where it was not tried."""
    trials = (trial for visit in accept.visited or [] for trial in visit.trials or [])
    return next((trial for trial in trials if trial.slot == slot), None)


def _place(step: Step, slot: int) -> str:
    tree, tensors = step.tree, step.tensors
    assert tree is not None
    words = [f"parent slot {tree.parents[slot]}"] if slot and slot < len(tree.parents) else []
    words += [f"depth {tree.depths[slot]}"] if slot < len(tree.depths) else []
    if tensors is not None and slot < len(tensors.positions):
        words.append(f"position {tensors.positions[slot]}")
    return ", ".join(words) or "not recorded"


def _choices_text(choices: list[Choice], texts: TokenTexts) -> str:
    shown = (
        texts.shown(choice.token) + ("" if choice.logit is None else f" ({choice.logit:.3f})") for choice in choices
    )
    logits = [choice.logit for choice in choices if choice.logit is not None]
    return ", then ".join(shown) + (f"; gap {logits[0] - logits[1]:.3g}" if len(logits) == 2 else "")


def _outcome(view: StepView, accept: AcceptSection, slot: int) -> str:
    """What became of a slot, and why."""
    if slot == 0:
        return "the root: the step before emitted it"
    word = "accepted" if slot in accept.path else "rejected"
    trial = trial_of(accept, slot)
    if trial is not None:
        return f"{word}: {_trial_reason(trial, is_accepted=slot in accept.path)}"
    if accept.rule != "greedy":
        return f"{word}: not tried"
    return f"{word}{_greedy_reason(view, accept, slot)}"


def _trial_reason(trial: Trial, *, is_accepted: bool) -> str:
    weighed, value = ("coin", trial.coin) if trial.coin is not None else ("teacher probability", trial.target_prob)
    sign = "<" if value < trial.threshold else ">" if value > trial.threshold else "="
    reason = f"{weighed} {value:.3g} {sign} threshold {trial.threshold:.3g}"
    passed = trial.coin is None and sign == ">"
    if passed and not is_accepted:
        return f"it passed, {reason}, but a likelier sibling was followed"
    return reason


def _greedy_reason(view: StepView, accept: AcceptSection, slot: int) -> str:
    """What the teacher chose at the node's parent; nothing where that was not recorded."""
    tree = view.step.tree
    if tree is None or accept.visited is None or slot >= len(tree.parents):
        return ""
    parent = tree.parents[slot]
    visit = next((visit for visit in accept.visited if visit.slot == parent), None)
    if visit is None:
        return ": the walk never reached its parent"
    if visit.wanted is None:
        return ""
    choice = "this token" if visit.wanted == tree.tokens[slot] else view.shown(visit.wanted)
    return f": the teacher chose {choice} at slot {parent}"
