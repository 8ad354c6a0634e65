"""What a step would cost with another tree, by a profile: its parts, each along the line through what was measured."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from specscope.schemas import Manifest
from specscope.schemas.profile import MeasuredStep, Profile
from specscope.tracer.errors import UsageError
from specscope.tracer.shapes import Load, interpolated
from specscope.tracer.tuning.whatif import TreeSetting


class Prediction(NamedTuple):
    """What one setting is predicted to come to."""

    step_ms: float  # of all rows
    tokens_per_second: float  # of all rows


class Curve(NamedTuple):
    """Times by a number that they grow with."""

    numbers: list[int]  # ascending
    times: list[float]  # ms, never less than the one before

    @classmethod
    def of(cls, samples: Mapping[int, Sequence[float]]) -> Curve:
        """Through the mean of the samples at each number; noise aside, more never takes less."""
        times: list[float] = []
        for number in sorted(samples):
            times.append(max([statistics.fmean(samples[number]), *times[-1:]]))
        return cls(sorted(samples), times)

    def at(self, number: int) -> float:
        """Between two that were measured, and after the last, along the line through its neighbours."""
        numbers, times = self.numbers, self.times
        if number <= numbers[0] or len(numbers) == 1:
            return times[0]
        right = min(bisect_left(numbers, number), len(numbers) - 1)
        slope = (times[right] - times[right - 1]) / (numbers[right] - numbers[right - 1])
        return times[right - 1] + slope * (number - numbers[right - 1])


@dataclass(frozen=True, kw_only=True)
class StepParts:
    """What the parts of a step take at one load."""

    draft: Curve  # by depth
    verify: Curve  # by slots of a row, the root included
    rest: float  # ms, of all other phases

    @classmethod
    def of(cls, steps: Sequence[MeasuredStep], depths: Mapping[str, int], budgets: Mapping[str, int]) -> StepParts:
        """Those of the shapes measured at one load; ``depths`` and ``budgets`` are theirs by name."""
        draft: dict[int, list[float]] = defaultdict(list)
        verify: dict[int, list[float]] = defaultdict(list)
        for step in steps:
            draft[depths[step.shape]].append(step.draft.median_ms)
            verify[budgets[step.shape] + 1].append(step.verify.median_ms)
        rest = [step.step.median_ms - step.draft.median_ms - step.verify.median_ms for step in steps]
        return cls(draft=Curve.of(draft), verify=Curve.of(verify), rest=max(0.0, statistics.median(rest)))

    def step_ms(self, setting: TreeSetting) -> float:
        """Of a whole step with trees of ``setting``."""
        return self.draft.at(setting.depth) + self.verify.at(setting.budget + 1) + self.rest


def predictor(profile: Profile, load: Load) -> Callable[[TreeSetting, float], Prediction]:
    """What predicts a setting, and the accepted length that it has, at ``load``."""
    depths = {shape.name: shape.depth for shape in profile.shapes}
    budgets = {shape.name: shape.budget for shape in profile.shapes}
    by_load: dict[Load, list[MeasuredStep]] = defaultdict(list)
    for step in profile.steps:
        by_load[Load(step.rows, step.context)].append(step)
    parts = {at: StepParts.of(steps, depths, budgets) for at, steps in by_load.items()}

    def predict(setting: TreeSetting, accepted_length: float) -> Prediction:
        times = {at: [part.step_ms(setting)] for at, part in parts.items()}
        (step_ms,) = interpolated(times, load)
        return Prediction(step_ms, 1e3 * load.rows * (accepted_length + 1) / step_ms)

    return predict


def check_same_models(profile: Profile, manifest: Manifest) -> None:
    """Refuses a profile of other models than the run's. Another device is another question, and may be asked.

    Raises:
        UsageError: naming the model.
    """
    pairs = (
        ("teacher", profile.teacher.weights_digest, manifest.teacher.weights_digest),
        ("drafter", profile.drafter.weights_digest, manifest.drafter.weights_digest),
        ("kind of drafter", profile.drafter.kind, manifest.drafter.kind),
    )
    for name, profiled, recorded in pairs:
        if None not in (profiled, recorded) and profiled != recorded:
            raise UsageError(
                f"the profile was measured with another {name} ({profiled}) than the trace was recorded with "
                f"({recorded}): measure one with the models of the trace, by specscope bench --calibrate FILE"
            )
