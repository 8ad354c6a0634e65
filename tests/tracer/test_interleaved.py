"""Turns decoded side by side: their records interleave, and each is read, judged and compared by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.toy_run import Toy, toy_lines
from support.traces import Lines, first_step, store

from specscope.schemas import Step
from specscope.tracer.compare.align import align_turns
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import TraceError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import Oracle, check_trace
from specscope.tracer.oracle.report import OracleReport

BATCH = Toy(batch_size=2, num_turns=4)


def violated(report: OracleReport) -> set[str]:
    return {name for name, tally in report.invariants.items() if tally.failed}


def check(tmp_path: Path, lines: Lines) -> OracleReport:
    return check_trace(store(lines, tmp_path / "toy.jsonl"))


def renumber(lines: Lines) -> Lines:
    """Gives the records their numbers again, after some were moved."""
    for seq, line in enumerate(lines):
        line["seq"] = seq
    return lines


def places(lines: Lines, kind: str, turn: int) -> list[int]:
    return [at for at, line in enumerate(lines) if line["kind"] == kind and line.get("turn") == turn]


def test_the_toys_turns_do_interleave() -> None:
    turns = [line["turn"] for line in toy_lines(BATCH) if line["kind"] == "step"]
    assert turns != sorted(turns)
    assert turns[:4] == [0, 1, 0, 1]


@pytest.mark.parametrize("rule", ["greedy", "sampling", "typical"])
def test_a_step_is_found_by_its_turn(tmp_path: Path, rule: str) -> None:
    path = store(toy_lines(Toy(rule, batch_size=3, num_turns=5)), tmp_path / "batch.jsonl")
    alone = store(toy_lines(Toy(rule, num_turns=5)), tmp_path / "alone.jsonl")
    with TraceReader(path) as reader, TraceReader(alone) as other:
        assert [turn.turn for turn in reader.turns] == [0, 1, 2, 3, 4]
        for turn, same in zip(reader.turns, other.turns, strict=True):
            steps = list(reader.steps(turn))
            assert [step.step for step in steps] == [0, 1, 2, 3]
            assert {step.turn for step in steps} == {turn.turn}
            assert [step.model_copy(update={"seq": 0}) for step in other.steps(same)] == [
                step.model_copy(update={"seq": 0}) for step in steps
            ]
            assert turn.accepted_lengths == [step.accept.accepted_length for step in steps if step.accept]
            end = reader.turn_end(turn)
            assert end is not None
            assert end.turn == turn.turn
        assert not reader.truncated


def test_honest_rows_side_by_side_pass_everything(tmp_path: Path) -> None:
    report = check(tmp_path, toy_lines(BATCH))
    assert not violated(report)
    assert (report.num_turns, report.num_steps) == (4, 16)
    assert report.invariants["run.step-numbers"].passed == 20


def test_a_turn_that_was_cut_off_leaves_the_others_whole(tmp_path: Path) -> None:
    lines = toy_lines(BATCH)
    path = store(lines[:8], tmp_path / "cut.jsonl")
    report = check_trace(path)
    assert report.truncated
    assert not violated(report)
    with TraceReader(path) as reader:
        assert [len(turn.steps) for turn in reader.turns] == [3, 2]
        assert [turn.end for turn in reader.turns] == [None, None]


@pytest.mark.parametrize("size", [None, 1])
def test_interleaving_without_a_batch_is_out_of_order(tmp_path: Path, size: int | None) -> None:
    lines = toy_lines(BATCH)
    lines[0]["batch_size"] = size
    if size is None:
        del lines[0]["batch_size"]
    report = check(tmp_path, lines)
    assert violated(report) == {"run.order"}
    first = report.invariants["run.order"].first
    assert first is not None
    assert first.witness == "turn 0 has no turn_end, and by the manifest's batch_size one turn may be open at once"


def test_no_more_turns_may_be_open_than_the_batch_has_rows(tmp_path: Path) -> None:
    lines = toy_lines(Toy(batch_size=3, num_turns=4))
    lines[0]["batch_size"] = 2
    report = check(tmp_path, lines)
    assert violated(report) == {"run.order"}
    first = report.invariants["run.order"].first
    assert first is not None
    assert first.witness == "turn 0 has no turn_end, and by the manifest's batch_size 2 turns may be open at once"


def test_a_missing_end_is_named_once(tmp_path: Path) -> None:
    lines = toy_lines(BATCH)
    del lines[places(lines, "turn_end", 0)[0]]
    lines[-1]["counts"]["turn_end"] -= 1
    tally = check(tmp_path, renumber(lines)).invariants["run.order"]
    assert tally.failed == 1
    assert tally.first is not None
    assert tally.first.witness.startswith("turn 0 has no turn_end")


def test_the_last_turns_end_is_missed_at_the_runs_end(tmp_path: Path) -> None:
    lines = toy_lines(BATCH)
    del lines[places(lines, "turn_end", 2)[0]]
    first = check(tmp_path, renumber(lines)).invariants["run.order"].first
    assert first is not None
    assert (first.witness, first.line) == ("turn 2 has no turn_end", len(lines))


def end_turn_early(lines: Lines) -> None:
    lines.insert(places(lines, "step", 0)[-1], lines.pop(places(lines, "turn_end", 0)[0]))


def step_before_start(lines: Lines) -> None:
    lines.insert(1, lines.pop(places(lines, "step", 0)[0]))


@pytest.mark.parametrize(
    ("breaks", "words"),
    [(end_turn_early, "turn 0 has ended already"), (step_before_start, "turn 0 has not started")],
)
def test_a_step_outside_its_turn_is_an_error_to_read_and_a_violation_to_check(
    tmp_path: Path, breaks: Callable[[Lines], None], words: str
) -> None:
    lines = toy_lines(BATCH)
    breaks(lines)
    path = store(renumber(lines), tmp_path / "broken.jsonl")
    with TraceReader(path) as reader, pytest.raises(TraceError, match=words):
        _ = reader.turns
    first = check_trace(path).invariants["run.step-numbers"].first
    assert first is not None
    assert first.witness == "a step of turn 0 outside that turn"


def test_steps_are_numbered_in_their_own_turn(tmp_path: Path) -> None:
    lines = toy_lines(BATCH)
    lines[places(lines, "step", 1)[2]]["step"] = 3
    first = check(tmp_path, lines).invariants["run.step-numbers"].first
    assert first is not None
    assert first.witness == "got step 3, wanted 2"


def test_a_step_is_judged_beside_the_last_one_of_its_own_turn(tmp_path: Path) -> None:
    lines = toy_lines(BATCH)
    step = lines[places(lines, "step", 1)[1]]
    step["tree"]["tokens"][0] = step["tensors"]["token_ids"][0] = 15
    report = check(tmp_path, lines)
    assert violated(report) == {"sequence.root-is-last-bonus"}
    first = report.invariants["sequence.root-is-last-bonus"].first
    assert first is not None
    assert (first.turn, first.step) == (1, 1)


def test_turns_start_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    lines = toy_lines(BATCH)
    a, b = places(lines, "turn_start", 0)[0], places(lines, "turn_start", 1)[0]
    lines[a], lines[b] = lines[b], lines[a]
    first = check(tmp_path, lines).invariants["run.step-numbers"].first
    assert first is not None
    assert first.witness == "got turn 1, wanted 0"


def conversation(lines: Lines) -> Lines:
    """Of four turns the last two continue the prompts of the first two."""
    for line in lines:
        if line["kind"] == "turn_start":
            line["prompt_id"], line["prompt_turn"] = f"p{line['turn'] % 2}", line["turn"] // 2
    return lines


def test_a_later_turn_of_a_prompt_waits_for_the_one_before(tmp_path: Path) -> None:
    assert not violated(check(tmp_path, conversation(toy_lines(BATCH))))
    first = check(tmp_path, conversation(toy_lines(Toy(batch_size=4, num_turns=4)))).invariants["run.order"].first
    assert first is not None
    assert first.witness == "turn 2 continues prompt 'p0', whose turn 0 is still open"


def test_the_oracle_remembers_open_turns_alone(tmp_path: Path) -> None:
    path = store(toy_lines(Toy(batch_size=3, num_turns=12)), tmp_path / "batch.jsonl")
    with TraceReader(path) as reader:
        oracle = Oracle(path, reader.manifest)
        most = 0
        for number, record, _ in reader.numbered_lines():
            match record.kind:
                case "turn_start":
                    oracle.turn_start(record, number)
                case "step":
                    oracle.step(record, number)
                case "turn_end":
                    oracle.turn_end(record, number)
            most = max(most, len(oracle._open))
    assert most == 3
    assert not oracle._open


# Comparing.


@pytest.mark.parametrize("rule", ["greedy", "sampling", "typical"])
def test_a_batch_equals_its_rows_alone(tmp_path: Path, rule: str) -> None:
    alone = store(toy_lines(Toy(rule, num_turns=5)), tmp_path / "alone.jsonl")
    batch = store(toy_lines(Toy(rule, num_turns=5, batch_size=3)), tmp_path / "batch.jsonl")
    verdict = diff_traces(alone, batch)
    assert (verdict.verdict, verdict.num_steps) == ("equal", 20)
    assert verdict.axis == ["batch_size: absent -> 3"]


def test_a_root_in_a_batch_names_the_turn_on_either_side(tmp_path: Path) -> None:
    lines = toy_lines(Toy(num_turns=2))
    first, second = lines[1 : 1 + 6], lines[1 + 6 : 1 + 12]
    for block, turn in ((first, 1), (second, 0)):
        for line in block:
            line["turn"] = turn
    swapped = renumber([lines[0], *second, *first, lines[-1]])
    first_step(swapped, lambda step: bool(step["turn"] == 1 and step["step"] == 2))["tensors"]["positions"][1] += 1
    verdict = diff_traces(
        store(toy_lines(Toy(num_turns=2)), tmp_path / "a.jsonl"), store(swapped, tmp_path / "b.jsonl")
    )
    place = verdict.roots[0].place
    assert (place.turn, place.turn_b, place.prompt_id, place.step_b) == (0, 1, "prompt-0", 2)


def test_a_prompts_turns_are_compared_one_after_another(tmp_path: Path) -> None:
    """What began in one prompt's first turn must not be told as the consequence of another prompt's."""
    path = store(conversation(toy_lines(BATCH)), tmp_path / "talk.jsonl")
    other = conversation(toy_lines(BATCH))
    for turn in (0, 3):
        lines: Any = [line for line in other if line["kind"] == "step" and line["turn"] == turn]
        lines[-1]["verify"]["top_logits"][-1][0] += 2.0
    with TraceReader(path) as a, TraceReader(path) as b:
        names = [(pair.a.prompt_id, pair.a.prompt_turn) for pair in align_turns(a, b).pairs]
    assert names == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
    verdict = diff_traces(path, store(other, tmp_path / "other.jsonl"))
    assert [(r.place.prompt_id, r.place.prompt_turn) for r in verdict.roots] == [("p0", 0), ("p1", 1)]


def test_every_step_is_still_a_step(tmp_path: Path) -> None:
    path = store(toy_lines(BATCH), tmp_path / "batch.jsonl")
    with TraceReader(path) as reader:
        in_order = [n.record for n in reader.numbered_lines() if isinstance(n.record, Step)]
        by_turn = [step for turn in reader.turns for step in reader.steps(turn)]
    assert sorted(in_order, key=lambda s: (s.turn, s.step)) == by_turn
