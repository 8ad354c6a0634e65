"""A turn's request in words: when it arrived and joined, which row it took, that it was cancelled."""

from __future__ import annotations

from specscope.schemas import Manifest, TurnEnd, TurnStart
from specscope.tracer.naming.text import counted


def request_text(manifest: Manifest, start: TurnStart, end: TurnEnd | None) -> str | None:
    """``arrived at step 1, waited 2 steps (1150 ms), row 1 from step 3 on; cancelled after 2 steps``.

    Steps are those that the rows of the run had taken together. None where nothing of the kind was recorded, or nobody
    could wait: one row, and all prompts there from the start.
    """
    parts = [", ".join(_joining(start))] if start.could_wait(manifest.batch_size or 1) else []
    if end is not None and end.reason == "cancelled":
        parts.append(f"cancelled after {counted(end.num_steps, 'step')}")
    return "; ".join(parts) or None


def row_lines(manifest: Manifest, start: TurnStart, end: TurnEnd | None) -> list[str]:
    """A line that the turn was a row of a batch, and one of its request; the row is named once, where it is known."""
    rows, request = manifest.batch_size or 1, request_text(manifest, start, end)
    row = None if start.could_wait(rows) else start.known_row  # else the request's line names it
    place = "in" if row is None else f"row {row} of"
    batch = [f"{place} a batch of {rows}: times of a step are those of all its rows"] if rows > 1 else []
    return batch if request is None else [*batch, f"request: {request}"]


def _joining(start: TurnStart) -> list[str]:
    row = f"row {start.row or 0} from step {start.joined_at} on"
    arrived = f"arrived at step {start.arrived_at or 0}"
    if start.waited_steps is None:
        return [f"{arrived} with its first turn", row]
    seconds = "" if start.waited_ns is None else f" ({start.waited_ns / 1e6:.0f} ms)"
    return [arrived, f"waited {counted(start.waited_steps, 'step')}{seconds}", row]
