"""What the comparison passes over at a glance is what it would find nothing in, value by value."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.traces import EAGER, FAULTY, FUSED

from specscope.schemas import DraftLevel, Step
from specscope.tracer.compare import drafts, drift, phases, steps
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.roundings import LEAST_SIZE, spacing, spacings
from specscope.tracer.compare.said import EqualLists
from specscope.tracer.errors import TraceError
from specscope.tracer.files.reader import TraceReader

NAME = "draft.scores"
VALUES = st.one_of(
    st.floats(-40, 0), st.sampled_from([-0.0, -1.0, -16.0, math.inf, -math.inf, math.nan, 1e308, -1e308])
)
EPSILON = 2.0**-23
SIZES = st.one_of(st.floats(0, 64), st.just(math.inf), st.just(math.nan))
TRIPLES = st.lists(st.tuples(VALUES, VALUES, SIZES), max_size=6)
TOTALS = st.lists(st.one_of(st.floats(-64, 64), st.just(math.inf), st.just(math.nan)), max_size=5)
SIXTEEN = st.lists(VALUES, min_size=16, max_size=16)
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


@given(st.lists(st.one_of(st.floats(0, 1e300), st.just(math.inf), st.just(math.nan)), max_size=5))
def test_spacings_of_many_sizes_are_those_of_each(sizes: list[float]) -> None:
    assert spacings(sizes) == [spacing(size) for size in sizes]


@given(TRIPLES)
def test_roundings_of_many_values_are_those_of_each(triples: list[tuple[float, float, float]]) -> None:
    a, b, sizes = ([triple[column] for triple in triples] for column in range(3))
    lists = EqualLists(quantity="logits", field="", a=a, b=b, least_size=0.0, made_of=lambda: sizes)
    assert alike(drift._roundings(lists, EPSILON), [rounding_of(*triple) for triple in triples])


def rounding_of(a: float, b: float, size: float) -> float:
    gap = abs(a - b)
    return gap / (EPSILON * spacing(max(abs(a), abs(b), size))) if gap else 0.0


def alike(a: list[float], b: list[float]) -> bool:
    """Whether they are the same numbers, nan included."""
    return list(map(repr, a)) == list(map(repr, b))


@given(TOTALS, SIXTEEN)
def test_sizes_of_a_level_are_those_of_each_candidate(totals: list[float], logprobs: list[float]) -> None:
    nodes, level = level_of_four_rows(totals, logprobs)
    of_rows = [*totals, None, None, None, None]
    wanted = [nodes.logit_size(of_rows[entry // 4], x) for entry, x in enumerate(logprobs)]
    assert alike(nodes.logit_sizes(level, [4, 4, 4, 4]), wanted)


@given(TOTALS, SIXTEEN)
def test_no_size_of_a_level_is_below_the_least(totals: list[float], logprobs: list[float]) -> None:
    nodes, level = level_of_four_rows(totals, logprobs)
    least = nodes.least_in_level(level, 4)
    assert math.isfinite(least) == all(map(math.isfinite, totals))
    sizes = nodes.logit_sizes(level, [4, 4, 4, 4])
    assert least == math.inf or all(size >= least or math.isnan(size) for size in sizes)


@cache
def recorded_step() -> Step:
    with TraceReader(EAGER) as reader:
        return next(reader.steps(reader.turns[0]))


def level_of_four_rows(totals: list[float], logprobs: list[float]) -> tuple[StepNodes, DraftLevel]:
    """A step, and a level of its draft that four candidates were fed to, with other numbers."""
    step = recorded_step()
    assert step.draft is not None
    level = next(level for level in step.draft.levels or () if len(level.frontier) == 4)
    return StepNodes(step), level.model_copy(update={"logsumexp": totals or None, "logprobs": logprobs})


@pytest.mark.parametrize(("baseline", "candidate"), [(EAGER, FUSED), (EAGER, FAULTY), (FUSED, FAULTY)])
def test_a_verdict_is_the_same_where_every_value_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, baseline: Path, candidate: Path
) -> None:
    at_a_glance = diff_traces(baseline, candidate)
    look_at_every_value(monkeypatch)
    assert diff_traces(baseline, candidate) == at_a_glance


def look_at_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches off all that spares the comparison a node."""
    monkeypatch.setattr(StepNodes, "row_lists", {})
    for module in (drift, steps):
        monkeypatch.setattr(module, "fed_in_same_slots", lambda _a, _b: False)
    for module in (drift, phases):
        monkeypatch.setattr(module, "verify_lists", lambda _a, _b: None)
    for module in (drift, drafts):
        monkeypatch.setattr(module, "level_lists", lambda _a, _b: None)
        monkeypatch.setattr(module, "numbered_alike", lambda a, b: a.keys == b.keys, raising=False)
    monkeypatch.setattr(drafts, "_same_lists", lambda _a, _b: False)
    monkeypatch.setattr(steps, "numbered_alike", lambda _a, _b: False)


#: Where a value of a step stands, for what is put in its place.
PLACES = [
    ("draft", "levels", 1, "logprobs", 0),
    ("draft", "levels", 1, "tokens", 0),
    ("draft", "levels", 1, "frontier", 0),
    ("draft", "levels", 0, "logsumexp", 0),
    ("draft", "levels", 2, "positions", 0),
    ("draft", "inputs", "source_rows", 0),
    ("tree", "tokens", 1),
    ("tree", "parents", 2),
    ("tree", "depths", 2),
    ("verify", "top_logits", 1, 0),
    ("verify", "top_logits", 1, 1),
    ("verify", "top_tokens", 1, 1),
    ("verify", "logsumexp", 1),
    ("verify", "entropy", 0),
    ("verify", "argmax", 1),
    ("accept", "path", 0),
    ("commit", "source_slots", 1),
    (
        "commit",
        "drafter_after",
    ),
]
SHORT_STEPS = 4
PUT_IN: list[float | str] = [0, 1, 2, -1, 7, 0.5, -3.25, 1e-3, "NaN", "Infinity"]


def changed(line: bytes, place: tuple[str | int, ...], value: float | str) -> bytes:
    """A step's line with another value at ``place``; as it is where it has no such place."""
    record = json.loads(line)
    at: Any = record
    try:
        for part in place[:-1]:
            at = at[part]
        at[place[-1]]
    except (LookupError, TypeError):
        return line
    at[place[-1]] = value
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, SHORT_STEPS - 1), st.sampled_from(PLACES), st.sampled_from(PUT_IN)),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_stands_in_a_step_the_verdict_is_that_of_every_value(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, tuple[str | int, ...], float | str]],
) -> None:
    baseline, candidate = (short(path, tmp_path_factory) for path in (EAGER, FUSED))
    lines = candidate.read_bytes().splitlines(keepends=True)
    of_steps = [at for at, line in enumerate(lines) if b'"kind":"step"' in line]
    for number, place, value in changes:
        at = of_steps[number % len(of_steps)]
        lines[at] = changed(lines[at], place, value)
    candidate.write_bytes(b"".join(lines))
    try:
        at_a_glance = diff_traces(baseline, candidate)
    except TraceError:
        return  # no such value may stand there
    with pytest.MonkeyPatch.context() as monkeypatch:
        look_at_every_value(monkeypatch)
        assert diff_traces(baseline, candidate) == at_a_glance


def short(path: Path, folders: pytest.TempPathFactory) -> Path:
    """The first steps of a trace."""
    lines = path.read_bytes().splitlines(keepends=True)
    copy = folders.mktemp("short") / path.name
    copy.write_bytes(b"".join(lines[: 2 + SHORT_STEPS]))
    return copy


@pytest.mark.parametrize(("baseline", "candidate"), [(EAGER, FUSED)])
def test_most_pairs_of_two_modes_are_compared_without_a_path_key(
    monkeypatch: pytest.MonkeyPatch, baseline: Path, candidate: Path
) -> None:
    asked = 0
    keys = StepNodes.keys.func  # type: ignore[attr-defined]

    def counted(nodes: StepNodes) -> Any:
        nonlocal asked
        asked += 1
        return keys(nodes)

    monkeypatch.setattr(StepNodes, "keys", property(counted))
    num_steps = diff_traces(baseline, candidate).num_steps
    assert asked < num_steps / 4
