"""Whether the shape that was chosen for a step is the one that pays, decided anew from the run's table and the load."""

from __future__ import annotations

import math

from specscope.schemas import ShapeSection
from specscope.tracer.oracle.invariants.base import Context, present
from specscope.tracer.shapes import Load, choose_shape

MOST_SHOWN = 40  # characters of a name
ROUNDING = 1e-9  # of what is computed again from the same numbers, in proportion


def is_chosen(c: Context) -> bool:
    """Whether the run chooses a shape for each step."""
    return c.manifest.tree_policy.shapes is not None


def shape_pays(c: Context) -> str | None:
    """What is wrong with the shape that was chosen."""
    chosen = present(c.step.shape)
    table = present(c.manifest.tree_policy.shapes)
    if chosen.name not in [shape.name for shape in table.shapes]:
        return f"shape {chosen.name[:MOST_SHOWN]!r} is none of the table's"
    problem = _wrong_load(c, chosen) if c.step.forced is None else None  # a replay follows the recorded choice
    if problem is not None:
        return problem
    wanted = choose_shape(table, Load(chosen.rows, chosen.context), chosen.before)
    if (chosen.name, chosen.reason, chosen.best) != (wanted.name, wanted.reason, wanted.best):
        got, right = (f"{_short(at.name)} ({at.reason}; best: {_short(at.best)})" for at in (chosen, wanted))
        place = f"{chosen.rows} rows of {chosen.context} tokens after {_short(chosen.before)}"
        return f"{got} was chosen for {place}, wanted {right}"
    for stated, computed in ((chosen.promised, wanted.promised), (chosen.best_promised, wanted.best_promised)):
        if not math.isclose(stated, computed, rel_tol=ROUNDING):
            return f"{stated:.6g} tokens per second are promised, wanted {computed:.6g}"
    return None


def _short(name: str | None) -> str:
    return "none before" if name is None else name[:MOST_SHOWN]


def _wrong_load(c: Context, chosen: ShapeSection) -> str | None:
    """What the record itself tells of the load, and of the step before."""
    most = c.manifest.batch_size or 1
    if chosen.rows > most:
        return f"{chosen.rows} rows took the step, the batch has {most} at most"
    length = c.step.tensors.committed_length if c.step.tensors is not None else None
    if chosen.rows == 1 and length is not None and chosen.context != length:
        return f"context {chosen.context}, wanted the row's {length} committed tokens"
    before = c.previous.shape.name if c.previous is not None and c.previous.shape is not None else chosen.before
    if chosen.before == before:
        return None
    return f"the shape before is {_short(chosen.before)}, the step before had {_short(before)}"
