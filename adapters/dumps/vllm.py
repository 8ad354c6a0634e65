"""vLLM's responses with ``metrics.speculative_decoding`` of ``--per-request-spec-decode-metrics detailed``.

Knows JSON Lines of responses of its OpenAI server (the last chunk where they were streamed), the lines that its batch
runner writes, and one response or a list of them as a single JSON value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from specscope.adapters.dumps.requests import DRAFTING_STEPS, Dump, Request, StepLengths, count, read_text
from specscope.tracer.errors import UsageError

DONE = re.compile(r"\s*data:\s*\[DONE\]\s*")  # the end of a stored stream
DETAILED = "start the server with --per-request-spec-decode-metrics detailed"


def read_vllm(path: Path) -> Dump:
    """The requests in ``path``.

    Raises:
        UsageError: where a line is not JSON, or its metrics are malformed.
    """
    dump = Dump({"engine": "vllm", **DRAFTING_STEPS}, [], [])
    budgets, models = [], set()
    for number, answer in enumerate(_requests(path)):
        response, place = answer.response, answer.place
        metrics = _speculation(response)
        if metrics.get("per_step_accepted") is None:
            lacks = "per_step_accepted" if metrics else "metrics.speculative_decoding"
            dump.left_out.append(f"{place} has no {lacks}; {DETAILED}")
            continue
        dump.requests.append(_request(response, metrics, _Label(answer.name or f"request-{number}", number, place)))
        budgets.append(_known(metrics, "num_spec_tokens", place))
        models.add(_text(response, "model", place))
    if budgets and None not in budgets:
        dump.manifest["tree_policy"] = {"budget": max(budget for budget in budgets if budget is not None)}
    if len(models) == 1 and (model := models.pop()):
        dump.manifest["teacher"] = {"name": model}
    return dump


class _Answer(NamedTuple):
    """What a request was answered with; of a stream, its last chunk with metrics."""

    name: str | None  # by the client or the server
    place: str
    response: dict[str, Any]


def _requests(path: Path) -> Iterator[_Answer]:
    """One answer per request, in the order in which the requests appear. The chunks of a stream are one request: only
    its last ones have metrics."""
    answers: list[_Answer] = []
    places: dict[str, int] = {}  # name -> its last place among the answers
    for place, outer in _responses(path):
        response = _body(outer)
        name = _text(outer, "custom_id", place) or _text(response, "id", place)
        answer = _Answer(name, place, response)
        measured = bool(_speculation(response))
        earlier = places.get(name) if name is not None else None
        if earlier is None:
            if measured or name is not None or not _is_chunk(response):
                answers.append(answer)
        elif measured and _speculation(answers[earlier].response) and not _is_chunk(response):
            answers.append(answer)  # two requests of one name
        elif measured:
            answers[earlier] = answer
        if name is not None and (earlier is None or answers[-1] is answer):
            places[name] = len(answers) - 1
    yield from answers


def _is_chunk(response: dict[str, Any]) -> bool:
    """Whether it is a part of a streamed answer."""
    choices = response.get("choices")
    if str(response.get("object")).endswith(".chunk"):
        return True
    return isinstance(choices, list) and any("delta" in _object(choice) for choice in choices)


def _speculation(response: dict[str, Any]) -> dict[str, Any]:
    return _object(_object(response.get("metrics")).get("speculative_decoding"))


def _text(fields: dict[str, Any], name: str, place: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{place}: got {name} {str(value)[:40]!r}, wanted text")
    return value or None


def _responses(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each response, and where it stands. Lines end with a newline alone: text may hold other separators."""
    text = read_text(path)
    try:
        whole = json.loads(text)
    except ValueError:
        lines = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        yield from ((place, _parsed(line, place)) for place, line in lines if not DONE.fullmatch(line))
        return
    for number, response in enumerate(whole if isinstance(whole, list) else [whole]):
        yield f"response {number}", _object(response)


def _parsed(line: str, place: str) -> dict[str, Any]:
    """The object on a line; that of an event where a stream was stored as it came."""
    text = line.removeprefix("data:").strip()
    try:
        return _object(json.loads(text))
    except ValueError:
        raise UsageError(f"{place} is not JSON; wanted a response of vLLM's server on each line") from None


def _body(outer: dict[str, Any]) -> dict[str, Any]:
    """The response itself, where the batch runner put it into its own line."""
    return _object(_object(outer.get("response")).get("body")) or outer


class _Label(NamedTuple):
    """Which request it is."""

    name: str
    number: int  # in the file
    place: str  # for people


def _request(response: dict[str, Any], metrics: dict[str, Any], label: _Label) -> Request:
    usage, choices = _object(response.get("usage")), response.get("choices") or [{}]
    ended = _object(choices[0] if isinstance(choices, list) else None).get("finish_reason")
    return Request(
        name=label.name,
        place=label.number,
        steps=_steps(metrics, label.place),
        num_prompt_tokens=_known(usage, "prompt_tokens", label.place),
        num_output_tokens=_known(usage, "completion_tokens", label.place),
        num_steps=_known(metrics, "num_spec_steps", label.place),
        num_drafted=_known(metrics, "num_draft_tokens", label.place),
        num_accepted=_known(metrics, "num_accepted_draft_tokens", label.place),
        accepted_by_depth=_by_depth(metrics.get("acceptance_histogram"), label.place),
        reason="length" if ended == "length" else "unknown",
    )


def _steps(metrics: dict[str, Any], place: str) -> list[StepLengths]:
    accepted, drafted = metrics["per_step_accepted"], metrics.get("per_step_drafted")
    if not isinstance(accepted, list) or not isinstance(drafted, list) or len(accepted) != len(drafted):
        raise UsageError(f"{place}: wanted per_step_accepted and per_step_drafted of the same length")
    return [
        StepLengths(count(a, f"{place}: per_step_accepted"), count(d, f"{place}: per_step_drafted"))
        for a, d in zip(accepted, drafted, strict=True)
    ]


def _by_depth(histogram: Any, place: str) -> list[int] | None:
    """From steps that accepted exactly j tokens to steps that accepted more than d."""
    if histogram is None:
        return None
    if not isinstance(histogram, list):
        raise UsageError(f"{place}: got an acceptance_histogram that is no list")
    counts = [count(entry, f"{place}: acceptance_histogram") for entry in histogram]
    at_least = list(accumulate(reversed(counts[1:])))[::-1]
    return [steps for steps in at_least if steps]


def _known(fields: dict[str, Any], name: str, place: str) -> int | None:
    value = fields.get(name)
    return None if value is None else count(value, f"{place}: {name}")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
