"""The Diff page, run by Streamlit's own test harness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from streamlit.testing.v1 import AppTest
from support.pages import Opener, boards_of, checked, html_of, query_of
from support.toy_run import Toy, toy_lines
from support.traces import EAGER, FAULTY, load, store

from specscope.schemas import Step
from specscope.viewer.screens import session
from specscope.viewer.screens.inspector import show_board

TraceMaker = Callable[..., Path]
Ask = Callable[[str], None]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Says to the page what a click on its board would: the harness cannot click there."""
    heard: list[Ask] = []

    def listening(*arguments: object, on_request: Ask, **settings: object) -> None:
        heard.append(on_request)
        show_board(*arguments, on_request=on_request, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("specscope.viewer.screens.diff.show_board", listening)
    return lambda request: heard[-1](request)


def far(step: Step) -> Step:
    """Every position five too far."""
    assert step.tensors is not None
    moved = step.tensors.model_copy(update={"positions": [p + 5 for p in step.tensors.positions]})
    return step.model_copy(update={"tensors": moved})


@pytest.fixture
def two_roots(make_trace: TraceMaker) -> tuple[Path, Path]:
    """A pair whose two turns part each at its step 1."""
    turns = [[1, 1, 0], [2, 1]]
    return (
        make_trace("a.jsonl", turns=turns, mode="eager"),
        make_trace("b.jsonl", turns=turns, change=lambda step: far(step) if step.step == 1 else step),
    )


def place_of(app: AppTest) -> tuple[str, str]:
    return query_of(app)["turn"], query_of(app)["step"]


def test_two_traces_open_where_they_part(pair_of_traces: tuple[Path, Path], open_app: Opener) -> None:
    app = open_app(*pair_of_traces)
    assert query_of(app) == {
        "page": "diff",
        "baseline": "sound.jsonl",
        "candidate": "wrong.jsonl",
        "turn": "0",
        "step": "1",
    }
    html = html_of(app)
    for words in (
        "DIFFERENT: the candidate is wrong",
        "The candidate rotates node ",
        "Look at the position ids of the drafted nodes",
        "the candidate violates tensors.position-is-length-plus-depth",
        "The divergence begins here: the only root",
        "What was compared",
        "✓ 8 of 9 that must agree do",
        "; 1 not stated by either run",
        "5 nodes differ, marked ≠",
        "1 difference, in the order of the phases",
        "bar: accepted length in the baseline",
        "≠ divergence begins",
    ):
        assert words in html
    assert html.count('aria-label="draft tree of step 1,') == 2
    [board] = boards_of(app)
    assert board["now"] == 1
    assert board["strip"].count(">≠<") == 1
    assert not any(line.startswith(("specscope show ", "specscope view ")) for line in board["raw"].values())
    assert any(line.startswith("specscope report ") for line in board["raw"].values())
    ElementTree.fromstring(board["html"])


def test_hostile_texts_stay_texts(make_trace: TraceMaker, open_app: Opener, pair_of_traces: tuple[Path, Path]) -> None:
    html = html_of(open_app(*pair_of_traces))
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "<img" not in html
    name = "<b>$x$\u202e\n"
    app = open_app(*(make_trace(f"{n}`$x$`.jsonl", prompt_ids=[name]) for n in "ab"))
    assert app.selectbox(key="turn").options == ["0 · <b>$x$\\u202e⏎ · 3 steps"]
    assert app.selectbox(key="baseline").options == ["a`$x$`.jsonl", "b`$x$`.jsonl"]
    assert "\u202e" not in html_of(app)


def test_keys_lead_from_root_to_root(two_roots: tuple[Path, Path], open_app: Opener) -> None:
    app = open_app(*two_roots)
    assert place_of(app) == ("0", "1")
    assert app.button(key="previous-divergence").disabled
    checked(app.button(key="next-divergence").click().run())
    assert place_of(app) == ("1", "1")
    assert "The divergence begins here: root 2 of 2" in html_of(app)
    assert "turn 1 (prompt prompt-1), step 1" in html_of(app)
    assert app.button(key="next-divergence").disabled
    checked(app.button(key="first").click().run())
    assert place_of(app) == ("1", "0")
    assert "These two steps are equal" in html_of(app)
    assert "DIFFERENT" in html_of(app), "the verdict stays in sight"
    checked(app.button(key="previous-divergence").click().run())
    assert place_of(app) == ("0", "1")
    checked(app.button(key="next").click().run())
    assert place_of(app) == ("0", "2")


def test_a_click_leads_to_a_root_or_a_step(two_roots: tuple[Path, Path], open_app: Opener, ask: Ask) -> None:
    app = open_app(*two_roots)
    for request, place in (("root:1", ("1", "1")), ("step:0", ("1", "0")), ("root:0", ("0", "1"))):
        ask(request)
        assert place_of(checked(app.run())) == place
    for nonsense in ("root:99", "root:x", "step:", "open:c", "unknown", "root:²"):
        ask(nonsense)
        assert place_of(checked(app.run())) == ("0", "1")
    ask("step:99")
    assert place_of(checked(app.run())) == ("0", "2")


def test_a_step_of_either_run_can_be_opened(two_roots: tuple[Path, Path], open_app: Opener, ask: Ask) -> None:
    for which, run in (("a", "a.jsonl"), ("b", "b.jsonl")):
        app = open_app(*two_roots, turn="1", step="1")
        ask(f"open:{which}")
        checked(app.run())
        query = query_of(app)
        assert (query["page"], query["run"], query["turn"], query["step"]) == ("step", run, "1", "1")
        assert "Draft tree" in html_of(app)


def test_from_a_step_of_the_candidate_to_its_pair(open_app: Opener) -> None:
    app = open_app(EAGER, FAULTY, page="step", run="fused-F16.jsonl", turn="0", step="8")
    checked(app.segmented_control(key="page").set_value("diff").run())
    assert place_of(app) == ("0", "5")
    assert "steps 5 and 8" in html_of(app)
    app = open_app(EAGER, FAULTY, page="step", run="eager.jsonl", turn="0", step="7")
    checked(app.segmented_control(key="page").set_value("diff").run())
    assert place_of(app) == ("0", "7")


def test_a_link_opens_its_place_and_node(two_roots: tuple[Path, Path], open_app: Opener) -> None:
    app = open_app(*two_roots, page="diff", turn="1", step="0", node="b2")
    assert place_of(app) == ("1", "0")
    assert boards_of(app)[0]["picked"] == "b2"
    app = open_app(*two_roots, page="diff", turn="99", step="99")
    assert place_of(app) == ("0", "2")


def test_what_follows_from_a_root_says_from_which(open_app: Opener) -> None:
    app = open_app(EAGER, FAULTY, page="diff", turn="0", step="2")
    html = html_of(app)
    assert "Follows from root 1, which is in step 0 of turn 0" in html
    assert 'data-do="root:0">Go to root 1<' in html
    assert "nothing in them is compared" in html
    checked(app.button(key="previous").click().run())
    html = html_of(app)
    assert "Step 1 of the baseline has no partner" in html
    assert "The candidate grouped these tokens into different steps" in html
    assert html.count('aria-label="draft tree of step 1,') == 2


def test_runs_change_places(pair_of_traces: tuple[Path, Path], open_app: Opener) -> None:
    app = open_app(*pair_of_traces, page="diff", turn="0", step="0")
    checked(app.button(key="swap").click().run())
    assert query_of(app)["baseline"] == "wrong.jsonl"
    assert place_of(app) == ("0", "1"), "another pair is looked at where it parts"
    assert "the baseline violates tensors.position-is-length-plus-depth" in html_of(app)
    checked(app.selectbox(key="baseline").set_value("sound.jsonl").run())
    assert "These two steps are equal" in html_of(app)


def test_equal_traces_say_so(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace("a.jsonl"), make_trace("b.jsonl", mode="eager"))
    html = html_of(app)
    assert "EQUAL: no decision differs" in html
    assert "Nothing that both record differs between these two steps" in html
    assert "Not compared: draft" in html
    assert html.count('aria-label="draft tree of step 0,') == 2
    assert place_of(app) == ("0", "0")


def test_what_may_not_be_compared_says_why_and_what_to_do(make_trace: TraceMaker, open_app: Opener, ask: Ask) -> None:
    a = make_trace("a.jsonl")
    lines = load(a)
    lines[0]["dtype"] = "bfloat16"
    app = open_app(a, store(lines, a.with_name("b.jsonl")))
    html = html_of(app)
    assert "INCOMPARABLE" in html
    assert "dtype: float32 -&gt; bfloat16" in html
    assert "--allow dtype" in html
    assert "draft tree" not in html
    assert not any(button.key == "next" for button in app.button)
    ask("allow:all")
    app = checked(app.run())
    assert "INCOMPARABLE" not in html_of(app)
    assert "draft tree" in html_of(app)
    assert query_of(app)["allow"] == "dtype"
    ask("allow:none")
    assert "INCOMPARABLE" in html_of(checked(app.run()))
    ask("metrics")
    assert query_of(checked(app.run()))["page"] == "metrics"


def test_a_violation_that_both_runs_share_is_looked_at_first(make_trace: TraceMaker, open_app: Opener) -> None:
    def late(step: Step) -> Step:
        return far(step) if step.step == 2 else step

    app = open_app(make_trace("a.jsonl", change=late), make_trace("b.jsonl", mode="eager", change=late))
    assert "VIOLATED: the runs agree, and break an invariant" in html_of(app)
    assert place_of(app) == ("0", "2")


def test_the_card_names_tokens_of_a_step_that_was_not_looked_at(
    pair_of_traces: tuple[Path, Path], open_app: Opener
) -> None:
    html = html_of(open_app(*pair_of_traces, page="diff", turn="0", step="0"))
    assert "position 6; tensors: positions, node &lt;/svg&gt;&lt;img src=x" in html


def test_large_traces_are_compared_when_asked(
    two_roots: tuple[Path, Path], open_app: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LARGE_BYTES", 10)
    app = open_app(*two_roots)
    assert "These traces are large" in html_of(app)
    assert not boards_of(app)
    checked(app.button(key="compare").click().run())
    assert "The candidate rotates node " in html_of(app)
    assert place_of(app) == ("0", "1")


def test_what_was_compared_is_folded_where_a_divergence_is_to_be_seen(
    pair_of_traces: tuple[Path, Path], open_app: Opener
) -> None:
    [board] = boards_of(open_app(*pair_of_traces))
    proof = ElementTree.fromstring(board["html"]).find(".//*[@class='ss-box ss-card-proof']/{*}details")
    assert proof is not None
    assert proof.get("open") is None
    assert "".join(proof[0].itertext()).startswith("What was compared 1 turn, 3 pairs of steps")


def test_a_lossy_rule_is_seen(tmp_path: Path, open_app: Opener) -> None:
    typical = store(toy_lines(Toy("typical", levels=False, fallback_at=0)), tmp_path / "typical.jsonl")
    other = store(toy_lines(Toy("typical", levels=False, fallback_at=0)), tmp_path / "other.jsonl")
    html = html_of(open_app(typical, other))
    assert html.count("lossy (typical acceptance)") == 2, "in the card, and in what was compared"


@pytest.mark.parametrize("turns", [[], [[]]], ids=["no turns", "no steps"])
def test_empty_traces_are_told_in_words(make_trace: TraceMaker, open_app: Opener, turns: list[list[int]]) -> None:
    html = html_of(open_app(make_trace("a.jsonl", turns=turns), make_trace("b.jsonl", turns=turns)))
    assert "What was compared" in html
    assert "draft tree" not in html


def test_a_file_that_is_no_trace_leaves_the_choice_open(make_trace: TraceMaker, open_app: Opener) -> None:
    broken = make_trace("b.jsonl")
    broken.write_text("no trace\n", encoding="utf-8")
    app = open_app(make_trace("a.jsonl"), broken)
    assert "This cannot be shown" in html_of(app)
    assert app.selectbox(key="candidate").value == "b.jsonl"
