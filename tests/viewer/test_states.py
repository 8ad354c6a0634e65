"""The state of every step, the gravest of what engine, oracle and comparison say; and the way from one to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pairs import with_section
from support.traces import EAGER, FAULTY, FUSED, load, store

from specscope.schemas import Step
from specscope.tracer.compare.diff import Comparison, compare_traces
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace
from specscope.viewer.drawing.svg.strip import STATES, StepState
from specscope.viewer.pairs.states import STOPS, Partner, RunStates, Spot


def turn(number: int, lengths: list[int], failed: list[int] | None = None) -> TurnEntry:
    steps = list(range(len(lengths)))
    return TurnEntry(
        turn=number,
        prompt_id="p",
        prompt_turn=0,
        start=0,
        end=None,
        steps=steps,
        accepted_lengths=lengths,
        failed_invariants=failed or [0] * len(lengths),
    )


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
            RunStates(first.turns, None, Partner(comparison, "a", second.turns)),
            RunStates(second.turns, None, Partner(comparison, "b", first.turns)),
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


@pytest.mark.parametrize(("logits", "state"), [([3.0, 1.0], "root"), ([3.0, 3.0], "tie")])
def test_what_parts_in_a_prompt_is_marked_at_its_turns_first_step(
    make_trace: Callable[..., Path], logits: list[float], state: StepState
) -> None:
    trace = make_trace(turns=[[2, 1], [1, 0, 2]])
    pair = []
    for name, best in (("one.jsonl", [7, 8]), ("two.jsonl", [8, 7])):
        lines = load(trace)
        start = next(line for line in lines if line["kind"] == "turn_start" and line["turn"] == 1)
        start["prefill"] |= {"pending_token": best[0], "top_tokens": best, "top_logits": logits}
        pair.append(store(lines, trace.with_name(name)))
    comparison, *both = compared(pair[0], pair[1])
    assert comparison.verdict.roots[0].difference.field == "prefill.pending_token"
    for found in both:
        assert states_in(found, 0) == ["plain", "plain"]
        assert states_in(found, 1)[0] == state
        assert found.stops[0] == Spot(1, 0)


def test_what_the_other_run_violates_is_found_from_here(make_trace: Callable[..., Path]) -> None:
    def broken(step: Step) -> Step:
        return with_section(step, "tensors", padded_slots=99) if step.step == 1 else step

    sound, wrong = make_trace("sound.jsonl", mode="eager"), make_trace("wrong.jsonl", change=broken)
    comparison = compare_traces(sound, wrong)
    assert comparison.verdict.verdict == "different"
    assert not comparison.verdict.roots
    with TraceReader(sound) as a, TraceReader(wrong) as b:
        blind = RunStates(a.turns, None, Partner(comparison, "a", b.turns))
        found = RunStates(a.turns, None, Partner(comparison, "a", b.turns, check_trace(wrong)))
        turned = RunStates(a.turns, None, Partner(compare_traces(wrong, sound), "b", b.turns, check_trace(wrong)))
    assert not blind.stops
    assert states_in(found, 0) == states_in(turned, 0) == ["plain", "violated", "plain"]
    others = [turn(0, [2, 0, 3], [0, 0, 2])]
    assert RunStates([turn(0, [2, 0, 3])], None, Partner(comparison, "a", others)).stops == [Spot(0, 2)]


def test_a_divergence_keeps_its_mark_though_its_partner_violates() -> None:
    comparison, a, b = compared(EAGER, FAULTY)
    report = check_trace(FAULTY)
    with TraceReader(EAGER) as first, TraceReader(FAULTY) as second:
        found = RunStates(first.turns, None, Partner(comparison, "a", second.turns, report))
    assert report.by_step.keys() <= set(b.stops)
    assert found.stops == a.stops
    assert all(states_in(found, entry.turn) == states_in(a, entry.turn) for entry in first.turns)
    assert {"root", "inherited"} <= {state for entry in first.turns for state in states_in(found, entry.turn)}


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
