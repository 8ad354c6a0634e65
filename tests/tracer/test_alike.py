"""What the comparison passes over at a glance is what it would find nothing in, value by value."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.traces import EAGER, FAULTY, FUSED

from specscope.tracer.compare import drift, steps
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.roundings import LEAST_SIZE, spacing

NAME = "draft.scores"
VALUES = st.one_of(
    st.floats(-40, 0), st.sampled_from([-0.0, -1.0, -16.0, math.inf, -math.inf, math.nan, 1e308, -1e308])
)
NEAR = st.sampled_from([0.0, 1e-7, 1e-6, 3e-6, 1e-5, 1e-3])


@given(
    a=st.lists(VALUES, max_size=6),
    gaps=st.lists(NEAR, min_size=6, max_size=6),
    size=st.one_of(st.floats(0, 64), st.just(math.nan), st.just(math.inf)),
    larger=st.floats(1, 4),
)
def test_lists_that_are_the_same_throughout_are_the_same_value_by_value(
    a: list[float], gaps: list[float], size: float, larger: float
) -> None:
    b = [x + gap for x, gap in zip(a, gaps, strict=False)]
    at_a_glance, by_value = (FloatJudge({"draft-scores": 1e-5}) for _ in range(2))
    if at_a_glance.same_throughout("draft-scores", NAME, a, b, size=size):
        sizes = [size, size * larger]  # what each value is made of is never smaller
        for n, (x, y) in enumerate(zip(a, b, strict=True)):
            assert by_value.same("draft-scores", NAME, x, y, size=sizes[n % 2])
        assert at_a_glance.drift == by_value.drift
    else:
        assert at_a_glance.drift == {}


def test_lists_that_differ_clearly_are_never_the_same_throughout() -> None:
    judge = FloatJudge({"draft-scores": 1e-5})
    for other in ([-1.0, -2.5], [-1.0, math.nan], [-math.inf, -2.0]):
        assert not judge.same_throughout("draft-scores", NAME, [-1.0, -2.0], other, size=20.0)
    assert judge.same_throughout("draft-scores", NAME, [-1.0, -2.0], [-1.0, -2.000001], size=20.0)


@given(st.floats(0, 1e300))
def test_spacing_is_the_largest_power_of_two_that_the_size_reaches(size: float) -> None:
    power = spacing(size)
    assert math.frexp(power)[0] == 0.5
    assert power <= max(size, LEAST_SIZE) < 2 * power


@pytest.mark.parametrize(("baseline", "candidate"), [(EAGER, FUSED), (EAGER, FAULTY), (FUSED, FAULTY)])
def test_a_verdict_is_the_same_where_every_value_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, baseline: Path, candidate: Path
) -> None:
    at_a_glance = diff_traces(baseline, candidate)
    monkeypatch.setattr(StepNodes, "row_lists", {})
    for module in (drift, steps):
        monkeypatch.setattr(module, "fed_in_same_slots", lambda _a, _b: False)
    assert diff_traces(baseline, candidate) == at_a_glance
