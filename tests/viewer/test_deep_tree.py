"""Trees of 255 nodes to depth 20 exactly: drawn, stepped through, compared, checked, and reported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.called import specscope
from support.grown import changed, deep
from support.pages import Opener, boards_of, checked, query_of

from specscope.schemas import Step
from specscope.tracer.files.reader import TraceReader

TraceMaker = Callable[..., Path]


def misplaced(step: Step) -> Step:
    """A deep tree, of whose deepest node the position is wrong in step 1."""
    step = deep(step)
    assert step.tensors is not None
    positions = step.tensors.positions
    return changed(step, "tensors", positions=[*positions[:-1], positions[-1] + 1]) if step.step == 1 else step


@pytest.fixture
def deep_pair(make_trace: TraceMaker) -> tuple[Path, Path]:
    return (
        make_trace("sound.jsonl", turns=[[0, 0, 0]], mode="eager", change=deep),
        make_trace("wrong.jsonl", turns=[[0, 0, 0]], change=misplaced),
    )


def test_the_trace_has_the_trees_that_it_is_named_for(deep_pair: tuple[Path, Path]) -> None:
    for path in deep_pair:
        with TraceReader(path) as reader:
            trees = [step.tree for step in reader.steps(reader.turns[0])]
        assert [(len(tree.tokens) - 1, max(tree.depths)) for tree in trees if tree is not None] == [(255, 20)] * 3


def test_it_is_drawn_and_stepped_through(deep_pair: tuple[Path, Path], open_app: Opener) -> None:
    app = open_app(deep_pair[0], page="step")
    for step in range(3):
        (board,) = boards_of(app)
        drawn = re.findall(r"draft tree of step \d+", board["html"])
        assert drawn == [f"draft tree of step {step}"]
        assert "unlikely nodes are folded" in board["html"]
        if step < 2:
            checked(app.button(key="next").click().run())
    assert query_of(app)["step"] == "2"


def test_two_are_compared_and_the_deepest_node_is_found(deep_pair: tuple[Path, Path], open_app: Opener) -> None:
    app = open_app(*deep_pair)
    assert (query_of(app)["page"], query_of(app)["step"]) == ("diff", "1")
    (board,) = boards_of(app)
    assert board["html"].count("draft tree of step 1") == 2
    title = (
        "The position of node #1007 &gt; … &gt; #1241 &gt; #1254 (depth 20) is 24 in the baseline, 25 in the candidate"
    )
    assert title in board["html"]
    assert "#1254" in board["html"].split("ss-card-tree-b")[1], "folding keeps the node that differs"


def test_every_command_takes_it(deep_pair: tuple[Path, Path], tmp_path: Path) -> None:
    baseline, candidate = deep_pair
    root = json.loads(specscope("diff", baseline, candidate, "--format", "json").out)["roots"][0]
    assert (root["place"]["step_a"], root["difference"]["field"]) == (1, "positions")
    shown = specscope("show", baseline, "--turn", "0", "--step", "1")
    (deepest,) = [
        line for line in shown.out.splitlines() if "#1254" in line and "\N{BOX DRAWINGS LIGHT HORIZONTAL}" in line
    ]
    assert shown.code == 0
    assert len(re.match("[ │├└─]*", deepest)[0]) >= 4 * 19  # type: ignore[index]
    assert specscope("report", baseline, candidate, "-o", tmp_path / "r.html").code == 0
    assert "slot 255: position" in " ".join(specscope("check", candidate, "--format", "json").out.split())
