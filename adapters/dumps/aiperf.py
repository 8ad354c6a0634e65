"""AIPerf's ``profile_export.jsonl``: a line for each request, with ``spec_decode_acceptance`` where its server told it.

Read where the acceptance holds the steps one by one, which AIPerf has of vLLM with ``--per-request-spec-decode-metrics
detailed``. It counts verified drafts alone: of other steps the record has no trace.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from specscope.adapters.dumps.requests import DRAFTING_STEPS, Dump, Request, StepLengths, count, read_text
from specscope.tracer.errors import UsageError

MOST_DURATION = 1 << 60  # nanoseconds: no request takes so long; a damaged file may hold a number of any size
WANTED = "run AIPerf with --export-level records against a server that reports every step"


def read_aiperf(path: Path) -> Dump:
    """The requests in ``path``.

    Raises:
        UsageError: where a line is not JSON, or its acceptance is malformed.
    """
    requests: list[Request] = []
    left_out: list[str] = []
    engines, widths = set(), []
    lines = (line for line in read_text(path).split("\n") if line.strip())
    for number, line in enumerate(lines):
        place = f"record {number}"
        record = _record(line, place)
        acceptance = _object(record.get("spec_decode_acceptance"))
        if acceptance.get("per_step_accepted") is None:
            lacks = "per_step_accepted" if acceptance else "spec_decode_acceptance"
            left_out.append(f"{place} has no {lacks}; {WANTED}")
            continue
        requests.append(_request(record, acceptance, number))
        engines.add(str(acceptance.get("engine")))
        widths.append(_known(acceptance, "num_spec_tokens", place))
    manifest: dict[str, Any] = {"engine": " and ".join(sorted(engines)) or "unknown", **DRAFTING_STEPS}
    known = [width for width in widths if width is not None]
    if known and len(known) == len(widths):
        manifest["tree_policy"] = {"budget": max(known)}
    return Dump(manifest, requests, left_out)


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        return _object(json.loads(line))
    except ValueError:
        raise UsageError(f"{place} is not JSON; wanted a line of AIPerf's profile_export.jsonl") from None


def _request(record: dict[str, Any], acceptance: dict[str, Any], number: int) -> Request:
    place, metadata = f"record {number}", _object(record.get("metadata"))
    return Request(
        name=_name(metadata, number),
        place=number,
        steps=_steps(acceptance, place),
        num_prompt_tokens=_metric(record, "input_sequence_length", place),
        num_output_tokens=_known(acceptance, "completion_tokens", place),
        num_steps=_known(acceptance, "num_spec_steps", place),
        num_drafted=_known(acceptance, "num_draft_tokens", place),
        num_accepted=_known(acceptance, "num_accepted_draft_tokens", place),
        accepted_by_depth=_by_depth(acceptance.get("acceptance_histogram"), place),
        duration_ns=_duration(metadata),
    )


def _name(metadata: dict[str, Any], number: int) -> str:
    """By the id that the client sent, else by the session and the turn in it."""
    sent = metadata.get("x_request_id")
    if isinstance(sent, str) and sent:
        return sent
    session, turn = metadata.get("session_num", number), metadata.get("turn_index") or 0
    return f"session-{session}" if turn == 0 else f"session-{session}-turn-{turn}"


def _steps(acceptance: dict[str, Any], place: str) -> list[StepLengths]:
    accepted, drafted = acceptance["per_step_accepted"], acceptance.get("per_step_drafted")
    if not isinstance(accepted, list) or (drafted is not None and not isinstance(drafted, list)):
        raise UsageError(f"{place}: wanted per_step_accepted and per_step_drafted as lists")
    counts = [None] * len(accepted) if drafted is None else [count(d, f"{place}: per_step_drafted") for d in drafted]
    if len(accepted) != len(counts):
        raise UsageError(f"{place}: wanted per_step_accepted and per_step_drafted of the same length")
    return [StepLengths(count(a, f"{place}: per_step_accepted"), d) for a, d in zip(accepted, counts, strict=True)]


def _by_depth(histogram: Any, place: str) -> list[int] | None:
    """From steps that accepted exactly j tokens, by j, to steps that accepted more than d."""
    if histogram is None:
        return None
    if not isinstance(histogram, dict):
        raise UsageError(f"{place}: got an acceptance_histogram that is no object")
    exactly = {
        _length(name, place): count(steps, f"{place}: acceptance_histogram") for name, steps in histogram.items()
    }
    deepest = max((length for length, steps in exactly.items() if steps), default=0)
    return [sum(steps for length, steps in exactly.items() if length > depth) for depth in range(deepest)]


def _length(name: str, place: str) -> int:
    """What a bucket of the histogram is named."""
    if not (name.isascii() and name.isdigit() and len(name) < 8):
        raise UsageError(f"{place}: got the bucket {name[:40]!r} of acceptance_histogram, wanted a count")
    return int(name)


def _metric(record: dict[str, Any], name: str, place: str) -> int | None:
    value = _object(_object(record.get("metrics")).get(name)).get("value")
    return None if value is None else count(value, f"{place}: {name}")


def _duration(metadata: dict[str, Any]) -> int:
    """Nanoseconds that the request took; 0 where that is not known."""
    begun, ended = metadata.get("request_start_ns"), metadata.get("request_end_ns")
    if type(begun) is not int or type(ended) is not int:
        return 0
    return ended - begun if 0 < ended - begun < MOST_DURATION else 0


def _known(fields: dict[str, Any], name: str, place: str) -> int | None:
    value = fields.get(name)
    return None if value is None else count(value, f"{place}: {name}")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
