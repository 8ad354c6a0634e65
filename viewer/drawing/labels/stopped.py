"""Why a walk went no further: what the teacher wanted there, and what became of that token in the draft. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from specscope.schemas import Step
from specscope.tracer.files.candidates import Candidate, recorded_candidates
from specscope.tracer.naming.text import counted
from specscope.viewer.drawing.step_view import StepView

SHOWN = 4  # children that are named
SHOWN_PROPOSALS = 6


def why_stopped(view: StepView) -> str | None:
    """One sentence; None where acceptance draws, or too little was recorded."""
    accept, tree, last = view.step.accept, view.step.tree, stop_slot(view.step)
    if accept is None or tree is None or last is None or accept.rule != "greedy":
        return None
    children = [slot for slot in range(1, len(tree.tokens)) if tree.parents[slot] == last]
    where = "at the root" if last == 0 else f"after {view.shown(tree.tokens[last])}"
    wanted = view.shown(accept.bonus_token)
    if any(tree.tokens[slot] == accept.bonus_token for slot in children):
        return f"The walk stopped {where}, although {wanted}, which the teacher chose, is a child there."
    had = ", ".join(view.shown(tree.tokens[slot]) for slot in children[:SHOWN])
    had += f" and {len(children) - SHOWN} more" if len(children) > SHOWN else ""
    words = f"The tree had {had} there" if children else "The tree had no child there"
    return f"The walk stopped {where}: the teacher chose {wanted}. {words}{_fate(view.step, last, wanted)}."


class LeftOut(NamedTuple):
    """What the teacher chose and the drafter proposed, and the tree does not have."""

    parent: int  # the slot after which the walk stopped
    token: int
    number: int  # among the drafter's proposals there, from 1
    probability: float  # the drafter's


def left_out(step: Step) -> LeftOut | None:
    """The teacher's choice where the walk stopped, if the tree could have had it; None where it could not, where
    acceptance draws, and where too little was recorded."""
    accept, tree, last = step.accept, step.tree, stop_slot(step)
    if accept is None or tree is None or last is None or accept.rule != "greedy":
        return None
    children = (slot for slot in range(1, len(tree.tokens)) if tree.parents[slot] == last)
    if any(tree.tokens[slot] == accept.bonus_token for slot in children):
        return None
    match = next((at for at in _proposals(step, last) or () if at.token == accept.bonus_token), None)
    return None if match is None else LeftOut(last, match.token, match.rank + 1, math.exp(min(0.0, match.logprob)))


def _fate(step: Step, last: int, wanted: str) -> str:
    """What became of the teacher's token, ``wanted``, among the candidates; empty where they were not recorded."""
    below = _proposals(step, last)
    assert step.accept is not None
    if below is None:
        return ""
    if not below:
        return "; the drafter was not run on that node"
    missed = left_out(step)
    if missed is None:
        if len(below) == 1:
            return f"; {wanted} was not what the drafter proposed"
        return f"; {wanted} was not among the drafter's {counted(len(below), 'proposal')}"
    share = f"{missed.probability:.2g}"
    return f"; {wanted} was the drafter's number {missed.number}, with p {share}, and the tree left it out"


def stop_slot(step: Step) -> int | None:
    """The slot after which the walk went no further; None where nothing was drafted, or too little was recorded."""
    accept, tree = step.accept, step.tree
    if accept is None or tree is None or len(tree.tokens) < 2 or len(tree.parents) < len(tree.tokens):
        return None
    last = accept.path[-1] if accept.path else 0
    return last if 0 <= last < len(tree.tokens) else None


def proposals_text(view: StepView, slot: int) -> str | None:
    """What the drafter proposed after ``slot``, the likeliest first, and what of that the tree left out; None where it
    proposed nothing there, or that was not recorded."""
    below = _proposals(view.step, slot)
    tree = view.step.tree
    if not below or tree is None:
        return None
    kept = {tree.tokens[child] for child in range(1, len(tree.tokens)) if tree.parents[child] == slot}
    shown = (
        f"{view.shown(at.token)} {_share(at)}{'' if at.token in kept else ' (left out)'}"
        for at in below[:SHOWN_PROPOSALS]
    )
    more = len(below) - SHOWN_PROPOSALS
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _proposals(step: Step, slot: int) -> list[Candidate] | None:
    """The drafter's candidates after ``slot``, by rank; None where they were not recorded."""
    candidates = recorded_candidates(step)
    if candidates is None or step.tree is None:
        return None
    path = _path(step.tree.tokens, step.tree.parents, slot)
    parents = {id(at.parent): at.parent for at in candidates}  # far fewer than candidates
    wanted = {name for name, parent in parents.items() if _tokens(parent) == path}
    return [at for at in candidates if id(at.parent) in wanted]


def _share(candidate: Candidate) -> str:
    return f"{math.exp(min(0.0, candidate.logprob)):.2g}"


def _path(tokens: Sequence[int], parents: Sequence[int], slot: int) -> list[int]:
    path: list[int] = []
    while slot:
        path.append(tokens[slot])
        slot = parents[slot] if parents[slot] < slot else 0
    return path[::-1]


def _tokens(candidate: Candidate | None) -> list[int]:
    tokens: list[int] = []
    while candidate is not None:
        tokens.append(candidate.token)
        candidate = candidate.parent
    return tokens[::-1]
