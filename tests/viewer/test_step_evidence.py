"""What the Step page says of a step beyond what happened: the teacher's own probabilities, what else was proposed, what
was not recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.grown import changed, grown
from support.pages import Opener, boards_of, checked, html_of
from support.row_mutants import requests_waited
from support.traces import FUSED, load, store

from specscope.schemas import Step
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.invariants.base import Context
from specscope.viewer.drawing.labels.nodes import teacher_probability
from specscope.viewer.drawing.markup import NOTHING
from specscope.viewer.drawing.step.board import step_board
from specscope.viewer.drawing.step.parts import step_tree, timing_bars
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.mask import step_mask
from specscope.viewer.runs.judge import judged_step


@pytest.fixture
def recorded() -> Iterator[Context]:
    """A real step of which the drafter proposed the missed token, and the tree left it out."""
    with TraceReader(FUSED) as reader:
        turn = reader.turns[1]
        steps = list(reader.steps(turn))
        yield Context(manifest=reader.manifest, turn=reader.turn_start(turn), previous=steps[2], step=steps[3])


def tree_of(step: Step) -> str:
    return step_tree(StepView(step, TokenTexts(None)), target_width=860, medium="page")


def test_a_label_has_the_teachers_probability_above_the_drafters(recorded: Context) -> None:
    step = recorded.step
    assert step.tree is not None
    assert step.verify is not None
    drawn = tree_of(step)
    known = {slot: p for slot in range(17) if (p := teacher_probability(step, slot)) is not None}
    assert 3 < len(known) < 16
    assert drawn.count('class="bar by-t"') == len(known)
    assert "teacher's probability, above" in drawn
    slot, probability = max(known.items(), key=lambda item: item[1])
    node = re.search(rf'<g class="node[^"]*" data-node="{slot}".*?</g>', drawn)
    assert node is not None
    box = re.search(r'class="box" y="[-\d.]+" width="([\d.]+)"', node[0])
    bar = re.search(r'class="bar by-t" x="4" y="(-[\d.]+)" width="([\d.]+)"', node[0])
    assert box is not None
    assert bar is not None
    assert float(bar[2]) == pytest.approx((float(box[1]) - 8) * probability, abs=0.1)
    unknown = tree_of(changed(step, "verify", logsumexp=None))
    assert "by-t" not in unknown
    assert "teacher's probability" not in unknown


def test_the_panel_begins_with_the_node_after_which_the_walk_stopped(recorded: Context) -> None:
    board = step_board(judged_step(recorded, TokenTexts(None)), strip=NOTHING)
    accept, tree = recorded.step.accept, recorded.step.tree
    assert accept is not None
    assert tree is not None
    last = accept.path[-1]
    assert f'<div class="ss-panel" data-first="{last}">' in board.html
    note = board.notes[str(last)]
    assert "teacher&#x27;s entropy" in note
    proposals = re.search(r"drafter&#x27;s proposals</dt><dd>([^<]*)", note)
    assert proposals is not None
    assert f"#{accept.bonus_token} 0.11 (left out)" in proposals[1]
    shares = [float(share) for share in re.findall(r"#\d+ ([\d.e-]+)", proposals[1])]
    assert shares == sorted(shares, reverse=True)
    assert [name for name, words in board.notes.items() if "proposals" in words] == [str(last)]


def test_what_the_tree_kept_of_the_proposals_is_not_called_left_out(recorded: Context) -> None:
    """Where the walk stops at the root, some of its children are in the tree."""
    step = changed(recorded.step, "accept", path=[], accepted_length=0, bonus_slot=0)
    note = step_board(judged_step(replace(recorded, step=step), TokenTexts(None)), strip=NOTHING).notes["0"]
    words = re.search(r"drafter&#x27;s proposals</dt><dd>([^<]*)", note)
    assert words is not None
    tree = step.tree
    assert tree is not None
    for token, left_out in re.findall(r"#(\d+) [\d.e-]+( \(left out\))?", words[1]):
        children = {tree.tokens[slot] for slot in range(1, 17) if tree.parents[slot] == 0}
        assert (int(token) in children) is not bool(left_out)


def alone(step: Step) -> Step:
    """The step as a run without a drafter records it."""
    tensors = step.tensors
    assert tensors is not None
    step = changed(step, "tree", tokens=[7], parents=[0], depths=[0], logprobs=[0.0], scores=[0.0])
    rows = {"mask_rows": ["01"], "positions": tensors.positions[:1], "token_ids": [7], "prefix_visible": [3]}
    step = changed(step, "tensors", num_slots=1, padded_slots=1, **rows)
    return changed(step, "accept", path=[], accepted_length=0, bonus_slot=0)


def test_a_step_that_drafted_nothing_draws_no_mask_and_names_no_shapes_that_it_lacks(sound_step: Step) -> None:
    step = alone(sound_step)
    with TraceReader(FUSED) as reader:
        start = reader.turn_start(reader.turns[0])
        context = Context(manifest=reader.manifest, turn=start, previous=None, step=step)
        html = step_board(judged_step(context, TokenTexts(None)), strip=NOTHING).html
    assert "One slot, which sees itself" in html
    assert "ss-mask" not in html
    assert ">rejected<" not in html
    assert "draft probability" not in html
    whole = tree_of(sound_step)
    assert ">rejected<" in whole
    assert "draft probability" in whole


def test_a_branch_is_timed_only_where_it_took_time(sound_step: Step) -> None:
    assert "branch" not in timing_bars(changed(sound_step, "timing", branch_ns=900))
    assert "branch" in timing_bars(changed(sound_step, "timing", branch_ns=900_000))


def test_a_skipped_invariant_says_what_is_missing(recorded: Context) -> None:
    step = recorded.step.model_copy(update={"draft": None})
    skipped = dict(judged_step(replace(recorded, step=step), TokenTexts(None)).judgement.skipped)
    assert "not recorded: draft.inputs" in skipped.values()
    assert all(words.startswith("not recorded: ") for words in skipped.values())
    treeless = recorded.step.model_copy(update={"tree": None})
    skipped = dict(judged_step(replace(recorded, step=treeless), TokenTexts(None)).judgement.skipped)
    assert skipped["tensors.mask-is-ancestors"] == "not recorded: tree"


def test_a_turn_of_a_batch_names_its_row(tmp_path: Path, open_app: Opener) -> None:
    lines = load(FUSED)
    lines[0]["batch_size"] = 2
    for line in lines:
        if line["kind"] == "turn_start" and line["turn"] == 1:
            line["row"] = 1
    path = store(lines, tmp_path / "batch.jsonl")
    assert "row 1 of a batch of 2" in html_of(open_app(path, page="step", turn="1"))
    unnamed = html_of(open_app(path, page="step", turn="0"))
    assert ">in a batch of 2: times of a step" in unnamed, "nothing says that it was in row 0"
    assert "a batch of" not in html_of(open_app(FUSED, page="step", turn="1"))
    assert boards_of(open_app(path, page="step"))


def test_a_turn_says_when_its_request_came_and_went(tmp_path: Path, open_app: Opener) -> None:
    path = store(requests_waited(load(FUSED)), tmp_path / "waited.jsonl")
    page = html_of(open_app(path, page="step", turn="1"))
    assert "request: arrived at step 2, waited 3 steps (1500 ms), row 1 from step 5 on" in page
    assert ">in a batch of 2: times of a step" in page, "the row is named once"
    assert "; cancelled after" in html_of(open_app(path, page="step", turn="2"))
    assert "request: " not in html_of(open_app(FUSED, page="step", turn="2"))


def test_rows_of_a_mask_are_named_by_their_tokens_while_they_can_be_read(recorded: Context) -> None:
    step = recorded.step
    assert step.tree is not None
    texts = TokenTexts(None)
    texts.learn(step)
    drawn = step_mask(StepView(step, texts))
    beside = re.findall(r'text-anchor="end">([^<]*)</text>', drawn)
    assert [int(words.rpartition(" ")[2]) for words in beside] == list(range(17))
    assert beside[0] == "items 0"
    assert beside[10] == r"\n\n 10"
    view_box = re.search(r'viewBox="(-[\d.]+) [-\d.]+ ([\d.]+) ', drawn)
    assert view_box is not None
    left, width = (float(number) for number in view_box.groups())
    letters = [float(size) for size in re.findall(r"font-size:([\d.]+)px", drawn)]
    assert min(letters) / width * 320 >= 11, "in a card of 320 pixels"
    assert max(len(words) for words in beside) * 0.5 * max(letters) < -left
    large = step_mask(StepView(grown(step, 40), TokenTexts(None)))
    assert re.findall(r'text-anchor="end">([^<]*)</text>', large) == [
        "0",
        "5",
        "10",
        "15",
        "20",
        "25",
        "30",
        "35",
        "40",
    ]


def test_every_page_is_in_the_bar_and_says_what_it_needs(tmp_path: Path, open_app: Opener) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(FUSED.read_bytes())
    app = open_app(tmp_path, page="runs")
    pages = app.button_group(key="page").options
    assert pages == ["Runs", "Step", "Text", "Find", "Diff", "Metrics", "Trace health"]
    checked(app.button_group(key="page").set_value("metrics").run())
    assert "Metrics needs a run" in html_of(app)
    assert app.button_group(key="page").value == "runs"
    checked(app.button_group(key="page").set_value("diff").run())
    assert "Diff needs a baseline and a candidate" in html_of(app)
    checked(app.run())
    assert "needs a" not in html_of(app)
