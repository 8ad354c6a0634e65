"""Judges the runs that are there: how many honest pairs are red, and how small a fault is found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.verdicts.cells import DTYPES, Cell, cells
from benchmarks.verdicts.record import FAULTY_CELLS, SIZES, NumericFault, faults, trace_path
from benchmarks.verdicts.settings import CANDIDATE, REFERENCE, SETTINGS, honest_pairs
from specscope.schemas.verdict import TIES, Verdict
from specscope.tracer.compare import diff_traces
from specscope.tracer.compare.diff import DiffOptions
from specscope.tracer.errors import EXIT_EQUAL

KEPT = "verdicts.jsonl"
#: How noise is measured: whether by a third run.
NOISE = {"alone": False, "with --noise": True}


class Pair(NamedTuple):
    """Two runs of a cell, and the run that noise is measured against, if any."""

    cell: str
    dtype: str
    baseline: str  # names of runs
    candidate: str
    noise: str | None = None
    size: float | None = None  # of the fault in the candidate


class Judged(NamedTuple):
    """What the verdict on a pair was."""

    pair: Pair
    exit_code: int
    verdict: str
    first: str  # the first root that is no tie, or what else made it red
    num_ties: int


def judge_all(folder: Path, processes: int, *, again: bool) -> list[Judged]:
    """Every pair whose runs are below ``folder``. What was judged is kept there; ``again`` judges it once more."""
    kept_in = folder / KEPT
    if again:
        kept_in.unlink(missing_ok=True)
    kept = {one.pair: one for one in _read(kept_in)}
    wanted = [*_honest(folder), *_faulty(folder)]
    missing = [pair for pair in wanted if pair not in kept]
    with ProcessPoolExecutor(processes) as pool, kept_in.open("a", encoding="utf-8") as file:
        for one in pool.map(partial(judge_pair, folder), missing):
            kept[one.pair] = one
            file.write(json.dumps([list(one.pair), *one[1:]]) + "\n")
            file.flush()
    return [kept[pair] for pair in wanted]


def _read(path: Path) -> Iterator[Judged]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            pair, *rest = json.loads(line)
            yield Judged(Pair(*pair), *rest)


def judge_pair(folder: Path, pair: Pair) -> Judged:
    """The verdict on one pair."""
    baseline, candidate = (folder / pair.cell / f"{run}.jsonl" for run in (pair.baseline, pair.candidate))
    noise = None if pair.noise is None else folder / pair.cell / f"{pair.noise}.jsonl"
    verdict = diff_traces(baseline, candidate, DiffOptions(noise=noise))
    ties = sum(root.difference.kind in TIES for root in verdict.roots)
    return Judged(pair, verdict.exit_code, verdict.verdict, _first(verdict), ties)


def _first(verdict: Verdict) -> str:
    for root in verdict.roots:
        found = root.difference
        if found.kind not in TIES:
            return f"{found.phase}: {found.field}: {found.a} | {found.b} at {root.place.turn}/{root.place.step_a}"
    said = [f"{blame.side} {blame.invariant}: {blame.witness}" for blame in verdict.violations]
    return next(iter([*said, *verdict.incomparable, *verdict.uncovered]), "")


def _honest(folder: Path) -> Iterator[Pair]:
    """Each once by itself; those against the reference also with the fused run as the measure of noise."""
    for cell in cells():
        there = {s.name for s in SETTINGS if trace_path(folder, cell, s.name).exists()}
        for pair in honest_pairs():
            baseline, candidate = pair.baseline.name, pair.candidate.name
            if not {baseline, candidate} <= there:
                continue
            yield Pair(cell.id, cell.dtype, baseline, candidate)
            if pair.baseline is REFERENCE and pair.candidate is not CANDIDATE and CANDIDATE.name in there:
                yield Pair(cell.id, cell.dtype, baseline, candidate, CANDIDATE.name)


def _faulty(folder: Path) -> Iterator[Pair]:
    """Each by itself, and with the fused run as the measure of noise."""
    for cell, fault in _faults():
        runs = (REFERENCE.name, CANDIDATE.name, fault.name)
        if all(trace_path(folder, cell, run).exists() for run in runs):
            for noise in (None, CANDIDATE.name):
                yield Pair(cell.id, cell.dtype, REFERENCE.name, fault.name, noise, fault.size)


def _faults() -> Iterator[tuple[Cell, NumericFault]]:
    return ((cell, fault) for cell in cells() if cell.name in FAULTY_CELLS for fault in faults())


def text_of(judged: list[Judged]) -> str:
    """The tables in Markdown, and every honest pair that was red."""
    honest = [one for one in judged if one.pair.size is None]
    faulty = [one for one in judged if one.pair.size is not None]
    lines = ["| honest pairs | " + " | ".join(DTYPES) + " |", "|---|" + "---|" * len(DTYPES)]
    for name, with_noise in NOISE.items():
        found = [_honest_cell([o for o in honest if (o.pair.noise is not None) == with_noise], d) for d in DTYPES]
        lines.append(f"| {name} | " + " | ".join(found) + " |")
    columns = [(dtype, name) for dtype in DTYPES for name in NOISE]
    lines += ["", "| block off by | " + " | ".join(f"{dtype}, {name}" for dtype, name in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for size in SIZES:
        shares = [
            _share([o for o in faulty if (o.pair.noise is not None) == NOISE[name]], dtype, size)
            for dtype, name in columns
        ]
        lines.append(f"| {size:g} | " + " | ".join(shares) + " |")
    red = [one for one in honest if one.exit_code != EXIT_EQUAL]
    lines += ["", *(f"red: {one.pair.cell}: {one.pair.baseline} | {one.pair.candidate}: {one.first}" for one in red)]
    return "\n".join(lines)


def _honest_cell(judged: list[Judged], dtype: str) -> str:
    own = [one for one in judged if one.pair.dtype == dtype]
    kinds = Counter(one.verdict for one in own)
    red = sum(one.exit_code != EXIT_EQUAL for one in own)
    return f"{red} red of {len(own)} ({kinds['equal']} equal, {kinds['ties']} ties)"


def _share(judged: list[Judged], dtype: str, size: float) -> str:
    own = [one for one in judged if one.pair.dtype == dtype and one.pair.size == size]
    return f"{sum(one.exit_code == 1 for one in own)} of {len(own)}" if own else "-"
