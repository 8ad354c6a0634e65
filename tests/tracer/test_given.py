"""What other engines give to the recorder: arrays are taken for what they hold, and mistakes name what to do."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.recorder_calls import ABOUT, STEP
from support.traces import Lines, load

from specscope.tracer import Recorder, check_trace
from specscope.tracer.errors import UsageError

SEEN = [[True, False, False, False], [True, True, False, False], [True, False, True, False], [True, True, False, True]]
FED: dict[str, Any] = {
    "committed_length": 3,
    "num_slots": 4,
    "padded_slots": 4,
    "mask_rows": ["01", "03", "05", "0b"],
    "prefix_visible": [3, 3, 3, 3],
    "positions": [3, 4, 4, 5],
    "token_ids": [7, 4, 5, 8],
    "index_tensors": {},
}
LOGITS = [[2.5, 0.1], [3.0, -1.0], [4.0, 1e-3], [5.0, 0.0]]
VERIFY: dict[str, Any] = {"top_tokens": [[4, 1], [8, 1], [9, 1], [2, 1]], "top_logits": LOGITS}


def steps_of(file: Path, prompt: Any = (3, 1, 4), pending: Any = 7, **step: Any) -> Lines:
    """The records of a trace that has this one step, without what differs from run to run."""
    sections = ["tree", "tensors", "verify", "accept", "stop"]
    with Recorder(file, overwrite=True, sections=sections, **ABOUT) as trace:
        turn = trace.turn("a", prompt, pending)
        turn.step(**{**STEP, "tensors": FED, "verify": VERIFY, **step})
        turn.end("criterion")
    assert check_trace(file).num_violations == 0
    return [{**line, "duration_ns": 0} for line in load(file)[1:-1]]


def as_arrays(value: Any) -> Any:
    """Every list of numbers as an array, every number as a scalar of numpy."""
    if isinstance(value, dict):
        return {name: as_arrays(entry) for name, entry in value.items()}
    if isinstance(value, list) and value and not isinstance(value[0], str):
        return np.array(value, dtype=np.int64 if isinstance(np.ravel(value)[0], np.integer) else np.float64)
    return np.int32(value) if isinstance(value, int) else value


def test_arrays_are_recorded_as_the_lists_that_they_hold(tmp_path: Path) -> None:
    wanted = steps_of(tmp_path / "a.jsonl")
    arrays = as_arrays({**STEP, "tensors": FED, "verify": VERIFY})
    assert steps_of(tmp_path / "b.jsonl", np.array([3, 1, 4]), np.int64(7), **arrays) == wanted
    mixed = {"tokens": tuple(np.array(STEP["tokens"])), "parents": array("q", STEP["parents"]), "path": range(1, 4, 2)}
    assert steps_of(tmp_path / "c.jsonl", **mixed) == wanted


def test_a_float32_is_recorded_exactly(tmp_path: Path) -> None:
    singles = np.array(LOGITS, dtype=np.float32)
    steps = steps_of(tmp_path / "a.jsonl", verify={**VERIFY, "top_logits": singles})
    assert np.array_equal(np.array(steps[1]["verify"]["top_logits"], dtype=np.float32), singles)


@pytest.mark.parametrize("seen", [SEEN, np.array(SEEN), [np.array(row) for row in SEEN]])
def test_rows_of_the_mask_may_be_booleans(tmp_path: Path, seen: Any) -> None:
    assert steps_of(tmp_path / "a.jsonl", tensors={**FED, "mask_rows": seen}) == steps_of(tmp_path / "b.jsonl")


def test_a_manifest_may_hold_scalars_of_numpy(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.jsonl", seed=np.int64(5), **ABOUT):
        pass
    assert load(tmp_path / "a.jsonl")[0]["seed"] == 5


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], tuple[str, ...]]] = {
    "misspelt": (
        lambda fed: {"position": fed.pop("positions"), **fed},
        ("field tensors.positions: Field required", "the format has no field tensors.position, which was given"),
    ),
    "missing": (lambda fed: fed.pop("positions") and fed, ("tensors.positions: Field required; see docs/trace-form",)),
    "mask as numbers": (
        lambda fed: {**fed, "mask_rows": np.array(SEEN, dtype=np.int64)},
        ("field tensors.mask_rows.0", "got [1, 0, 0, 0] (list)", "list of booleans", "hexadecimal digits", "The mask"),
    ),
    "fractions": (
        lambda fed: {**fed, "positions": np.array([3.0, 4.0, 4.0, 5.5])},
        ("field tensors.positions.0: Input should be a valid integer, got 3.0 (float)",),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_what_was_got_and_what_to_do(tmp_path: Path, name: str) -> None:
    make, words = MISTAKES[name]
    with pytest.raises(UsageError) as caught:
        steps_of(tmp_path / "a.jsonl", tensors=make(dict(FED)))
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("dtype", ["fp64", "torch.float16", "fp8", "unknown"])
def test_a_dtype_whose_noise_nobody_knows_is_refused(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(UsageError, match=f"got dtype='{dtype}', wanted one of float64, float32, float16, bfloat16"):
        Recorder(tmp_path / "a.jsonl", **ABOUT | {"dtype": dtype})
    assert not (tmp_path / "a.jsonl").exists()
    with Recorder(tmp_path / "a.jsonl", not_known=["dtype"], **ABOUT | {"dtype": dtype}):
        pass


def test_what_no_file_can_hold_is_refused_before_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which is not valid Unicode"):
        Recorder(tmp_path / "a.jsonl", **ABOUT | {"engine": "\ud800"})
    with pytest.raises(UsageError, match="manifest record: "):
        Recorder(tmp_path / "a.jsonl", sampling={"rule": "greedy", "processors": {"mine": object()}}, **ABOUT)
    assert not (tmp_path / "a.jsonl").exists()


MATCH = {"rule": "match", "temperature": 1.0, "lossless": True}


def matched(file: Path, **accept: Any) -> dict[str, str | None]:
    """The first witness of each violated invariant of a step whose rule is ``match``."""
    with Recorder(file, sampling=MATCH, **ABOUT) as trace:
        turn = trace.turn("a", [3, 1, 4], 7)
        turn.step(**STEP, accept=accept)
        turn.end("criterion")
    violated = {name: tally.first for name, tally in check_trace(file).invariants.items() if tally.failed}
    return {name: first.witness for name, first in violated.items() if first is not None}


def test_a_step_follows_the_runs_rule_without_saying_so(tmp_path: Path) -> None:
    assert matched(tmp_path / "a.jsonl", drawn=[4, 8, 0, 2]) == {}
    short = matched(tmp_path / "b.jsonl", drawn=[4, 8])
    assert short["accept.walk"] == "accept.drawn has entries for 2 of 4 slots, wanted one for each"
    assert "accept.rule" in matched(tmp_path / "c.jsonl", rule="greedy")


def test_an_engine_that_draws_only_where_its_walk_stands_leaves_the_draws_out(tmp_path: Path) -> None:
    with Recorder(
        tmp_path / "a.jsonl", sampling=MATCH, sections=["tree", "verify", "accept.path", "stop"], **ABOUT
    ) as trace:
        turn = trace.turn("a", [3, 1, 4], 7)
        turn.step(**STEP)
        turn.end("criterion")
    report = check_trace(tmp_path / "a.jsonl")
    assert report.num_violations == 0
    assert report.invariants["accept.walk"].why_skipped == "not recorded: accept.drawn"


@pytest.mark.parametrize(
    ("path", "witness"),
    [
        ([2], "got path [2], the walk gives [1, 3]: after slot 0 the teacher wants 4, which slot 1 has; slot 2 has 5"),
        ([1], "got path [1], the walk gives [1, 3]: after slot 1 the teacher wants 8, which slot 3 has"),
    ],
)
def test_a_path_beside_the_walk_is_shown_where_it_leaves_it(tmp_path: Path, path: list[int], witness: str) -> None:
    with Recorder(tmp_path / "a.jsonl", **ABOUT) as trace:
        turn = trace.turn("a", [3, 1, 4], 7)
        turn.step(**STEP | {"path": path})
        turn.end("criterion")
    tally = check_trace(tmp_path / "a.jsonl").invariants["accept.walk"]
    assert tally.first is not None
    assert tally.first.witness == witness


def test_a_path_that_goes_on_where_the_teacher_wants_another_token(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.jsonl", **ABOUT) as trace:
        turn = trace.turn("a", [3, 1, 4], 7)
        turn.step(**STEP | {"argmax": [4, 0, 9, 2]})
        turn.end("criterion")
    tally = check_trace(tmp_path / "a.jsonl").invariants["accept.walk"]
    assert tally.first is not None
    assert tally.first.witness.endswith("after slot 1 the teacher wants 0, which no child has; slot 3 has 8")
