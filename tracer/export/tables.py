"""Traces as tables: turns, steps and nodes, each with named and typed columns. What a trace does not record is null."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from specscope.schemas import Step, TurnEnd, TurnStart
from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.export.rows import step_row
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import counted

Row = dict[str, Any]


class Column(NamedTuple):
    """One column of a table."""

    name: str
    type: str  # in SQL
    meaning: str


class Table(NamedTuple):
    """One table, and what makes its rows of an open trace; the column ``trace`` is added."""

    meaning: str
    columns: tuple[Column, ...]
    rows: Callable[[TraceReader], Iterator[Row]]


def _turn_rows(reader: TraceReader) -> Iterator[Row]:
    for entry in reader.turns:
        yield _turn_row(reader.turn_start(entry), reader.turn_end(entry))


def _turn_row(start: TurnStart, end: TurnEnd | None) -> Row:
    row: Row = {
        "turn": start.turn,
        "prompt_id": start.prompt_id,
        "prompt_turn": start.prompt_turn,
        "prompt_tokens": start.prompt_length,
        "reused_tokens": start.reused_length,
    }
    if end is None:
        return row
    has_output = end.num_output_tokens is not None or not start.without_ids
    return row | {
        "output_tokens": end.output_length if has_output else None,
        "reason": end.reason,
        "steps": end.num_steps,
        "drafted": end.num_drafted,
        "accepted": end.num_accepted,
        "fallbacks": end.num_fallbacks or 0,
        "duration_ms": end.duration_ns / 1e6 if end.duration_ns else None,
    }


def _step_rows(reader: TraceReader) -> Iterator[Row]:
    for entry in reader.turns:
        start = reader.turn_start(entry)
        for step in reader.steps(entry):
            yield step_row(start, step)


def _node_rows(reader: TraceReader) -> Iterator[Row]:
    for entry in reader.turns:
        for step in reader.steps(entry):
            yield from _nodes_of(step)


def _nodes_of(step: Step) -> Iterator[Row]:
    tree = step.tree
    if tree is None:
        return
    accepted = None if step.accept is None else {0, *step.accept.path}
    argmax = step.verify.argmax if step.verify is not None else []
    for slot, token in enumerate(tree.tokens):
        yield {
            "turn": step.turn,
            "step": step.step,
            "slot": slot,
            "parent": _at(tree.parents, slot) if slot else None,
            "depth": _at(tree.depths, slot),
            "token": token,
            "logprob": _at(tree.logprobs, slot),
            "score": _at(tree.scores, slot),
            "proposed_by": _at(tree.proposed_by, slot) or None,
            "accepted": None if accepted is None else slot in accepted,
            "teacher_token": _at(argmax, slot),
        }


def _at(values: list[Any] | None, slot: int) -> Any:
    return values[slot] if values is not None and slot < len(values) else None


TRACE = Column("trace", "VARCHAR", "The trace, as it was named.")
TURN = Column("turn", "BIGINT", "Number of the turn in its trace.")
STEP = Column("step", "BIGINT", "Number of the step in its turn.")
PROMPT = Column("prompt_id", "VARCHAR", "Name of the prompt.")

TURNS = Table(
    "One row per turn.",
    (
        TRACE,
        TURN,
        PROMPT,
        Column("prompt_turn", "BIGINT", "Number of the turn in its prompt."),
        Column("prompt_tokens", "BIGINT", "Tokens of the whole context."),
        Column("reused_tokens", "BIGINT", "Of them, taken from an earlier turn's cache."),
        Column("output_tokens", "BIGINT", "Tokens that were put out."),
        Column("reason", "VARCHAR", "What ended the turn."),
        Column("steps", "BIGINT", "Its steps."),
        Column("drafted", "BIGINT", "Drafted nodes, without roots."),
        Column("accepted", "BIGINT", "Accepted nodes, without roots and bonus tokens."),
        Column("fallbacks", "BIGINT", "Commits that did not follow the strategy asked for."),
        Column("duration_ms", "DOUBLE", "Wall time, prefill included."),
    ),
    _turn_rows,
)
STEPS = Table(
    "One row per step.",
    (
        TRACE,
        TURN,
        PROMPT,
        STEP,
        Column("committed", "BIGINT", "Tokens in the teacher's cache before the step."),
        Column("nodes", "BIGINT", "Drafted nodes, without the root."),
        Column("depth", "BIGINT", "The tree's deepest level."),
        Column("accepted_length", "BIGINT", "Accepted nodes, without root and bonus token."),
        Column("tokens_per_step", "BIGINT", "One more: what other engines call acceptance length."),
        Column("bonus_token", "BIGINT", "The teacher's own token after the path."),
        Column("emitted", "BIGINT", "Tokens that the step put out."),
        Column("stop_reason", "VARCHAR", "What ended the turn with this step."),
        Column("failed_invariants", "BIGINT", "Those that the engine itself found violated."),
        Column("begun_ms", "DOUBLE", "When it began, since its turn began."),
        *(Column(f"{phase}_ms", "DOUBLE", f"Wall time of {phase}.") for phase in TIMED_PHASES),
    ),
    _step_rows,
)
NODES = Table(
    "One row per node of a draft tree, roots included.",
    (
        TRACE,
        TURN,
        STEP,
        Column("slot", "BIGINT", "The node's row in the step; 0: the root."),
        Column("parent", "BIGINT", "Its parent's slot; null at the root."),
        Column("depth", "BIGINT", "Edges from the root."),
        Column("token", "BIGINT", "Its token id."),
        Column("logprob", "DOUBLE", "The drafter's, given the parent; natural logarithm."),
        Column("score", "DOUBLE", "Sum of log-probabilities from the root."),
        Column("proposed_by", "VARCHAR", "Which of several drafters proposed it, joined by +."),
        Column("accepted", "BOOLEAN", "Whether it is on the accepted path; the root is."),
        Column("teacher_token", "BIGINT", "The teacher's best token after it."),
    ),
    _node_rows,
)
TABLES: dict[str, Table] = {"turns": TURNS, "steps": STEPS, "nodes": NODES}


def table_rows(table: Table, path: Path) -> Iterator[Row]:
    """The rows that the trace at ``path`` has in ``table``, every column there.

    Raises:
        TraceError: where the trace cannot be read.
    """
    name = str(path).encode(errors="backslashreplace").decode()  # a file's name may be no UTF-8
    with TraceReader(path) as reader:
        for row in table.rows(reader):
            yield {column.name: row.get(column.name) for column in table.columns} | {TRACE.name: name}


def cut_note(path: Path) -> str | None:
    """What a trace that was cut off lacks, in words; None where its end is recorded.

    Raises:
        TraceError: where the trace cannot be read.
    """
    with TraceReader(path) as reader:
        if reader.index.torn_bytes:
            return f"{path}: a torn record of {counted(reader.index.torn_bytes, 'byte')} was left out"
        return f"{path}: no run_end: the run was cut off" if reader.truncated else None


def columns_text() -> str:
    """Every table with its columns, as Markdown."""
    pages = []
    for name, table in TABLES.items():
        rows = [f"| `{column.name}` | {column.type} | {column.meaning} |" for column in table.columns]
        head = ["| column | type | meaning |", "| --- | --- | --- |"]
        pages.append("\n".join([f"`{name}`: {table.meaning}", "", *head, *rows]))
    return "\n\n".join(pages)
