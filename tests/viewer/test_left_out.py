"""The teacher's choice that the tree left out is drawn beside it, and nodes carry what they may be coloured by."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.traces import FUSED, load

from specscope.schemas import Step
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.labels.stopped import left_out, why_stopped
from specscope.viewer.drawing.step.parts import step_tree
from specscope.viewer.drawing.step_view import StepView


def views_of(path: Path) -> list[StepView]:
    texts = TokenTexts(None)
    with TraceReader(path) as reader:
        return [StepView(step, texts) for turn in reader.turns for step in reader.steps(turn)]


def drawn(view: StepView) -> str:
    return step_tree(view, target_width=860, medium="page")


VIEWS = views_of(FUSED)


def test_it_is_drawn_exactly_where_the_words_say_that_the_tree_left_it_out() -> None:
    in_words = [("left it out" in (why_stopped(view) or "")) for view in VIEWS]
    assert 0 < sum(in_words) < len(VIEWS)
    assert [left_out(view.step) is not None for view in VIEWS] == in_words
    assert ['<g class="ghost"' in drawn(view) for view in VIEWS] == in_words
    assert ["ss-key-ghost" in drawn(view) for view in VIEWS] == in_words


def test_it_is_the_teachers_choice_and_no_child_there() -> None:
    steps = [line for line in load(FUSED) if line["kind"] == "step"]
    for line, view in zip(steps, VIEWS, strict=True):
        missed = left_out(view.step)
        if missed is None:
            continue
        path = line["accept"]["path"]
        assert missed.parent == (path[-1] if path else 0)
        assert missed.token == line["verify"]["argmax"][missed.parent]
        tree = line["tree"]
        children = [slot for slot in range(1, len(tree["tokens"])) if tree["parents"][slot] == missed.parent]
        assert missed.token not in [tree["tokens"][slot] for slot in children]
        assert 0 < missed.probability <= 1


def test_nothing_lies_on_it() -> None:
    for view in VIEWS:
        svg = drawn(view)
        spots = re.findall(r'<g class="(\w+)[^>]*transform="translate\(([\d.]+) ([\d.]+)\)"', svg)
        assert len({(x, y) for _, x, y in spots}) == len(spots)


@pytest.mark.parametrize("rule", ["sampling", "typical"])
def test_where_acceptance_draws_there_is_none(rule: str) -> None:
    view = next(view for view in VIEWS if left_out(view.step) is not None)
    assert view.step.accept is not None
    other = view.step.model_copy(update={"accept": view.step.accept.model_copy(update={"rule": rule})})
    assert left_out(other) is None
    assert '<g class="ghost"' not in drawn(StepView(other, view.texts))


def test_what_was_not_recorded_leaves_it_out(sound_step: Step) -> None:
    assert left_out(sound_step) is None, "its candidates are not known"
    assert left_out(sound_step.model_copy(update={"accept": None})) is None
    assert left_out(sound_step.model_copy(update={"tree": None})) is None


def test_nodes_say_by_what_they_can_be_coloured_and_offer_no_more(sound_step: Step) -> None:
    texts = TokenTexts(None)
    svg = step_tree(StepView(sound_step, texts), target_width=860, medium="page")
    assert 'data-d="0.819" data-t=' not in svg, "the normaliser was not recorded"
    assert re.findall(r'<option value="(\w?)">', svg) == ["", "d"]
    assert len(re.findall(r' data-d="[\d.]+"', svg)) == 6
    assert re.findall(r'<option value="(\w?)">', drawn(VIEWS[0])) == ["", "d", "t", "r", "e"]
    assert "ss-shades" not in step_tree(StepView(sound_step, texts), target_width=860, medium="report")
    assert sound_step.tree is not None
    bare = sound_step.model_copy(update={"tree": sound_step.tree.model_copy(update={"logprobs": None})})
    assert "ss-shades" not in step_tree(StepView(bare, texts), target_width=860, medium="page")
