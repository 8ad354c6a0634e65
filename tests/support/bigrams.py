"""A teacher and a drafter that are bigrams over eight tokens, what they draw by definition, and the test of counts."""

from __future__ import annotations

import math

import torch

from specscope.engine.settings import SamplingRule

VOCAB, START = 8, 4

_GENERATOR = torch.Generator().manual_seed(2)
TEACHER = 1.3 * torch.randn(VOCAB, VOCAB, generator=_GENERATOR, dtype=torch.float64)  # logits, row: token before
DRAFTER = 0.6 * TEACHER + 0.7 * torch.randn(VOCAB, VOCAB, generator=_GENERATOR, dtype=torch.float64)


def expected_probs(logits: list[float], rule: SamplingRule) -> list[float]:
    """Temperature, top-k, top-p by their definitions."""
    weights = [math.exp(x / rule.temperature) for x in logits]
    ranked = sorted(range(VOCAB), key=lambda t: -weights[t])[: rule.top_k]
    total, kept, mass = sum(weights[t] for t in ranked), [], 0.0
    for token in ranked:
        if mass < (rule.top_p or 1):
            kept.append(token)
        mass += weights[token] / total
    return normalised([weights[t] * (t in kept) for t in range(VOCAB)])


def normalised(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights] if total > 0 else weights


def chi_square_p(counts: torch.Tensor, probs: torch.Tensor) -> float:
    """Pearson's test of all rows (R, C) together, given how much each row counted.

    A row's cells that expect fewer than five are one cell, and a count in an impossible cell is p = 0.
    """
    if counts[probs < 1e-12].any():
        return 0.0
    statistic, degrees = torch.zeros((), dtype=torch.float64), 0
    for row, row_probs in zip(counts.double(), probs, strict=True):
        expected = row_probs * row.sum()
        rare = expected < 5
        row = torch.cat([row[~rare], row[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
        possible = expected > 1e-9
        statistic += ((row - expected) ** 2 / expected)[possible].sum()
        degrees += max(0, int(possible.sum()) - 1)
    return chi_square_survival(statistic, degrees)


def chi_square_survival(statistic: torch.Tensor, degrees: int) -> float:
    """The probability of a larger statistic: the upper incomplete gamma function at half of both."""
    return float(torch.special.gammaincc(torch.tensor(degrees / 2, dtype=torch.float64), statistic.double() / 2))
