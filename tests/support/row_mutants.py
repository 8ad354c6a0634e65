"""What may be wrong with a row that a turn takes, in a sample trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.traces import Lines


def of_kind(lines: Lines, kind: str) -> list[dict[str, Any]]:
    """The records of one kind, in their order."""
    return [line for line in lines if line["kind"] == kind]


def make_held(lines: Lines) -> Lines:
    """An honest trace of turns that say what their rows held: ``lines``, changed."""
    for start in of_kind(lines, "turn_start"):
        start["held"] = {"committed_length": start["reused_length"], "num_pairs": start["reused_length"]}
    return lines


def take_before_it_is_left(lines: Lines) -> None:
    """The second turn begins in the row of the first, which has not ended."""
    make_held(lines)[0]["batch_size"] = 2
    start, end = of_kind(lines, "turn_start")[1], of_kind(lines, "turn_end")[0]
    lines.remove(start)
    lines.insert(lines.index(end), start)


def keep(field: str) -> Callable[[Lines], None]:
    """The row of the second turn holds more of something than the turn reuses."""

    def change(lines: Lines) -> None:
        of_kind(make_held(lines), "turn_start")[1]["held"][field] += 3

    return change


def reuse_others(lines: Lines) -> None:
    """The second turn reuses tokens of the first, which are not its own."""
    start = of_kind(make_held(lines), "turn_start")[1]
    start["reused_length"] = 4
    start["held"] = {"committed_length": 4, "num_pairs": 4}


def draw_on(lines: Lines) -> None:
    """The second turn draws by the generator that the first has left."""
    for number, start in enumerate(of_kind(lines, "turn_start")):
        start["prefill"]["draw"] = {"coin": 0.5 + number / 16, "low": 0.25, "high": 0.75}
        start["generator_digest"] = f"{number:016x}"
    of_kind(lines, "turn_end")[0]["generator_digest"] = f"{1:016x}"


ROW_MUTANTS: dict[str, Callable[[Lines], None]] = {
    "rows.free-when-taken": take_before_it_is_left,
    "rows.nothing-kept": keep("num_pairs"),
    "rows.draws-anew": draw_on,
}


def requests_waited(lines: Lines) -> Lines:
    """``lines``, a run of three turns of two prompts, as one of two rows with a clock in seconds: the second prompt
    waits, moves to row 0 in its third step, and is cancelled in its second turn."""
    lines[0] |= {"batch_size": 2, "arrivals_clock": "seconds"}
    starts = of_kind(lines, "turn_start")
    starts[0] |= {"joined_at": 0, "waited_ns": 0}
    starts[1] |= {"row": 1, "arrived_at": 2, "joined_at": 5, "waited_ns": 1_500_000_000}
    starts[2] |= {"arrived_at": 2, "joined_at": 18}
    [step for step in of_kind(lines, "step") if step["turn"] == 1][2]["row"] = 0
    of_kind(lines, "turn_end")[2]["reason"] = "cancelled"
    return lines
