"""Turns as the records of AIPerf's ``profile_export.jsonl``: a line for each, with what its steps accepted.

AIPerf measures servers from outside and has one shape for all engines. It counts steps that verified a draft. A trace
has durations and when its run began: turns are laid one after another from there, and the line's times say no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from specscope.schemas import Step, TurnEnd, TurnStart
from specscope.tracer.files.reader import TraceReader

#: What AIPerf names its own processes by.
WRITER = "specscope"
#: A hostile record's time may be a number of any size.
LONGEST_NS = 1 << 60


def aiperf_records(reader: TraceReader) -> Iterator[dict[str, Any]]:
    """One record a turn, in order; turns without an end are left out. A turn without a drafted step, or of which some
    step does not say how much it drafted, has no ``spec_decode_acceptance``.

    Raises:
        TraceError: where a record cannot be read.
    """
    sessions: dict[str, int] = {}
    now = _begun_ns(reader.manifest.created)
    for entry in reader.turns:
        start, end = reader.turn_start(entry), reader.turn_end(entry)
        if end is None:
            continue
        session = sessions.setdefault(start.prompt_id, len(sessions))
        ended = now + min(max(end.duration_ns, 0), LONGEST_NS)
        record: dict[str, Any] = {
            "metadata": _metadata(start, end, session) | {"request_start_ns": now, "request_end_ns": ended},
            "metrics": dict(_metrics(start, end)),
        }
        if end.reason == "failed":
            record["error"] = {"message": "the turn failed"}
        acceptance = _acceptance(reader, list(reader.steps(entry)), end)
        yield record if acceptance is None else record | {"spec_decode_acceptance": acceptance}
        now = ended


def _begun_ns(created: str) -> int:
    """Of a run, since 1970; 0 where that is not a time."""
    try:
        return max(0, int(datetime.fromisoformat(created).timestamp())) * 10**9
    except (ValueError, OverflowError):
        return 0


def _metadata(start: TurnStart, end: TurnEnd, session: int) -> dict[str, Any]:
    turn = start.prompt_turn
    return {
        "session_num": session,
        "x_request_id": start.prompt_id if turn == 0 else f"{start.prompt_id}-turn-{turn}",
        "x_correlation_id": start.prompt_id,
        "conversation_id": start.prompt_id,
        "turn_index": turn,
        "worker_id": WRITER,
        "record_processor_id": WRITER,
        "benchmark_phase": "profiling",
        "was_cancelled": end.reason in ("cancelled", "interrupted"),
    }


def _metrics(start: TurnStart, end: TurnEnd) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the turn records of AIPerf's metrics."""
    if start.prompt_length is not None:
        yield "input_sequence_length", {"value": start.prompt_length, "unit": "tokens"}
    if (length := _output_length(start, end)) is not None:
        yield "output_sequence_length", {"value": length, "unit": "tokens"}
    if 0 < end.duration_ns <= LONGEST_NS:
        yield "request_latency", {"value": end.duration_ns / 1e6, "unit": "ms"}


def _output_length(start: TurnStart, end: TurnEnd) -> int | None:
    """Tokens of the output; None where that was not recorded."""
    return None if start.without_ids and end.num_output_tokens is None else end.output_length


def _acceptance(reader: TraceReader, steps: list[Step], end: TurnEnd) -> dict[str, Any] | None:
    """AIPerf's ``SpecDecodeAcceptanceRecord`` of the steps that drafted, accepted lengths without the bonus token."""
    if any(step.num_drafted is None or step.accepted_length is None for step in steps):
        return None
    lengths = [(step.num_drafted or 0, step.accepted_length or 0) for step in steps if step.num_drafted]
    if not lengths:
        return None
    drafted, accepted = ([pair[of] for pair in lengths] for of in (0, 1))
    policy, output = reader.manifest.tree_policy, end.num_output_tokens or len(end.output_ids)
    of_chains = {"num_spec_tokens": policy.budget} if policy.kind == "chain" and policy.budget else {}
    return {
        "engine": reader.manifest.engine,
        "mean_acceptance_length": 1 + sum(accepted) / len(accepted),
        "draft_acceptance_rate": sum(accepted) / sum(drafted),
        "acceptance_histogram": {str(length): steps for length, steps in sorted(Counter(accepted).items())},
        "num_accepted_draft_tokens": sum(accepted),
        "num_draft_tokens": sum(drafted),
        "num_spec_steps": len(lengths),
        **of_chains,
        **({"completion_tokens": output} if output else {}),
        "per_step_accepted": accepted,
        "per_step_drafted": drafted,
    }
