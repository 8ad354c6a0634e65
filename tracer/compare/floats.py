"""Tells drift from a real difference: two floats against the noise floor of their quantity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from specscope.schemas import Manifest
from specscope.schemas.verdict import NoiseFloor, Quantity
from specscope.tracer.compare.roundings import STATED_SIZE, spacing
from specscope.tracer.compare.said import EqualLists

#: What is left of a probability that cancels out; absolute.
PROBABILITY_ROUNDING = 1e-6


@dataclass
class FloatJudge:
    """Holds floats against their floors, and keeps count of the drift it let pass."""

    floors: dict[Quantity, float]  # at size 16
    temperature: float = 1.0  # divides the logits that probabilities are made of
    given: bool = False  # by the user, absolute up to size 16; else in roundings at every size
    drift: dict[str, list[float]] = field(default_factory=dict)  # field -> [count, largest]

    @classmethod
    def of(cls, floors: Iterable[NoiseFloor], manifest: Manifest) -> FloatJudge:
        """The judge of runs like that of ``manifest``."""
        temperature, floors = manifest.sampling.temperature, list(floors)
        return cls(
            {f.quantity: f.floor for f in floors},
            1.0 if temperature is None else temperature,
            given=any(f.source == "given" for f in floors),
        )

    def same(self, quantity: Quantity, name: str, a: float, b: float, *, size: float = 0.0) -> bool:
        """Whether ``a`` and ``b`` differ by no more than the floor; what differs within it counts as drift of the field
        ``name``. ``size`` is that of the numbers they were made of, where it is larger than they are. Two equal
        non-finite values are the same."""
        return self._counted(name, a, b, near=self.near(quantity, a, b, size))

    def same_probability(self, name: str, a: float, b: float, size: float = STATED_SIZE) -> bool:
        """Whether two probabilities follow from logits of that ``size`` within the floor of each other."""
        return self._counted(name, a, b, near=self.near_probability(a, b, size))

    def same_throughout(self, quantity: Quantity, name: str, a: list[float], b: list[float], *, size: float) -> bool:
        """Whether two lists of the same length differ nowhere by more than the floor of the smallest numbers that they
        may be made of, whose size is ``size``: then ``same`` holds of each pair, and it counts as drift what that
        would. Else ``same`` is to be asked pair by pair."""
        gaps = self._gaps_within(quantity, a, b, size)
        if gaps:
            self._count(name, gaps)
        return gaps is not None

    def same_in_all(self, section: str, lists: Sequence[EqualLists]) -> bool:
        """Whether all of these values are the same, of which drift is then counted as by ``same``, as that of fields of
        ``section``; else nothing is counted, and they are to be asked for one by one."""
        within = []
        for values in lists:
            gaps = self._gaps_within(values.quantity, values.a, values.b, values.least_size)
            if gaps is None:
                return False
            within.append(gaps)
        for values, gaps in zip(lists, within, strict=True):
            if gaps:
                self._count(f"{section}.{values.field}", gaps)
        return True

    def _gaps_within(self, quantity: Quantity, a: list[float], b: list[float], size: float) -> list[float] | None:
        """What differs of two lists, where it is nowhere more than the floor of numbers of that ``size``."""
        gaps = [abs(x - y) for x, y in zip(a, b, strict=True) if x != y]
        if not gaps:
            return gaps
        # The sum is not finite where one of these is not: max would pass over what is no number.
        if not math.isfinite(sum(gaps) + size) or max(gaps) > self.allowance(quantity, spacing(size)):
            return None
        return gaps

    def _count(self, name: str, gaps: list[float]) -> None:
        entry = self.drift.setdefault(name, [0, 0.0])
        entry[0] += len(gaps)
        entry[1] = max(entry[1], *gaps)

    def near(self, quantity: Quantity, a: float, b: float, size: float = 0.0) -> bool:
        """As ``same``, without counting."""
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        gap = abs(a - b)
        return math.isfinite(gap) and gap <= self.allowance(quantity, spacing(max(abs(a), abs(b), size)))

    def near_probability(self, a: float, b: float, size: float = STATED_SIZE) -> bool:
        """As ``same_probability``, without counting. A logit off by the floor moves a probability by that share of
        itself, more where a temperature below 1 spreads the logits; it moves sums and ratios of probabilities the same
        way."""
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        moved = self.allowance("logits", spacing(size))
        return abs(a - b) <= self.probability_share(size) * max(abs(a), abs(b)) + min(moved, PROBABILITY_ROUNDING)

    def probability_share(self, size: float) -> float:
        """What share of a probability that is made of logits of that ``size`` may be noise."""
        return self.allowance("logits", spacing(size)) * max(1.0, 1 / self.temperature)

    def tied(self, quantity: Quantity, gap: float, grain: float) -> bool:
        """Whether noise on both may have put either first: the gap is within twice what noise may do. ``grain`` is the
        spacing of the numbers they were made of, summed over all that were added up."""
        return math.isfinite(gap) and abs(gap) <= 2 * self.allowance(quantity, grain)

    def allowance(self, quantity: Quantity, grain: float) -> float:
        """How far noise may move a value whose numbers have that spacing."""
        relative = grain / spacing(STATED_SIZE)
        return self.floors[quantity] * (max(1.0, relative) if self.given else relative)

    def _counted(self, name: str, a: float, b: float, *, near: bool) -> bool:
        if near and a != b and not (math.isnan(a) and math.isnan(b)):
            self._count(name, [abs(a - b)])
        return near


def scaled_gap(a: float, b: float, num_terms: int = 1) -> float:
    """|a - b| for each of the terms that were summed, at size 16: in proportion to what is larger."""
    return abs(a - b) / (num_terms * max(1.0, max(abs(a), abs(b)) / STATED_SIZE))
