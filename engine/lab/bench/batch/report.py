"""What a sweep over loads comes to: goodput by load and way, and what the dispatcher made of it. Knows no torch.

Every ratio is of two ways in the same round of the same load; of a load's rounds, it is the median.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from specscope.engine.lab.bench.batch.plan import DISPATCHED, OFF
from specscope.engine.lab.bench.batch.record import BatchMeasure
from specscope.engine.lab.bench.tables import Table
from specscope.engine.lab.bench.turns import Clock
from specscope.tracer.naming.text import counted
from specscope.tracer.shapes import Load

FORMAT = "specscope.batch-sweep/1.0"
OF_BEST, OF_OFF = 0.95, 0.97  # what a dispatcher is to reach at each load: of the best static way, and of none


@dataclass(frozen=True, kw_only=True)
class SweepFacts:
    """What was run, for people who read the numbers later."""

    texts: str
    tokens: int
    rounds: int
    clock: Clock
    teacher: str
    drafter: str
    device: str
    dtype: str
    num_threads: int
    rule: str
    profile: str  # digest of its file
    hysteresis: float
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class LoadSummary:
    """One load, in all ways."""

    load: Load
    goodput: dict[str, float]  # tokens per second of all rows, by way: the median of the rounds
    tokens_per_step: dict[str, float]  # of a row, by way
    token_ms: dict[str, float]  # between two tokens of a row, by way
    over_off: dict[str, float]  # by way
    best: str  # static way, no speculation among them, of the most goodput
    over_best: float  # of the dispatched way
    shapes: dict[str, int]  # the dispatched way's steps by shape

    @property
    def speculation_loses(self) -> bool:
        """Whether no static shape is as fast as none."""
        return self.best == OFF


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """All that was measured."""

    facts: SweepFacts
    ways: Sequence[str]
    measures: Sequence[BatchMeasure]
    expected: int  # records of a whole sweep

    @cached_property
    def loads(self) -> list[LoadSummary]:
        """Those of which every way was measured at least once."""
        order = dict.fromkeys(Load(measure.rows, measure.context) for measure in self.measures)
        return [summary for load in order if (summary := self._summary(load)) is not None]

    def _summary(self, load: Load) -> LoadSummary | None:
        of_load = [measure for measure in self.measures if Load(measure.rows, measure.context) == load]
        by_way = {way: {m.round: m for m in of_load if m.way == way} for way in self.ways}
        if not all(by_way.values()):
            return None
        rounds = sorted(by_way[OFF])

        def ratio(way: str, base: str) -> float:
            return statistics.median(by_way[way][n].goodput / by_way[base][n].goodput for n in rounds)

        over_off = {way: ratio(way, OFF) for way in self.ways}
        static = [way for way in self.ways if way != DISPATCHED]
        best = max(static, key=over_off.__getitem__)
        shapes: Counter[str] = Counter()
        for measure in by_way[DISPATCHED].values():
            shapes.update(measure.shapes)
        return LoadSummary(
            load=load,
            goodput={way: statistics.median(m.goodput for m in by_way[way].values()) for way in self.ways},
            tokens_per_step={
                way: statistics.fmean(m.tokens_per_step for m in by_way[way].values()) for way in self.ways
            },
            token_ms={way: statistics.median(m.token_ms for m in by_way[way].values()) for way in self.ways},
            over_off=over_off,
            best=best,
            over_best=ratio(DISPATCHED, best),
            shapes=dict(shapes.most_common()),
        )

    @property
    def remarks(self) -> list[str]:
        """What the numbers rest on, and whether the dispatcher reached what it is to reach."""
        facts, lines = self.facts, []
        if len(self.measures) < self.expected:
            lines.append(f"PARTIAL: {len(self.measures)} of {self.expected} measurements, the rest was not measured")
        lines.append(
            f"texts of {facts.texts}, {counted(facts.tokens, 'token')} per row and round, "
            f"{counted(facts.rounds, 'round')}, {facts.clock} time; ratios are of the same tokens in the same round, "
            "medians of the rounds"
        )
        if self.loads:
            lines += [self._reached("over_best", f"of the best static way, {OF_BEST} wanted", OF_BEST)]
            lines += [self._reached("over_off", f"of no speculation, {OF_OFF} wanted", OF_OFF)]
            lost = [f"{s.load.rows} x {s.load.context}" for s in self.loads if s.speculation_loses]
            lines.append(f"no shape pays at {', '.join(lost)}" if lost else "at every load some shape pays")
        return lines

    def _reached(self, name: str, words: str, wanted: float) -> str:
        values = {s.load: s.over_best if name == "over_best" else s.over_off[DISPATCHED] for s in self.loads}
        worst = min(values, key=values.__getitem__)
        below = sum(value < wanted for value in values.values())
        return (
            f"dispatched: {values[worst]:.3f} {words}, at its worst load ({worst.rows} x {worst.context}); "
            f"{below} of {counted(len(values), 'load')} below"
        )

    def tables(self) -> list[Table]:
        """For the terminal and Markdown alike."""
        return [self._speeds(), self._dispatched()]

    def _speeds(self) -> Table:
        static = [way for way in self.ways if way not in (OFF, DISPATCHED)]
        rows = [
            (
                _name(summary.load),
                f"{summary.goodput[OFF]:.1f}",
                *(f"{summary.over_off[way]:.2f}x" for way in (*static, DISPATCHED)),
            )
            for summary in self.loads
        ]
        title = "Goodput: tokens/s of all rows without speculation, and how many times that with it"
        return Table(title, ("rows x context", OFF, *static, DISPATCHED), rows)

    def _dispatched(self) -> Table:
        columns = ("rows x context", "best", "over off", "over best", "tokens per step", "ms per token", "shapes")
        rows = []
        for summary in self.loads:
            total = sum(summary.shapes.values())
            shapes = ", ".join(f"{name} {count / total:.0%}" for name, count in summary.shapes.items())
            numbers = (summary.over_off[DISPATCHED], summary.over_best)
            rows.append(
                (
                    _name(summary.load),
                    summary.best,
                    *(f"{number:.3f}" for number in numbers),
                    f"{summary.tokens_per_step[DISPATCHED]:.2f}",
                    f"{summary.token_ms[DISPATCHED]:.2f}",
                    shapes,
                )
            )
        return Table("Dispatched: beside the best static way, and which shapes were chosen", columns, rows)

    def to_json(self) -> dict[str, Any]:
        """All of it as one object."""
        return {
            "format": FORMAT,
            "run": vars(self.facts),
            "remarks": self.remarks,
            "loads": [{**vars(summary), "load": summary.load._asdict()} for summary in self.loads],
            "measures": [measure.to_json() for measure in self.measures],
        }


def _name(load: Load) -> str:
    return f"{load.rows} x {load.context}"
