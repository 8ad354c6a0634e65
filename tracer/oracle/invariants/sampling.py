"""Invariants of the rules that try children one by one, sampling and typical acceptance, on records.

They judge what was recorded of each trial and draw. The teacher's distribution itself is not recorded; what verify says
of the two best tokens bounds it, and is exact for them where temperature, top-k and top-p change nothing.

Sources: Leviathan et al. 2023 (threshold p / q, residual max(0, p - q)); for a point mass q that is p / (1 - p of the
elder siblings); Jeon et al. 2024 (siblings drawn without replacement); Cai et al. 2024 (typical acceptance).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from specscope.schemas import BonusDraw, DistributionCut, Sampling, Trial, Visit
from specscope.tracer.oracle.invariants.base import Context, Invariant, first_mismatch, present, promises

ROUNDING = 1e-9  # coins and thresholds are recorded as they were compared
TOLERANCE = 1e-4  # on probabilities that were computed in another way than here
LEAST_LEFT = 1e-3  # less probability than this is left by rounding as much as by the numbers themselves


def draws_tokens(c: Context) -> bool:
    """Whether the step's rule draws its tokens, so that its trials and draws can be judged."""
    return c.rule != "greedy"


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
        return f"slot {at} was accepted, but the walk did not stand there"
    return None if accept.path == path else f"got path {accept.path}, the walk gives {path}"


def _slot(slot: int | None) -> str:
    return "no child" if slot is None else f"slot {slot}"


# Which children were tried, and what was decided of each.


def _trials(c: Context) -> str | None:
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


# The thresholds.


def _thresholds(c: Context) -> str | None:
    tokens, accept = present(c.step.tree).tokens, present(c.step.accept)
    for visit in present(accept.visited):
        trials = visit.trials or []
        odd = next(filter(None, map(_odd_number, trials)), None)
        if odd is not None:
            return odd
        for trial, wanted in zip(trials, _wanted_thresholds(c, visit, tokens), strict=True):
            if not wanted.low - TOLERANCE <= trial.threshold <= wanted.high + TOLERANCE:
                return f"slot {trial.slot}: threshold {trial.threshold:.9g}, wanted {wanted}"
    return None


def _odd_number(trial: Trial) -> str | None:
    for name in ("target_prob", "draft_prob", "threshold"):
        value = getattr(trial, name)
        if not 0 <= value <= 1 + ROUNDING:
            return f"slot {trial.slot}: {name} {value:.9g}, wanted 0 to 1"
    return None


class Bounds(NamedTuple):
    """Where a number that was not recorded must lie."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:.9g}"
        return f"{self.low:.9g} to {self.high:.9g}"


ANYWHERE = Bounds(0.0, 1.0)


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
    """p / (1 - p of the elder siblings); a token that an elder sibling had has nothing left."""
    wanted: list[Bounds] = []
    elder: dict[int, float] = {}
    for trial in trials:
        left = 1 - sum(elder.values())
        if tokens[trial.slot] in elder:
            wanted.append(Bounds(0.0, 0.0))
            continue
        wanted.append(_exactly(min(1.0, trial.target_prob / left)) if left > LEAST_LEFT else ANYWHERE)
        elder[tokens[trial.slot]] = trial.target_prob
    return wanted


def _exactly(value: float) -> Bounds:
    return Bounds(value, value)


def _drawn_threshold(trial: Trial, elder: list[Trial]) -> Bounds:
    """min(1, p / q) for the first; behind a rejection p is max(0, p - q), of which only its zeros are known."""
    p, q = trial.target_prob, trial.draft_prob
    if not any(other.draft_prob > 0 for other in elder):  # what q cannot have drawn is not tried
        return _exactly(min(1.0, p / q) if q > 0 else 0.0)
    return Bounds(0.0, 0.0) if p < q - TOLERANCE else ANYWHERE


def _typical_threshold(c: Context, slot: int) -> Bounds:
    """min(epsilon, delta exp(-entropy)); the entropy is known where the distribution is the logits' own."""
    sampling, verify = c.manifest.sampling, c.step.verify
    most = 1.0 if sampling.epsilon is None else sampling.epsilon
    if sampling.delta is None or verify is None or verify.entropy is None or not _is_plain(c):
        return Bounds(0.0, most)
    most = min(most, sampling.delta * math.exp(-verify.entropy[slot]))
    return Bounds(0.0, most) if sampling.epsilon is None else _exactly(most)


# The teacher's probabilities, from what verify recorded.


def _is_plain(c: Context) -> bool:
    """Whether the distribution that tokens are drawn from is the softmax of the logits, and nothing else."""
    sampling = c.manifest.sampling
    return sampling.temperature in (None, 1) and sampling.top_k is None and (sampling.top_p or 1) >= 1


def teacher_bounds(c: Context, slot: int, token: int) -> Bounds:
    """Where the teacher's probability of ``token`` at ``slot`` lies, given its two best logits and the logsumexp."""
    verify = present(c.step.verify)
    if verify.logsumexp is None or verify.top_logits is None or verify.top_tokens is None:
        return ANYWHERE
    logits, ranked, total = verify.top_logits[slot], verify.top_tokens[slot], verify.logsumexp[slot]
    if _is_plain(c):
        if token in ranked:
            return _exactly(math.exp(min(0.0, logits[ranked.index(token)] - total)))
        return Bounds(0.0, math.exp(min(0.0, logits[-1] - total)))
    temperature = c.manifest.sampling.temperature or 1.0
    if token == ranked[0]:  # cooling and cutting off only make it likelier
        return Bounds(math.exp(min(0.0, logits[0] - total)) if temperature <= 1 else 0.0, 1.0)
    logit = logits[ranked.index(token)] if token in ranked else logits[-1]
    return Bounds(0.0, 1 / (1 + math.exp(min(700.0, (logits[0] - logit) / temperature))))


def _target_probs(c: Context) -> str | None:
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


def _follow_logits(c: Context) -> str | None:
    """By the recorded logits and how they were cut, where a visit has them."""
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
        return _exactly(kept)
    return _exactly(0.0) if logit < cut.least_logit else Bounds(0.0, kept)


def _normaliser_problem(c: Context, slot: int, cut: DistributionCut) -> str | None:
    """Where nothing is divided or cut, the normaliser is the sum that verify recorded."""
    verify = c.step.verify
    if not _is_plain(c) or verify is None or verify.logsumexp is None or slot >= len(verify.logsumexp):
        return None
    if abs(cut.log_normaliser - verify.logsumexp[slot]) <= TOLERANCE:
        return None
    return f"slot {slot}: log-normaliser {cut.log_normaliser:.9g}, the logits sum up to {verify.logsumexp[slot]:.9g}"


def _drawn_from(c: Context) -> str | None:
    """A drafted token's probability is the one that the tree says it was drawn with."""
    logprobs = present(present(c.step.tree).logprobs)
    for visit in present(present(c.step.accept).visited):
        for trial in visit.trials or []:
            wanted = math.exp(min(0.0, logprobs[trial.slot]))
            if abs(trial.draft_prob - wanted) > TOLERANCE:
                return f"slot {trial.slot}: draft probability {trial.draft_prob:.9g}, the tree says {wanted:.9g}"
    return None


def _draws_drafts(c: Context) -> bool:
    return draws_tokens(c) and c.manifest.sampling.draft == "sampled" and c.step.forced is None


# The bonus token, and every other token that was drawn.


def draw_problem(draw: BonusDraw) -> str | None:
    """What is wrong with a draw by itself."""
    if not 0 <= draw.coin < 1:
        return f"coin {draw.coin:.9g}, wanted one in [0, 1)"
    if not 0 <= draw.low < draw.high <= 1 + ROUNDING:
        return f"its share lies from {draw.low:.9g} to {draw.high:.9g}"
    if not draw.low - ROUNDING <= draw.coin < draw.high + ROUNDING:
        return f"coin {draw.coin:.9g} lies outside its share, {draw.low:.9g} to {draw.high:.9g}"
    return None


def bonus_problem(c: Context) -> str | None:
    """What is wrong with a bonus token that was drawn; that it was read at the right slot is known."""
    accept, vocab_size = present(c.step.accept), c.manifest.teacher.vocab_size
    if accept.bonus_draw is None:
        return "it was drawn, and no draw was recorded"
    if not 0 <= accept.bonus_token < vocab_size:
        return f"token {accept.bonus_token}, wanted 0..{vocab_size - 1}"
    problem = draw_problem(accept.bonus_draw)
    if problem is not None:
        return problem
    trials = next((visit.trials or [] for visit in accept.visited or [] if visit.slot == accept.bonus_slot), [])
    if accept.rule == "sampling" and c.step.tree is not None:
        tokens = c.step.tree.tokens
        # A threshold of 0 may also mean that the child was not tried at all, and left its token behind.
        gone = [t.slot for t in trials if tokens[t.slot] == accept.bonus_token and 0 < t.threshold < 1 - ROUNDING]
        if gone:
            return f"token {accept.bonus_token} was drawn although slot {gone[0]}, the same token, was rejected"
    return _share_problem(c, trials, accept.bonus_draw)


def _share_problem(c: Context, trials: list[Trial], draw: BonusDraw) -> str | None:
    """The share beside the teacher's probability, less what the rejected children took."""
    accept = present(c.step.accept)
    taken = 0.0
    untold = not promises(c.manifest, "accept") and all(visit.trials is None for visit in accept.visited or ())
    if accept.rule == "sampling" and (accept.visited is None or untold):
        return None  # what was taken is not recorded
    if accept.rule == "sampling" and trials:
        if not is_point_mass(c, trials):
            return None  # what draws leave is not recorded
        taken = sum(trial.target_prob for trial in trials)
    if 1 - taken <= LEAST_LEFT:
        return None
    bounds = teacher_bounds(c, accept.bonus_slot, accept.bonus_token)
    wanted = Bounds(bounds.low / (1 - taken), min(1.0, bounds.high / (1 - taken)))
    slack = TOLERANCE / (1 - taken)
    if wanted.low - slack <= draw.high - draw.low <= wanted.high + slack:
        return None
    share = f"token {accept.bonus_token} has a share of {draw.high - draw.low:.9g}"
    return f"{share}, the logits at slot {accept.bonus_slot} and the rejected children leave {wanted}"


def _coins_distinct(c: Context) -> str | None:
    """Two coins of 53 random bits are never equal, but for one step in 10^13 or so."""
    accept = present(c.step.accept)
    seen = {accept.bonus_draw.coin: "the bonus token"} if accept.bonus_draw is not None else {}
    for trial in (trial for visit in present(accept.visited) for trial in visit.trials or []):
        if trial.coin is None:
            continue
        if trial.coin in seen:
            return f"slot {trial.slot} was tried with coin {trial.coin:.9g}, as was {seen[trial.coin]}"
        seen[trial.coin] = f"slot {trial.slot}"
    return None


TRIALS: tuple[Invariant[Context], ...] = (
    Invariant(
        "accept.trials",
        "children are tried in slot order until one is accepted; its coin decides (typical: all; its probability)",
        _trials,
        ("tree", "accept"),
        draws_tokens,
        needs_if_drawn="accept.visited",
    ),
    Invariant(
        "accept.coins-distinct",
        "every trial of a step has a coin of its own, and the bonus token another",
        _coins_distinct,
        ("accept",),
        draws_tokens,
        needs_if_drawn="accept.visited",
    ),
    Invariant(
        "accept.thresholds",
        "the thresholds follow from the teacher's and the drafter's probabilities",
        _thresholds,
        ("tree", "accept"),
        draws_tokens,
        needs_if_drawn="accept.visited",
    ),
    Invariant(
        "accept.target-probs",
        "the probabilities weighed are the teacher's at the parent",
        _target_probs,
        ("tree", "verify.logsumexp", "verify.top_tokens", "verify.top_logits", "accept"),
        draws_tokens,
        needs_if_drawn="accept.visited",
    ),
    Invariant(
        "accept.probs-follow-logits",
        "the probabilities weighed follow from the logits at temperature, top_k and top_p",
        _follow_logits,
        ("accept.visited", "logits_of_trials"),
        draws_tokens,
    ),
    Invariant(
        "accept.draft-probs",
        "a drafted token is weighed by the probability that it was drawn with",
        _drawn_from,
        ("tree.logprobs", "accept.visited"),
        _draws_drafts,
    ),
)
