"""The edges where real bugs lived, and whether a trace has been there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from specscope.engine.teacher.model import CACHE_CAPACITY, PREFILL_ROWS
from specscope.schemas import Step
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader

#: What no scenario can reach with the demo models, and why.
UNREACHED = {
    "position 32768": "the demo teacher has 2048 positions",
}
EDGES = (
    "chunk tail",
    "buffer boundary",
    "padding slots",
    "more than 32 slots",
    "accepted 0",
    "accepted 1: the first level",
    "accepted all: the last level",
    "stop inside a block",
    "one token before the budget",
    "committed length = accepted length + 1",
    "position 512",
    "position 2047: the last",
    "second turn on a kept cache",
    "one row of the batch finished",
    "page boundary",
)


def edges_of(traces: Iterable[Path]) -> set[str]:
    """The edges that the runs at ``traces`` have been at."""
    edges: set[str] = set()
    for trace in traces:
        with TraceReader(trace) as reader:
            for turn in reader.turns:
                edges |= set(_turn_edges(reader, turn))
            edges |= {"one row of the batch finished"} if _has_finished_row(reader) else set()
    return edges


def _turn_edges(reader: TraceReader, turn: TurnEntry) -> Iterator[str]:
    start, rules = reader.turn_start(turn), reader.manifest.stop_rules
    if start.prefill.num_tokens > PREFILL_ROWS and start.prefill.num_tokens % PREFILL_ROWS:
        yield "chunk tail"
    if start.prompt_turn > 0 and start.reused_length > 0:
        yield "second turn on a kept cache"
    emitted = 1
    for step in reader.steps(turn):
        yield from _step_edges(step, reader.manifest.tree_policy.depth)
        if rules is not None and emitted == rules.max_new_tokens - 1:
            yield "one token before the budget"
        assert step.stop is not None
        emitted += step.stop.kept


def _step_edges(step: Step, depth: int) -> Iterator[str]:
    tensors, accept, stop = step.tensors, step.accept, step.stop
    blocks = step.commit.blocks if step.commit is not None else None
    assert tensors is not None
    assert accept is not None
    assert stop is not None
    committed, length = tensors.committed_length, accept.accepted_length
    reached = {
        "padding slots": tensors.padded_slots > tensors.num_slots,
        "more than 32 slots": tensors.num_slots > 32,
        "accepted 0": length == 0,
        "accepted 1: the first level": length == 1,
        "accepted all: the last level": length == depth,
        "stop inside a block": stop.reason == "stop_string" and 1 < stop.kept < len(stop.emitted),
        "committed length = accepted length + 1": committed == length + 1,
        "buffer boundary": committed <= CACHE_CAPACITY < committed + tensors.padded_slots,
        "page boundary": blocks is not None and bool(blocks.taken),
        "position 512": 512 in tensors.positions,
        "position 2047: the last": 2047 in tensors.positions,
    }
    yield from (edge for edge, there in reached.items() if there)


def _has_finished_row(reader: TraceReader) -> bool:
    """Whether a turn still ran when another that had begun beside it was over."""
    if (reader.manifest.batch_size or 1) == 1:
        return False
    ends = [turn.end for turn in reader.turns if turn.end is not None]
    return any(turn.start < end < turn.steps[-1] for turn in reader.turns for end in ends if turn.steps)
