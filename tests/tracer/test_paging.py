"""What a trace of a paged cache says of its blocks is judged, each rule by itself, and not where nothing is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.paging_mutants import ALIKE, FORMS, breaking, make_paged, share
from support.silent import ABOUT_BLOCKS
from support.traces import FUSED, Lines, load, store

from specscope.tracer.compare import diff_traces
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.report import OracleReport


def judged(lines: Lines, folder: Path) -> OracleReport:
    return check_trace(store(lines, folder / "paged.jsonl"))


def violated(report: OracleReport) -> set[str]:
    return {name for name, tally in report.invariants.items() if tally.failed}


def test_an_honest_table_passes_every_rule(tmp_path: Path) -> None:
    report = judged(make_paged(load(FUSED)), tmp_path)
    assert not violated(report)
    for name in ABOUT_BLOCKS:
        assert (report.invariants[name].passed, report.invariants[name].skipped) == (report.num_steps, 0)


def test_rows_of_equal_tokens_may_share_a_block(tmp_path: Path) -> None:
    lines = load(FUSED)
    breaking(share(ALIKE, ALIKE, references=2))(lines)
    assert not violated(judged(lines, tmp_path))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_wrong_with_a_block_is_found_at_its_step(tmp_path: Path, form: str) -> None:
    invariant, change = FORMS[form]
    lines = load(FUSED)
    breaking(change)(lines)
    report = judged(lines, tmp_path)
    first = report.invariants[invariant].first
    assert first is not None
    assert (first.turn, first.step) == (0, 1)
    assert violated(report) <= ABOUT_BLOCKS


def test_a_table_that_is_not_recorded_is_skipped_and_not_passed(tmp_path: Path) -> None:
    lines = make_paged(load(FUSED))
    del lines[0]["block_size"]
    for line in lines:
        line.get("verify", {}).pop("block_table", None)
    report = judged(lines, tmp_path)
    for name, why in (
        ("paging.table-read", "not recorded: verify.block_table"),
        ("paging.table-covers", "not recorded: manifest.block_size"),
    ):
        tally = report.invariants[name]
        assert (tally.passed, tally.failed, tally.why_skipped) == (0, 0, why)


def test_another_layout_of_the_cache_is_not_another_result(tmp_path: Path) -> None:
    """Other blocks in other orders, and none at all: nothing of it is compared."""
    paged = make_paged(load(FUSED))
    other = make_paged(load(FUSED))
    for line in other:
        for blocks in (line.get("prefill"), line.get("verify")):
            if blocks is not None and "block_table" in blocks:
                blocks["block_table"] = [block + 7 for block in blocks["block_table"]]
        if line["kind"] == "step":
            blocks = line["commit"]["blocks"]
            blocks["table"] = [block + 7 for block in blocks["table"]]
            blocks["taken"] = [block + 7 for block in blocks["taken"]]
    for against in (store(other, tmp_path / "other.jsonl"), FUSED):
        verdict = diff_traces(store(paged, tmp_path / "paged.jsonl"), against)
        assert (verdict.exit_code, verdict.roots, verdict.violations, verdict.unjudged) == (0, [], [], [])


def test_a_block_of_another_row_is_blamed_on_its_side(tmp_path: Path) -> None:
    broken = load(FUSED)
    breaking(FORMS["rows that differ"][1])(broken)
    honest = store(make_paged(load(FUSED)), tmp_path / "honest.jsonl")
    verdict = diff_traces(honest, store(broken, tmp_path / "broken.jsonl"))
    assert verdict.exit_code == 1
    assert [(blame.side, blame.invariant) for blame in verdict.violations] == [("b", "paging.shared-alike")]
