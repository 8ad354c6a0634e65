"""What the last stage says of a row: the token that follows, and what a trace keeps of its logits."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from specscope.engine.accept.sampling import draw_bonus, target_probs
from specscope.engine.digests import digest_tensors
from specscope.engine.loop.step import argmax_of
from specscope.engine.ppsd.message import Message
from specscope.engine.record.accept import distribution_cut
from specscope.engine.record.best import MOST_BEST, summary
from specscope.engine.settings import SamplingRule
from specscope.schemas import BonusDraw, DistributionCut, Sampling

#: Places in what a result says besides the token; the lists of the best tokens come first.
_TOKENS, _LOGITS = slice(0, MOST_BEST), slice(MOST_BEST, 2 * MOST_BEST)
_NUM_BEST, _ARGMAX, _LOGSUMEXP, _ENTROPY, _FINITE, _DIGEST = range(2 * MOST_BEST, 2 * MOST_BEST + 6)
_LOW, _HIGH, _LOGIT, _NORMALISER, _LEAST, _RESIDUAL = range(2 * MOST_BEST + 6, 2 * MOST_BEST + 12)
EXTRA_BYTES = (2 * MOST_BEST + 12) * 8


class Verifier:
    """The last stage's choice.

    Args:
        rule: greedy or sampling.
        recording: whether a trace is written.
    """

    def __init__(self, rule: SamplingRule, *, recording: bool) -> None:
        self._rule = rule
        self._recording = recording
        self._sampling = Sampling(
            rule=rule.rule, temperature=rule.temperature, top_k=rule.top_k, top_p=rule.top_p, lossless=rule.lossless
        )

    def __call__(self, logits: torch.Tensor, message: Message, result: Message) -> int:
        """The token after the row of ``logits`` (V,)."""
        extra = result.extra() if self._recording else None
        on_host = logits.cpu() if extra is not None else logits  # one copy, and none where they are there
        if self._rule.rule == "greedy":
            token = int(argmax_of(logits[None])[0])
            if extra is not None:
                _summarise(on_host, token, extra)
            return token
        coin = torch.tensor([message.coin], dtype=torch.float64, device=logits.device)
        drawn = draw_bonus(target_probs(logits[None], self._rule), coin)
        token = int(drawn.tokens[0])
        if extra is not None:
            _summarise(on_host, int(argmax_of(logits[None])[0]), extra)
            cut = distribution_cut(on_host, self._sampling)
            least = math.nan if cut.least_logit is None else cut.least_logit
            extra[_LOW : _LEAST + 1] = (
                *(float(drawn.low[0]), float(drawn.high[0]), float(on_host[token])),
                *(cut.log_normaliser, least),
            )
            extra[_RESIDUAL] = _bits(digest_tensors(drawn.probs[0].to(torch.float64)))
        return token


def _summarise(logits: torch.Tensor, argmax: int, extra: NDArray[np.float64]) -> None:
    """Of ``logits`` (V,) on the host."""
    finite = bool(torch.isfinite(logits.sum()))
    of_row = summary(logits[None], plain=finite)
    best = of_row.best
    count = len(best.tokens[0])
    extra[_TOKENS][:count] = best.tokens[0]
    extra[_LOGITS][:count] = best.logits[0]
    extra[_NUM_BEST : _DIGEST + 1] = (
        *(count, argmax, of_row.logsumexp[0], of_row.entropy[0], finite),
        _bits(digest_tensors(logits)),
    )


class Said(NamedTuple):
    """What the last stage's logits came to."""

    argmax: int
    top_tokens: list[int]
    top_logits: list[float]
    logsumexp: float
    entropy: float
    finite: bool
    logits_digest: str


def read_summary(extra: NDArray[np.float64]) -> Said:
    """What ``Verifier`` put into a result."""
    count = int(extra[_NUM_BEST])
    return Said(
        argmax=int(extra[_ARGMAX]),
        top_tokens=[int(token) for token in extra[_TOKENS][:count].tolist()],
        top_logits=extra[_LOGITS][:count].tolist(),
        logsumexp=float(extra[_LOGSUMEXP]),
        entropy=float(extra[_ENTROPY]),
        finite=bool(extra[_FINITE]),
        logits_digest=_digest(extra[_DIGEST]),
    )


def read_draw(extra: NDArray[np.float64], coin: float) -> tuple[BonusDraw, DistributionCut]:
    """How the token was drawn."""
    low, high, logit, normaliser, least = extra[_LOW : _LEAST + 1].tolist()
    cut = DistributionCut(log_normaliser=normaliser, least_logit=None if math.isnan(least) else least)
    return BonusDraw(coin=coin, low=low, high=high, logit=logit, residual_digest=_digest(extra[_RESIDUAL])), cut


def _bits(digest: str) -> np.float64:
    """A digest of 64 bits in place of a float."""
    bits: np.float64 = np.array([int(digest, 16)], dtype=np.uint64).view(np.float64)[0]
    return bits


def _digest(bits: np.float64) -> str:
    return f"{int(np.array([bits]).view(np.uint64)[0]):016x}"
