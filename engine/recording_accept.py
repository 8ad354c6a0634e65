"""The accept section of a step record: the walk, node by node, and what was tried and drawn on the way."""

from __future__ import annotations

import torch

from specscope.engine.acceptance import Trials
from specscope.engine.decoding import StepResult
from specscope.engine.digests import digest_tensors
from specscope.schemas import AcceptSection, BonusDraw, Trial, Visit


def accept_section(result: StepResult) -> AcceptSection:
    """The walk of one row."""
    own, trials = result.acceptance, result.shared.acceptance.trials
    visited = [0, *own.path]
    went: list[int | None] = [*own.path, None]
    if trials is None:
        argmax = result.shared.verification.argmax[result.row].tolist()
        visits = [Visit(slot=s, wanted=argmax[s], child=child) for s, child in zip(visited, went, strict=True)]
        draw = None
    else:
        tried = _Tried(result, trials)
        visits = [Visit(slot=s, child=child, trials=tried.at(s, child)) for s, child in zip(visited, went, strict=True)]
        draw = tried.bonus_draw()
    return AcceptSection(
        rule=own.rule,
        visited=visits,
        path=own.path,
        accepted_length=own.accepted_length,
        bonus_token=own.bonus_token,
        bonus_slot=own.bonus_slot,
        bonus_draw=draw,
    )


class _Tried:
    """One row's trials on the host."""

    def __init__(self, result: StepResult, trials: Trials) -> None:
        row, tensors = result.row, result.shared.tensors
        self._trials, self._row = trials, row
        self._parents = tensors.parents[row, : tensors.num_slots[row]].tolist()
        self._target, self._draft, self._thresholds = (
            values[row].tolist() for values in (trials.target_probs, trials.draft_probs, trials.thresholds)
        )
        self._coins = trials.coins[row].tolist() if trials.coins is not None else None

    def at(self, slot: int, child: int | None) -> list[Trial]:
        """The children of ``slot`` that were tried: with coins up to the accepted one, else all."""
        found = []
        for tried, parent in enumerate(self._parents):
            if tried == 0 or parent != slot:
                continue
            coin = self._coins[tried] if self._coins is not None else None
            # Without coins every child past its threshold is acceptable, and the walk goes to the best of them.
            accepted = tried == child if coin is not None else self._target[tried] > self._thresholds[tried]
            found.append(
                Trial(
                    slot=tried,
                    target_prob=self._target[tried],
                    draft_prob=self._draft[tried],
                    threshold=self._thresholds[tried],
                    coin=coin,
                    accepted=accepted,
                )
            )
            if tried == child and coin is not None:
                break
        return found

    def bonus_draw(self) -> BonusDraw:
        """How the bonus token came about."""
        trials, row = self._trials, self._row
        coin, low, high = (float(values[row]) for values in (trials.bonus_coins, trials.bonus_low, trials.bonus_high))
        digest = digest_tensors(trials.residuals[row].to(torch.float64))
        return BonusDraw(coin=coin, low=low, high=high, residual_digest=digest)
