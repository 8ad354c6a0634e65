"""Fields that the format does not have: a misspelt one is named, one of a newer version only counted; and what a caller
may demand to be recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.called import specscope
from support.traces import EAGER, FUSED, Lines, load, store

from specscope.schemas import SCHEMA_VERSION
from specscope.schemas.unknown import UnknownField, named
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.unknown import unknown_lines


def misspelt() -> Lines:
    """The tensors of every step under another name, and so two fields and a promise."""
    lines = load(FUSED)
    steps = [line for line in lines if line["kind"] == "step"]
    for step in steps:
        step["tensor"] = step.pop("tensors")
    steps[1]["verify"]["top_token"] = steps[1]["verify"].pop("top_tokens")
    steps[2]["accept"]["visited"][0]["kid"] = 3
    lines[1]["prefill"]["mask_rows"] = []
    lines[0]["capabilities"] = ["tensor" if name == "tensors" else name for name in lines[0]["capabilities"]]
    return lines


def test_a_misspelt_field_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    report = check_trace(store(misspelt(), tmp_path / "misspelt.jsonl"))
    assert report.num_violations == 0
    assert sorted(unknown_lines(report)) == [
        "accept.visited.kid in 1 step record",
        "prefill.mask_rows in 1 turn_start record",
        "tensor among the capabilities; did you mean tensors?",
        f"tensor in {report.num_steps} step records; did you mean tensors?",
        "verify.top_token in 1 step record; did you mean verify.top_tokens?",
    ]
    assert unknown_lines(check_trace(FUSED)) == []


def test_check_and_diff_say_so_and_do_not_fail_by_it(tmp_path: Path) -> None:
    path = store(misspelt(), tmp_path / "misspelt.jsonl")
    done = specscope("check", path)
    assert done.code == 0
    assert "unknown field: tensor in 37 step records; did you mean tensors?" in done.out
    assert json.loads(specscope("check", path, "--format", "json").out)["unknown_fields"]
    verdict = diff_traces(EAGER, path)
    assert verdict.exit_code == 0
    assert any(line.startswith("in the candidate: tensor in 37") for line in verdict.unknown)
    assert "the candidate does not record tensors" in verdict.unjudged
    assert "tensors" not in verdict.compared
    assert "tensors in none" in specscope("diff", EAGER, path).out


def test_fields_of_a_newer_version_are_legal_and_only_counted(tmp_path: Path) -> None:
    lines = misspelt()
    lines[0]["schema"] = "specscope.trace/1.99"
    (line,) = unknown_lines(check_trace(store(lines, tmp_path / "newer.jsonl")))
    newest = f"{SCHEMA_VERSION.major}.{SCHEMA_VERSION.minor}"
    assert line == f"40 of format 1.99, newer than {newest}, were not read"


def test_unknown_names_without_end_are_counted_together(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[2] |= {f"x{number}": 1 for number in range(500)}
    found = unknown_lines(check_trace(store(lines, tmp_path / "many.jsonl")))
    assert len(found) == 101
    assert found[-1] == "others in 400 step records"


def test_a_field_at_the_wrong_place_is_named_by_the_right_one() -> None:
    assert named("step", "accept.mask_rows") == UnknownField("step", "accept.mask_rows", "tensors.mask_rows")
    assert named("step", "qqqq").nearest is None
    assert named("failure", "mesage").nearest == "message"


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ("all", ["tensors in 37 of 37 steps"]),
        ("tree, verify.top_tokens,tensors", ["verify.top_tokens in 1 of 37 steps", "tensors in 37 of 37 steps"]),
        ("tree,accept.visited", []),
    ],
)
def test_what_is_required_and_absent_is_named_with_its_steps(tmp_path: Path, asked: str, missing: list[str]) -> None:
    done = specscope("check", store(misspelt(), tmp_path / "misspelt.jsonl"), "--require", asked)
    assert done.code == (4 if missing else 0)
    said = [line.partition("recorded: ")[2] for line in done.out.splitlines() if "required and not" in line]
    assert said == missing
    assert ("NOT RECORDED" in done.out) == bool(missing)


def test_what_is_recorded_meets_every_requirement(tmp_path: Path) -> None:
    assert specscope("check", FUSED, "--require", "all").code == 0
    lines = [line for line in load(FUSED) if line["kind"] in ("manifest", "run_end")]
    lines[-1] |= {"seq": 1, "counts": {"manifest": 1}}
    assert specscope("check", store(lines, tmp_path / "empty.jsonl"), "--require", "tree").code == 4


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("tensor", "the nearest is tensors"),
        ("verify.top_token", "the nearest is verify.top_tokens"),
        (",", "no section"),
    ],
)
def test_a_requirement_that_no_step_can_meet_is_refused(asked: str, words: str) -> None:
    done = specscope("check", FUSED, "--require", asked)
    assert done.code == 2
    assert words in done.err
