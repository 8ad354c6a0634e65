"""Requests of another engine, of which only lengths are known, and the trace that is written of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from specscope.schemas import Step, TurnEnd, TurnStart
from specscope.tracer.errors import UsageError
from specscope.tracer.files.recorder import Recorder
from specscope.tracer.files.writer import check_writable

UNKNOWN = "unknown"
MOST_LENGTH = 1 << 31  # no step drafts so many tokens; a damaged dump may hold a number of any size
#: What a manifest must have, and a dump does not say.
PLACEHOLDERS: dict[str, Any] = {
    "mode": UNKNOWN,
    "attention": UNKNOWN,
    "dtype": UNKNOWN,
    "device": {"backend": UNKNOWN, "name": UNKNOWN},
    "teacher": {"name": UNKNOWN, "architecture": UNKNOWN, "vocab_size": 0},
    "drafter": {"kind": UNKNOWN},
    "tree_policy": {"kind": "chain", "depth": 0, "top_k": 0, "budget": 0},
    "sampling": {"rule": UNKNOWN},
}
#: Of engines that do not report steps which verified no draft.
DRAFTING_STEPS = {"conventions": {"steps": "drafting"}}
#: The fields of the manifest that say what ran, so that a user can state them; the others are the trace's own.
STATABLE = (*PLACEHOLDERS, *("engine", "versions", "kv_dtype", "graph", "products", "tokenizer", "stop_rules"))
STATABLE += ("cache_strategy", "batch_size", "seed")


class StepLengths(NamedTuple):
    """One step of a request."""

    accepted: int  # drafted tokens, without the bonus token
    drafted: int | None  # that were verified; None: not known


@dataclass(kw_only=True)
class Request:
    """One request. What the engine itself counted is kept apart from its steps, so that the two can be compared."""

    name: str
    place: int  # in the dump, those that cannot be converted counted
    steps: list[StepLengths]
    num_prompt_tokens: int | None = None
    num_output_tokens: int | None = None
    num_steps: int | None = None  # None: not counted by the engine; likewise below
    num_drafted: int | None = None
    num_accepted: int | None = None
    accepted_by_depth: list[int] | None = None  # [d] = steps that accepted at least d + 1
    reason: Literal["length", "unknown"] = "unknown"
    duration_ns: int = 0  # 0: not measured
    lacks_beginning: bool = False  # the dump begins within it, or may

    @property
    def drafted_at_all(self) -> int | None:
        """Drafted tokens over all steps; None where neither the engine nor every step says."""
        if self.num_drafted is not None:
            return self.num_drafted
        drafted = [step.drafted for step in self.steps if step.drafted is not None]
        return sum(drafted) if len(drafted) == len(self.steps) else None


class Dump(NamedTuple):
    """What a file of another engine holds."""

    manifest: dict[str, Any]  # fields that the dump itself tells, sections nested
    requests: list[Request]
    left_out: list[str]  # requests that cannot be converted, and why


class Written(NamedTuple):
    """What a trace was written of."""

    num_turns: int
    num_steps: int
    lacking: list[str]  # names of the requests whose first steps may be missing


def write_lengths(
    dump: Dump, out: Path, *, stated: Mapping[str, Any], by_order: bool = False, overwrite: bool = False
) -> Written:
    """Writes the requests of ``dump`` as a trace of level lengths.

    Args:
        dump: what was read.
        out: the trace.
        stated: fields of the manifest, dotted, that the user knows.
        by_order: name prompts by their place in the dump, so that two runs of the same requests are paired.
        overwrite: whether an existing file may be replaced.

    Raises:
        UsageError: where there is nothing to write, a field is unknown, or the file exists.
    """
    requests = [request for request in dump.requests if request.steps or request.num_drafted == 0]
    if not requests:
        raise UsageError(f"no request says how many tokens its steps accepted{_why(dump.left_out)}")
    _check_names(requests, by_order)
    manifest = _manifest(dump.manifest, stated)
    check_writable(out, overwrite=overwrite)
    names = [f"request-{request.place}" if by_order else request.name for request in requests]
    try:
        with tempfile.TemporaryDirectory(prefix=".specscope-", dir=out.parent) as beside:
            partial = Path(beside, out.name)
            with Recorder(partial, sections=["lengths"], level="lengths", **manifest) as trace:
                for turn, (name, request) in enumerate(zip(names, requests, strict=True)):
                    _write_turn(trace, turn, request, name)
            _put_in_place(partial, out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from None
    lacking = [request.name for request in requests if request.lacks_beginning]
    return Written(len(requests), sum(len(request.steps) for request in requests), lacking)


def _put_in_place(partial: Path, out: Path) -> None:
    """Only a whole trace takes its name; an existing file is kept until then."""
    if out.exists() and not out.is_file():  # a device or a pipe is written to, and not replaced
        out.write_bytes(partial.read_bytes())
    else:
        partial.replace(out.resolve())


def _why(left_out: Sequence[str]) -> str:
    return f": {left_out[0]}" if left_out else ""


def _check_names(requests: Iterable[Request], by_order: bool) -> None:
    seen: set[str] = set()
    for request in requests:
        _check_text(request.name, "the name of a request")
        if request.name in seen and not by_order:
            raise UsageError(f"two requests are named {request.name[:80]!r}: name them by their order, with --by-order")
        seen.add(request.name)


def _manifest(of_dump: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's fields, and among them which of them are not known."""
    fields = json.loads(json.dumps(PLACEHOLDERS))
    unknown = set(_leaves(fields))
    for name, value in stated.items():
        _check_stated(name, value)
    for name, value in [*_leaves_of(of_dump), *stated.items()]:
        _check_text(json.dumps(value, ensure_ascii=False), name)
        _put(fields, name, value)
        unknown = {other for other in unknown if not f"{other}.".startswith(f"{name}.")}
    return {**fields, "not_known": sorted(unknown)}


def _check_stated(name: str, value: Any) -> None:
    """Refuses what is no fact of the run that a user may state, and values that no run has."""
    top = name.partition(".")[0]
    if top not in STATABLE:
        raise UsageError(f"got --set {name[:80]}, wanted a field of the run, in one of: {', '.join(STATABLE)}")
    for field, leaf in _leaves_of({name: value}):
        if isinstance(leaf, str) and not leaf.strip():
            raise UsageError(f"got --set {field}= without a value, wanted one")
        if isinstance(leaf, bool) or not isinstance(leaf, int | float) or field == "seed":
            continue
        if not 0 <= leaf < float("inf"):
            raise UsageError(f"got --set {field}={leaf}, wanted a finite number of at least 0")


def _check_text(text: str, place: str) -> None:
    """Refuses halves of surrogate pairs, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{place}: got {text[:80]!a}, which is not valid Unicode") from None


def _leaves(fields: Mapping[str, Any]) -> list[str]:
    return [name for name, _ in _leaves_of(fields)]


def _leaves_of(fields: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in fields.items():
        leaves += _leaves_of(value, f"{above}{name}.") if isinstance(value, dict) else [(above + name, value)]
    return leaves


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = fields.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(f"got --set {name}, but {section} is no section of the manifest")
        fields = inner
    fields[last] = value


def _write_turn(trace: Recorder, turn: int, request: Request, name: str) -> None:
    start = {
        "turn": turn,
        "prompt_id": name,
        "prompt_turn": 0,
        "prompt_ids": [],
        "reused_length": 0,
        "without_ids": True,
        "num_prompt_tokens": request.num_prompt_tokens,
        "lacks_beginning": request.lacks_beginning or None,
        "prefill": {"num_tokens": 0},
    }
    trace.write(TurnStart, start)
    for number, step in enumerate(request.steps):
        trace.write(Step, {"turn": turn, "step": number, "lengths": step._asdict()})
    trace.write(TurnEnd, {"turn": turn, **_end(request)})


def _end(request: Request) -> dict[str, Any]:
    """The turn's end: what the engine counted, else what the steps add up to."""
    lengths = [step.accepted for step in request.steps]
    by_depth = [sum(length > depth for length in lengths) for depth in range(max(lengths, default=0))]
    counts = (request.num_steps, request.num_drafted, request.num_accepted, request.accepted_by_depth)
    return {
        "output_ids": [],
        "num_output_tokens": request.num_output_tokens,
        "reason": request.reason,
        "num_steps": len(lengths) if request.num_steps is None else request.num_steps,
        "num_drafted": request.drafted_at_all,
        "num_accepted": sum(lengths) if request.num_accepted is None else request.num_accepted,
        "accepted_by_depth": by_depth if request.accepted_by_depth is None else request.accepted_by_depth,
        "counts_from": "steps" if all(count is None for count in counts) else None,
        "duration_ns": request.duration_ns,
    }


def read_text(path: Path) -> str:
    """The text of the dump at ``path``, without a byte order mark."""
    return path.read_bytes().decode("utf-8-sig", errors="replace")


def count(value: Any, place: str) -> int:
    """``value`` as a count.

    Raises:
        UsageError: where it is none, naming its place.
    """
    if type(value) is not int or not 0 <= value < MOST_LENGTH:
        raise UsageError(f"{place}: got {str(value)[:40]!r}, wanted a count")
    return value
