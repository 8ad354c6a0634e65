"""Which shape of draft tree pays at a load: predicted tokens per second, and a choice that does not flap.

A step of R rows with a shape emits R times the tokens per step that were measured of the shape, in the time that was
measured of such a step with so many rows and so much context (goodput; Liu et al. 2024, "Optimizing Speculative
Decoding for Serving Large Language Models Using Goodput"). Acceptance by itself decides nothing: it is nearly the same
in one row and in many, while the time of a large tree is not. Engine, oracle and comparison all decide by what stands
here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from specscope.schemas import ShapeSection, ShapeTable, Step, TreePolicy

Reason = Literal["first", "best", "better", "kept"]


class Load(NamedTuple):
    """What a step has to do."""

    rows: int
    context: int  # committed tokens of a row, on average

    @classmethod
    def of(cls, committed_lengths: Sequence[int]) -> Load:
        """That of rows with these lengths; at least one."""
        return cls(len(committed_lengths), sum(committed_lengths) // len(committed_lengths))


class Neighbours(NamedTuple):
    """The two measured values around another, and how far it lies from the lower to the upper."""

    lower: int
    upper: int
    share: float  # 0 at the lower, 1 at the upper


def neighbours(measured: Sequence[int], value: int) -> Neighbours:
    """Those of ``value`` among ``measured``, ascending; beyond them, the nearest one twice."""
    place = bisect_left(measured, value)
    if place == 0 or place == len(measured):
        nearest = measured[min(place, len(measured) - 1)]
        return Neighbours(nearest, nearest, 0.0)
    lower, upper = measured[place - 1], measured[place]
    return Neighbours(lower, upper, (value - lower) / (upper - lower))


def step_times(table: ShapeTable, load: Load) -> list[float]:
    """Milliseconds of a step at ``load``, one for each shape."""
    return interpolated({Load(at.rows, at.context): at.step_ms for at in table.loads}, load)


def interpolated(measured: Mapping[Load, Sequence[float]], load: Load) -> list[float]:
    """Numbers at ``load``, of those that were measured at every combination of some rows and some contexts: in both
    directions along the line between the neighbours, and beyond what was measured those of the nearest."""
    rows = neighbours(sorted({at.rows for at in measured}), load.rows)
    contexts = neighbours(sorted({at.context for at in measured}), load.context)

    def with_rows(num_rows: int) -> list[float]:
        below, above = measured[Load(num_rows, contexts.lower)], measured[Load(num_rows, contexts.upper)]
        return [_between(x, y, contexts.share) for x, y in zip(below, above, strict=True)]

    few, many = with_rows(rows.lower), with_rows(rows.upper)
    return [_between(x, y, rows.share) for x, y in zip(few, many, strict=True)]


def _between(lower: float, upper: float, share: float) -> float:
    return (1 - share) * lower + share * upper


def promised(table: ShapeTable, load: Load) -> list[float]:
    """Tokens per second of all rows at ``load``, one for each shape."""
    times = step_times(table, load)
    return [1e3 * load.rows * s.tokens_per_step / ms for s, ms in zip(table.shapes, times, strict=True)]


def choose_shape(table: ShapeTable, load: Load, before: str | None) -> ShapeSection:
    """The shape of the most predicted tokens per second at ``load``; the one ``before`` unless another promises more by
    more than the hysteresis. A name that the table does not have is as if nothing came before."""
    goodputs = dict(zip((shape.name for shape in table.shapes), promised(table, load), strict=True))
    best = max(goodputs, key=goodputs.__getitem__)  # of equal ones the first, which is the smallest
    known = before if before in goodputs else None
    name, reason = _decide(goodputs, best, known, table.hysteresis)
    return ShapeSection(
        name=name,
        rows=load.rows,
        context=load.context,
        before=known,
        reason=reason,
        promised=goodputs[name],
        best=best,
        best_promised=goodputs[best],
    )


def _decide(goodputs: dict[str, float], best: str, before: str | None, hysteresis: float) -> tuple[str, Reason]:
    if before is None:
        return best, "first"
    if goodputs[before] >= goodputs[best]:
        return before, "best"
    if goodputs[best] > goodputs[before] * (1 + hysteresis):
        return best, "better"
    return before, "kept"


def policy_of_step(policy: TreePolicy, step: Step) -> TreePolicy:
    """How the tree of ``step`` is grown: by its run's ``policy``, or by that of the shape that was chosen for it."""
    table, chosen = policy.shapes, step.shape
    if table is None or chosen is None:
        return policy
    shape = next((shape for shape in table.shapes if shape.name == chosen.name), None)
    if shape is None:
        return policy
    return TreePolicy(
        kind=shape.kind,
        depth=shape.depth,
        top_k=shape.top_k,
        budget=shape.budget,
        name=shape.name if shape.kind in ("static", "chain") else None,
        choices=shape.choices,
        adaptive=policy.adaptive,
    )
