"""Tells drift from a real difference: two floats against the noise floor of their quantity."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from specscope.schemas import Manifest
from specscope.schemas.verdict import NoiseFloor, Quantity

#: What is left of a probability that cancels out; absolute.
PROBABILITY_ROUNDING = 1e-6
#: Floors hold up to this magnitude, and grow in proportion above it.
MAGNITUDE = 16.0


@dataclass
class FloatJudge:
    """Holds floats against their floors, and keeps count of the drift it let pass."""

    floors: dict[Quantity, float]
    temperature: float = 1.0  # divides the logits that probabilities are made of
    drift: dict[str, list[float]] = field(default_factory=dict)  # field -> [count, largest]

    @classmethod
    def of(cls, floors: Iterable[NoiseFloor], manifest: Manifest) -> FloatJudge:
        """The judge of runs like that of ``manifest``."""
        temperature = manifest.sampling.temperature
        return cls({f.quantity: f.floor for f in floors}, 1.0 if temperature is None else temperature)

    def same(self, quantity: Quantity, name: str, a: float, b: float, num_terms: int = 1) -> bool:
        """Whether ``a`` and ``b`` differ by no more than the floor for each of the ``num_terms`` that were summed; what
        differs within it counts as drift of the field ``name``. Two equal non-finite values are the same."""
        return self._counted(name, a, b, near=self.near(quantity, a, b, num_terms))

    def same_probability(self, name: str, a: float, b: float) -> bool:
        """Whether two probabilities follow from logits within the floor of each other."""
        return self._counted(name, a, b, near=self.near_probability(a, b))

    def near(self, quantity: Quantity, a: float, b: float, num_terms: int = 1) -> bool:
        """As ``same``, without counting."""
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        gap = scaled_gap(a, b, num_terms)
        return math.isfinite(gap) and gap <= self.floors[quantity]

    def near_probability(self, a: float, b: float) -> bool:
        """As ``same_probability``, without counting. A logit off by the floor moves a probability by that share of
        itself, more where a temperature below 1 spreads the logits, and sums and ratios of probabilities likewise."""
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        share = self.floors["logits"] * max(1.0, 1 / self.temperature)
        return abs(a - b) <= share * max(abs(a), abs(b)) + min(self.floors["logits"], PROBABILITY_ROUNDING)

    def tied(self, quantity: Quantity, a: float, b: float, num_terms: int = 1) -> bool:
        """Whether noise on both may have put either first: the gap is within twice the floor."""
        gap = scaled_gap(a, b, num_terms)
        return math.isfinite(gap) and gap <= 2 * self.floors[quantity]

    def _counted(self, name: str, a: float, b: float, *, near: bool) -> bool:
        if near and a != b and not (math.isnan(a) and math.isnan(b)):
            entry = self.drift.setdefault(name, [0, 0.0])
            entry[0] += 1
            entry[1] = max(entry[1], abs(a - b))
        return near


def scaled_gap(a: float, b: float, num_terms: int = 1) -> float:
    """|a - b| for each of the terms that were summed, at magnitude 16: in proportion to what is larger."""
    return abs(a - b) / (num_terms * max(1.0, max(abs(a), abs(b)) / MAGNITUDE))
