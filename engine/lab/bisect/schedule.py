"""What happened in the rows of a recorded batch, up to one step: read off the order of the records.

A batch takes every row one step further at a time, and writes the rows' steps in their order. A row whose turn is over
begins another turn or is dropped before the next step; the last row then takes its number. Rows are added behind the
others, as their first turns begin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from specscope.engine.cache.rows import RowList
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader


class Member(NamedTuple):
    """One row's part in a step of all rows."""

    entry: TurnEntry
    step: int  # its number in the turn


class Begin(NamedTuple):
    """A turn begins in a row."""

    row: int
    entry: TurnEntry
    is_new: bool  # another conversation than the row's last one


class Add(NamedTuple):
    """A row is added behind the others."""


class Drop(NamedTuple):
    """A row ends, and the last one takes its number."""

    row: int


class Together(NamedTuple):
    """All rows go one step further."""

    members: list[Member]  # in the order of the rows


Action = Add | Begin | Drop | Together


@dataclass(frozen=True)
class BatchPlan:
    """How to stand where a step of a batch begins, with the same rows beside it; no row is there to begin with."""

    actions: list[Action]  # before the step
    members: list[Member]  # of the step, in the order of the rows
    row: int  # that is asked about


class _Event(NamedTuple):
    """A record and what it is of."""

    offset: int
    kind: str  # start, step or end
    entry: TurnEntry
    step: int


def plan_batch(recording: TraceReader, turn: int, step: int) -> BatchPlan | None:
    """What the rows did before step ``step`` of ``turn``; None where the records do not fit the rows that they name."""
    rows: RowList[TurnEntry | None] = RowList()
    talks: RowList[str] = RowList()
    actions: list[Action] = []
    for event in _grouped(recording.turns):
        if isinstance(event, list):
            actions += _dropped(rows, talks)
            if [entry.turn if entry else None for entry in rows] != [member.entry.turn for member in event]:
                return None
            places = [(member.entry.turn, member.step) for member in event]
            here = places.index((turn, step)) if (turn, step) in places else None
            if here is not None:
                return BatchPlan(actions, event, here)
            actions.append(Together(event))
        elif event.kind == "end":
            rows[:] = [None if entry is event.entry else entry for entry in rows]
        else:
            row = recording.turn_start(event.entry).row or 0
            if row > len(rows) or (row < len(rows) and rows[row] is not None):
                return None
            if row == len(rows):
                actions.append(Add())
                rows.append(None)
                talks.append(event.entry.prompt_id)
            actions.append(Begin(row, event.entry, talks[row] != event.entry.prompt_id))
            rows[row], talks[row] = event.entry, event.entry.prompt_id
    return None


def _dropped(rows: RowList[TurnEntry | None], talks: RowList[str]) -> list[Drop]:
    """Drops the rows in which no turn runs, the last first."""
    drops = []
    for row in reversed(range(len(rows))):
        if rows[row] is None:
            drops.append(Drop(row))
            rows.drop_row(row)
            talks.drop_row(row)
    return drops


def _grouped(turns: list[TurnEntry]) -> Iterator[_Event | list[Member]]:
    """The records in their order, the steps that were taken together as one."""
    group: list[Member] = []
    for event in _ordered(turns):
        if event.kind != "step" or any(member.entry is event.entry for member in group):
            if group:
                yield group
            group = []
        if event.kind == "step":
            group.append(Member(event.entry, event.step))
        else:
            yield event
    if group:
        yield group


def _ordered(turns: list[TurnEntry]) -> list[_Event]:
    events = []
    for entry in turns:
        events.append(_Event(entry.start, "start", entry, 0))
        events += [_Event(offset, "step", entry, number) for number, offset in enumerate(entry.steps)]
        if entry.end is not None:
            events.append(_Event(entry.end, "end", entry, 0))
    return sorted(events, key=lambda event: event.offset)
