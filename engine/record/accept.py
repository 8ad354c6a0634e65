"""The accept section of a step record: the walk, node by node, and what was tried and drawn on the way.

What makes probabilities of logits is worked out here once more, in another way than the acceptance does it, so that a
reader of the trace can hold the one against the other.
"""

from __future__ import annotations

import torch

from specscope.engine.accept.greedy import Trials
from specscope.engine.digests import digest_tensors
from specscope.engine.loop.phases import StepResult, TurnStarted
from specscope.schemas import AcceptSection, BonusDraw, DistributionCut, Sampling, Trial, Visit


def accept_section(result: StepResult, sampling: Sampling) -> AcceptSection:
    """The walk of one row, drawn as ``sampling`` says."""
    outcome = result.acceptance
    trials = result.shared.acceptance.trials
    visited = [0, *outcome.path]
    went: list[int | None] = [*outcome.path, None]
    if trials is None:
        argmax = result.shared.verification.argmax[result.row].tolist()
        visits = [Visit(slot=s, wanted=argmax[s], child=child) for s, child in zip(visited, went, strict=True)]
        draw = None
    else:
        tried = _Tried(result, trials, sampling)
        if outcome.rule == "block":  # every slot of the chain is weighed, and a later one decides for those before it
            unkept = range(len(visited), result.shared.tensors.num_slots[result.row] - 1)
            visited, went = [*visited, *unkept], [*went, *[None] * len(unkept)]
        visits = [tried.visit(slot, child) for slot, child in zip(visited, went, strict=True)]
        draw = tried.bonus_draw()
    return AcceptSection(
        rule=outcome.rule,
        visited=visits,
        path=outcome.path,
        accepted_length=outcome.accepted_length,
        bonus_token=outcome.bonus_token,
        bonus_slot=outcome.bonus_slot,
        bonus_draw=draw,
    )


def pending_draw(turn: TurnStarted, sampling: Sampling) -> BonusDraw | None:
    """How the first token after a prompt was drawn; None where it is the best."""
    if turn.draw is None:
        return None
    logits = _wide(turn.last_logits)
    logit = float(logits[turn.pending_token])
    return BonusDraw(**turn.draw._asdict(), logit=logit, cut=distribution_cut(logits, sampling))


def distribution_cut(logits: torch.Tensor, sampling: Sampling) -> DistributionCut:
    """What temperature, top_k and top_p make of ``logits`` (V,), in float64.

    The k best are kept, and of those the fewest whose probability reaches top_p, as transformers cuts them.
    """
    temperature = sampling.temperature or 1.0
    if sampling.top_k is None and (sampling.top_p is None or sampling.top_p >= 1):
        return DistributionCut(log_normaliser=float((logits.double() / temperature).logsumexp(dim=0)))
    ranked = logits.double().sort(descending=True).values
    if sampling.top_k is not None:
        ranked = ranked[: int((ranked >= ranked[min(sampling.top_k, len(ranked)) - 1]).sum())]
    if sampling.top_p is not None and sampling.top_p < 1:
        shares = (ranked / temperature).softmax(dim=0).cumsum(dim=0)
        ranked = ranked[: int((shares < sampling.top_p).sum()) + 1]
    return DistributionCut(
        log_normaliser=float((ranked / temperature).logsumexp(dim=0)),
        least_logit=float(ranked[-1]) if len(ranked) < len(logits) else None,
    )


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _Tried:
    """One row's trials on the host."""

    def __init__(self, result: StepResult, trials: Trials, sampling: Sampling) -> None:
        row, tensors = result.row, result.shared.tensors
        self._trials, self._row, self._sampling = trials, row, sampling
        self._bonus_token = result.acceptance.bonus_token
        self._bonus_slot = result.acceptance.bonus_slot
        self._logits = _wide(result.shared.verification.logits[row])  # (P, V)
        self._tokens = tensors.token_ids[row, : tensors.num_slots[row]].tolist()
        self._parents = tensors.parents[row, : tensors.num_slots[row]].tolist()
        self._target, self._draft, self._thresholds = (
            values[row].tolist() for values in (trials.target_probs, trials.draft_probs, trials.thresholds)
        )
        self._coins = trials.coins[row].tolist() if trials.coins is not None else None
        self._masses = trials.masses[row].tolist() if trials.masses is not None else None

    def visit(self, slot: int, child: int | None) -> Visit:
        """The walk's stop at ``slot``, from where it went to ``child``."""
        cut = distribution_cut(self._logits[slot], self._sampling)
        return Visit(slot=slot, child=child, trials=self._at(slot, child), cut=cut)

    def _at(self, slot: int, child: int | None) -> list[Trial]:
        """The children of ``slot`` that were tried: with coins up to the accepted one, else all."""
        trials = []
        for tried, parent in enumerate(self._parents):
            if tried == 0 or parent != slot:
                continue
            coin = self._coins[tried] if self._coins is not None else None
            # Without coins every child past its threshold is acceptable, and the walk goes to the best of them.
            threshold = self._thresholds[tried]
            if self._masses is not None and coin is not None:
                accepted = coin < threshold
            else:
                accepted = tried == child if coin is not None else self._target[tried] > threshold
            trials.append(
                Trial(
                    slot=tried,
                    target_prob=self._target[tried],
                    draft_prob=self._draft[tried],
                    threshold=threshold,
                    coin=coin,
                    accepted=accepted,
                    logit=float(self._logits[slot, self._tokens[tried]]),
                    residual_mass=self._mass_at(tried),
                )
            )
            if tried == child and coin is not None:
                break
        return trials

    def _mass_at(self, slot: int) -> float | None:
        """What the draft leaves over at a slot of a block; None at the end of the chain, where nothing was drafted."""
        ends = slot == len(self._tokens) - 1
        return None if self._masses is None or ends else self._masses[slot]

    def bonus_draw(self) -> BonusDraw:
        """How the bonus token came about."""
        trials, row = self._trials, self._row
        coin, low, high = (float(values[row]) for values in (trials.bonus_coins, trials.bonus_low, trials.bonus_high))
        digest = digest_tensors(trials.residuals[row].to(torch.float64))
        logit = float(self._logits[self._bonus_slot, self._bonus_token])
        return BonusDraw(coin=coin, low=low, high=high, residual_digest=digest, logit=logit)
