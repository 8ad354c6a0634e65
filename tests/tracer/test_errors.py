"""The kinds of errors, for programs that call the tracer."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.toy_run import Toy, toy_lines
from support.traces import store

from specscope.tracer.errors import (
    EXIT_USAGE,
    CheckpointError,
    DamagedRecordError,
    NoSuchStepError,
    SpecScopeError,
    TraceError,
    UnsupportedModelError,
    UsageError,
)
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.fleet.results import read_results

KINDS = (TraceError, DamagedRecordError, NoSuchStepError, CheckpointError, UnsupportedModelError)


@pytest.mark.parametrize("kind", [UsageError, *KINDS])
def test_wrong_input_is_a_value_error_too(kind: type[UsageError]) -> None:
    assert issubclass(kind, UsageError)
    assert issubclass(kind, SpecScopeError)
    assert issubclass(kind, ValueError)
    assert kind.exit_code == EXIT_USAGE


def test_a_step_that_is_not_there(tmp_path: Path) -> None:
    path = store(toy_lines(Toy(num_steps=3)), tmp_path / "run.jsonl")
    words = r"^got step 9, wanted 0\.\.2, the steps of turn 0$"
    with TraceReader(path) as reader, pytest.raises(NoSuchStepError, match=words):
        reader.step(reader.turns[0], 9)


def test_a_line_that_is_not_a_result(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("{}\n")
    with pytest.raises(DamagedRecordError, match="line 1"):
        read_results(path)
