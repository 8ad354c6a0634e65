"""All numbers of one run: read once, a part of the steps of a very long one, their number stated."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from specscope.schemas import Step, TimingSection
from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.tuning.intervals import Mean, clusters_of, mean_of, value_at
from specscope.tracer.tuning.repetition import Repetition
from specscope.tracer.tuning.requests import Served, Stay, served_requests, stay_of
from specscope.tracer.tuning.walks import LONGEST, Walks
from specscope.tracer.tuning.whatif import Outcome, TreeSetting, WhatIf, step_candidates, usual_settings, why_not

#: Steps that are read, at most: whole turns, spread over the run.
MOST_STEPS = 4_000
LONGEST_NS = 1 << 62


class PhaseTimes(NamedTuple):
    """One phase over the steps that record timings."""

    name: str
    median_ms: float
    p90_ms: float
    share: float  # of the time of all phases


class PromptLength(NamedTuple):
    """The accepted length of one turn."""

    turn: int
    prompt_id: str
    accepted_length: Mean


@dataclass(frozen=True, kw_only=True)
class RunNumbers:
    """What a run's acceptance came to. What was not recorded is None or empty."""

    num_turns: int
    num_steps: int
    num_read: int  # steps that were read; the others are of turns left out
    accepted_length: Mean | None
    context: int | None  # committed tokens of a row before a step, on average
    walks: Walks
    repetition: Repetition
    turns: list[PromptLength]
    phases: list[PhaseTimes]
    step_ms: float | None  # median of a step's phases together
    tokens_per_second: float | None  # None where turns ran side by side
    served: Served | None  # None where that was not recorded, or nobody could wait for a row
    what_if: list[Outcome]
    no_what_if: str | None  # why there is none
    num_rebuilt: int  # steps of what_if whose recorded tree is the best of the candidates

    @property
    def loops(self) -> str | None:
        """What to know, in a sentence, of turns that end in loops; None where there is nothing to know."""
        return self.repetition.words(num_read=self.num_read, num_steps=self.num_steps)


def read_numbers(
    reader: TraceReader, settings: Sequence[TreeSetting] | None = None, *, most_steps: int = MOST_STEPS
) -> RunNumbers:
    """The numbers of the run that ``reader`` reads.

    Args:
        reader: of the trace.
        settings: trees to try; None for the usual ones.
        most_steps: read only every so many turns, so that about as many steps are read.

    Raises:
        TraceError: where a record cannot be read.
    """
    numbers = _Numbers(reader, settings)
    for turn in _chosen(reader.turns, most_steps):
        numbers.add(turn)
    return numbers.done()


def _chosen(turns: Sequence[TurnEntry], most_steps: int) -> Iterator[TurnEntry]:
    """Whole turns, every so many where the run is long."""
    total = sum(len(turn.steps) for turn in turns)
    every = max(1, -(-total // most_steps))
    return (turn for at, turn in enumerate(turns) if at % every == 0)


class _Numbers:
    """Counts, turn by turn."""

    def __init__(self, reader: TraceReader, settings: Sequence[TreeSetting] | None) -> None:
        self._reader, self._settings = reader, settings
        self._walks = Walks()
        self._repetition = Repetition()
        self._turns: list[tuple[TurnEntry, list[int]]] = []
        self._timings: list[TimingSection] = []
        self._contexts: list[int] = []
        self._what_if: WhatIf | None = None
        self._reason = why_not(reader.manifest)

    def add(self, turn: TurnEntry) -> None:
        steps = list(self._reader.steps(turn))
        for step in steps:
            self._walks.add(step)
        self._repetition.add_turn(steps)
        recorded = (step.accepted_length for step in steps)
        lengths = [min(length, LONGEST) for length in recorded if length is not None]
        self._turns.append((turn, lengths))
        lengths_before = (step.tensors.committed_length for step in steps if step.tensors is not None)
        self._contexts += [min(length, LONGEST) for length in lengths_before]
        self._timings += [step.timing for step in steps if step.timing is not None]
        if self._reason is None and steps:
            self._try_others(steps)

    def _try_others(self, steps: Sequence[Step]) -> None:
        if self._what_if is None:
            first = step_candidates(steps[0], [])
            if first is None:
                self._reason = "no candidates were recorded"
                return
            usual = usual_settings(self._reader.manifest, first.size)
            self._what_if = WhatIf(recorded=usual[0], settings=[*dict.fromkeys([usual[0], *(self._settings or usual)])])
        self._what_if.add_turn(steps)

    def done(self) -> RunNumbers:
        outcomes = self._what_if.outcomes() if self._what_if is not None else []
        reason = self._reason or (None if outcomes else "no step is far enough from the end of its turn")
        turns = self._reader.turns
        return RunNumbers(
            num_turns=len(turns),
            num_steps=sum(len(turn.steps) for turn in turns),
            num_read=sum(len(turn.steps) for turn, _ in self._turns),
            accepted_length=mean_of(clusters_of([lengths for _, lengths in self._turns])),
            context=round(statistics.fmean(self._contexts)) if self._contexts else None,
            walks=self._walks,
            repetition=self._repetition,
            turns=list(self._by_turn()),
            phases=phase_times(self._timings),
            step_ms=statistics.median(map(_total_ms, self._timings)) if self._timings else None,
            tokens_per_second=self._speed(),
            served=served_requests(list(self._stays())),
            what_if=outcomes,
            no_what_if=reason,
            num_rebuilt=self._what_if.num_rebuilt if self._what_if is not None else 0,
        )

    def _stays(self) -> Iterator[Stay]:
        """Of all turns, those whose steps are not read included: their first and last records say it."""
        rows = self._reader.manifest.batch_size or 1
        for turn in self._reader.turns:
            stay = stay_of(self._reader.turn_start(turn), self._reader.turn_end(turn), rows)
            if stay is not None:
                yield stay

    def _by_turn(self) -> Iterator[PromptLength]:
        for turn, lengths in self._turns:
            mean = mean_of(clusters_of([lengths]))
            if mean is not None:
                yield PromptLength(turn.turn, turn.prompt_id, mean)

    def _speed(self) -> float | None:
        if (self._reader.manifest.batch_size or 1) > 1:
            return None
        ends = [self._reader.turn_end(turn) for turn, _ in self._turns]
        known = [end for end in ends if end is not None and end.duration_ns > 0]
        seconds = sum(min(end.duration_ns, LONGEST_NS) for end in known) / 1e9
        return sum(end.output_length for end in known) / seconds if seconds else None


def phase_times(timings: Sequence[TimingSection]) -> list[PhaseTimes]:
    """Median, 90th percentile and share of each phase that some step records."""
    total = sum(map(_total_ms, timings)) or 1.0
    phases = []
    for name in TIMED_PHASES:
        recorded = [getattr(timing, f"{name}_ns") for timing in timings]
        if any(ns is not None for ns in recorded):
            row = sorted(min(ns or 0, LONGEST_NS) / 1e6 for ns in recorded)
            phases.append(PhaseTimes(name, statistics.median(row), value_at(row, 0.9), sum(row) / total))
    return phases


def _total_ms(timing: TimingSection) -> float:
    return sum(min(getattr(timing, f"{name}_ns") or 0, LONGEST_NS) for name in TIMED_PHASES) / 1e6


def json_of(numbers: RunNumbers) -> dict[str, Any]:
    """The numbers as JSON has them; shares are of one, times in milliseconds."""
    walks = numbers.walks
    by_depth = walks.by_depth
    return {
        "num_turns": numbers.num_turns,
        "num_steps": numbers.num_steps,
        "num_read": numbers.num_read,
        "accepted_length": mean_json(numbers.accepted_length),
        "tokens_per_step": None if numbers.accepted_length is None else numbers.accepted_length.value + 1,
        "tokens_per_second": numbers.tokens_per_second,
        "requests": None if numbers.served is None else served_json(numbers.served),
        "accepted_lengths": {str(length): walks.lengths[length] for length in sorted(walks.lengths)},
        "by_depth": [
            {"depth": depth, "reached": by_depth[depth - 1], "accepted": by_depth[depth]}
            for depth in range(1, len(by_depth))
        ],
        "right_child": {
            "by_rank": {str(rank): walks.ranks[rank] for rank in sorted(walks.ranks)},
            "not_in_tree": walks.not_in_tree,
            "of_those_cut": walks.cut,
            "without_children": walks.leaves,
        },
        "calibration": [tenth._asdict() for tenth in walks.bins],
        "num_drafted": walks.num_drafted,
        "num_accepted": walks.num_accepted,
        "repetition": {
            "num_turns": numbers.repetition.num_turns,
            "num_tokens": numbers.repetition.num_tokens,
            "num_repeated": numbers.repetition.num_repeated,
            "accepted_length_inside": numbers.repetition.mean_inside,
            "accepted_length_outside": numbers.repetition.mean_outside,
        },
        "turns": [
            {"turn": row.turn, "prompt_id": row.prompt_id, "accepted_length": mean_json(row.accepted_length)}
            for row in numbers.turns
        ],
        "step_ms": numbers.step_ms,
        "phases": [phase._asdict() for phase in numbers.phases],
        "what_if": what_if_json(numbers),
    }


def served_json(served: Served) -> dict[str, Any]:
    """Requests that took rows, and how long they waited."""
    by_unit = {"waited_steps": served.waited_steps, "waited_ms": served.waited_ms}
    waited = {name: None if waits is None else waits._asdict() for name, waits in by_unit.items()}
    return served._asdict() | waited


def what_if_json(numbers: RunNumbers) -> dict[str, Any]:
    """What other trees would have accepted, or why that cannot be told."""
    return {
        "reason": numbers.no_what_if,
        "num_rebuilt": numbers.num_rebuilt,
        "outcomes": [
            {
                **outcome.setting._asdict(),
                "accepted_length": mean_json(outcome.accepted_length),
                "num_exact": outcome.num_exact,
            }
            for outcome in numbers.what_if
        ],
    }


def mean_json(mean: Mean | None) -> dict[str, Any] | None:
    """A mean with its interval of 95 %."""
    return None if mean is None else mean._asdict()
