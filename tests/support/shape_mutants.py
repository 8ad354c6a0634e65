"""A run that chooses the shape of each step, made of a recorded one; and ways to choose wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specscope.schemas import ShapeTable
from specscope.tracer.shapes import Load, choose_shape
from support.shape_tables import table

Lines = list[dict[str, Any]]


def by_table(lines: Lines, gain: float = 1.0) -> ShapeTable:
    """A table whose one large shape is the dynamic tree of the run, and promises ``gain`` times what no tree does."""
    policy = lines[0]["tree_policy"]
    times = {(1, 10): [10.0, 10.0], (1, 500): [10.0, 10.0]}
    small_or_large = table(times, [1.0, gain], 0.1)
    dynamic = {name: policy[name] for name in ("kind", "depth", "top_k", "budget")}
    large = small_or_large.shapes[1].model_copy(update={**dynamic, "name": "dynamic", "choices": None})
    return small_or_large.model_copy(update={"shapes": [small_or_large.shapes[0], large]})


def choose_by(lines: Lines, shapes: ShapeTable) -> None:
    """Makes ``lines`` those of a run that has chosen by ``shapes`` and always found its own dynamic tree best."""
    lines[0]["tree_policy"] |= {"kind": "auto", "shapes": shapes.model_dump(exclude_none=True)}
    lines[0]["capabilities"].append("shape")
    before = None
    for step in (line for line in lines if line["kind"] == "step"):
        load = Load(1, step["tensors"]["committed_length"])
        step["shape"] = choose_shape(shapes, load, before).model_dump(exclude_none=True)
        before = step["shape"]["name"]


def chooses(lines: Lines) -> Lines:
    """``lines`` as those of a run that chooses rightly."""
    choose_by(lines, by_table(lines, gain=3.0))
    return lines


def steps_of(lines: Lines) -> Lines:
    """The steps that have a shape."""
    return [line for line in lines if line["kind"] == "step"]


def _changed(**values: Any) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        steps_of(chooses(lines))[1]["shape"] |= values

    return change


def _dearer(lines: Lines) -> None:
    for load in chooses(lines)[0]["tree_policy"]["shapes"]["loads"]:
        load["step_ms"][1] = 90.0


#: Each of them violates the invariant.
WRONG_CHOICES: dict[str, Callable[[Lines], None]] = {
    "what does not pay": _dearer,
    "another reason": _changed(reason="kept"),
    "a shape that there is not": _changed(name="bush-99"),
    "more rows than the batch has": _changed(rows=2),
    "another context": _changed(context=3),
    "after another shape": _changed(before="none"),
    "a promise that does not follow": _changed(promised=1.0),
}
SHAPE_MUTANTS: dict[str, Callable[[Lines], None]] = {"draft.shape-pays": _dearer}
