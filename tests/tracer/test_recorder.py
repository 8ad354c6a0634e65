"""The recorder for other people's engines: what it writes is sound, wrong use is refused, wrong decisions are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.recorder_calls import ABOUT, LAST, STEP

from specscope.tracer import Recorder, TraceReader, check_trace, diff_traces
from specscope.tracer.errors import UsageError


def recorded(file: Path, output_ids: Any = None, **changes: Any) -> Path:
    with Recorder(file, batch_size=2, **ABOUT) as trace:
        first, second = trace.turn("a", [3, 1, 4], 7, row=0), trace.turn("b", [3, 1], 7, row=1)
        for turn in (first, second):  # side by side, as in a batch
            turn.step(**STEP | changes)
        for turn in (second, first):
            turn.step(**LAST)
            turn.end("length", output_ids=output_ids)
    return file


def test_what_it_writes_is_sound_and_complete(tmp_path: Path) -> None:
    report = check_trace(recorded(tmp_path / "a.jsonl"))
    assert (report.num_violations, report.num_steps, report.end_reason) == (0, 4, "complete")
    for name in ("tree.depth-follows", "accept.walk", "stop.cut", "sequence.root"):
        judged = [tally for invariant, tally in report.invariants.items() if invariant.startswith(name)]
        assert sum(tally.passed for tally in judged) > 0, name
    with TraceReader(tmp_path / "a.jsonl") as reader:
        steps = [list(reader.steps(turn)) for turn in reader.turns]
        ends = [reader.turn_end(turn) for turn in reader.turns]
    assert [[s.stop.reason for s in of_turn if s.stop is not None] for of_turn in steps] == [[None, "length"]] * 2
    assert [end.output_ids for end in ends if end is not None] == [[7, 4, 8, 2, 5]] * 2
    assert [end.accepted_by_depth for end in ends if end is not None] == [[1, 1]] * 2
    assert diff_traces(tmp_path / "a.jsonl", recorded(tmp_path / "b.jsonl.gz")).exit_code == 0


#: What a plain top-k drafter knows of a step: no pairs and no features, only what it proposed.
LEVELS: list[dict[str, Any]] = [
    {"frontier": [], "positions": [3], "tokens": [4, 5], "logprobs": [-0.5, -1.0], "finite": True},
    {"frontier": [0], "positions": [4], "tokens": [8, 9], "logprobs": [-0.5, -2.0], "finite": True},
]


def levels_recorded(file: Path, levels: list[dict[str, Any]]) -> Path:
    with Recorder(file, sections=["draft.levels", "tree", "verify", "accept", "stop"], **ABOUT) as trace:
        turn = trace.turn("a", [3, 1, 4], 7)
        turn.step(**STEP, draft={"levels": levels, "num_candidates": 4})
        turn.end("length")
    return file


def test_a_drafter_that_takes_in_no_features_records_what_it_proposed(tmp_path: Path) -> None:
    honest = levels_recorded(tmp_path / "a.jsonl", LEVELS)
    report = check_trace(honest)
    judged = {name for name, tally in report.invariants.items() if tally.passed}
    assert not report.num_violations
    assert {"draft.scores-finite", "draft.frontier-is-best"} <= judged
    assert report.invariants["draft.pair-tokens"].why_skipped == "not recorded: draft.inputs"
    assert diff_traces(honest, levels_recorded(tmp_path / "b.jsonl", LEVELS)).exit_code == 0


def test_what_such_a_drafter_proposed_is_judged_and_compared(tmp_path: Path) -> None:
    honest = levels_recorded(tmp_path / "a.jsonl", LEVELS)
    worse = [LEVELS[0], LEVELS[1] | {"frontier": [1]}]
    assert check_trace(levels_recorded(tmp_path / "worse.jsonl", worse)).invariants["draft.frontier-is-best"].failed
    other = [LEVELS[0], LEVELS[1] | {"logprobs": [-0.5, -40.0]}]
    verdict = diff_traces(honest, levels_recorded(tmp_path / "other.jsonl", other))
    assert [root.difference.field for root in verdict.roots] == ["levels[2].logprobs"]


def test_a_field_that_is_promised_is_told_in_every_step(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"turn 0, step 0 lacks draft\.levels"),
        Recorder(tmp_path / "a.jsonl", sections=["draft.levels", "tree"], **ABOUT) as trace,
    ):
        trace.turn("a", [3, 1, 4], 7).step(**STEP, draft={"num_candidates": 4})


def test_a_wrong_decision_is_recorded_and_judged(tmp_path: Path) -> None:
    wrong = check_trace(recorded(tmp_path / "a.jsonl", path=[2]))
    assert wrong.invariants["accept.walk"].failed == 2


WRONG: dict[str, tuple[Callable[[Recorder], Any], str]] = {
    "parents": (lambda t: t.turn("a", [1], 7).step(**STEP | {"parents": [0, 0]}), "turn 0, step 0: got parents [0, 0]"),
    "later parent": (lambda t: t.turn("a", [1], 7).step(**STEP | {"parents": [0, 2, 0, 1]}), "and an earlier slot for"),
    "root": (lambda t: t.turn("a", [1], 7).step(**STEP | {"parents": [-1, 0, 0, 1]}), "0 for the root"),
    "no slot": (
        lambda t: t.turn("a", [1], 7).step(**STEP | {"tokens": [], "parents": []}),
        "got parents [] of 0 tokens",
    ),
    "argmax": (lambda t: t.turn("a", [1], 7).step(**STEP | {"argmax": [4]}), "got 1 best tokens (argmax) for 4 slots"),
    "path": (lambda t: t.turn("a", [1], 7).step(**STEP | {"path": [4]}), "got path [4], wanted slots of 1 to 3"),
    "promised": (lambda t: t.turn("a", [1], 7).step(**STEP | {"argmax": None}), "turn 0, step 0 lacks verify"),
    "type": (
        lambda t: t.turn("a", [1], 7).step(**STEP | {"bonus_token": "2"}),
        "step record, field accept.bonus_token",
    ),
    "misspelt": (
        lambda t: t.turn("a", [1], 7).step(**STEP, verify={"top_token": [[4]]}),
        "the format has no field verify.top_token; did you mean verify.top_tokens?",
    ),
    "section": (lambda t: t.turn("a", [1], 7).step(**STEP, comit={"strategy": "x"}), "did you mean commit?"),
    "prompt": (lambda t: t.turn("a", [1.5], 7), "turn_start record, field prompt_ids.0"),  # type: ignore[list-item]
    "rows": (
        lambda t: (t.turn("a", [1], 7), t.turn("b", [1], 7)),
        "turn 1 begins, and turn 0 has not ended: call its end(reason) first, or say how many turns may run at once by "
        "Recorder(batch_size=...), which is 1",
    ),
    "output": (
        lambda t: t.turn("a", [1], 7).end("length", output_ids=[7.5]),  # type: ignore[list-item]
        "turn_end record, field output_ids.0",
    ),
    "reason": (lambda t: t.turn("a", [1], 7).end("bored"), "got turn.end(reason='bored'), wanted one of eos, length,"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_refused_by_field_and_ends_the_trace_as_failed(tmp_path: Path, name: str) -> None:
    use, message = WRONG[name]
    with pytest.raises(UsageError) as caught, Recorder(tmp_path / "a.jsonl", **ABOUT) as trace:
        use(trace)
    assert message in str(caught.value)
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])["reason"] == "failed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teacher": {"name": "tiny", "vocab_size": 100}},
            "manifest record, field teacher.architecture: Field required",
        ),
        ({"sections": ["tree", "verfy"]}, "got section 'verfy', wanted some of shape, draft, tree, "),
        ({"sections": ["kind"]}, "got section 'kind', wanted some of"),
        ({"sections": ["tree", "texts"]}, "got section 'texts', wanted some of"),
        ({"sections": ["draft.inputs.tokens"]}, "got section 'draft.inputs.tokens', wanted some of"),
        ({"sede": 3}, "the format has no field sede; did you mean seed?"),
        ({"dtype": 16}, "manifest record, field dtype"),
    ],
)
def test_a_wrong_manifest_is_refused_before_there_is_a_file(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        Recorder(tmp_path / "a.jsonl", **ABOUT | changes)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_turn_that_was_not_ended_is_named(tmp_path: Path) -> None:
    trace = Recorder(tmp_path / "a.jsonl", **ABOUT)
    trace.turn("a", [1], 7).step(**STEP)
    with pytest.raises(UsageError, match=r"turn 0 has not ended: call its end\(reason\)"):
        trace.close()
    assert check_trace(tmp_path / "a.jsonl").end_reason == "failed"


def test_an_exception_of_the_engine_ends_the_trace_and_is_not_hidden(tmp_path: Path) -> None:
    def decode(trace: Recorder) -> None:
        turns = [trace.turn("a", [3, 1, 4], 7, row=0), trace.turn("b", [3, 1], 7, row=1)]
        for turn in turns:
            turn.step(**STEP)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Recorder(tmp_path / "a.jsonl", batch_size=2, **ABOUT) as trace:
        decode(trace)
    report = check_trace(tmp_path / "a.jsonl")
    assert (report.end_reason, report.num_violations) == ("failed", 0)
    assert report.num_steps == 2, "the last step of each is the one that is looked for"


def test_what_was_really_appended_is_held_against_what_was_accepted(tmp_path: Path) -> None:
    assert check_trace(recorded(tmp_path / "right.jsonl", emitted=[4, 8, 2])).num_violations == 0
    report = check_trace(recorded(tmp_path / "wrong.jsonl", emitted=[4, 9, 2]))
    assert {name for name, tally in report.invariants.items() if tally.failed} == {"stop.emitted"}
    with TraceReader(tmp_path / "wrong.jsonl") as reader:
        ends = [reader.turn_end(entry) for entry in reader.turns]
    assert [end.output_ids for end in ends if end is not None] == [[7, 4, 9, 2, 5]] * 2


def fed(committed: int) -> dict[str, Any]:
    """The tensors of ``STEP`` after so many tokens."""
    rows = {"mask_rows": ["01", "03", "05", "0b"], "positions": [committed + depth for depth in (0, 1, 1, 2)]}
    sizes = {"committed_length": committed, "num_slots": 4, "padded_slots": 4, "prefix_visible": [committed] * 4}
    return {"tensors": {**rows, **sizes, "token_ids": STEP["tokens"], "index_tensors": {}}}


def test_what_was_not_said_to_be_appended_is_not_judged(tmp_path: Path) -> None:
    report = check_trace(recorded(tmp_path / "a.jsonl"))
    tally = report.invariants["stop.emitted"]
    assert (tally.passed, tally.skipped, tally.why_skipped) == (0, 4, "not recorded: stop.emitted")
    with_emitted = check_trace(recorded(tmp_path / "told.jsonl", stop={"emitted": [4, 8, 2]}))
    assert with_emitted.invariants["stop.emitted"].passed == 2


def test_what_was_really_put_out_is_held_against_the_steps(tmp_path: Path) -> None:
    right = check_trace(recorded(tmp_path / "right.jsonl", np.array([7, 4, 8, 2, 5])))
    assert (right.num_violations, right.invariants["turn.output-is-sum"].passed) == (0, 2)
    wrong = check_trace(recorded(tmp_path / "wrong.jsonl", [7, 4, 8, 5]))
    assert {name: tally.failed for name, tally in wrong.invariants.items() if tally.failed} == {"turn.output-is-sum": 2}
    assert wrong.by_turn[0][0].witness == "output token 3: got 5, wanted 2"
    root = diff_traces(tmp_path / "right.jsonl", tmp_path / "wrong.jsonl").roots[0]
    assert (root.difference.field, root.wrong) == ("output-is-sum", "candidate")


@pytest.mark.parametrize(
    ("invariant", "field"),
    [("turn.output-is-sum", "turn_end.output_ids"), ("turn.metrics", "turn_end.num_steps")],
)
def test_what_was_added_up_from_the_steps_is_not_judged_by_them(tmp_path: Path, invariant: str, field: str) -> None:
    report = check_trace(recorded(tmp_path / "a.jsonl"))
    tally = report.invariants[invariant]
    assert (report.num_violations, tally.passed, tally.skipped) == (0, 0, 2)
    assert tally.why_skipped == f"not recorded: {field}"


@pytest.mark.parametrize(
    ("lengths", "witness"),
    [
        ((3, 6), None),
        ((4, 7), "committed length is 4, the prompt left 3"),
        ((3, 5), "committed length is 5, the last step should have left 6"),
    ],
)
def test_the_length_of_the_cache_is_followed_without_commits(
    tmp_path: Path, lengths: tuple[int, int], witness: str | None
) -> None:
    with Recorder(tmp_path / "a.jsonl", sections=["tree", "tensors", "verify", "accept", "stop"], **ABOUT) as trace:
        turn = trace.turn("a", [3, 1, 4], 7)
        turn.step(**STEP, **fed(lengths[0]))
        second = fed(lengths[1])
        second["tensors"]["token_ids"] = [2, 4, 5, 8]
        turn.step(**STEP | {"tokens": [2, 4, 5, 8]}, **second)
        turn.end("criterion")
    report = check_trace(tmp_path / "a.jsonl")
    tally = report.invariants["sequence.length-continues"]
    assert (tally.first.witness if tally.first is not None else None) == witness
    assert report.num_violations == (witness is not None)
