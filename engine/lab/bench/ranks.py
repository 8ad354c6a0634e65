"""One measurement on several processes: each takes a part of the prompts and writes what it measures to its own file,
and rank 0 merges the files.

The processes meet in a folder and nowhere else: there is no process group, so that one that is killed keeps nobody
waiting. A rank holds the lock of its file for as long as it lives: if the file is unlocked and has no end, the rank
was lost. ``torchrun`` sets the variables that say which rank a process is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specscope.engine.lab.bench.measure import Plan
from specscope.engine.lab.bench.report import MissingTurn
from specscope.engine.lab.bench.shards import Rank
from specscope.engine.lab.bench.turns import TurnMeasure
from specscope.tracer.errors import SpecScopeError, UsageError
from specscope.tracer.files.locks import refuse_if_locked, try_lock
from specscope.tracer.report.formats import write_whole

POLL_S = 0.1
MERGED = "merged.jsonl"


class RankFile:
    """What one rank measures, one line per turn, flushed before the next turn begins.

    Args:
        rank: this process.
        folder: where the ranks meet; made where it is missing.
        run: what all ranks must agree on.

    Raises:
        UsageError: where the folder holds a measurement already.
    """

    def __init__(self, rank: Rank, folder: Path, run: Mapping[str, object]) -> None:
        path = rank.file_in(folder)
        # It gets its name when it is locked and has a first line: rank 0 may be looking for it already.
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try_lock(self._file)
            self._write({"kind": "bench_rank", "rank": rank.number, "num_ranks": rank.size, "run": dict(run)})
            os.link(draft, path)
        except FileExistsError:
            raise UsageError(f"{path} exists already: name an empty folder with --ranks") from None
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from None
        finally:
            draft.unlink(missing_ok=True)

    def add(self, measure: TurnMeasure) -> None:
        """Writes one turn."""
        self._write({"kind": "turn", **measure.to_json()})

    def close(self, interruption: BaseException | None) -> None:
        """Lets the lock go, after an end where nothing interrupted it, or after the error that did. A rank without
        either counts as lost."""
        if interruption is None:
            self._write({"kind": "end"})
        elif isinstance(interruption, SpecScopeError):
            self._write({"kind": "error", "message": str(interruption)})
        os.close(self._file)

    def _write(self, entry: Mapping[str, object]) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """What rank 0 knows of one rank."""

    rank: Rank
    measures: list[TurnMeasure]
    problem: str | None  # why it is not whole; None where it is


def gather(size: int, folder: Path, run: Mapping[str, object], *, wait_s: float) -> list[RankResult]:
    """What every rank measured, once each has ended or was lost.

    Args:
        wait_s: how long to wait for a file that is not there yet, and for no other.

    Raises:
        UsageError: where a rank measured something else, or with another version.
    """
    return [_gathered(Rank(number, size), folder, run, wait_s) for number in range(size)]


def _gathered(rank: Rank, folder: Path, run: Mapping[str, object], wait_s: float) -> RankResult:
    path, begun = rank.file_in(folder), time.monotonic()
    while not path.exists():
        if time.monotonic() - begun > wait_s:
            return RankResult(rank=rank, measures=[], problem="it never began")
        time.sleep(POLL_S)
    while (entries := _entries(path))[-1]["kind"] not in ("end", "error"):
        if not _is_held(path):
            entries = _entries(path)  # what was written between the two looks
            break
        time.sleep(POLL_S)
    header, *lines = entries
    if header.get("run") != run:
        raise UsageError(f"{path} was measured with other settings: give all ranks the same command")
    measures = [TurnMeasure.from_json(line) for line in lines if line["kind"] == "turn"]
    return RankResult(rank=rank, measures=measures, problem=_problem_of(entries[-1]))


def _problem_of(last: Mapping[str, Any]) -> str | None:
    """What the last line of a rank's file says of it."""
    if last["kind"] == "end":
        return None
    return f"it failed ({last['message']})" if last["kind"] == "error" else "it ended early"


def _entries(path: Path) -> list[dict[str, Any]]:
    """Its whole lines: a rank that was killed may have left half of one."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _is_held(path: Path) -> bool:
    """Whether its rank lives."""
    try:
        refuse_if_locked(path)
    except UsageError:
        return True
    return False


@dataclass(frozen=True, kw_only=True)
class Merged:
    """All ranks' measurements, as one process would have made them."""

    measures: list[TurnMeasure]  # by round, then in the prompts' order, then in the variants'
    missing: list[MissingTurn]
    problems: list[str]  # one sentence per rank that is not whole


def merge(results: Sequence[RankResult], plan: Plan) -> Merged:
    """The ``results`` of all ranks for ``plan``, which has the prompts of all of them."""
    prompt_order = {prompt.id: number for number, prompt in enumerate(plan.prompts)}
    variant_order = {variant.name: number for number, variant in enumerate(plan.variants)}
    measures = [measure for result in results for measure in result.measures]
    measures.sort(key=lambda m: (m.round, prompt_order[m.prompt_id], m.prompt_turn, variant_order[m.variant]))
    measured = {measure.variant_turn for measure in measures}
    missing = [
        MissingTurn(*turn, rank=result.rank.number)
        for result in results
        for turn in plan._replace(prompts=result.rank.part_of(plan.prompts)).expected
        if turn not in measured
    ]
    problems = [_problem(result, missing) for result in results if result.problem is not None]
    return Merged(measures=measures, missing=missing, problems=problems)


def _problem(result: RankResult, missing: Sequence[MissingTurn]) -> str:
    """Why a rank is not whole, and which turns are missing for it."""
    lacking = [turn for turn in missing if turn.rank == result.rank.number]
    names = dict.fromkeys(f"{turn.prompt_id}/{turn.prompt_turn}" for turn in lacking)
    total = len(lacking) + len(result.measures)
    return f"rank {result.rank.number}: {result.problem}, {len(lacking)} of {total} measurements are missing: " + (
        ", ".join(names) or "none"
    )


def write_merged(merged: Merged, folder: Path, run: Mapping[str, object]) -> Path:
    """The merged measurements as one file in ``folder``, in the form of a rank's; what is missing has lines, too.

    Raises:
        UsageError: where it cannot be written.
    """
    lines: list[Mapping[str, object]] = [{"kind": "bench", "run": dict(run)}]
    lines += [{"kind": "turn", **measure.to_json()} for measure in merged.measures]
    lines += [{"kind": "missing", **turn._asdict()} for turn in merged.missing]
    lines.append({"kind": "end"})
    path = folder / MERGED
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))
    return path
