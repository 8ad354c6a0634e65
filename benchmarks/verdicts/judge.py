"""Judges the runs that are there: how many honest pairs are red, and how small a fault is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.verdicts.cells import DTYPES, Cell, cells
from benchmarks.verdicts.record import FAULTY_CELLS, SIZES, NumericFault, faults, trace_path
from benchmarks.verdicts.settings import CANDIDATE, REFERENCE, honest_pairs
from specscope.schemas.verdict import TIES, Verdict
from specscope.tracer.compare import diff_traces
from specscope.tracer.compare.diff import DiffOptions
from specscope.tracer.errors import EXIT_EQUAL


class Pair(NamedTuple):
    """Two runs of a cell, and the run that noise is measured against, if any."""

    cell: str
    dtype: str
    baseline: Path
    candidate: Path
    noise: Path | None = None
    size: float | None = None  # of the fault in the candidate


class Judged(NamedTuple):
    """What the verdict on a pair was."""

    pair: Pair
    exit_code: int
    verdict: str
    first: str  # the first root that is no tie, or what else made it red
    num_ties: int


@dataclass
class Tables:
    """All that was judged."""

    honest: list[Judged] = field(default_factory=list)
    honest_with_noise: list[Judged] = field(default_factory=list)
    faulty: list[Judged] = field(default_factory=list)
    faulty_with_noise: list[Judged] = field(default_factory=list)


def judge_all(folder: Path, processes: int) -> Tables:
    """Every pair whose runs are below ``folder``."""
    with ProcessPoolExecutor(processes) as pool:
        judged = partial(pool.map, judge_pair, chunksize=4)
        return Tables(
            list(judged(list(_honest(folder, with_noise=False)))),
            list(judged(list(_honest(folder, with_noise=True)))),
            list(judged(list(_faulty(folder, with_noise=False)))),
            list(judged(list(_faulty(folder, with_noise=True)))),
        )


def judge_pair(pair: Pair) -> Judged:
    """The verdict on one pair."""
    verdict = diff_traces(pair.baseline, pair.candidate, DiffOptions(noise=pair.noise))
    ties = sum(root.difference.kind in TIES for root in verdict.roots)
    return Judged(pair, verdict.exit_code, verdict.verdict, _first(verdict), ties)


def _first(verdict: Verdict) -> str:
    for root in verdict.roots:
        found = root.difference
        if found.kind not in TIES:
            return f"{found.phase}: {found.field}: {found.a} | {found.b} at {root.place.turn}/{root.place.step_a}"
    said = [f"{blame.side} {blame.invariant}: {blame.witness}" for blame in verdict.violations]
    return next(iter([*said, *verdict.incomparable, *verdict.uncovered]), "")


def _honest(folder: Path, *, with_noise: bool) -> Iterator[Pair]:
    for cell in cells():
        for pair in honest_pairs():
            baseline, candidate = (trace_path(folder, cell, s.name) for s in (pair.baseline, pair.candidate))
            noise = trace_path(folder, cell, CANDIDATE.name) if with_noise else None
            if with_noise and (pair.baseline is not REFERENCE or pair.candidate is CANDIDATE):
                continue
            if all(path.exists() for path in (baseline, candidate, noise or baseline)):
                yield Pair(cell.id, cell.dtype, baseline, candidate, noise)


def _faulty(folder: Path, *, with_noise: bool) -> Iterator[Pair]:
    for cell, fault in _faults():
        baseline, candidate = trace_path(folder, cell, REFERENCE.name), trace_path(folder, cell, fault.name)
        noise = trace_path(folder, cell, CANDIDATE.name) if with_noise else None
        if all(path.exists() for path in (baseline, candidate, noise or baseline)):
            yield Pair(cell.id, cell.dtype, baseline, candidate, noise, fault.size)


def _faults() -> Iterator[tuple[Cell, NumericFault]]:
    return ((cell, fault) for cell in cells() if cell.name in FAULTY_CELLS for fault in faults())


def text_of(tables: Tables) -> str:
    """The tables in Markdown, and every honest pair that was red."""
    lines = ["| honest pairs | " + " | ".join(DTYPES) + " |", "|---|" + "---|" * len(DTYPES)]
    for name, judged in (("within the pair", tables.honest), ("with --noise", tables.honest_with_noise)):
        lines.append(f"| {name} | " + " | ".join(_honest_cell(judged, dtype) for dtype in DTYPES) + " |")
    lines += [
        "",
        "| one block's output off by | " + " | ".join(f"{d}, {n}" for d in DTYPES for n in ("alone", "--noise")),
    ]
    lines[-1] += " |"
    lines.append("|---|" + "---|" * (2 * len(DTYPES)))
    for size in SIZES:
        found = [
            _share(judged, dtype, size) for dtype in DTYPES for judged in (tables.faulty, tables.faulty_with_noise)
        ]
        lines.append(f"| {size:g} | " + " | ".join(found) + " |")
    red = [one for one in (*tables.honest, *tables.honest_with_noise) if one.exit_code != EXIT_EQUAL]
    lines += [
        "",
        *(f"red: {one.pair.cell}: {one.pair.baseline.stem} | {one.pair.candidate.stem}: {one.first}" for one in red),
    ]
    return "\n".join(lines)


def _honest_cell(judged: list[Judged], dtype: str) -> str:
    own = [one for one in judged if one.pair.dtype == dtype]
    kinds = Counter(one.verdict for one in own)
    red = sum(one.exit_code != EXIT_EQUAL for one in own)
    return f"{red} red of {len(own)} ({kinds['equal']} equal, {kinds['ties']} ties)"


def _share(judged: list[Judged], dtype: str, size: float) -> str:
    own = [one for one in judged if one.pair.dtype == dtype and one.pair.size == size]
    return f"{sum(one.exit_code == 1 for one in own)} of {len(own)}" if own else "-"
