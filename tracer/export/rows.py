"""Steps as flat rows, for pandas, polars or a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specscope.schemas import Step, TurnStart
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader


def step_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """One flat dictionary per step of a trace, in order; what a step does not record is None.

    ``pandas.DataFrame(step_rows("run.jsonl"))`` makes a table of them. Accepted lengths count neither root nor bonus;
    ``tokens_per_step``, which other engines call acceptance length, is one more. Durations are in milliseconds.

    Raises:
        TraceError: where the file is not a trace that can be read.
    """
    with TraceReader(Path(path)) as reader:
        for entry in reader.turns:
            yield from rows_of_turn(reader, entry)


def rows_of_turn(reader: TraceReader, entry: TurnEntry) -> Iterator[dict[str, Any]]:
    """The rows of one turn's steps; what they do not record is None.

    Raises:
        TraceError: where a record cannot be read.
    """
    start = reader.turn_start(entry)
    batch_row = start.known_row
    for step in reader.steps(entry):
        batch_row = batch_row if step.row is None else step.row
        yield {**_step_row(start, step), "row": batch_row}


def _step_row(start: TurnStart, step: Step) -> dict[str, Any]:
    tree, accept, stop = step.tree, step.accept, step.stop
    row: dict[str, Any] = {
        "turn": step.turn,
        "prompt_id": start.prompt_id,
        "step": step.step,
        "committed": step.committed_length,
        "nodes": step.num_drafted,
        "depth": max(tree.depths, default=0) if tree is not None else None,
        "accepted_length": step.accepted_length,
        "tokens_per_step": None if step.accepted_length is None else step.accepted_length + 1,
        "bonus_token": accept.bonus_token if accept is not None else None,
        "emitted": stop.kept if stop is not None else None,
        "stop_reason": stop.reason if stop is not None else None,
        "failed_invariants": len(step.invariants.failed) if step.invariants is not None else None,
    }
    if step.timing is not None:
        durations = step.timing.model_dump(exclude_none=True)
        row |= {name.removesuffix("_ns") + "_ms": ns / 1e6 for name, ns in durations.items() if name.endswith("_ns")}
    return row
