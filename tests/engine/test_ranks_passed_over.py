"""Static trees that pass a rank over: drafted, recorded, judged and compared like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.traced import record

from specscope.engine.drafters.draws import DraftSampler
from specscope.engine.lab.rerun.recorded_run import Overrides
from specscope.engine.lab.rerun.replay import Replay, ReplayRequest
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import ModelChoice
from specscope.engine.tree.policy import chain_policy, parse_policy, static_policy
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.oracle.check import check_trace

TREE = [[0], [2], [0, 1], [2, 0], [2, 3], [0, 1, 0], [2, 3, 1]]
PROMPTS = [Prompt("a", ids=(5, 9, 2, 5, 9, 2, 5)), Prompt("b", ids=(44, 3, 3, 3, 60, 21, 7, 7))]


@pytest.fixture(params=["eagle3", "model", "ngram"])
def drafter(request: pytest.FixtureRequest, teacher_folder: Path, head_folder: Path) -> str:
    return {"eagle3": f"eagle3:{head_folder}", "model": f"model:{teacher_folder}", "ngram": "ngram"}[request.param]


def choice_of(teacher: Path, drafter: str, mode: Any, tree: Path) -> ModelChoice:
    policy = parse_policy(f"static:{tree}", 0, 0, 0)
    return ModelChoice(teacher=str(teacher), drafter=drafter, mode=mode, dtype="float32", device="cpu", policy=policy)


def recorded(tmp_path: Path, teacher: Path, drafter: str, mode: Any) -> Path:
    tree = tmp_path / "tree.json"
    tree.write_text(json.dumps(TREE))
    trace = tmp_path / f"{mode}.jsonl"
    got = record(choice_of(teacher, drafter, mode, tree), PROMPTS, trace, batch_size=2).output_ids
    alone = ModelChoice(teacher=str(teacher), drafter="none", mode=mode, dtype="float32", device="cpu")
    assert got == record(alone, PROMPTS, None).output_ids
    return trace


def test_a_tree_that_passes_ranks_over_is_recorded_soundly(tmp_path: Path, teacher_folder: Path, drafter: str) -> None:
    traces = [recorded(tmp_path, teacher_folder, drafter, mode) for mode in ("eager", "fused")]
    for trace in traces:
        report = check_trace(trace)
        assert report.num_violations == 0
        assert report.invariants["tree.shape-is-policy"].passed == report.num_steps > 4
    assert diff_traces(traces[0], traces[1]).exit_code == 0


def test_a_replay_of_it_is_equal(tmp_path: Path, teacher_folder: Path, head_folder: Path) -> None:
    trace = recorded(tmp_path, teacher_folder, f"eagle3:{head_folder}", "fused")
    request = ReplayRequest(trace=trace, out=tmp_path / "again.jsonl", overrides=Overrides(mode="eager"))
    Replay(request, warn=print).run(lambda _: None)
    assert check_trace(tmp_path / "again.jsonl").num_violations == 0
    assert diff_traces(trace, tmp_path / "again.jsonl").exit_code == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        # The same shape by other proposals: only the candidates tell.
        ([[0], [1], [0, 1], [1, 0], [1, 3], [0, 1, 0], [1, 3, 1]], "child ranks [2] are no node of the static tree"),
        ([[0], [2], [0, 0], [2, 0], [2, 3], [0, 0, 0], [2, 3, 1]], "child ranks [0, 1] are no node of the static tree"),
        ([*TREE, [0, 3]], "1 nodes of the static tree are missing, child ranks [0, 3] first"),
        (TREE[:-1], "7 nodes, the budget is 6"),
    ],
)
def test_nodes_of_other_ranks_are_violations(
    tmp_path: Path, teacher_folder: Path, head_folder: Path, wrong: list[list[int]], says: str
) -> None:
    trace = recorded(tmp_path, teacher_folder, f"eagle3:{head_folder}", "fused")
    lines = trace.read_text().splitlines()
    manifest = json.loads(lines[0])
    manifest["tree_policy"].update(choices=wrong, budget=len(wrong))
    spoilt = tmp_path / "spoilt.jsonl"
    spoilt.write_text("\n".join([json.dumps(manifest), *lines[1:-1]]) + "\n")
    tally = check_trace(spoilt).invariants["tree.shape-is-policy"]
    assert tally.first is not None
    assert says in tally.first.witness


def test_without_candidates_the_shape_alone_is_judged(tmp_path: Path, teacher_folder: Path, head_folder: Path) -> None:
    trace = recorded(tmp_path, teacher_folder, f"eagle3:{head_folder}", "fused")
    records = [json.loads(line) for line in trace.read_text().splitlines()[:-1]]
    for step in records:
        step.pop("draft", None)
    for choices, sound in ((TREE, True), ([[0], [2], [0, 1], [0, 2], [2, 3], [0, 1, 0], [2, 3, 1]], False)):
        records[0]["tree_policy"]["choices"] = choices
        bare = tmp_path / "bare.jsonl"
        bare.write_text("".join(json.dumps(line) + "\n" for line in records))
        assert (check_trace(bare).invariants["tree.shape-is-policy"].failed == 0) is sound


def test_draws_may_not_be_passed_over() -> None:
    with pytest.raises(UsageError, match=r"node \[2\] has no earlier sibling; sampled drafts are tried in the order"):
        DraftSampler(1.0, 61).check(static_policy(TREE, "mine"))
    DraftSampler(1.0, 61).check(chain_policy(3))
    DraftSampler(1.0, 61).check(parse_policy("static:bush-16", 0, 0, 0))
