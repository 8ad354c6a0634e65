"""Traces as tables: turns, steps, nodes and ranks, with named, typed columns. What a trace does not record is null."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from specscope.schemas import Failure, Step, TurnEnd, TurnStart
from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.export.rows import rows_of_turn
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
        "row": start.known_row,
        "arrived_at": start.arrived_at or (None if start.joined_at is None else 0),
        "joined_at": start.joined_at,
        "waited_steps": start.waited_steps,
        "waited_ms": None if start.waited_ns is None else start.waited_ns / 1e6,
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
        yield from rows_of_turn(reader, entry)


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


def _rank_rows(reader: TraceReader) -> Iterator[Row]:
    for entry in reader.turns:
        for step in reader.steps(entry):
            yield from _ranks_of(step)
    for failure in reader.failures():
        yield from _ranks_of(failure)


def _ranks_of(record: Step | Failure) -> Iterator[Row]:
    ranks = record.ranks or []
    for rank, decided in enumerate(ranks):
        yield {
            "turn": record.turn,
            "step": record.step,
            "rank": rank,
            "tree_digest": decided.tree_digest,
            "path_digest": decided.path_digest,
            "emitted_digest": decided.emitted_digest,
            "agrees": decided == ranks[0],
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
        Column("row", "BIGINT", "The batch row that it began in."),
        Column("arrived_at", "BIGINT", "When its request arrived, in steps that the rows had taken together."),
        Column("joined_at", "BIGINT", "When it began in its row, by the same count."),
        Column("waited_steps", "BIGINT", "How many steps its request waited for a row; null in later turns of it."),
        Column("waited_ms", "DOUBLE", "The same by a clock in seconds, where requests arrived by one."),
        Column("output_tokens", "BIGINT", "Tokens that were put out."),
        Column("reason", "VARCHAR", "What ended the turn; cancelled: its request was withdrawn."),
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
        Column("row", "BIGINT", "The batch row that it ran in."),
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
RANKS = Table(
    "One row per rank of a step that several ranks computed, and of a failure where they parted.",
    (
        TRACE,
        TURN,
        STEP,
        Column("rank", "BIGINT", "Number of the rank; 0 writes the trace."),
        Column("tree_digest", "VARCHAR", "Of the tree that it drafted."),
        Column("path_digest", "VARCHAR", "Of the path that it accepted."),
        Column("emitted_digest", "VARCHAR", "Of the accepted tokens with the bonus token."),
        Column("agrees", "BOOLEAN", "Whether all three are those of rank 0."),
    ),
    _rank_rows,
)
TABLES: dict[str, Table] = {"turns": TURNS, "steps": STEPS, "nodes": NODES, "ranks": RANKS}


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
