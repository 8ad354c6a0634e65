"""What honest noise looks like: how far one value may drift, and how far values drift on the whole.

Two questions, with one answer each for every quantity:

- **May this one value be noise?** ``limit``: extreme values grow with how many there are, so that the limit is set for
  all values of a comparison together, at a stated rate of false alarms. It follows the tail of the values themselves,
  between their upper quartile and the 95th percentile: a fault in less than a twentieth of them does not move it.
- **May all of this be noise?** ``typical``: the mean drift of all but the largest twentieth. One fault that moves every
  value a little moves that, long before any single value is out of bounds; it is compared with what the dtype does, or
  with what a run did that is known to be good.
"""

from __future__ import annotations

import math
from statistics import fmean, quantiles
from typing import NamedTuple

from specscope.schemas.verdict import FloorSource, NoiseFloor, Quantity
from specscope.tracer.compare.drift import QUANTITIES, Drift, Sample
from specscope.tracer.compare.roundings import STATED_SIZE, epsilon_of, is_half, spacing

FEWEST_VALUES = 64  # fewer are no measurement
#: How often an honest comparison may have a value beyond its limit, however many values it has.
FALSE_ALARMS = 1e-3
#: An exponential through the two percentiles falls so many times as fast as honest tails were seen to: teachers whose
#: residual stream has outliers drift a hundred times their median at a few places.
TAIL = 4.0
#: Share of the largest values that neither limit nor typical drift is read from.
TRIMMED = 0.05
#: Layers of the models that the numbers below were measured on, at most; noise adds up like the square root of layers.
MEASURED_LAYERS = 12


class Bounds(NamedTuple):
    """In roundings, what is known of honest kernels of a dtype."""

    least: dict[Quantity, float]  # no limit is lower: what another order of summation alone may do to one value
    most: float  # no limit measured within a pair is higher
    typical: dict[Quantity, float]  # what values drift on the whole, at most


#: Measured by ``python -m benchmarks.verdicts``; docs/verdict.md has the table. There are as many norms as positions,
#: and their tail is long: of 2,038, an honest one was seen to drift 76 roundings in float32 where the next drifted 15.
_FINE = Bounds(
    {"logits": 64.0, "logsumexp": 64.0, "entropy": 64.0, "draft-scores": 64.0, "hidden-norms": 120.0},
    512.0,
    {"logits": 16.0, "logsumexp": 12.0, "entropy": 12.0, "draft-scores": 16.0, "hidden-norms": 24.0},
)
_HALF = Bounds(
    dict.fromkeys(QUANTITIES, 16.0),
    48.0,
    {"logits": 3.0, "logsumexp": 1.5, "entropy": 1.5, "draft-scores": 3.0, "hidden-norms": 5.0},
)
#: By how much a pair may drift more than the run of ``--noise`` does: in what is summed over the whole vocabulary, one
#: instruction set was seen to drift 3.8 times as far as another.
MOST_RATIO = 6.0


def bounds_of(dtype: str, num_layers: int | None) -> Bounds:
    """What honest kernels may do in ``dtype``, for a teacher of so many layers where that is known."""
    bounds = _HALF if is_half(dtype) else _FINE
    deeper = max(1.0, math.sqrt((num_layers or 1) / MEASURED_LAYERS))
    return Bounds(bounds.least, bounds.most * deeper, {name: most * deeper for name, most in bounds.typical.items()})


class Measured(NamedTuple):
    """What a sample says of its quantity, in roundings."""

    limit: float  # of one value
    typical: float  # of all of them
    median: float


def measure(sample: Sample) -> Measured | None:
    """None where there are too few values."""
    if len(sample) < FEWEST_VALUES:
        return None
    ordered = sorted(sample.roundings)
    cuts = quantiles(ordered, n=20)
    upper, high = cuts[14], cuts[18]  # the 75th and the 95th percentile
    fall = TAIL * (high - upper) / math.log(5)  # from a quarter beyond to a twentieth
    limit = high + fall * math.log(TRIMMED * len(ordered) * len(QUANTITIES) / FALSE_ALARMS)
    typical = fmean(ordered[: math.ceil(len(ordered) * (1 - TRIMMED))])
    return Measured(limit, typical, ordered[len(ordered) // 2])


def measured_floors(drift: Drift, num_layers: int | None) -> list[NoiseFloor]:
    """The floors that the pair itself gives."""
    bounds = bounds_of(drift.dtype, num_layers)
    floors = []
    for quantity in QUANTITIES:
        measured = measure(drift.samples[quantity])
        limit = bounds.most if measured is None else min(max(measured.limit, bounds.least[quantity]), bounds.most)
        source: FloorSource = "dtype" if measured is None else "this-pair"
        limits = _Limits(source, limit, bounds.typical[quantity])
        floors.append(_floor(quantity, drift, bounds, limits=limits, measured=measured))
    return floors


def noise_floors(pair: Drift, noise: Drift, num_layers: int | None, *, same_mode: bool) -> list[NoiseFloor]:
    """The floors that another honest run gives. Only one in the candidate's own mode (``same_mode``) tells how far the
    candidate may drift on the whole: the baseline run once more may not drift at all."""
    bounds = bounds_of(pair.dtype, num_layers)
    within = {floor.quantity: floor for floor in measured_floors(pair, num_layers)}
    floors = []
    for quantity in QUANTITIES:
        sample, measured = noise.samples[quantity], measure(noise.samples[quantity])
        if measured is None:
            floors.append(within[quantity])
            continue
        # What one value may do, the pair's own tail says as well: on another machine it is a longer one.
        limit = max(measured.limit, 2 * max(sample.roundings), within[quantity].floor / _stated(pair.dtype))
        allowed = MOST_RATIO * measured.typical if same_mode else bounds.typical[quantity]
        limits = _Limits("noise-file", limit, allowed)
        floors.append(_floor(quantity, pair, bounds, limits=limits, measured=measure(pair.samples[quantity])))
    return floors


def given_floors(dtype: str, tolerance: float) -> list[NoiseFloor]:
    """The same floor for everything, as the user gave it."""
    bounds, unit = bounds_of(dtype, None), _stated(dtype)
    return [
        NoiseFloor(
            quantity=quantity,
            floor=tolerance,
            source="given",
            sample_size=0,
            least=bounds.least[quantity] * unit,
            most=bounds.most * unit,
        )
        for quantity in QUANTITIES
    ]


def _stated(dtype: str) -> float:
    """One rounding of ``dtype`` at the size at which floors are stated."""
    return epsilon_of(dtype) * spacing(STATED_SIZE)


class _Limits(NamedTuple):
    """How far one value may drift, and all of them on the whole, in roundings."""

    source: FloorSource
    of_one: float
    on_the_whole: float


def _floor(
    quantity: Quantity, drift: Drift, bounds: Bounds, *, limits: _Limits, measured: Measured | None
) -> NoiseFloor:
    """The floor of ``quantity``, with what was ``measured`` of it in ``drift``, that of the pair."""
    sample, unit = drift.samples[quantity], _stated(drift.dtype)
    middle = None if not len(sample) else _median(sample) if measured is None else measured.median
    return NoiseFloor(
        quantity=quantity,
        floor=limits.of_one * unit,
        source=limits.source,
        sample_size=len(sample),
        median=None if middle is None else middle * unit,
        least=bounds.least[quantity] * unit,
        most=bounds.most * unit,
        rounding=unit,
        typical=None if measured is None else measured.typical,
        allowed=limits.on_the_whole,
    )


def _median(sample: Sample) -> float:
    return sorted(sample.roundings)[len(sample) // 2]


def sensitivity(floors: list[NoiseFloor]) -> float | None:
    """By what share of themselves all logits could be off together and not be told from noise; None where nothing was
    measured that would tell."""
    known = [
        floor.allowed * floor.rounding / STATED_SIZE
        for floor in floors
        if floor.quantity in ("logits", "logsumexp")
        and floor.typical is not None
        and floor.allowed is not None
        and floor.rounding is not None
    ]
    return min(known, default=None)


class Excess(NamedTuple):
    """A quantity whose values drift further on the whole than noise does."""

    quantity: Quantity
    number: int  # of the place where they begin to
    share: float  # of the values, that drift further than is allowed on the whole
    typical: float
    allowed: float
    num_values: int
    level: int  # of draft scores, the first that shows it; 0 of others


def find_excess(drift: Drift, floors: list[NoiseFloor]) -> list[Excess]:
    """Every quantity of which the drift as a whole is not noise; the first place first."""
    excesses = []
    for floor in floors:
        if floor.typical is None or floor.allowed is None or floor.typical <= floor.allowed:
            continue
        sample = drift.samples[floor.quantity]
        beyond = sum(value > floor.allowed for value in sample.roundings) / len(sample)
        number = _begins(sample, floor.allowed)
        level = _first_level(sample, number, floor.allowed)
        excesses.append(
            Excess(
                quantity=floor.quantity,
                number=number,
                share=beyond,
                typical=floor.typical,
                allowed=floor.allowed,
                num_values=len(sample),
                level=level,
            )
        )
    return sorted(excesses, key=lambda excess: excess.number)


#: Share of the values that may differ between two runs of the same kernels, on a device that repeats itself; and how
#: many may whatever their share.
SAME_KERNELS, SAME_KERNELS_LEAST = 0.05, 3


def find_movement(drift: Drift) -> list[Excess]:
    """Every quantity that differs between two runs of which the same kernels should have left every bit."""
    excesses = []
    for quantity, sample in drift.samples.items():
        moved = sum(value > 0 for value in sample.roundings)
        if moved > max(SAME_KERNELS * len(sample), SAME_KERNELS_LEAST):
            first = next(place for value, place in zip(sample.roundings, sample.places, strict=True) if value > 0)
            level, share = _first_level(sample, first, 0.0), moved / len(sample)
            excesses.append(
                Excess(
                    quantity=quantity,
                    number=first,
                    share=share,
                    typical=fmean(sample.roundings),
                    allowed=0.0,
                    num_values=len(sample),
                    level=level,
                )
            )
    return sorted(excesses, key=lambda excess: excess.number)


def _first_level(sample: Sample, number: int, allowed: float) -> int:
    """The lowest draft level of that place's values that drift further than is allowed; 0 where none has a level."""
    values = zip(sample.roundings, sample.places, sample.levels, strict=True)
    return min((level for value, place, level in values if place == number and value > allowed), default=0)


def _begins(sample: Sample, allowed: float) -> int:
    """The first place whose own values drift further than is allowed; the place of the largest where none does."""
    by_place: dict[int, list[float]] = {}
    for value, place in zip(sample.roundings, sample.places, strict=True):
        by_place.setdefault(place, []).append(value)
    for place, values in by_place.items():
        if fmean(values) > allowed:
            return place
    return sample.places[max(range(len(sample)), key=sample.roundings.__getitem__)]
