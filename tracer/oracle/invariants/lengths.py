"""Invariants of steps of which only lengths were recorded. What they add up to is judged with the turn."""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import Context, Invariant, present


def _problem(c: Context) -> str | None:
    lengths = present(c.step.lengths)
    if lengths.accepted < 0:
        return f"{lengths.accepted} tokens were accepted"
    if lengths.drafted is not None and lengths.accepted > lengths.drafted:
        return f"{lengths.accepted} of {lengths.drafted} drafted tokens were accepted"
    return None


LENGTHS: tuple[Invariant[Context], ...] = (
    Invariant(
        id="lengths.accepted-of-drafted",
        statement="no more tokens are accepted than were drafted",
        check=_problem,
        needs=("lengths",),
        applies=lambda c: c.manifest.level == "lengths",
        phase="accept",
    ),
)
