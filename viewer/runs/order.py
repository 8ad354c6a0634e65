"""In which order runs are listed: by a column of the table, upwards or downwards. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from specscope.viewer.runs.summary import RunSummary


class Order(NamedTuple):
    """By what, and in which direction."""

    by: str  # a name of KEYS
    falls: bool


NEWEST = Order("newest", falls=True)


def _number(value: float | None) -> float:
    """To sort by; NaN where it is unknown, which comes last."""
    return math.nan if value is None else float(value)


def _outcome(name: str) -> Callable[[RunSummary], float]:
    return lambda run: _number(None if run.outcome is None else getattr(run.outcome, name))


#: By name: what of a run is compared.
KEYS: dict[str, Callable[[RunSummary], Any]] = {
    "name": lambda run: run.run.name,
    "newest": lambda run: run.created,
    "size": lambda run: float(run.num_bytes),
    "health": lambda run: (("bad", "warn", "info", "good").index(run.health[0].tone), run.health[0].words),
    "mode": lambda run: (run.mode, run.dtype, run.attention),
    "models": lambda run: (run.teacher, run.drafter, run.tree, run.rule),
    "turns": _outcome("num_turns"),
    "steps": _outcome("num_steps"),
    "accepted": _outcome("accepted_length"),
    "speed": _outcome("tokens_per_second"),
}
#: What is listed from its largest value on when it is first asked for.
FALLING = ("newest", "size", "turns", "steps", "accepted", "speed")


def next_order(order: Order, by: str) -> Order:
    """The order that a click on the head ``by`` asks for."""
    return Order(by, not order.falls) if by == order.by else Order(by, by in FALLING)


def request_for(order: Order) -> str:
    """What a head asks for: the order itself, so that a click that is answered twice changes nothing more."""
    return f"order:{order.by}.{'down' if order.falls else 'up'}"


def requested(request: str) -> Order | None:
    """The order that ``request`` asks for; None where it asks for none that there is."""
    return next(
        (order for by in KEYS for order in (Order(by, True), Order(by, False)) if request_for(order) == request), None
    )


def in_order(runs: Sequence[RunSummary], order: Order) -> list[RunSummary]:
    """``runs`` sorted; those of which it is unknown come last, and what is equal goes by name."""
    key = KEYS[order.by]
    by_name = sorted(runs, key=lambda run: run.run.name)
    known = [run for run in by_name if not _is_unknown(key(run))]
    unknown = [run for run in by_name if _is_unknown(key(run))]
    return sorted(known, key=key, reverse=order.falls) + unknown


def _is_unknown(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
