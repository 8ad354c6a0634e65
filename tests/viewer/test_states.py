"""The state of every step, the gravest of what engine, oracle and comparison say; and the way from one to the next."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.traces import EAGER, FAULTY, FUSED

from specscope.tracer.compare.diff import Comparison, compare_traces
from specscope.tracer.index import TurnEntry
from specscope.tracer.oracle import check_trace
from specscope.tracer.reader import TraceReader
from specscope.viewer.drawing.strip_svg import STATES, StepState
from specscope.viewer.states import STOPS, RunStates, Spot


def turn(number: int, lengths: list[int], failed: list[int] | None = None) -> TurnEntry:
    steps = list(range(len(lengths)))
    return TurnEntry(number, "p", 0, 0, None, steps, lengths, failed or [0] * len(lengths))


def states_in(found: RunStates, number: int) -> list[StepState]:
    return [step.state for step in found.of_turn(number)]


def test_what_the_engine_found_is_marked() -> None:
    found = RunStates([turn(0, [2, 0, 1], [0, 3, 0]), turn(4, [1], [1])])
    assert states_in(found, 0) == ["plain", "violated", "plain"]
    assert [step.accepted for step in found.of_turn(0)] == [2, 0, 1]
    assert states_in(found, 4) == ["violated"]
    assert found.of_turn(1) == []
    assert found.stops == [Spot(0, 1), Spot(4, 0)]


def test_what_the_oracle_found_is_marked(pair_of_traces: tuple[Path, Path]) -> None:
    wrong = pair_of_traces[1]
    with TraceReader(wrong) as reader:
        assert states_in(RunStates(reader.turns), 0) == ["plain"] * 3
        assert states_in(RunStates(reader.turns, check_trace(wrong)), 0) == ["plain", "violated", "plain"]


def compared(a: Path, b: Path) -> tuple[Comparison, RunStates, RunStates]:
    comparison = compare_traces(a, b)
    with TraceReader(a) as first, TraceReader(b) as second:
        return (
            comparison,
            RunStates(first.turns, None, comparison, "a", second.turns),
            RunStates(second.turns, None, comparison, "b", first.turns),
        )


def test_both_sides_of_a_comparison_are_marked_alike() -> None:
    comparison, a, b = compared(EAGER, FAULTY)
    for marks in comparison.turns:
        for pair in marks.pairs:
            first, second = a.of_turn(marks.turn_a)[pair.step_a], b.of_turn(marks.turn_b)[pair.step_b]
            assert first.state == pair.state
            assert second.state in (pair.state, "violated")  # the engine of the faulty run said so itself
            assert (first.other, second.other) == (second.accepted, first.accepted)
        unpaired = set(range(len(a.of_turn(marks.turn_a)))) - {pair.step_a for pair in marks.pairs}
        wanted = "unpaired" if marks.same_prompt else "inherited"
        assert {a.of_turn(marks.turn_a)[step].state for step in unpaired} <= {wanted}
    assert a.stops == [Spot(root.place.turn, root.place.step_a) for root in comparison.verdict.roots]


def test_equal_runs_have_nothing_to_stop_at() -> None:
    _, a, b = compared(EAGER, FUSED)
    assert not a.stops
    assert not b.stops
    assert {state for number in (0, 1, 2) for state in states_in(a, number)} == {"plain"}


@given(st.lists(st.lists(st.booleans(), max_size=6), max_size=4), st.integers(0, 5), st.integers(0, 7))
def test_the_next_stop_is_the_nearest_one_ahead(marked: list[list[bool]], number: int, step: int) -> None:
    found = RunStates([turn(n, [0] * len(row), [int(on) for on in row]) for n, row in enumerate(marked)])
    places = [Spot(n, at) for n, row in enumerate(marked) for at, on in enumerate(row) if on]
    here = Spot(number, step)
    assert found.after(here) == min((place for place in places if place > here), default=None)
    assert found.before(here) == max((place for place in places if place < here), default=None)


def test_what_merely_follows_is_no_stop() -> None:
    assert set(STATES) - set(STOPS) == {"plain", "unpaired", "inherited"}
