"""How far two floats may lie apart and still be the same computation: a stated tolerance by dtype.

A stand-in for a measured noise floor; every verdict prints it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: Absolute, on logits and log-probabilities: some hundred roundings of a value of magnitude 16.
BY_DTYPE = {"float64": 1e-9, "float32": 1e-3, "float16": 3e-2, "bfloat16": 2.5e-1}


@dataclass
class FloatJudge:
    """Tells drift from a real difference, and keeps count of the drift it let pass."""

    tolerance: float
    drift: dict[str, list[float]] = field(default_factory=dict)  # field -> [count, largest]

    def same(self, name: str, a: float, b: float, num_terms: int = 1) -> bool:
        """Whether ``a`` and ``b`` differ by no more than the tolerance, relative above magnitude 16, for each of the
        ``num_terms`` that were summed. Two equal non-finite values are the same."""
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        gap = abs(a - b)
        if not math.isfinite(gap) or gap > self.tolerance * num_terms * max(1.0, max(abs(a), abs(b)) / 16):
            return False
        entry = self.drift.setdefault(name, [0, 0.0])
        entry[0] += 1
        entry[1] = max(entry[1], gap)
        return True
