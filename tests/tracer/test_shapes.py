"""Which shape of tree is chosen: by predicted tokens per second, without flapping, and never one that promises less."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shape_tables import CHAIN, NONE, table

from specscope.schemas import ShapeTable
from specscope.tracer.shapes import Load, choose_shape, promised, step_times

#: Milliseconds from little to much, and tokens per step.
TIMES = st.floats(0.5, 500)
TOKENS = st.floats(1, 6)


@st.composite
def tables(draw: st.DrawFn, most_shapes: int = 4) -> ShapeTable:
    """Any table: 1 to 4 shapes at up to 3 x 3 loads."""
    count = draw(st.integers(1, most_shapes))
    rows = sorted(draw(st.sets(st.integers(1, 64), min_size=1, max_size=3)))
    contexts = sorted(draw(st.sets(st.integers(1, 4096), min_size=1, max_size=3)))
    times = {
        (num_rows, context): draw(st.lists(TIMES, min_size=count, max_size=count))
        for num_rows in rows
        for context in contexts
    }
    return table(times, draw(st.lists(TOKENS, min_size=count, max_size=count)), draw(st.floats(0, 0.3)))


LOADS = st.builds(Load, st.integers(1, 80), st.integers(0, 5000))


@settings(deadline=None)
@given(table_=tables(), load=LOADS, place=st.integers(0, 9))
def test_what_is_chosen_promises_no_less_than_the_best_by_more_than_the_hysteresis(
    table_: ShapeTable, load: Load, place: int
) -> None:
    names = [shape.name for shape in table_.shapes]
    goodputs = dict(zip(names, promised(table_, load), strict=True))
    before = [None, *names][place % (len(names) + 1)]
    choice = choose_shape(table_, load, before)
    assert goodputs[choice.name] * (1 + table_.hysteresis) >= max(goodputs.values())
    assert (choice.promised, choice.best_promised) == (goodputs[choice.name], max(goodputs.values()))
    assert goodputs[choice.best] == max(goodputs.values())
    assert choice.before == before
    if choice.reason in ("first", "best"):
        assert choice.promised == choice.best_promised
    assert (choice.name == before) == (choice.reason in ("best", "kept"))


@settings(deadline=None)
@given(table_=tables(), load=LOADS, first=st.integers(0, 3), steps=st.integers(1, 6))
def test_a_load_that_stays_changes_the_shape_once_at_most(
    table_: ShapeTable, load: Load, first: int, steps: int
) -> None:
    at: str | None = table_.shapes[first % len(table_.shapes)].name
    chosen = [at]
    for _ in range(steps):
        at = choose_shape(table_, load, at).name
        chosen.append(at)
    assert sum(a != b for a, b in pairwise(chosen)) <= 1
    assert len(set(chosen[1:])) == 1


@settings(deadline=None)
@given(data=st.data(), table_=tables(), loads=st.lists(LOADS, min_size=2, max_size=12))
def test_it_does_not_flap_between_loads_at_which_nothing_promises_so_much_more(
    data: st.DataObject, table_: ShapeTable, loads: list[Load]
) -> None:
    """Among loads at which the shape before stays within the hysteresis of the best, it stays."""
    start = data.draw(st.sampled_from([shape.name for shape in table_.shapes]))
    place = [shape.name for shape in table_.shapes].index(start)
    near = [
        load for load in loads if promised(table_, load)[place] * (1 + table_.hysteresis) >= max(promised(table_, load))
    ]
    at = start
    for load in near:
        at = choose_shape(table_, load, at).name
        assert at == start


@settings(deadline=None)
@given(
    tokens=st.lists(TOKENS, min_size=2, max_size=5),
    base=st.floats(1, 50),
    per_slot=st.floats(0.01, 5),
    context=st.integers(1, 4096),
    hysteresis=st.floats(0, 0.3),
)
def test_the_more_rows_the_smaller_the_tree_where_time_grows_with_slots(
    tokens: list[float], base: float, per_slot: float, context: int, hysteresis: float
) -> None:
    """Each shape has twice the slots of the one before, and a step takes a fixed time and one per slot of all rows."""
    rows = (1, 4, 16, 64)
    times = {(r, context): [base + per_slot * r * 2**n for n in range(len(tokens))] for r in rows}
    table_ = table(times, tokens, hysteresis)
    names = [shape.name for shape in table_.shapes]
    for keeps in (False, True):
        at, places = None, []
        for num_rows in range(1, 70):
            at = choose_shape(table_, Load(num_rows, context), at if keeps else None).name
            places.append(names.index(at))
        assert places == sorted(places, reverse=True)


@settings(deadline=None)
@given(table_=tables(), load=LOADS)
def test_times_between_loads_lie_between_those_measured_and_beyond_them_at_the_nearest(
    table_: ShapeTable, load: Load
) -> None:
    for number, time in enumerate(step_times(table_, load)):
        measured = [at.step_ms[number] for at in table_.loads]
        assert min(measured) * (1 - 1e-9) <= time <= max(measured) * (1 + 1e-9)
    inside = Load(
        min(max(load.rows, table_.all_rows[0]), table_.all_rows[-1]),
        min(max(load.context, table_.all_contexts[0]), table_.all_contexts[-1]),
    )
    assert step_times(table_, inside) == step_times(table_, load)


def test_what_was_measured_is_what_is_predicted_there() -> None:
    table_ = table({(1, 100): [10, 12], (1, 300): [20, 16], (5, 100): [18, 40], (5, 300): [36, 60]}, [1, 2], 0.05)
    assert step_times(table_, Load(1, 100)) == [10, 12]
    assert step_times(table_, Load(5, 300)) == [36, 60]
    assert step_times(table_, Load(3, 200)) == pytest.approx([(10 + 20 + 18 + 36) / 4, (12 + 16 + 40 + 60) / 4])
    assert promised(table_, Load(5, 100)) == pytest.approx([1e3 * 5 * 1 / 18, 1e3 * 5 * 2 / 40])


def test_each_reason_is_given_where_it_is_the_case() -> None:
    table_ = table({(1, 100): [10, 10], (8, 100): [10, 30]}, [1, 2], 0.5)
    assert choose_shape(table_, Load(1, 100), None).reason == "first"
    assert choose_shape(table_, Load(1, 100), CHAIN).reason == "best"
    assert choose_shape(table_, Load(1, 100), NONE).reason == "better"
    kept = choose_shape(table_, Load(8, 100), CHAIN)
    assert (kept.name, kept.reason, kept.best) == (CHAIN, "kept", NONE)
    assert choose_shape(table_, Load(1, 100), "of another table").reason == "first"


def test_of_equal_ones_the_smallest_is_best() -> None:
    assert choose_shape(table({(1, 1): [10, 20]}, [1, 2], 0.0), Load(1, 1), None).name == NONE


def test_the_load_is_the_mean_of_the_rows() -> None:
    assert Load.of([10, 21]) == Load(2, 15)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"loads": []}, "every combination"),
        ({"shapes": []}, "at least one shape"),
        ({"hysteresis": 1.0}, "hysteresis"),
        ({"loads": [{"rows": 1, "context": 1, "step_ms": [1.0]}]}, "a time for each shape"),
        ({"loads": [{"rows": 1, "context": 1, "step_ms": [1.0, 0.0]}]}, "above 0"),
        (
            {"loads": [{"rows": r, "context": c, "step_ms": [1.0, 1.0]} for r, c in ((1, 1), (2, 2))]},
            "every combination",
        ),
    ],
)
def test_what_nothing_can_be_chosen_from_is_refused(wrong: dict[str, Any], words: str) -> None:
    right = table({(1, 1): [10, 20]}, [1, 2], 0.1).model_dump()
    with pytest.raises(ValueError, match=words):
        ShapeTable.model_validate(right | wrong)
