"""A report stands alone: what a person finds in it without the traces and without the viewer."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.traces import EAGER, FUSED, Lines, load, store
from support.verdicts import root_at

from specscope.tracer.compare.diff import DiffOptions
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.report.causes import one_of_each_cause
from specscope.viewer.report.choice import Wanted
from specscope.viewer.report.pair_report import PairTexts, pair_report
from specscope.viewer.report.run_report import run_report

XHTML = "{http://www.w3.org/1999/xhtml}"


def of_run(path: Path) -> ElementTree.Element:
    page = run_report(path, Wanted(every_step=True), TokenTexts(None)).page
    return ElementTree.fromstring(page.partition("\n")[2])


def of_pair(a: Path, b: Path, most_roots: int = 3) -> ElementTree.Element:
    texts = PairTexts(TokenTexts(None), TokenTexts(None), TokenTexts(None))
    page = pair_report(a, b, DiffOptions(), most_roots=most_roots, texts=texts).page
    return ElementTree.fromstring(page.partition("\n")[2])


def words_of(root: ElementTree.Element) -> str:
    return " ".join(" ".join(root.itertext()).split())


def parts_of(root: ElementTree.Element) -> list[str]:
    return [part.get("id", "") for part in root.iter(f"{XHTML}article")]


def at(lines: Lines, turn: int, step: int) -> dict[str, dict[str, list[int]]]:
    steps = [line for line in lines if line["kind"] == "step" and line["turn"] == turn]
    return steps[step]


def test_contents_say_what_came_of_each_step() -> None:
    contents = next(of_run(FUSED).iter(f"{XHTML}nav"))
    entries = [words_of(entry) for entry in contents.iter(f"{XHTML}li")]
    accepted = [line["accept"]["accepted_length"] for line in load(FUSED) if line["kind"] == "step"]
    assert [int(re.findall(r"Step \d+ (\d+) accepted: ", entry)[0]) for entry in entries] == accepted
    assert entries[0] == "Step 0 3 accepted: ·return·self.open"


@pytest.mark.parametrize("of", ["run", "pair"])
def test_headings_go_down_level_by_level(of: str) -> None:
    root = of_run(FUSED) if of == "run" else of_pair(EAGER, FUSED)
    levels = [int(element.tag[-1]) for element in root.iter() if re.fullmatch(XHTML + "h[1-6]", element.tag)]
    assert levels[0] == 1
    assert all(here <= before + 1 for before, here in pairwise(levels))


def test_one_root_of_each_cause_is_chosen_before_a_second_of_any() -> None:
    roots = [root_at(step=step, field="positions") for step in range(5)]
    roots[4:] = [root_at(step=4, field="mask"), root_at(step=5, field="positions"), root_at(step=6, field="token_ids")]
    assert one_of_each_cause(roots, 3) == [0, 4, 6]
    assert one_of_each_cause(roots, 2) == [0, 4]
    assert one_of_each_cause(roots, 5) == [0, 1, 2, 4, 6]
    assert one_of_each_cause(roots[:3], 9) == [0, 1, 2]


def test_the_second_cause_is_drawn_though_others_of_the_first_come_before_it(tmp_path: Path) -> None:
    lines = load(FUSED)
    for turn in (0, 1):
        at(lines, turn, 1)["tensors"]["positions"][2] += 1
    row = at(lines, 2, 3)["tensors"]["mask_rows"]
    row[4] = row[3]
    root = of_pair(EAGER, store(lines, tmp_path / "two.jsonl"), most_roots=2)
    assert parts_of(root) == ["t0s1", "t2s3"]
    words = words_of(root)
    assert "2 causes; 3 roots" in words
    assert "2 places, first in turn 0 (prompt function), step 1" in words
    assert "1 place, first in turn 2 (prompt class), step 3" in words


def test_a_candidate_that_failed_is_drawn_where_it_stopped(tmp_path: Path) -> None:
    lines = load(FUSED)
    steps = [number for number, line in enumerate(lines) if line["kind"] == "step" and line["turn"] == 1]
    step = lines[steps[2]]
    step["tensors"]["positions"][2] += 1
    where = {"seq": step["seq"], "kind": "failure", "turn": 1, "step": 2, "phase": "check", "error": "ViolationError"}
    inputs = {name: step[name] for name in ("draft", "tree", "tensors")}
    failure = {**where, "message": "row 0: tensors.position-is-length-plus-depth: slot 2", "inputs": inputs}
    root = of_pair(EAGER, store([*lines[: steps[2]], failure], tmp_path / "failed.jsonl"))
    assert parts_of(root) == ["t1s2"]
    words = words_of(root)
    assert "Turn 1, step 2: where the candidate stopped" in words
    assert "1 node differs, marked ≠" in words
