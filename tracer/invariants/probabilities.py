"""Invariants of the probabilities that a rule draws by, each recomputed from the logit that it was made of.

A step says the teacher's logit of every token that it weighed, and what makes probabilities of the logits at each node:
temperature, what is cut off, and the normaliser. The drafter's probabilities are those that the tree has.
"""

from __future__ import annotations

import math

from specscope.schemas import BonusDraw, DistributionCut, Trial, Visit
from specscope.tracer.invariants.base import Context, Invariant, present, tree_is_recorded
from specscope.tracer.invariants.sampling import LEAST_LEFT, TOLERANCE, draws_tokens, is_point_mass

#: Of a number in float32, the format in which logits are divided at the least; a few roundings' worth.
EPSILON = 2.0**-21


def _slack(logit: float, cut: DistributionCut, temperature: float, wanted: float) -> float:
    """How far a probability may be off: a logit that temperature has made large was rounded as such."""
    size = min(1e6, abs(logit / temperature) + abs(cut.log_normaliser))
    return TOLERANCE + wanted * math.expm1(min(1.0, EPSILON * size))


def prob_problem(got: float, logit: float, cut: DistributionCut, temperature: float, left: float = 1.0) -> str | None:
    """What is wrong with probability ``got``, given that only ``left`` of the whole distribution is drawn from."""
    exponent = logit / temperature - cut.log_normaliser
    if math.isnan(exponent) or exponent == math.inf:
        return None  # such logits are reported as what they are
    kept = math.exp(min(exponent, 1.0))
    least = cut.least_logit
    wanted = (
        [kept] if least is None or logit > least else [0.0] if logit < least else [0.0, kept]
    )  # among equals either
    slack = _slack(logit, cut, temperature, kept) / left
    if any(abs(got - value / left) <= slack for value in wanted):
        return None
    of = "" if left == 1 else f" of the {left:.9g} that is left"
    return f"{got:.9g}, its logit {logit:.9g} at temperature {temperature:g} gives {wanted[-1] / left:.9g}{of}"


def _temperature(c: Context) -> float:
    return c.manifest.sampling.temperature or 1.0


def _probs_follow(c: Context) -> str | None:
    accept = present(c.step.accept)
    for visit in present(accept.visited):
        if visit.cut is None:
            continue
        problem = _normaliser_problem(c, visit.slot, visit.cut)
        if problem is not None:
            return problem
        for trial in visit.trials or []:
            wrong = _trial_problem(trial, visit.cut, _temperature(c))
            if wrong is not None:
                return f"slot {trial.slot}: target probability {wrong}"
        if visit.slot == accept.bonus_slot and accept.bonus_draw is not None:
            problem = _bonus_share(c, visit, visit.cut, accept.bonus_draw)
            if problem is not None:
                return problem
    return None


def _trial_problem(trial: Trial, cut: DistributionCut, temperature: float) -> str | None:
    return None if trial.logit is None else prob_problem(trial.target_prob, trial.logit, cut, temperature)


def _normaliser_problem(c: Context, slot: int, cut: DistributionCut) -> str | None:
    """Where nothing is divided or cut off, the normaliser is what verify has as logsumexp."""
    verify = c.step.verify
    if verify is None or verify.logsumexp is None or cut.least_logit is not None or _temperature(c) != 1:
        return None
    total = verify.logsumexp[slot]
    if not math.isfinite(total) or abs(cut.log_normaliser - total) <= TOLERANCE + EPSILON * abs(total):
        return None
    return f"slot {slot}: the normaliser is {cut.log_normaliser:.9g}, the logsumexp {total:.9g}"


def _bonus_share(c: Context, visit: Visit, cut: DistributionCut, draw: BonusDraw) -> str | None:
    """The bonus token's share, less what the rejected point masses took. What rejected draws leave is not recorded."""
    trials = (visit.trials or []) if present(c.step.accept).rule == "sampling" else []
    if draw.logit is None or (trials and not is_point_mass(c, trials)):
        return None
    left = 1 - sum(trial.target_prob for trial in trials)
    if left <= LEAST_LEFT:
        return None
    problem = prob_problem(draw.high - draw.low, draw.logit, cut, _temperature(c), left)
    return None if problem is None else f"the bonus token's share is {problem}"


# The drafter's.


def _drafts_were_drawn(c: Context) -> bool:
    """Whether the tokens tried were drawn from the step's own drafter, and not put in from a recording."""
    return draws_tokens(c) and c.manifest.sampling.draft == "sampled" and not tree_is_recorded(c.step)


def _draft_probs(c: Context) -> str | None:
    """Of the whole distribution at the parent, for younger siblings too."""
    logprobs = present(present(c.step.tree).logprobs)
    for visit in present(present(c.step.accept).visited):
        for trial in visit.trials or []:
            wanted = math.exp(min(1.0, logprobs[trial.slot]))
            if not abs(trial.draft_prob - wanted) <= TOLERANCE:
                return f"slot {trial.slot}: draft probability {trial.draft_prob:.9g}, the tree has {wanted:.9g}"
    return None


PROBABILITIES: tuple[Invariant[Context], ...] = (
    Invariant(
        "accept.probs-follow-logits",
        "the teacher's probabilities are those of the logits, at the run's temperature and cut",
        _probs_follow,
        ("accept.visited.cut", "accept.bonus_draw.logit"),
        draws_tokens,
    ),
    Invariant(
        "accept.draft-probs",
        "the drafter's probabilities are those that the tree has",
        _draft_probs,
        ("tree.logprobs", "accept.visited.trials"),
        _drafts_were_drawn,
    ),
)
