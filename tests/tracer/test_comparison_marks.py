"""What became of every pair of steps: it adds up to the verdict, and agrees with the steps themselves."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import pytest
from support.traces import EAGER, FAULTY, FUSED, first_step, load, store

from specscope.tracer.compare.diff import Comparison, DiffOptions, compare_traces, diff_traces
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader


def states(comparison: Comparison) -> Counter[str]:
    return Counter(pair.state for turn in comparison.turns for pair in turn.pairs)


@pytest.mark.parametrize("candidate", [FUSED, FAULTY], ids=["equal", "faulty"])
def test_the_states_add_up_to_the_verdict(candidate: Path) -> None:
    found = compare_traces(EAGER, candidate)
    assert found.verdict == diff_traces(EAGER, candidate)
    counts = states(found)
    assert counts.total() == found.verdict.num_steps
    assert counts["root"] + counts["tie"] == len(found.verdict.roots)
    with TraceReader(EAGER) as a, TraceReader(candidate) as b:
        unlike = [n for n, turn in enumerate(found.turns) if not turn.same_prompt]
        unpaired = sum(max(len(a.turns[n].steps), len(b.turns[n].steps)) for n in unlike)
    assert counts["inherited"] + unpaired == sum(root.inherited for root in found.verdict.roots)
    assert set(counts) == ({"equal"} if candidate == FUSED else {"root", "inherited"})
    for turn in found.turns:
        for pair in turn.pairs:
            if pair.state == "root" and pair.root is not None:
                place = found.verdict.roots[pair.root].place
                assert (place.turn, place.turn_b) == (turn.turn_a, turn.turn_b)
                assert (place.step_a, place.step_b, place.position) == (pair.step_a, pair.step_b, pair.position)


def positions(reader: TraceReader, turn: TurnEntry) -> list[int]:
    return [step.commit.committed_before for step in reader.steps(turn) if step.commit is not None]


def test_pairs_are_the_steps_that_begin_at_the_same_position() -> None:
    found = compare_traces(EAGER, FAULTY)
    with TraceReader(EAGER) as a, TraceReader(FAULTY) as b:
        for marks, turn_a, turn_b in zip(found.turns, a.turns, b.turns, strict=True):
            if not marks.same_prompt:
                assert not marks.pairs
                continue
            at_a, at_b = positions(a, turn_a), positions(b, turn_b)
            wanted = [(at_a.index(place), at_b.index(place), place) for place in at_a if place in at_b]
            assert [(pair.step_a, pair.step_b, pair.position) for pair in marks.pairs] == wanted
            outputs = [reader.turn_end(turn) for reader, turn in ((a, turn_a), (b, turn_b))]
            assert outputs[0] is not None
            assert outputs[1] is not None
            first = at_a[0]
            for pair in marks.pairs:
                same = (
                    outputs[0].output_ids[: pair.position - first + 1]
                    == outputs[1].output_ids[: pair.position - first + 1]
                )
                assert pair.same_context == same


def test_a_tie_and_lists_that_do_not_fit_have_states_of_their_own(tmp_path: Path) -> None:
    lines, other = load(EAGER), load(FUSED)
    for side, (first, second) in zip((lines, other), ((1, 2), (2, 1)), strict=True):
        verify = first_step(side)["verify"]
        verify["top_logits"][-1] = [7.0, 7.0]
        tokens = [verify["top_tokens"][-1][first - 1], verify["top_tokens"][-1][second - 1]]
        verify["top_tokens"][-1], verify["argmax"][-1] = tokens, tokens[0]
    tied = compare_traces(
        store(lines, tmp_path / "a.jsonl"), store(other, tmp_path / "b.jsonl"), DiffOptions(tolerance=1e-3)
    )
    assert tied.turns[0].pairs[0].state == "tie"
    assert tied.turns[0].pairs[0].root == 0
    last = [line for line in other if line["kind"] == "step"][-1]
    last["tensors"]["positions"][-1] += 1
    both = compare_traces(tmp_path / "a.jsonl", store(other, tmp_path / "d.jsonl"), DiffOptions(tolerance=1e-3))
    kinds = {pair.state: pair.root for turn in both.turns for pair in turn.pairs if pair.state in ("tie", "root")}
    assert [root.difference.kind for root in both.verdict.roots] == ["structural", "exact-tie"]
    assert kinds == {"root": 0, "tie": 1}, "as the verdict numbers them: ties last"
    broken = copy.deepcopy(load(FUSED))
    first_step(broken)["tensors"]["positions"].pop()
    assert compare_traces(EAGER, store(broken, tmp_path / "c.jsonl")).turns[0].pairs[0].state == "unjudged"
