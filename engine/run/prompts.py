"""Prompts from the command line and from JSON Lines files: ``prompt``, ``turns`` or ``ids``, and an optional id.

A ``prompt`` is text to continue as it stands; ``turns`` are what the user says in a conversation. A file of arrivals
has the same lines, each with the times at which its request arrives and is cancelled.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from specscope.engine.settings import ArrivalsClock
from specscope.tracer.errors import UsageError

ID_FIELDS = ("id", "question_id", "task_id")  # ours, MT-Bench's, HumanEval's
MOST_SECONDS = 1_000_000_000  # of a time: what is longer is a mistake, and more than a sleep can take


class Times(NamedTuple):
    """When a request is there, by the clock of its run: steps that the rows have taken together, or seconds."""

    arrives_at: float = 0  # from then on it may take a row
    cancel_at: float | None = None  # from then on nobody wants it; None: it is wanted to its end


AT_ONCE = Times()


@dataclass(frozen=True)
class Prompt:
    """One conversation to decode: texts turn by turn, or token ids taken as they are."""

    id: str
    turns: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    chat: bool = False  # the turns are a user's, for the tokenizer's chat template where it has one
    category: str | None = None  # as its file names it
    times: Times = AT_ONCE

    def __post_init__(self) -> None:
        if not self.ids and not any(turn for turn in self.turns):
            raise UsageError(f"prompt {self.id!r} is empty: give it some text")
        if any(not turn for turn in self.turns):
            raise UsageError(f"prompt {self.id!r} has an empty turn: give it some text")
        try:
            "".join((self.id, self.category or "", *self.turns)).encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"prompt {self.id!r} is no text: it holds a lone surrogate or bytes outside UTF-8"
            ) from None

    @property
    def num_turns(self) -> int:
        """Turns to decode."""
        return 1 if self.ids else len(self.turns)


def load_prompts(path: Path) -> list[Prompt]:
    """The prompts of a JSON Lines file, gzipped or not.

    Raises:
        UsageError: naming the line and what was wanted.
    """
    return _load(path, _parse)


def load_arrivals(path: Path, clock: ArrivalsClock = "steps") -> list[Prompt]:
    """The requests of a file of prompts whose lines may also have ``arrives_at`` and ``cancel_at``, in its order.
    A time that is null is one that is left out.

    Args:
        path: of the file.
        clock: what its times are counted by; steps are whole numbers.

    Raises:
        UsageError: naming the line and what was wanted.
    """
    return _load(path, partial(_parse_arrival, clock))


def _load(path: Path, parse: Callable[[str, int, dict[str, Any]], Prompt]) -> list[Prompt]:
    if path.exists() and not path.is_file():
        raise UsageError(f"cannot read prompts from {path}: it is no regular file")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = raw.decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UsageError(f"no prompt file at {path}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read prompts from {path}: {error}") from None
    places = {number: f"{path}, line {number}" for number, line in enumerate(lines, start=1) if line.strip()}
    prompts = [parse(place, number, _entry(place, lines[number - 1])) for number, place in places.items()]
    if not prompts:
        raise UsageError(f"{path} holds no prompt: wanted JSON Lines with 'prompt', 'turns' or 'ids'")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise UsageError(f"{path}: two prompts have the id {prompt.id!r}; ids name turns in a trace")
        seen.add(prompt.id)
    return prompts


def _entry(place: str, line: str) -> dict[str, Any]:
    """The object of one line."""
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: not JSON ({error})") from None
    if not isinstance(entry, dict):
        raise UsageError(f"{place}: got {type(entry).__name__}, wanted an object with 'prompt', 'turns' or 'ids'")
    return entry


def _parse_arrival(clock: ArrivalsClock, place: str, number: int, entry: dict[str, Any]) -> Prompt:
    time = _steps if clock == "steps" else _seconds
    arrives_at, cancel_at = entry.get("arrives_at"), entry.get("cancel_at")
    arrives_at = AT_ONCE.arrives_at if arrives_at is None else time(f"{place}: got arrives_at", arrives_at, None)
    if cancel_at is not None:
        cancel_at = time(f"{place}: got cancel_at", cancel_at, arrives_at)
    return replace(_parse(place, number, entry), times=Times(arrives_at, cancel_at))


def _steps(got: str, value: Any, arrives_at: float | None) -> int:
    """A time in steps; that of a cancel where it is given when its request ``arrives_at``."""
    least, after = (0, "") if arrives_at is None else (int(arrives_at) + 1, ", after it arrives")
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        fraction = "; --arrivals-clock seconds takes fractions" if isinstance(value, float) else ""
        raise UsageError(f"{got} {value!r}, wanted a number of steps, {least} or more{after}{fraction}")
    return value


def _seconds(got: str, value: Any, arrives_at: float | None) -> float:
    """The same in seconds."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= MOST_SECONDS or (arrives_at is not None and value <= arrives_at):
        after = "" if arrives_at is None else f", after it arrives at {arrives_at!r}"
        raise UsageError(f"{got} {value!r}, wanted seconds, 0 to {MOST_SECONDS}{after}")
    return float(value)


def _parse(place: str, number: int, entry: dict[str, Any]) -> Prompt:
    name = next((str(entry[field]) for field in ID_FIELDS if field in entry), f"line-{number}")
    category = str(entry["category"]) if entry.get("category") is not None else None
    if "ids" in entry:
        return Prompt(name, ids=tuple(_typed(place, "ids", entry["ids"], int)), category=category)
    if "turns" in entry:
        return Prompt(name, turns=tuple(_typed(place, "turns", entry["turns"], str)), chat=True, category=category)
    if "prompt" in entry:
        return Prompt(name, turns=tuple(_typed(place, "prompt", [entry["prompt"]], str)), category=category)
    raise UsageError(f"{place}: got the fields {', '.join(sorted(entry)) or 'none'}, wanted 'prompt', 'turns' or 'ids'")


def _typed(place: str, field: str, values: Any, wanted: type) -> list[Any]:
    right = isinstance(values, list) and all(isinstance(v, wanted) and not isinstance(v, bool) for v in values)
    if not right:
        raise UsageError(f"{place}: {field!r} wants {'text' if wanted is str else 'token ids, a list of integers'}")
    return list(values)
