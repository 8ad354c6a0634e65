"""The teacher's probabilities, bounded by what was recorded of its logits.

The distribution itself is not recorded; what verify says of the two best tokens bounds it, and is exact for them where
temperature, top-k and top-p change nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from specscope.schemas import DistributionCut, Sampling, Visit
from specscope.tracer.oracle.invariants.base import Context, present

ROUNDING = 1e-9  # coins and thresholds are recorded as they were compared


TOLERANCE = 1e-4  # on probabilities that were computed in another way than here


class Bounds(NamedTuple):
    """Where a number that was not recorded must lie."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:.9g}"
        return f"{self.low:.9g} to {self.high:.9g}"


ANYWHERE = Bounds(0.0, 1.0)


def exactly(value: float) -> Bounds:
    """The bounds of a number that is known."""
    return Bounds(value, value)


def is_plain(c: Context) -> bool:
    """Whether the distribution that tokens are drawn from is the softmax of the logits, and nothing else."""
    sampling = c.manifest.sampling
    return sampling.temperature in (None, 1) and sampling.top_k is None and (sampling.top_p or 1) >= 1


def teacher_bounds(c: Context, slot: int, token: int) -> Bounds:
    """Where the teacher's probability of ``token`` at ``slot`` lies, given its two best logits and the logsumexp."""
    verify = present(c.step.verify)
    if verify.logsumexp is None or verify.top_logits is None or verify.top_tokens is None:
        return ANYWHERE
    logits, ranked, total = verify.top_logits[slot], verify.top_tokens[slot], verify.logsumexp[slot]
    if is_plain(c):
        if token in ranked:
            return exactly(math.exp(min(0.0, logits[ranked.index(token)] - total)))
        return Bounds(0.0, math.exp(min(0.0, logits[-1] - total)))
    temperature = c.manifest.sampling.temperature or 1.0
    if token == ranked[0]:  # cooling and cutting off only make it likelier
        return Bounds(math.exp(min(0.0, logits[0] - total)) if temperature <= 1 else 0.0, 1.0)
    logit = logits[ranked.index(token)] if token in ranked else logits[-1]
    return Bounds(0.0, 1 / (1 + math.exp(min(700.0, (logits[0] - logit) / temperature))))


def target_prob_problem(c: Context) -> str | None:
    """A probability that was weighed and is not the teacher's, as far as verify recorded it."""
    tokens = present(c.step.tree).tokens
    for visit in present(present(c.step.accept).visited):
        for trial in visit.trials or []:
            wanted = teacher_bounds(c, visit.slot, tokens[trial.slot])
            if not wanted.low - TOLERANCE <= trial.target_prob <= wanted.high + TOLERANCE:
                got = f"target probability {trial.target_prob:.9g}"
                return f"slot {trial.slot}: {got}, the logits at slot {visit.slot} give {wanted}"
        problem = _ratio_problem(c, visit, tokens)
        if problem is not None:
            return problem
    return None


def _ratio_problem(c: Context, visit: Visit, tokens: list[int]) -> str | None:
    """Two tokens' probabilities stand to each other as their logits tell at the temperature, whatever was cut off."""
    verify, temperature = present(c.step.verify), c.manifest.sampling.temperature or 1.0
    probs = {tokens[trial.slot]: trial.target_prob for trial in visit.trials or []}
    logits, (best, second) = present(verify.top_logits)[visit.slot], present(verify.top_tokens)[visit.slot][:2]
    if best not in probs or not probs.get(second):  # not drafted both, or the second was cut off
        return None
    wanted = probs[best] * math.exp(-min(700.0, (logits[0] - logits[1]) / temperature))
    if abs(probs[second] - wanted) <= TOLERANCE:
        return None
    got = f"tokens {best} and {second} have probabilities {probs[best]:.9g} and {probs[second]:.9g}"
    return f"{got}, by the logits at slot {visit.slot} and temperature {temperature:g} the second is {wanted:.9g}"


def logit_problem(c: Context) -> str | None:
    """A probability that was weighed and does not follow from its recorded logit, and how the logits were cut."""
    for visit in present(present(c.step.accept).visited):
        if visit.cut is None:
            continue
        problem = _normaliser_problem(c, visit.slot, visit.cut)
        if problem is not None:
            return problem
        for trial in visit.trials or []:
            wanted = None if trial.logit is None else prob_of_logit(c.manifest.sampling, trial.logit, visit.cut)
            if wanted is not None and not wanted.low - TOLERANCE <= trial.target_prob <= wanted.high + TOLERANCE:
                got = f"target probability {trial.target_prob:.9g}"
                return f"slot {trial.slot}: {got}, its logit {trial.logit:.9g} at slot {visit.slot} gives {wanted}"
    return None


def prob_of_logit(sampling: Sampling, logit: float, cut: DistributionCut) -> Bounds:
    """exp(logit / temperature - log_normaliser) of a token that is kept; at the edge of the cut it may be either."""
    kept = math.exp(min(0.0, logit / (sampling.temperature or 1.0) - cut.log_normaliser))
    if cut.least_logit is None or logit > cut.least_logit:
        return exactly(kept)
    return exactly(0.0) if logit < cut.least_logit else Bounds(0.0, kept)


def _normaliser_problem(c: Context, slot: int, cut: DistributionCut) -> str | None:
    """Where nothing is divided or cut, the normaliser is the sum that verify recorded."""
    verify = c.step.verify
    if not is_plain(c) or verify is None or verify.logsumexp is None or slot >= len(verify.logsumexp):
        return None
    if abs(cut.log_normaliser - verify.logsumexp[slot]) <= TOLERANCE:
        return None
    return f"slot {slot}: log-normaliser {cut.log_normaliser:.9g}, the logits sum up to {verify.logsumexp[slot]:.9g}"
