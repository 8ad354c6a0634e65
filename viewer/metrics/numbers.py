"""Acceptance, stage times and speed of a run, as numbers to be drawn.

They come from the index and the records that begin and end the turns; of the steps only some are read, spread evenly
over the run, and their number is stated. Pure except for reading the file; knows no pages and no figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specscope.schemas import Manifest, TimingSection
from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.tuning.summary import RunNumbers, read_numbers

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: In the order of a step; a branch only where the strategy copies the cache.
#: Steps that are read for their timings, and turns for their ends, at most.
MOST_STEPS, MOST_TURNS = 2_000, 2_000
MOST_POINTS, MOST_BINS, MOST_DEPTHS = 1_000, 60, 64
#: Steps whose walks and candidates are looked at: some 3 ms each.
MOST_TUNING_STEPS = 1_500
#: Steps in a moving mean: enough to see a drop, too few to hide one.
MOVING = 25
#: Steps in a range of positions on average, or more: the mean of fewer is mostly noise.
STEPS_PER_BIN = 4
#: No tree is so deep; a hostile record's length may be a number of any size.
LONGEST = 1 << 20
LONGEST_NS = 1 << 62


class Depths(NamedTuple):
    """Acceptance by depth; entry d is about the node at depth d + 1 of the path."""

    reached: Ints  # (D,) steps that accepted d nodes or more
    accepted: Ints  # (D,) steps that accepted d + 1 nodes or more
    num_steps: int

    @property
    def of_reached(self) -> Floats:
        """(D,) of the steps that reached depth d, the share that accepted one more; NaN where none reached it."""
        shares: Floats = np.full(len(self.reached), np.nan)
        np.divide(self.accepted, self.reached, out=shares, where=self.reached > 0)
        return shares

    @property
    def of_all(self) -> Floats:
        """(D,) of all steps, the share that accepted d + 1 nodes or more."""
        return self.accepted / max(1, self.num_steps)


class Bins(NamedTuple):
    """Means over ranges; none of them is empty."""

    first: Ints  # (B,) where the range begins
    last: Ints  # (B,) where it ends, inclusive
    mean: Floats  # (B,)
    sizes: Ints  # (B,) steps in it
    margin: Floats  # (B,) on either side of the mean: 1.96 standard errors; NaN where one step tells none


class RecordedStep(NamedTuple):
    """A step by its turn's number and its own."""

    turn: int
    step: int


class Course(NamedTuple):
    """Tokens per step over a run, steps in the order in which they were recorded."""

    bins: Bins  # mean of each range of steps
    moving: Floats  # (B,) mean of the last ``mean_of`` steps up to the end of the range
    begins: Sequence[RecordedStep] = ()  # (B,) the first step of each range, where the turns are known
    mean_of: int | None = MOVING  # None: no moving mean is wanted


class RecordedLengths(NamedTuple):
    """Every step of a run in the order in which they were recorded. Arrays alone grow with the steps."""

    lengths: Ints  # (N,) accepted
    order: Ints  # (N,) where each stands when the steps are counted turn by turn
    firsts: Ints  # (T,) where each turn's first step stands then; a turn without steps shares its successor's
    turns: Sequence[int]  # (T,) numbers of the turns; in a hostile trace of any size

    def step_at(self, place: int) -> RecordedStep:
        """The step that was recorded at ``place``, 0..N - 1."""
        at = int(self.order[place])
        turn = int(np.searchsorted(self.firsts, at, side="right")) - 1
        return RecordedStep(self.turns[turn], at - int(self.firsts[turn]))


class PlacedLengths(NamedTuple):
    """The steps whose committed lengths are known."""

    places: Ints  # (N,) committed length before each step
    lengths: Ints  # (N,) accepted


class PhaseTime(NamedTuple):
    """One phase over the steps that were read."""

    name: str
    median_ns: float
    p90_ns: float
    share: float  # of the time of all phases together


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Time by phase."""

    phases: list[PhaseTime]
    num_timed: int  # steps read that record timings
    num_read: int
    num_steps: int  # of the run
    synchronised: Literal["all", "some", "none"]  # in which of them the device was, at each phase's end
    step_ns: float  # median of a step's phases together


class TurnSpeed(NamedTuple):
    """One turn that has ended."""

    turn: int
    prompt_id: str
    num_tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Output tokens over wall time, prefill included."""
        return self.num_tokens / self.seconds


@dataclass(frozen=True)
class Speed:
    """Tokens per second."""

    turns: list[TurnSpeed]
    num_turns: int  # of the run, those that were not read included
    overall: float | None  # None where turns ran side by side, whose times overlap, or none has ended


@dataclass(frozen=True, kw_only=True)
class RunMetrics:
    """All numbers of one run. What was not recorded is None."""

    name: str
    num_turns: int
    num_steps: int
    batch_size: int
    is_replay: bool
    accepted_length: float | None  # mean over all steps
    depths: Depths | None
    positions: Bins | None  # mean accepted length by committed length before the step
    num_turns_positioned: int
    course: Course | None
    times: StageTimes | None
    speed: Speed
    is_plain: bool  # it drafts nothing: what others are measured against
    tuning: RunNumbers
    recorded: RecordedLengths | None = None  # what the course is made of
    placed: PlacedLengths | None = None  # what the positions are made of
    mean_of: int | None = None  # positions, or turns, of a moving mean that is drawn besides; None: it is not wanted
    is_part: bool = False  # those positions, or turns, are only a stretch of the run's


def read_metrics(reader: TraceReader, name: str) -> RunMetrics:
    """The metrics of the run that ``reader`` is at, which the pages call ``name``."""
    manifest, turns = reader.manifest, reader.turns
    lengths = [clipped(turn.accepted_lengths) for turn in turns]
    everything = np.concatenate(lengths) if lengths else clipped([])
    is_known = manifest.supplies_lengths and len(everything) > 0
    chosen = spread(len(turns), MOST_TURNS)
    placed = _placed(reader, [turns[at] for at in chosen]) if is_known else None
    recorded = _recorded(everything, turns) if is_known else None
    return RunMetrics(
        name=name,
        num_turns=len(turns),
        num_steps=len(everything),
        batch_size=manifest.batch_size or 1,
        is_replay=manifest.replay_of is not None,
        accepted_length=float(everything.mean()) if is_known else None,
        depths=by_depth(everything, manifest.tree_policy.depth) if is_known else None,
        positions=positions_of(placed) if placed is not None else None,
        num_turns_positioned=len(chosen),
        course=course_of(recorded) if recorded is not None else None,
        times=_times(reader),
        speed=_speed(reader, [turns[at] for at in chosen], manifest),
        is_plain=manifest.tree_policy.kind == "none",
        tuning=read_numbers(reader, most_steps=MOST_TUNING_STEPS),
        recorded=recorded,
        placed=placed,
    )


def clipped(lengths: Sequence[int]) -> Ints:
    """Accepted lengths as an array, within 0..LONGEST."""
    return np.array([min(max(length, 0), LONGEST) for length in lengths], dtype=np.int64)


def spread(size: int, most: int) -> list[int]:
    """At most ``most`` of 0..size - 1, evenly spread, first and last among them."""
    if size <= most:
        return list(range(size))
    return [int(at) for at in np.linspace(0, size - 1, most).round()]


def recorded_order(turns: Sequence[TurnEntry]) -> Ints:
    """Where the steps, turn by turn, stand in the order of the file: turns that run side by side interleave."""
    places = np.array([place for turn in turns for place in turn.steps], dtype=np.int64)
    return np.argsort(places, kind="stable").astype(np.int64)


def _recorded(lengths: Ints, turns: Sequence[TurnEntry]) -> RecordedLengths:
    order = recorded_order(turns)
    sizes = [len(turn.steps) for turn in turns]
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    return RecordedLengths(lengths[order], order, firsts, [turn.turn for turn in turns])


def course_of(recorded: RecordedLengths, steps: range | None = None, mean_of: int | None = MOVING) -> Course:
    """Tokens per step over the run, or over ``steps`` of it, at least one; a mean may reach further back."""
    course = over_time(recorded.lengths, steps, mean_of)
    return course._replace(begins=[recorded.step_at(first) for first in course.bins.first])


def by_depth(lengths: Ints, policy_depth: int) -> Depths:
    """Acceptance at every depth that the policy's trees have, or that was accepted at.

    Args:
        lengths: (N,) accepted lengths.
        policy_depth: deepest level of a tree by its policy.
    """
    deepest = min(max(policy_depth, int(lengths.max(initial=0))), MOST_DEPTHS)
    counts = np.bincount(np.minimum(lengths, deepest), minlength=deepest + 1)
    at_least = counts[::-1].cumsum()[::-1].astype(np.int64)  # (deepest + 1,): [d] = steps of length d or more
    return Depths(reached=at_least[:-1], accepted=at_least[1:], num_steps=len(lengths))


def in_bins(places: Ints, values: Ints, most: int) -> Bins:
    """Mean value of equally wide ranges of places, at most ``most`` of them; their width is 1, 2 or 5 times 10^n.

    Args:
        places: (N,) at least one, none negative.
        values: (N,) what is averaged.
        most: number of ranges.
    """
    width = next(w for w in _widths() if int(places.max()) // w - int(places.min()) // w < most)
    bins, which = np.unique(places // width, return_inverse=True)
    sizes = np.bincount(which).astype(np.int64)
    mean = np.bincount(which, weights=values) / sizes
    squares = np.bincount(which, weights=(values - mean[which]) ** 2)
    margin: Floats = np.full(len(sizes), np.nan)
    np.divide(squares, (sizes - 1) * sizes, out=margin, where=sizes > 1)
    margin = 1.96 * np.sqrt(margin)
    return Bins(first=bins * width, last=bins * width + (width - 1), mean=mean, sizes=sizes, margin=margin)


def _widths() -> Iterator[int]:
    return (factor * 10**power for power in range(19) for factor in (1, 2, 5))


def over_time(lengths: Ints, steps: range | None = None, mean_of: int | None = MOVING) -> Course:
    """Tokens per step, the accepted lengths being in the order of the run: (N,), at least one.

    Args:
        lengths: (N,) of the whole run.
        steps: those to be looked at; None: all.
        mean_of: steps in a moving mean; None: it is not wanted, and then it is that of single steps.
    """
    shown = np.arange(len(lengths)) if steps is None else np.arange(steps.start, steps.stop)
    bins = in_bins(shown, lengths[shown] + 1, MOST_POINTS)
    first, last = np.maximum(bins.first, shown[0]), np.minimum(bins.last, shown[-1])
    before = np.concatenate([[0], np.cumsum(lengths + 1)])
    start = np.maximum(0, last + 1 - (mean_of or 1))
    moving = (before[last + 1] - before[start]) / (last + 1 - start)
    return Course(bins._replace(first=first, last=last), moving, mean_of=mean_of)


def _placed(reader: TraceReader, turns: Sequence[TurnEntry]) -> PlacedLengths | None:
    """Acceptance by committed length, which follows from the prompt and the lengths; not so in a replay."""
    places, values = [], []
    for turn in turns:
        positions = step_positions(reader, turn)
        if positions is not None:
            places.append(positions)
            values.append(clipped(turn.accepted_lengths))
    return PlacedLengths(np.concatenate(places), np.concatenate(values)) if places else None


def positions_of(placed: PlacedLengths) -> Bins:
    """Mean accepted length by committed length, in ranges of some steps each."""
    most = max(1, min(MOST_BINS, len(placed.lengths) // STEPS_PER_BIN))
    return in_bins(placed.places, placed.lengths, most)


def step_positions(reader: TraceReader, turn: TurnEntry) -> Ints | None:
    """(N,) committed length before each step of a turn; None where it has none, replays what another run
    accepted, or does not say how many were accepted."""
    manifest = reader.manifest
    if not turn.steps or manifest.replay_of is not None or not manifest.supplies_lengths:
        return None
    start = reader.turn_start(turn)
    before = (start.prompt_length or 0) if start.without_ids else start.num_committed
    return committed_lengths(before, clipped(turn.accepted_lengths))


def committed_lengths(num_prompt: int, lengths: Ints) -> Ints:
    """(N,) committed length before each step, by the commit equation: each step adds its root and what it accepts."""
    return num_prompt + np.concatenate([[0], np.cumsum(lengths + 1)[:-1]]).astype(np.int64)


def _times(reader: TraceReader) -> StageTimes | None:
    places = [(turn, step) for turn in reader.turns for step in range(len(turn.steps))]
    chosen = spread(len(places), MOST_STEPS)
    recorded = [reader.step(*places[at]).timing for at in chosen]
    timings = [timing for timing in recorded if timing is not None]
    return stage_times(timings, num_read=len(chosen), num_steps=len(places)) if timings else None


def stage_times(timings: Sequence[TimingSection], *, num_read: int, num_steps: int) -> StageTimes:
    """The phases over ``timings``, at least one, of ``num_read`` steps of a run of ``num_steps``.

    A phase that none of them records is left out; one that some record took the others no time.
    """
    recorded = [name for name in TIMED_PHASES if any(getattr(timing, f"{name}_ns") is not None for timing in timings)]
    table = np.array(
        [[min(getattr(timing, f"{name}_ns") or 0, LONGEST_NS) for name in recorded] for timing in timings],
        dtype=np.float64,
    )  # (N, phases)
    total = float(table.sum()) or 1.0
    phases = [
        PhaseTime(name, float(np.median(column)), float(np.percentile(column, 90)), float(column.sum()) / total)
        for name, column in zip(recorded, table.T, strict=True)
    ]
    num_synchronised = sum(timing.synchronised for timing in timings)
    return StageTimes(
        phases=phases,
        num_timed=len(timings),
        num_read=num_read,
        num_steps=num_steps,
        synchronised="none" if num_synchronised == 0 else "all" if num_synchronised == len(timings) else "some",
        step_ns=float(np.median(table.sum(axis=1))),
    )


def _speed(reader: TraceReader, turns: Sequence[TurnEntry], manifest: Manifest) -> Speed:
    speeds = []
    for turn in turns:
        end = reader.turn_end(turn)
        if end is not None and end.duration_ns > 0:
            seconds = min(end.duration_ns, LONGEST_NS) / 1e9
            speeds.append(TurnSpeed(turn.turn, turn.prompt_id, len(end.output_ids), seconds))
    one_by_one = (manifest.batch_size or 1) == 1 and speeds
    overall = sum(turn.num_tokens for turn in speeds) / sum(turn.seconds for turn in speeds) if one_by_one else None
    return Speed(speeds, len(reader.turns), overall)
