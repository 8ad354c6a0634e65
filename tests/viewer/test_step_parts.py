"""The parts of a step say what was recorded, no more, and stay small enough for a browser."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from streamlit.testing.v1 import AppTest
from support.grown import changed, grown
from support.pages import Opener, boards_of, checked
from support.traces import FUSED

from specscope.schemas import Step, TurnStart
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.tuning.walks import walks_of
from specscope.viewer.drawing.labels.nodes import describe_node, teacher_choices, teacher_probability
from specscope.viewer.drawing.labels.stopped import why_stopped
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.markup import NOTHING
from specscope.viewer.drawing.step.board import step_board
from specscope.viewer.drawing.step.parts import step_commit, step_tree, timing_bars
from specscope.viewer.drawing.step.raw import LONGEST_FIELD, raw_text
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.mask import MOST_DRAWN_SLOTS, draw_mask, is_drawn_whole, mask_cells, step_mask
from specscope.viewer.drawing.svg.tree_picture import Branches
from specscope.viewer.drawing.tables.slots import MOST_LISTED, slot_columns, slot_filter, slot_table
from specscope.viewer.report.choice import Wanted
from specscope.viewer.report.run_report import run_report
from specscope.viewer.runs.judge import judged_step
from specscope.viewer.screens import inspector
from specscope.viewer.screens import step as step_page

TraceMaker = Callable[..., Path]


def view(step: Step) -> StepView:
    """The step with no texts and no marks."""
    return StepView(step, TokenTexts(None))


def test_the_teachers_choice_is_told_without_top_tokens(sound_step: Step) -> None:
    step = changed(sound_step, "verify", top_tokens=None, top_logits=None)
    columns = slot_columns(view(step))
    assert columns["teacher's top"] == ["#1", "#3", "#50", "#50", "#50", "#50", "#50"]
    assert columns["logit"] == columns["second"] == columns["its logit"] == [None] * 7
    assert dict(describe_node(view(step), 1).rows)["teacher's top tokens"] == "#3"


def test_of_equal_logits_the_choice_is_what_argmax_says(sound_step: Step) -> None:
    tops = {"top_tokens": [[40, 1]] * 7, "top_logits": [[2.0, 2.0]] * 7}
    step = changed(sound_step, "verify", **tops)
    words = dict(describe_node(view(step), 0).rows)
    assert words["teacher's top tokens"] == "#1 (2.000), then #40 (2.000); gap 0"
    columns = slot_columns(view(step))
    assert (columns["teacher's top"][0], columns["second"][0]) == ("#1", "#40")
    assert [choice.token for choice in teacher_choices(step, 3)] == [50, 40], "it is none of the top tokens"
    assert dict(describe_node(view(step), 3).rows)["teacher's top tokens"] == "#50, then #40 (2.000)"


def test_what_rows_see_of_the_prefix_is_told_only_where_it_was_recorded(sound_step: Step) -> None:
    def said(**changes: Any) -> str:
        return step_mask(view(changed(sound_step, "tensors", **changes)))

    every = "Every row also sees all 3 committed rows."
    assert every in said()
    assert every not in said(prefix_visible=[])
    assert "Whether the rows see the 3 committed rows was not recorded." in said(prefix_visible=[])
    assert every not in said(prefix_visible=[3] * 5)
    assert "for the other 2 rows it was not recorded" in said(prefix_visible=[3] * 5)
    assert "Rows [1] do not see all 3 committed rows" in said(prefix_visible=[3, 2])


def test_the_copy_of_a_branch_counts(sound_step: Step) -> None:
    assert "branch" not in timing_bars(sound_step)
    assert "10.13 ms in all" in timing_bars(sound_step)
    shown = timing_bars(changed(sound_step, "timing", branch_ns=100_000_000))
    assert "<span>branch</span>" in shown
    assert "110.13 ms in all" in shown


@pytest.mark.parametrize("ns", [10**400, 1 << 62])
def test_times_beyond_reason_are_words(sound_step: Step, ns: int) -> None:
    shown = timing_bars(changed(sound_step, "timing", draft_ns=ns, verify_ns=ns))
    assert shown.count("more than a hundred years") == 3
    assert "0.07 ms" in shown


def test_a_huge_mask_draws_its_wrong_cells_alone(sound_step: Step) -> None:
    step = grown(sound_step, MOST_DRAWN_SLOTS)
    assert step.tensors is not None
    rows = list(step.tensors.mask_rows)
    rows[7] = "ff" + rows[7][2:]
    for one, wrong in ((step, 0), (changed(step, "tensors", mask_rows=rows), 1)):
        cells = mask_cells(one)
        assert cells is not None
        drawn = draw_mask(view(one), cells)
        assert 'class="visible"' not in drawn
        assert "data-cells" not in drawn
        assert drawn.count('class="extra"') == wrong
        shown = step_mask(view(one))
        assert "A mask of 1,025 slots is too large to be drawn as a whole" in shown
        assert ("does not fit the tree" in shown) == bool(wrong)
    smaller = step_mask(view(grown(sound_step, MOST_DRAWN_SLOTS - 1)))
    assert "data-cells" in smaller
    assert "too large" not in smaller


def test_a_chequered_mask_is_not_drawn_whole_either() -> None:
    assert not is_drawn_whole(["10" * 256] * 512)
    assert is_drawn_whole(["1" * 512] * 512)


def test_a_board_of_thousands_of_slots_stays_small(make_trace: TraceMaker, sound_step: Step) -> None:
    step = grown(sound_step, 5000)
    assert step.tensors is not None
    step = changed(step, "tensors", mask_rows=["55" * 626] * 5001)
    with TraceReader(make_trace()) as reader:
        start: TurnStart = reader.turn_start(reader.turns[0])
        context = Context(manifest=reader.manifest, turn=start, previous=None, step=step)
    board = step_board(judged_step(context, TokenTexts(None)), strip=NOTHING, branches=Branches(show_all=True))
    said = json.dumps({"html": board.html, "notes": dict(board.notes), "raw": dict(board.raw)})
    assert len(said) < 5_000_000


def test_a_long_slot_table_keeps_what_matters(sound_step: Step) -> None:
    step = changed(grown(sound_step, 3000), "accept", path=[1, 2500])
    shown = slot_table(StepView(step, TokenTexts(None), NodeMarks(divergent=frozenset({2999}))))
    listed = [int(slot) for slot in re.findall(r'data-node="(\d+)"', shown)]
    assert listed == [*range(MOST_LISTED), 2500, 2999]
    assert "The first 1,024 of 3,001 slots are listed, and those that are accepted or differ." in shown
    assert "are listed" not in slot_table(view(sound_step))


def test_unlikely_paths_are_folded_by_a_slider(sound_step: Step) -> None:
    step = grown(sound_step, 40)
    step = changed(step, "tree", scores=[-0.2 * slot for slot in range(41)])

    def drawn(**wanted: Any) -> str:
        return step_tree(view(step), target_width=800, medium="page", branches=Branches(**wanted))

    whole = drawn()
    assert "folded" not in whole
    assert 'max="8" value="0"' in whole
    some = drawn(least=0.01)
    assert "unlikely nodes are folded" in some
    assert 'value="5"' in some
    assert "paths below p 0.01" in some
    assert some.count("<g class=") < whole.count("<g class=")
    assert "folded" not in drawn(least=0.01, show_all=True)
    assert "ss-below" not in step_tree(view(step), target_width=800, medium="report")
    assert "ss-below" not in step_tree(view(sound_step), target_width=800, medium="page")
    bare = changed(step, "tree", scores=None)
    assert "ss-below" not in step_tree(view(bare), target_width=800, medium="page"), "not known"


def test_slots_are_filtered_by_what_became_of_them(sound_step: Step) -> None:
    marked = StepView(sound_step, TokenTexts(None), NodeMarks(divergent=frozenset({3}), violated=frozenset({0, 5})))
    rows = ElementTree.fromstring(slot_table(marked)).findall(".//tbody/tr")
    states = {row.get("data-node"): row.get("data-state") for row in rows}
    path = sound_step.accept.path if sound_step.accept is not None else []
    assert states["0"] == "violated", "the root is neither accepted nor rejected"
    assert states["3"] == ("accepted differs" if 3 in path else "rejected differs")
    assert states["5"] == "rejected violated"
    options = [option.text for option in ElementTree.fromstring(slot_filter(marked)).iter("option")]
    assert options == ["all", f"accepted, {len(path)}", f"rejected, {6 - len(path)}", "differs, 1", "violated, 2"]
    assert slot_filter(view(sound_step.model_copy(update={"tree": None}))) == ""


def test_a_raw_field_that_is_cut_says_so(sound_step: Step) -> None:
    assert json.loads(raw_text(sound_step))["tree"]["tokens"] == [7, 1, 2, 3, 4, 5, 6]
    long = raw_text(sound_step.model_copy(update={"texts": {"1": "x" * (LONGEST_FIELD + 1)}}))
    assert len(long) < LONGEST_FIELD + 5_000
    assert "cut here: the file holds 100,0" in long


def test_a_folded_tree_offers_what_its_place_can_do(sound_step: Step, make_trace: TraceMaker) -> None:
    def large(step: Step) -> Step:
        return grown(step, 99) if step.step == 1 else step

    for show_all in (False, True):
        drawn = step_tree(view(grown(sound_step, 99)), target_width=800, medium="report", branches=Branches(show_all))
        assert "button" not in drawn
    live = step_tree(view(grown(sound_step, 99)), target_width=800, medium="page")
    assert 'data-do="unfold"' in live
    page = run_report(make_trace(change=large), Wanted(step=1), TokenTexts(None)).page
    assert "35 unlikely nodes are folded" in page
    assert "<button" not in page


def test_clicks_unfold_a_tree_and_fold_it_again(
    make_trace: TraceMaker, open_app: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[str] = []  # clicks; heard in a run of the script, for the session's state is there alone
    show = inspector.show_board

    def show_board(board: Any, *, on_request: Callable[[str], None], **others: Any) -> None:
        while waiting:
            on_request(waiting.pop())
        show(board, on_request=on_request, **others)

    def clicked(app: AppTest, request: str) -> AppTest:
        waiting.append(request)
        app.run()
        return checked(app.run())

    def nodes_of(app: AppTest) -> int:
        return len(re.findall(r'<g class="node[^>]*data-node', boards_of(app)[0]["html"]))

    monkeypatch.setattr(step_page, "show_board", show_board)
    app = open_app(make_trace(change=lambda step: grown(step, 99)), page="step")
    folded = nodes_of(app)
    assert 0 < folded < 100
    assert nodes_of(clicked(app, "unfold")) == 100
    assert 'data-do="fold"' in boards_of(app)[0]["html"]
    assert nodes_of(checked(app.button(key="next").click().run())) == 100, "it stays so from step to step"
    assert nodes_of(clicked(app, "fold")) == folded
    closed = re.search(r'class="branch closed" data-do="(branch:\d+)"', boards_of(app)[0]["html"])
    assert closed is not None
    assert nodes_of(clicked(app, closed[1])) == folded + 4, "the branch below one node"
    assert nodes_of(clicked(app, closed[1])) == folded
    assert nodes_of(clicked(app, "branch:0")) < folded
    assert nodes_of(checked(app.button(key="previous").click().run())) == folded, "another step has its own branches"


def test_rows_that_arrived_may_be_the_wrong_ones(sound_step: Step) -> None:
    commit = sound_step.commit
    assert commit is not None
    assert "2 of 2 layers equal their sources<" in step_commit(view(sound_step))
    wrong = sound_step.model_copy(update={"commit": commit.model_copy(update={"source_slots": [0, 1, 4]})})
    assert "equal their sources, but from slots that were not accepted: [4]" in step_commit(view(wrong))
    short = sound_step.model_copy(update={"commit": commit.model_copy(update={"source_slots": [0, 1]})})
    assert "not all of the accepted path: wanted slots [0, 1, 3]" in step_commit(view(short))


def test_a_step_says_why_its_walk_stopped(sound_step: Step) -> None:
    assert why_stopped(view(sound_step)) == ("The walk stopped after #3: the teacher chose #50. The tree had #6 there.")
    with TraceReader(FUSED) as reader:
        steps = [step for turn in reader.turns for step in reader.steps(turn)]
    fates: Counter[str] = Counter()
    for step in steps:
        words = why_stopped(view(step)) or ""
        fates["left out"] += "the tree left it out" in words
        fates["not held"] += "was not among the drafter's" in words
        fates["not run"] += "was not run on that node" in words
    walks = walks_of(steps)
    assert walks.cut is not None
    assert fates["left out"] == walks.cut + sum(_was_cut_below_a_leaf(step) for step in steps)
    assert sum(fates.values()) == len(steps)


def _was_cut_below_a_leaf(step: Step) -> bool:
    """Whether the walk ended at a node without children, below which the drafter proposed the teacher's token."""
    assert step.tree is not None
    assert step.accept is not None
    last = step.accept.path[-1] if step.accept.path else 0
    return last not in step.tree.parents[1:] and "the tree left it out" in (why_stopped(view(step)) or "")


def test_the_teachers_probability_follows_from_logit_and_normaliser(sound_step: Step) -> None:
    assert sound_step.verify is not None
    assert teacher_probability(sound_step, 1) is None, "no normaliser was recorded"
    verify = sound_step.verify.model_copy(update={"logsumexp": [10.0] * 7})
    step = sound_step.model_copy(update={"verify": verify})
    assert teacher_probability(step, 1) == pytest.approx(math.exp(9.5 - 10.0))
    assert teacher_probability(step, 2) is None, "its logit is not among the recorded ones"
    assert teacher_probability(step, 0) is None
