"""Traces of the parts of one run, put together: turns are numbered anew, and nothing else is changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from specscope.schemas import Manifest, RunEnd, TurnStart
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.writer import TraceWriter

#: What two parts of one run may have otherwise.
APART = frozenset({"run_id", "created", "seq"})


class Merged(NamedTuple):
    """What was written."""

    num_turns: int
    cut_short: list[Path]  # parts that did not end as complete


def merge_traces(parts: Sequence[Path], out: Path, *, overwrite: bool) -> Merged:
    """Writes the records of ``parts``, one part after the other, as the trace ``out``.

    Raises:
        TraceError: where a part cannot be read.
        UsageError: where parts have other settings, share a turn of a prompt, or keep tensors in separate files.
    """
    _check_settings(parts)
    _check_prompts(parts)
    writer = TraceWriter(out, overwrite=overwrite, warn=lambda _: None)
    cut_short, num_turns = [], 0
    for number, part in enumerate(parts):
        with TraceReader(part) as reader:
            if number == 0:
                writer.write(reader.manifest.model_copy(update={"seq": 0}))
            ended = _copy(reader, writer, num_turns)
            num_turns += len(reader.turns)
        cut_short += [] if ended else [part]
    writer.finish("failed" if cut_short else "complete")
    writer.check_whole()
    return Merged(num_turns, cut_short)


def _copy(reader: TraceReader, writer: TraceWriter, first_turn: int) -> bool:
    """Appends a part's records, its turns numbered from ``first_turn``; gives whether it ended as complete."""
    complete = False
    for _, record, _ in reader.numbered_lines():
        if isinstance(record, Manifest):
            continue
        if isinstance(record, RunEnd):
            complete = record.reason == "complete"
            continue
        turn = record.turn
        moved = {"seq": writer.next_seq, **({} if turn is None else {"turn": turn + first_turn})}
        writer.write(record.model_copy(update=moved))
    return complete


def _check_settings(parts: Sequence[Path]) -> None:
    first: Manifest | None = None
    for part in parts:
        with TraceReader(part) as reader:
            manifest = reader.manifest
        if manifest.level == "tensors":
            raise UsageError(f"{part} keeps tensors in separate files, which are not merged: compare it by itself")
        first = first or manifest
        ours, theirs = (each.model_dump(exclude=set(APART)) for each in (first, manifest))
        names = [name for name in ours if ours[name] != theirs[name]]
        if names:
            raise UsageError(f"{part} has another {names[0]} than {parts[0]}: parts of one run have the same settings")


def _check_prompts(parts: Sequence[Path]) -> None:
    known: dict[tuple[str, int], Path] = {}
    for part in parts:
        with TraceReader(part) as reader:
            for turn in reader.turns:
                start: TurnStart = reader.turn_start(turn)
                other = known.setdefault((start.prompt_id, start.prompt_turn), part)
                if other is not part:
                    raise UsageError(
                        f"prompt {start.prompt_id[:80]} is in {other} and in {part}: wanted each in one part"
                    )
