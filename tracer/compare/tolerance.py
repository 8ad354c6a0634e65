"""How far two floats may lie apart and still be the same computation: a stated tolerance by dtype.

A stand-in for a measured noise floor; every verdict prints it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from specscope.schemas import Manifest

#: Absolute, on logits and log-probabilities: some hundred roundings of a value of magnitude 16.
BY_DTYPE = {"float64": 1e-9, "float32": 1e-3, "float16": 3e-2, "bfloat16": 2.5e-1}

#: What is left of a probability that cancels out; absolute.
PROBABILITY_ROUNDING = 1e-6


@dataclass
class FloatJudge:
    """Tells drift from a real difference, and keeps count of the drift it let pass."""

    tolerance: float
    temperature: float = 1.0  # divides the logits that probabilities are made of
    drift: dict[str, list[float]] = field(default_factory=dict)  # field -> [count, largest]

    @classmethod
    def of(cls, tolerance: float, manifest: Manifest) -> FloatJudge:
        """The judge of runs like that of ``manifest``."""
        temperature = manifest.sampling.temperature
        return cls(tolerance, 1.0 if temperature is None else temperature)

    def same(self, name: str, a: float, b: float, num_terms: int = 1) -> bool:
        """Whether ``a`` and ``b`` differ by no more than the tolerance, relative above magnitude 16, for each of the
        ``num_terms`` that were summed. Two equal non-finite values are the same."""
        return self._counted(name, a, b, near=self.near(a, b, num_terms))

    def same_probability(self, name: str, a: float, b: float) -> bool:
        """Whether two probabilities follow from logits within the tolerance of each other."""
        return self._counted(name, a, b, near=self.near_probability(a, b))

    def near(self, a: float, b: float, num_terms: int = 1) -> bool:
        """As ``same``, without counting."""
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        gap = abs(a - b)
        return math.isfinite(gap) and gap <= self.tolerance * num_terms * max(1.0, max(abs(a), abs(b)) / 16)

    def near_probability(self, a: float, b: float) -> bool:
        """As ``same_probability``, without counting. A logit off by the tolerance moves a probability by that share of
        itself, more where a temperature below 1 spreads the logits, and sums and ratios of probabilities likewise."""
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        share = self.tolerance * max(1.0, 1 / self.temperature)
        return abs(a - b) <= share * max(abs(a), abs(b)) + min(self.tolerance, PROBABILITY_ROUNDING)

    def _counted(self, name: str, a: float, b: float, *, near: bool) -> bool:
        if near and a != b and not (math.isnan(a) and math.isnan(b)):
            entry = self.drift.setdefault(name, [0, 0.0])
            entry[0] += 1
            entry[1] = max(entry[1], abs(a - b))
        return near
