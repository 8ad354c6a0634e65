"""What a slot's logits come to in a record: their best tokens, logsumexp and entropy.

Letters: R rows of logits, V tokens.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from specscope.engine.record.host import array, float_lists, floats
from specscope.tracer.compare.roundings import is_half_epsilon

MOST_BEST = 16  # tokens of a slot that may be best
#: How far behind the best logit a token may lie and still be recorded, in roundings of the best one's size: a tie needs
#: two that moved, each by no more than one value may. In half formats that is soon a whole logit.
TIE_ROUNDINGS, HALF_TIE_ROUNDINGS = 128, 32


class BestTokens(NamedTuple):
    """The best tokens of each row of logits, best first, with their logits."""

    tokens: list[list[int]]
    logits: list[list[float]]


class Summary(NamedTuple):
    """Of each row of logits."""

    best: BestTokens
    logsumexp: list[float]
    entropy: list[float]  # nats


def wide(logits: torch.Tensor) -> torch.Tensor:
    """In float32, or wider where they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def best_tokens(logits: torch.Tensor) -> BestTokens:
    """Of ``logits`` (R, V) on the host: at least two, and all that lie so near the best that rounding may have put them
    first, of which there may be 16. Equal ones stand in the order of their ids.
    """
    numbers = array(wide(logits))
    tokens = _best_of(numbers, numbers.argmax(axis=1), torch.finfo(logits.dtype).eps)
    return BestTokens(tokens, _row_by_row(floats(_logits_of(numbers, tokens)), tokens))


def summary(logits: torch.Tensor, *, plain: bool) -> Summary:
    """Of ``logits`` (R, V) on the host; ``plain`` where none of them is infinite or NaN."""
    values = wide(logits)
    probs = values.softmax(dim=-1)
    rows, numbers = np.arange(len(values)), array(values)
    first = numbers.argmax(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logsumexp = numbers[rows, first] - np.log(array(probs)[rows, first])
    # H = lse - sum p x, in one pass; where a logit is infinite, 0 x inf must count as 0.
    if plain:
        entropy = logsumexp - array(torch.linalg.vecdot(probs, values))
    else:
        entropy = array(torch.special.entr(probs).sum(dim=-1))
    tokens = _best_of(numbers, first, torch.finfo(logits.dtype).eps)
    totals, entropies, best = float_lists([logsumexp, entropy, _logits_of(numbers, tokens)])
    return Summary(BestTokens(tokens, _row_by_row(best, tokens)), totals, entropies)


def _logits_of(numbers: NDArray[Any], tokens: list[list[int]]) -> NDArray[Any]:
    """Of each row's ``tokens``, all in one."""
    rows = np.repeat(np.arange(len(tokens)), [len(chosen) for chosen in tokens])
    logits: NDArray[Any] = numbers[rows, [token for chosen in tokens for token in chosen]]
    return logits


def _row_by_row(values: list[float], tokens: list[list[int]]) -> list[list[float]]:
    """``values`` of all tokens, as the tokens are grouped."""
    rest = iter(values)
    return [list(islice(rest, len(chosen))) for chosen in tokens]


def _best_of(numbers: NDArray[Any], first: NDArray[Any], epsilon: float) -> list[list[int]]:
    """Of each row. numpy finds a row's largest number much faster than torch's topk does on a CPU. So the best two are
    looked for, and the whole row only where the second is so near the first that a third may be, too."""
    rows, size = np.arange(len(numbers)), numbers.shape[1]
    best = numbers[rows, first]
    near = np.where(np.isnan(best), np.inf, best - _window(best, epsilon))
    others = numbers.copy()
    others[rows, first] = -np.inf
    second = others.argmax(axis=1)
    if size > 1:  # where all others are forbidden, the largest of them may be found where the first one was
        second = np.where(second == first, (first + 1) % size, second)
    following = others[rows, second]
    if size == 1:
        tokens = [[token] for token in first.tolist()]
    else:
        tokens = [list(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    for row in np.flatnonzero(~(following < near)).tolist():
        tokens[row] = _nearly_best(numbers[row], near[row])
    return tokens


def _nearly_best(numbers: NDArray[Any], limit: float) -> list[int]:
    """The tokens of (V,) ``numbers`` that reach ``limit``, best first, at least two where there are two. NaN counts as
    larger than any number, as in torch."""
    keys = np.where(np.isnan(numbers), np.inf, numbers)
    reaching = np.flatnonzero(~(numbers < limit))
    if len(reaching) < 2:
        reaching = np.argsort(-keys, kind="stable")[:2]
    ranked: list[int] = reaching[np.lexsort((reaching, -keys[reaching]))].tolist()
    return ranked[:MOST_BEST]


def _window(best: NDArray[Any], epsilon: float) -> NDArray[Any]:
    """(R,) how far a tie may reach: nowhere from what is not finite. A binade's numbers lie epsilon apart, times its
    lower end."""
    roundings = HALF_TIE_ROUNDINGS if is_half_epsilon(epsilon) else TIE_ROUNDINGS
    size = np.where(np.isfinite(best), np.maximum(np.abs(best), 1e-30), 1.0)
    rounding: NDArray[Any] = np.where(np.isfinite(best), epsilon * np.exp2(np.floor(np.log2(size))), 0.0)
    return (roundings * rounding).astype(best.dtype)
