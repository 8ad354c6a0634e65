"""A step whose record cannot be read, or is violated, takes nothing from the steps around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.pages import Opener, boards_of, html_of, query_of
from support.traces import EAGER, FUSED, load, store

from specscope.tracer.errors import TraceError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.step import SKIPPED, context_at, context_of, judge_step, step_violations
from specscope.viewer.drawing.text.board import RunText, text_board
from specscope.viewer.drawing.text.tokens import TextToken, TurnText
from specscope.viewer.runs.judge import judge
from specscope.viewer.screens import inspector, session

TURN, BROKEN = 1, 3


def changed(folder: Path, change: Any) -> Path:
    """The trace of a sound run in which ``change`` was made to one step."""
    lines = load(FUSED)
    change(next(s for s in lines if s["kind"] == "step" and (s["turn"], s["step"]) == (TURN, BROKEN)))
    return store(lines, folder / "broken.jsonl")


def break_field(step: dict[str, Any]) -> None:
    step["timing"] = {"draft_ns": "soon"}


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    return changed(tmp_path, break_field)


def test_the_step_after_it_is_judged_by_itself_alone(broken: Path) -> None:
    with TraceReader(broken) as reader, TraceReader(FUSED) as sound:
        turn = reader.turns[TURN]
        with pytest.raises(TraceError):
            context_at(reader, turn, BROKEN)
        after = context_at(reader, turn, BROKEN + 1)
        assert (after.previous, after.previous_is_lost) == (None, True)
        assert list(step_violations(after)) == []
        whole = dict(judge_step(context_at(sound, sound.turns[TURN], BROKEN + 1)))
        skipped = [invariant for invariant, witness in judge_step(after) if witness is SKIPPED]
        lost = {invariant.id for invariant in skipped if whole.get(invariant, SKIPPED) is not SKIPPED}
        assert "sequence.root-is-last-bonus" in lost
        assert "draft.source-rows" in lost
        reasons = dict(judge(after).skipped)
        assert {reasons[name] for name in lost} == {"the step before it cannot be read"}
        assert not context_at(reader, turn, BROKEN + 2).previous_is_lost
        assert not context_at(reader, turn, 0).previous_is_lost


def test_a_first_step_is_still_held_to_its_prompt(broken: Path) -> None:
    with TraceReader(broken) as reader:
        turn = reader.turns[TURN]
        first = reader.step(turn, 0)
        assert first.tree is not None
        tokens = [first.tree.tokens[0] + 1, *first.tree.tokens[1:]]
        other = first.model_copy(update={"tree": first.tree.model_copy(update={"tokens": tokens})})
        violated = {violation.invariant for violation in step_violations(context_of(reader, turn, 0, other))}
        assert "sequence.root-is-last-bonus" in violated


@pytest.mark.parametrize("step", range(BROKEN - 2, BROKEN + 3))
def test_every_other_step_has_its_page(broken: Path, open_app: Opener, step: int) -> None:
    html = html_of(open_app(broken, page="step", turn=str(TURN), step=str(step)))
    assert f"Turn {TURN}, step {BROKEN} cannot be read" in html
    assert "timing.draft_ns" in html
    assert "This cannot be shown" not in html
    if step == BROKEN:
        assert "This step cannot be read" in html
        assert "ss-tree" not in html
    else:
        assert f"draft tree of step {step}," in html
    assert ("the step before it cannot be read" in html) == (step == BROKEN + 1)


def test_a_step_is_drawn_ahead_of_a_broken_one(broken: Path, open_app: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser asks for steps ahead of the one that it shows: they are drawn in its run of the page."""
    app = open_app(broken, page="step", turn=str(TURN), step=str(BROKEN - 1))
    (board,) = boards_of(app)
    app.session_state["inspector-ahead"] = inspector._Ahead(board["scene"], BROKEN - 1, [BROKEN, BROKEN + 1])
    (board,) = boards_of(app.run())
    assert "This step cannot be read" in board["ahead"][str(BROKEN)]["html"]
    assert f"draft tree of step {BROKEN + 1}," in board["ahead"][str(BROKEN + 1)]["html"]


def test_pages_of_the_whole_run_leave_it_out_and_say_so(broken: Path, open_app: Opener) -> None:
    health = html_of(open_app(broken, page="health"))
    assert f"Turn {TURN}, step {BROKEN} cannot be read" in health
    assert f'data-do="go:{TURN}.{BROKEN}"' in health
    assert "Each step is checked on its own page" in health
    text = html_of(open_app(broken, page="text", turn=str(TURN)))
    assert f"step {BROKEN} cannot be read" in text
    assert 'data-do="read-a:2"' in text
    assert f'data-do="read-a:{BROKEN}"' not in text
    listed = html_of(open_app(broken, page="find", find="accepted:>=0"))
    assert "This cannot be shown" not in listed


def test_texts_are_compared_as_far_as_both_are_known(broken: Path, open_app: Opener) -> None:
    pair = {"baseline": EAGER.name, "candidate": broken.name, "run": broken.name}
    html = html_of(open_app(EAGER, broken, page="text", turn=str(TURN), **pair))
    assert "Both texts are equal as far as they can be compared" in html
    assert "The texts part" not in html
    step = html_of(open_app(EAGER, broken, page="step", turn=str(TURN), step="0", **pair))
    assert "draft tree of step 0," in step
    diff = html_of(open_app(EAGER, broken, page="diff", **pair))
    assert "timing.draft_ns" in diff


def test_a_text_that_ended_before_the_break_of_the_other_is_said_to_end_first() -> None:
    tokens = [TextToken(token, "bonus", step) for step, token in enumerate(range(8))]
    whole = RunText("a", TurnText(tokens[:3], frozenset(), {}))
    cut = RunText("b", TurnText(tokens, frozenset(), {}, unreadable=[6]))
    assert "The baseline ends first" in str(text_board(whole, cut).html)
    assert "The candidate ends first" in str(text_board(cut, whole).html)
    longer = RunText("a", TurnText(tokens[:7], frozenset(), {}))
    assert "equal as far as they can be compared" in str(text_board(longer, cut).html)


def test_the_terminal_lists_and_shows_the_steps_around_it(broken: Path) -> None:
    overview = specscope("show", broken, "--turn", str(TURN))
    assert overview.code == 0
    (line,) = [line for line in overview.out.splitlines() if "cannot be read" in line]
    assert line.split()[0] == str(BROKEN)
    assert len(overview.out.splitlines()) > BROKEN + 3
    after = specscope("show", broken, "--turn", str(TURN), "--step", str(BROKEN + 1))
    assert "the step before cannot be read: what it left is not known, and not judged" in after.out
    assert "cannot be read" not in specscope("show", broken, "--turn", str(TURN), "--step", str(BROKEN + 2)).out


def test_phases_and_the_cache_over_steps_leave_it_out(
    broken: Path, open_app: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LARGE_BYTES", 0)  # a large trace is not checked as a whole before steps are shown
    app = open_app(broken, page="step", turn=str(TURN), step="5")
    app.session_state["show_history"] = True
    app.session_state["show_phases"] = 1
    html = html_of(app.run())
    assert "1 step cannot be read: left out." in html
    assert html.count('data-do="step:2" role="link"') == 1, "of the cache; phases begin later"
    assert f'data-do="step:{BROKEN}" role="link"' not in html


def test_the_command_shows_the_step_after_it(broken: Path) -> None:
    done = specscope("show", broken, "--turn", str(TURN), "--step", str(BROKEN + 1))
    assert (done.code, "violated" in done.out) == (0, False)
    failed = specscope("show", broken, "--turn", str(TURN), "--step", str(BROKEN))
    assert failed.code == 2
    assert "timing.draft_ns" in failed.err


def nonsense_path(step: dict[str, Any]) -> None:
    step["accept"]["path"] = [99, -1]


def nonsense_parents(step: dict[str, Any]) -> None:
    step["tree"]["parents"] = [7] * 3


def no_accept(step: dict[str, Any]) -> None:
    del step["accept"]


def nonsense_commit(step: dict[str, Any]) -> None:
    step["commit"]["source_slots"] = [10**9]
    step["commit"]["destination_rows"] = [-5]


@pytest.mark.parametrize("change", [nonsense_path, nonsense_parents, no_accept, nonsense_commit])
def test_a_violated_step_leaves_the_next_its_page(tmp_path: Path, open_app: Opener, change: Any) -> None:
    path = changed(tmp_path, change)
    for step in (BROKEN, BROKEN + 1):
        app = open_app(path, page="step", turn=str(TURN), step=str(step))
        assert query_of(app)["step"] == str(step)
        html = html_of(app)
        assert "This cannot be shown" not in html
        assert f"draft tree of step {step}," in html
