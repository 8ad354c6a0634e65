"""``specscope merge``: the parts of a run become the trace of the whole run, and what is no part of it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.called import specscope
from support.commands import Outcome
from support.toy_engine import PROMPTS, decode
from support.traces import load

from specscope.tracer.compare import diff_traces
from specscope.tracer.oracle.check import check_trace

PARTS = [{name: ids} for name, ids in PROMPTS.items()]


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return [decode(tmp_path / f"part-{number}.jsonl", prompts=part) for number, part in enumerate(PARTS, 1)]


def merge(*parts: Path, more: tuple[str, ...] = ()) -> Outcome:
    return specscope("merge", *parts, "-o", parts[0].with_name("whole.jsonl"), *more)


def test_the_parts_become_the_whole_run(parts: list[Path], tmp_path: Path) -> None:
    done = merge(*parts)
    whole = tmp_path / "whole.jsonl"
    assert (done.code, done.out) == (0, f"wrote {whole}: 2 turns of 2 parts\n")
    report = check_trace(whole)
    assert (report.num_violations, report.end_reason) == (0, "complete")
    assert report.invariants["run.digest"].passed == 1
    single = decode(tmp_path / "single.jsonl")
    assert diff_traces(single, whole).verdict == "equal"
    starts = [(line["turn"], line["prompt_id"]) for line in load(whole) if line["kind"] == "turn_start"]
    assert starts == [(0, "a"), (1, "b")]
    assert merge(*parts).code == 2, "an existing file is kept"
    assert merge(*parts, more=("--overwrite",)).code == 0


def test_a_part_that_was_cut_short_ends_the_whole_as_failed(parts: list[Path], tmp_path: Path) -> None:
    body = parts[1].read_bytes().splitlines(keepends=True)
    parts[1].write_bytes(b"".join(body[:-2]))
    done = merge(*parts)
    assert (done.code, done.err) == (0, f"{parts[1]} was cut short: {tmp_path / 'whole.jsonl'} ends as failed\n")
    assert check_trace(tmp_path / "whole.jsonl").end_reason == "failed"


def test_what_is_no_part_of_the_run_is_refused(parts: list[Path], tmp_path: Path) -> None:
    other = decode(tmp_path / "other.jsonl", depth=3, prompts=PARTS[1])
    done = merge(parts[0], other)
    assert (done.code, "has another tree_policy than" in done.err) == (2, True)
    again = decode(tmp_path / "again.jsonl", prompts=PARTS[0])
    done = merge(parts[0], again)
    assert (done.code, "prompt a is in" in done.err) == (2, True)
    assert not (tmp_path / "whole.jsonl").exists()
    assert merge(parts[0], tmp_path / "absent.jsonl").code == 2
