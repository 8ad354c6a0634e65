"""What is recorded of children that were tried one by one: under the rules sampling and typical. What is particular
to rule block is in ``blocks``.

Sources: Leviathan et al. 2023 (threshold p / q, residual max(0, p - q)); for a point mass q that is p / (1 - p of the
elder siblings); Jeon et al. 2024 (siblings drawn without replacement); Cai et al. 2024 (typical acceptance).
"""

from __future__ import annotations

import math

from specscope.schemas import Trial, Visit
from specscope.tracer.oracle.invariants.base import Context, first_mismatch, present, promises
from specscope.tracer.oracle.invariants.blocks import block_problem, block_walk_problem
from specscope.tracer.oracle.invariants.probabilities import ANYWHERE, ROUNDING, TOLERANCE, Bounds, exactly, is_plain

LEAST_LEFT = 1e-3  # less probability than this is left by rounding as much as by the numbers themselves


def draws_tokens(c: Context) -> bool:
    """Whether the step's rule draws a coin for each child, so that its trials and draws can be judged."""
    return c.rule not in ("greedy", "match")


# The walk.


def chosen_child(rule: str, trials: list[Trial]) -> int | None:
    """The slot that the walk goes to: the first accepted; typical: the likeliest accepted, the first among equals."""
    accepted = [trial for trial in trials if trial.accepted]
    if not accepted:
        return None
    return max(accepted, key=lambda trial: trial.target_prob).slot if rule == "typical" else accepted[0].slot


def walk_problem(c: Context) -> str | None:
    """What keeps the path from being the walk that the trials decide."""
    accept = present(c.step.accept)
    if accept.rule == "block":
        return block_walk_problem(accept)
    at: int | None = 0
    path: list[int] = []
    for visit in present(accept.visited):
        if visit.slot != at:
            return f"the walk stands at slot {visit.slot}, wanted {'its end' if at is None else at}"
        at = chosen_child(accept.rule, visit.trials or [])
        if visit.child != at and (visit.child is not None or promises(c.manifest, "accept")):
            return f"slot {visit.slot}: went to {_slot(visit.child)}, its trials give {_slot(at)}"
        path += [] if at is None else [at]
    if at is not None:
        return f"slot {at} was accepted, but the walk was not there"
    return None if accept.path == path else f"got path {accept.path}, the walk gives {path}"


def _slot(slot: int | None) -> str:
    return "no child" if slot is None else f"slot {slot}"


# Which children were tried, and what was decided of each.


def decision_problem(c: Context) -> str | None:
    """What is wrong with which children were tried, or with what was decided of one by its coin and threshold."""
    parents, accept = present(c.step.tree).parents, present(c.step.accept)
    for visit in present(accept.visited):
        children = [slot for slot in range(1, len(parents)) if parents[slot] == visit.slot]
        if visit.trials is None and children:
            return f"slot {visit.slot}: it has children, and no trials were recorded"
        trials = visit.trials or []
        problem = next(filter(None, (_decision(accept.rule, trial) for trial in trials)), None)
        if problem is None:
            problem = _tried(accept.rule, trials, children)
        if problem is not None:
            return f"slot {visit.slot}: {problem}"
    return None


def _tried(rule: str, trials: list[Trial], children: list[int]) -> str | None:
    """Trials beside the children that the rule tries: those up to the accepted one; typical: all."""
    stray = next((trial.slot for trial in trials if trial.slot not in children), None)
    if stray is not None:
        return f"tried slot {stray}, which is no child of it"
    wanted = children
    first = chosen_child(rule, trials)
    if rule == "sampling" and first is not None:
        wanted = children[: children.index(first) + 1]
    return first_mismatch([trial.slot for trial in trials], wanted, "trial")


def _decision(rule: str, trial: Trial) -> str | None:
    """What is wrong with one decision, given its coin and threshold."""
    if rule == "typical":
        if trial.coin is not None:
            return f"a coin for slot {trial.slot}, where the rule draws none"
        decided, by = trial.target_prob > trial.threshold, f"probability {trial.target_prob:.9g}"
    elif trial.coin is None:
        return f"no coin for slot {trial.slot}"
    elif not 0 <= trial.coin < 1:
        return f"coin {trial.coin:.9g} for slot {trial.slot}, wanted one in [0, 1)"
    else:
        decided, by = trial.coin < trial.threshold, f"coin {trial.coin:.9g}"
    if trial.accepted == decided:
        return None
    word = "accepted" if trial.accepted else "rejected"
    return f"slot {trial.slot} was {word}, with {by} and threshold {trial.threshold:.9g}"


def coin_problem(c: Context) -> str | None:
    """A coin that was used twice. Two coins of 53 random bits are never equal, except for one step in 10^13 or so."""
    accept = present(c.step.accept)
    seen = {accept.bonus_draw.coin: "the bonus token"} if accept.bonus_draw is not None else {}
    for trial in (trial for visit in present(accept.visited) for trial in visit.trials or []):
        if trial.coin is None:
            continue
        if trial.coin in seen:
            return f"slot {trial.slot} was tried with coin {trial.coin:.9g}, as was {seen[trial.coin]}"
        seen[trial.coin] = f"slot {trial.slot}"
    return None


# The thresholds.


def threshold_problem(c: Context) -> str | None:
    """A threshold that does not follow from the probabilities that were weighed."""
    tokens, accept = present(c.step.tree).tokens, present(c.step.accept)
    for visit in present(accept.visited):
        trials = visit.trials or []
        odd = next(filter(None, map(_odd_number, trials)), None)
        if odd is not None:
            return odd
        if c.rule == "block":
            continue
        for trial, wanted in zip(trials, _wanted_thresholds(c, visit, tokens), strict=True):
            if not wanted.low - TOLERANCE <= trial.threshold <= wanted.high + TOLERANCE:
                return f"slot {trial.slot}: threshold {trial.threshold:.9g}, wanted {wanted}"
    return block_problem(accept, len(tokens)) if c.rule == "block" else None


def _odd_number(trial: Trial) -> str | None:
    for name in ("target_prob", "draft_prob", "threshold"):
        value = getattr(trial, name)
        if not 0 <= value <= 1 + ROUNDING:
            return f"slot {trial.slot}: {name} {value:.9g}, wanted 0 to 1"
    return None


def _wanted_thresholds(c: Context, visit: Visit, tokens: list[int]) -> list[Bounds]:
    trials = visit.trials or []
    if c.rule == "typical":
        return [_typical_threshold(c, visit.slot)] * len(trials)
    if is_point_mass(c, trials):
        return _point_mass_thresholds(trials, tokens)
    return [_drawn_threshold(trial, trials[:rank]) for rank, trial in enumerate(trials)]


def is_point_mass(c: Context, trials: list[Trial]) -> bool:
    """Whether the drafts were the drafter's best tokens, and not drawn."""
    if c.manifest.sampling.draft is not None:
        return c.manifest.sampling.draft == "point-mass"
    return all(trial.draft_prob == 1 for trial in trials)


def _point_mass_thresholds(trials: list[Trial], tokens: list[int]) -> list[Bounds]:
    """p / (1 - p of the earlier siblings); a token that an earlier sibling had has nothing left."""
    wanted: list[Bounds] = []
    elder: dict[int, float] = {}
    for trial in trials:
        left = 1 - sum(elder.values())
        if tokens[trial.slot] in elder:
            wanted.append(Bounds(0.0, 0.0))
            continue
        wanted.append(exactly(min(1.0, trial.target_prob / left)) if left > LEAST_LEFT else ANYWHERE)
        elder[tokens[trial.slot]] = trial.target_prob
    return wanted


def _drawn_threshold(trial: Trial, elder: list[Trial]) -> Bounds:
    """min(1, p / q) for the first; behind a rejection p is max(0, p - q), of which only its zeros are known."""
    p, q = trial.target_prob, trial.draft_prob
    if not any(other.draft_prob > 0 for other in elder):  # what q cannot have drawn is not tried
        return exactly(min(1.0, p / q) if q > 0 else 0.0)
    return Bounds(0.0, 0.0) if p < q - TOLERANCE else ANYWHERE


def _typical_threshold(c: Context, slot: int) -> Bounds:
    """min(epsilon, delta exp(-entropy)); the entropy is known where the distribution is the logits' own."""
    sampling, verify = c.manifest.sampling, c.step.verify
    most = 1.0 if sampling.epsilon is None else sampling.epsilon
    if sampling.delta is None or verify is None or verify.entropy is None or not is_plain(c):
        return Bounds(0.0, most)
    most = min(most, sampling.delta * math.exp(-verify.entropy[slot]))
    return Bounds(0.0, most) if sampling.epsilon is None else exactly(most)


def draft_prob_problem(c: Context) -> str | None:
    """A drafted token whose probability is not the one that the tree says it was drawn with."""
    logprobs = present(present(c.step.tree).logprobs)
    for visit in present(present(c.step.accept).visited):
        for trial in visit.trials or []:
            wanted = math.exp(min(0.0, logprobs[trial.slot]))
            if abs(trial.draft_prob - wanted) > TOLERANCE:
                return f"slot {trial.slot}: draft probability {trial.draft_prob:.9g}, the tree says {wanted:.9g}"
    return None
