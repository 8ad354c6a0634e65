"""A step that failed is drawn as far as its failure record holds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.pages import Opener, boards_of, checked, html_of, query_of
from support.traces import load, store

from specscope.schemas import Failure, Sampling
from specscope.viewer.drawing.labels.failed import failed_step

TraceMaker = Callable[..., Path]


def failed_trace(trace: Path, num_steps: int, phase: str, sections: Sequence[str] = ()) -> Path:
    """A copy that ends in a failure after ``num_steps`` steps; of the failed one ``sections`` are known."""
    lines = load(trace)
    steps = [line for line in lines if line["kind"] == "step"]
    failure = {
        **{
            "seq": num_steps + 2,
            "kind": "failure",
            "turn": 0,
            "step": num_steps,
            "phase": phase,
            "error": "ViolationError",
        },
        **{"message": "slot 2 <b>: position 9", "inputs": {name: steps[num_steps][name] for name in sections}},
        "state": {"context_ids": [1], "num_emitted": 0},
    }
    return store([*lines[:2], *steps[:num_steps], failure], trace.with_name("failed.jsonl"))


@pytest.mark.parametrize("num_steps", [0, 2])
def test_it_is_the_last_step_of_its_turn(make_trace: TraceMaker, open_app: Opener, num_steps: int) -> None:
    path = failed_trace(make_trace(), num_steps, "check", ["tree", "tensors"])
    app = open_app(path, page="step", turn="0", step="99")
    assert query_of(app)["step"] == str(num_steps)
    html = html_of(app)
    assert "This step failed in phase check: ViolationError" in html
    assert "It is drawn as far as it was recorded" in html
    assert f"specscope repro {path}" in html
    assert f"draft tree of step {num_steps}, 6 drafted nodes" in html
    assert "tree mask of 7 slots" in html
    assert "This step records no commit" in html
    assert "This turn has no steps" not in html
    (board,) = boards_of(app)
    assert board["strip"].count('class="step failed') == 1
    assert "the engine failed in this step" in board["strip"]
    assert json.loads(board["raw"]["step"])["kind"] == "failure"
    if num_steps:
        checked(app.button(key="previous").click().run())
        assert "This step failed" not in html_of(app)
        checked(app.button(key="last").click().run())
        assert query_of(app)["step"] == str(num_steps)


def test_the_health_page_leads_to_it(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(failed_trace(make_trace(), 2, "verify", ["tree"]), page="health")
    assert 'data-do="go:0.2">Open turn 0, step 2<' in html_of(app)


def test_a_step_of_which_nothing_is_known_is_not_drawn(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(failed_trace(make_trace(), 2, "draft"), page="step", step="99")
    assert query_of(app)["step"] == "1"
    assert "This step failed" not in html_of(app)


@pytest.mark.parametrize("inputs", [{}, {"tree": 3}, {"tree": {"tokens": "x"}}, {"tensors": {}}])
def test_nonsense_is_not_drawn(inputs: dict[str, Any]) -> None:
    failure = Failure(seq=1, turn=0, step=0, phase="verify", error="E", message="m", inputs=inputs)
    assert failed_step(failure, Sampling(rule="greedy")) is None


def test_what_was_accepted_is_drawn(make_trace: TraceMaker) -> None:
    tree = next(line for line in load(make_trace()) if line["kind"] == "step")["tree"]
    inputs = {"tree": tree, "accept": {"path": [1, 3], "bonus_token": 50, "bonus_slot": 3}}
    failure = Failure(seq=1, turn=0, step=0, phase="commit", error="E", message="m", inputs=inputs)
    failed = failed_step(failure, Sampling(rule="greedy"))
    assert failed is not None
    assert failed.step.accept is not None
    assert (failed.step.accept.accepted_length, failed.step.accept.bonus_token) == (2, 50)


@pytest.mark.parametrize("num_steps", [0, 2])
def test_a_diff_shows_it_beside_the_baselines_step(make_trace: TraceMaker, open_app: Opener, num_steps: int) -> None:
    """The page opens there, marks what differs, and opens the failed step itself."""
    sound = make_trace("sound.jsonl", mode="eager", turns=[[2, 0, 3]])
    path = failed_trace(make_trace("b.jsonl"), num_steps, "check", ["tree", "tensors"])
    lines = load(path)
    lines[-1]["inputs"]["tensors"]["positions"][2] += 1
    store(lines, path)
    app = open_app(sound, path, page="diff")
    assert query_of(app)["step"] == str(num_steps)
    html = html_of(app)
    assert "NOT JUDGED: " in html
    assert f"the candidate stopped in turn 0, step {num_steps}, in phase check: it violates slot 2 &lt;b&gt;" in html
    assert "The candidate failed in this step, in phase check" in html
    assert "1 node differs, marked ≠" in html
    (board,) = boards_of(app)
    assert json.loads(board["raw"]["b"])["tree"]
    if num_steps:
        checked(app.button(key="previous").click().run())
        assert "These two steps are equal" in html_of(app)
