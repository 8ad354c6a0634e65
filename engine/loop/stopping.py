"""Stop rules, each exact inside an accepted block: what of a block is kept, and why the turn ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

StopReason = Literal["eos", "length", "stop_string", "criterion"]


class StopRules(NamedTuple):
    """When a turn ends; the first rule that a token meets decides."""

    max_new_tokens: int
    eos_token_ids: list[int]
    stop_strings: list[str]


class StopDecision(NamedTuple):
    """What became of a block of emitted tokens."""

    emitted: list[int]
    kept: int  # how many of them; the rest lies behind the stop
    reason: StopReason | None


class StopWatch:
    """Applies the rules to one turn's output, block by block."""

    def __init__(
        self,
        rules: StopRules,
        decode: Callable[[list[int]], str] | None,
        criterion: Callable[[list[int]], bool] | None = None,
    ) -> None:
        self._rules = rules
        self._decode = decode
        self._criterion = criterion
        self.reason: StopReason | None = None  # why the turn is over
        self.output_ids: list[int] = []
        # A stop string of n bytes spans at most n tokens; a few more, because the window's first may be half a letter.
        self._window = 4 + max((len(s.encode()) for s in rules.stop_strings), default=0)

    def take(self, emitted: list[int]) -> StopDecision:
        """Adds ``emitted`` to the output up to and including the token that meets a rule."""
        for kept, token in enumerate(emitted, start=1):
            self.output_ids.append(token)
            reason = self._reason(token)
            if reason is not None:
                self.reason = reason
                return StopDecision(emitted, kept, reason)
        return StopDecision(emitted, len(emitted), None)

    def _reason(self, token: int) -> StopReason | None:
        if token in self._rules.eos_token_ids:
            return "eos"
        if self._rules.stop_strings and self._decode is not None:
            text = self._decode(self.output_ids[-self._window :])
            if any(stop in text for stop in self._rules.stop_strings):
                return "stop_string"
        if self._criterion is not None and self._criterion(self.output_ids):
            return "criterion"
        return "length" if len(self.output_ids) >= self._rules.max_new_tokens else None
