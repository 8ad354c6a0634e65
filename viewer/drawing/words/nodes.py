"""What there is to say of each node of a step: where it stands, its scores, and why it was accepted or not.

Knows records, no pages. Said once here, for tooltips and for the inspector's panel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from specscope.schemas import AcceptSection, Step, Trial
from specscope.tracer.words.text import html_text
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.drawing.fragments import XHTML, rows
from specscope.viewer.drawing.marks import NodeMarks


class NodeWords(NamedTuple):
    """A node in words. Texts are visible, but not yet escaped for markup."""

    title: str  # the token
    aside: str  # slot and id
    rows: list[tuple[str, str]]  # names and values, only of what was recorded


def describe_node(step: Step, slot: int, texts: TokenTexts) -> NodeWords:
    """The node at ``slot``, which must be one of the tree's."""
    tree = step.tree
    assert tree is not None
    place = "root, the pending token" if slot == 0 else f"slot {slot}"
    found = []
    if step.accept is not None:
        found.append(("outcome", _outcome(step, step.accept, slot, texts)))
    found.append(("stands at", _place(step, slot)))
    probability = draft_probability(step, slot)
    if probability is not None:
        score = tree.scores[slot] if tree.scores is not None and slot < len(tree.scores) else None
        whole = "" if score is None or math.isnan(score) else f", of its whole path {math.exp(min(0.0, score)):.3g}"
        found.append(("draft probability", f"{probability:.3g}{whole}"))
    wanted = teacher_wants(step, slot)
    if wanted:
        found.append(("teacher wants next", _best(wanted, texts)))
    return NodeWords(texts.shown(tree.tokens[slot]), f"{place}, id {tree.tokens[slot]}", found)


def node_notes(step: Step, texts: TokenTexts, marks: NodeMarks) -> dict[str, str]:
    """By node name, what the inspector's panel shows of it: XHTML of one element."""
    size = len(step.tree.tokens) if step.tree is not None else 0
    return {marks.name(slot): node_note(describe_node(step, slot, texts)) for slot in range(size)}


def node_note(words: NodeWords) -> str:
    """One node's words as XHTML."""
    title = f'<p><b class="ss-mono">{html_text(words.title)}</b><span>{html_text(words.aside)}</span></p>'
    return f'<div xmlns="{XHTML}" class="ss-node">{title}{rows(words.rows)}</div>'


def draft_probability(step: Step, slot: int) -> float | None:
    """The drafter's probability of a node given its parent; None for the root and where it is unknown."""
    logprobs = step.tree.logprobs if step.tree is not None else None
    if slot == 0 or logprobs is None or slot >= len(logprobs) or math.isnan(logprobs[slot]):
        return None
    return math.exp(min(0.0, logprobs[slot]))


class Wanted(NamedTuple):
    """A token that the teacher may want next."""

    token: int
    logit: float | None  # None where it was not recorded


def teacher_wants(step: Step, slot: int) -> list[Wanted]:
    """What the teacher wants after ``slot``: its choice, then the best of the others; as far as they were recorded.

    The choice is ``argmax``, whatever stands first among the top tokens: of equal logits another may.
    """
    verify = step.verify
    if verify is None or slot < 0:
        return []
    tokens, logits = verify.top_tokens or [], verify.top_logits or []
    ranked: list[Wanted] = []
    if slot < len(tokens):
        found = logits[slot] if slot < len(logits) else []
        ranked = [Wanted(token, found[rank] if rank < len(found) else None) for rank, token in enumerate(tokens[slot])]
    if slot >= len(verify.argmax):
        return ranked[:2]
    chosen = verify.argmax[slot]
    first = next((wanted for wanted in ranked if wanted.token == chosen), Wanted(chosen, None))
    return [first, *(wanted for wanted in ranked if wanted.token != chosen)][:2]


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


def _best(wanted: list[Wanted], texts: TokenTexts) -> str:
    shown = (texts.shown(one.token) + ("" if one.logit is None else f" ({one.logit:.3f})") for one in wanted)
    logits = [one.logit for one in wanted if one.logit is not None]
    return ", then ".join(shown) + (f"; gap {logits[0] - logits[1]:.3g}" if len(logits) == 2 else "")


def _outcome(step: Step, accept: AcceptSection, slot: int, texts: TokenTexts) -> str:
    """What became of a slot, and why."""
    if slot == 0:
        return "the root: the step before emitted it"
    word = "accepted" if slot in accept.path else "rejected"
    trial = trial_of(accept, slot)
    if trial is not None:
        weighed, value = ("coin", trial.coin) if trial.coin is not None else ("teacher probability", trial.target_prob)
        sign = "<" if value < trial.threshold else ">" if value > trial.threshold else "="
        reason = f"{weighed} {value:.3g} {sign} threshold {trial.threshold:.3g}"
        passed = trial.coin is None and sign == ">"
        if passed and word == "rejected":
            return f"{word}: it passed, {reason}, but a likelier sibling was followed"
        return f"{word}: {reason}"
    if accept.rule != "greedy":
        return f"{word}: not tried"
    return f"{word}{_greedy_reason(step, accept, slot, texts)}"


def _greedy_reason(step: Step, accept: AcceptSection, slot: int, texts: TokenTexts) -> str:
    """What the walk wanted at the node's parent; nothing where that was not recorded."""
    tree = step.tree
    if tree is None or accept.visited is None or slot >= len(tree.parents):
        return ""
    parent = tree.parents[slot]
    visit = next((visit for visit in accept.visited if visit.slot == parent), None)
    if visit is None:
        return ": the walk never came to its parent"
    if visit.wanted is None:
        return ""
    same = visit.wanted == tree.tokens[slot]
    return f": the teacher wanted {'this' if same else texts.shown(visit.wanted)} at slot {parent}"
