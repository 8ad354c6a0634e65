"""The pages, run by Streamlit's own test harness."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from support.toy_run import Toy, toy_lines
from support.traces import store

import specscope.viewer

APP = Path(next(iter(specscope.viewer.__path__))) / "app.py"
Opener = Callable[..., AppTest]


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens the viewer on files, with a link's parameters."""

    def open_files(*files: Path, **query: str) -> AppTest:
        monkeypatch.setattr(sys, "argv", ["app.py", *map(str, files)])
        app = AppTest.from_file(str(APP), default_timeout=30)
        app.query_params.update(query)
        return checked(app.run())

    return open_files


def checked(app: AppTest) -> AppTest:
    """``app``, which must have run without an exception."""
    assert not app.exception, app.exception
    return app


def html_of(app: AppTest) -> str:
    """All HTML on the page."""
    return "".join(element.proto.body for element in app.get("html"))


def drawings_of(app: AppTest) -> str:
    """All drawings on the page."""
    return "".join(json.loads(element.proto.json)["svg"] for element in app.get("bidi_component"))


def query_of(app: AppTest) -> dict[str, str]:
    """The address bar's parameters."""
    return {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}


def test_buttons_and_slider_move_through_the_steps(make_trace: Callable[..., Path], open_app: Opener) -> None:
    app = open_app(make_trace())
    assert app.slider(key="step").value == 0
    assert app.button(key="previous").disabled
    checked(app.button(key="next").click().run())
    assert app.slider(key="step").value == 1
    assert query_of(app) == {"page": "step", "trace": "0", "turn": "0", "step": "1"}
    checked(app.slider(key="step").set_value(2).run())
    assert app.button(key="next").disabled
    assert "draft tree of step 2" in drawings_of(app)
    checked(app.button(key="previous").click().run())
    assert "draft tree of step 1" in drawings_of(app)


def test_a_link_opens_turn_and_step(make_trace: Callable[..., Path], open_app: Opener) -> None:
    app = open_app(make_trace(turns=[[1], [2, 0, 3, 1]]), page="step", turn="1", step="3")
    assert app.selectbox(key="turn").value == 1
    assert app.slider(key="step").value == 3
    checked(app.selectbox(key="turn").set_value(0).run())
    assert not app.slider
    assert query_of(app)["step"] == "0"


def test_a_link_past_the_end_opens_the_last_step(make_trace: Callable[..., Path], open_app: Opener) -> None:
    app = open_app(make_trace(), turn="99", step="99", trace="99")
    assert query_of(app) == {"page": "step", "trace": "0", "turn": "0", "step": "2"}


def test_the_step_page_shows_its_parts(make_trace: Callable[..., Path], open_app: Opener) -> None:
    app = open_app(make_trace())
    html = html_of(app)
    for words in ("3 → 6", "2 of 2 layers equal their sources", "invariants hold at this step", "10.13 ms in all"):
        assert words in html
    assert "violated" not in html
    assert list(app.dataframe[0].value["slot"]) == list(range(7))
    assert '"committed_after": 6' in app.code[0].value
    assert app.get("plotly_chart")


def test_hostile_text_is_escaped_everywhere(pair_of_traces: tuple[Path, Path], open_app: Opener) -> None:
    for query in ({"page": "step"}, {"page": "diff"}):
        app = open_app(*pair_of_traces, **query)
        everything = html_of(app) + drawings_of(app)
        assert "&lt;script&gt;" in everything
        assert "<script" not in everything
        assert "<img" not in everything
        texts = [*(e.value for e in app.markdown), *(e.value for e in app.caption), *(e.value for e in app.code)]
        texts += [str(label) for box in app.selectbox for label in box.options]
        assert "\u202e" not in "".join([everything, *texts])
        assert "$x^2$" not in "".join(e.value for e in [*app.markdown, *app.caption])


def test_hostile_prompt_ids(make_trace: Callable[..., Path], open_app: Opener) -> None:
    app = open_app(make_trace(prompt_ids=["<b>$x$\u202e\n"]))
    assert app.selectbox(key="turn").options == ["0 · <b>$x$\\u202e⏎ · 3 steps"]


def test_a_violation_is_named(pair_of_traces: tuple[Path, Path], open_app: Opener) -> None:
    app = open_app(pair_of_traces[1], step="1")
    assert "violated: tensors.position-is-length-plus-depth" in html_of(app)
    assert "slot 2: position 8, wanted 7 = 6 + depth 1" in html_of(app)


def test_two_traces_open_at_the_verdict(pair_of_traces: tuple[Path, Path], open_app: Opener) -> None:
    app = open_app(*pair_of_traces)
    html = html_of(app)
    assert "DIFFERENT in phase tensors: positions" in html
    assert "the candidate violates tensors.position-is-length-plus-depth" in html
    drawings = drawings_of(app)
    assert drawings.count("draft tree of step 1") == 2
    assert drawings.count(">≠<") == 10  # one of each five is also named the first
    assert list(app.dataframe[-1].value["field"]) == ["positions"]


def test_a_step_can_be_opened_from_the_verdict(pair_of_traces: tuple[Path, Path], open_app: Opener) -> None:
    app = open_app(*pair_of_traces)
    checked(app.button(key="open-1").click().run())
    assert query_of(app) == {"page": "step", "trace": "1", "turn": "0", "step": "1"}
    assert app.selectbox(key="trace").value == 1


def test_roots_can_be_chosen(make_trace: Callable[..., Path], open_app: Opener) -> None:
    def far(step: object) -> object:
        tensors = step.tensors  # type: ignore[attr-defined]
        moved = tensors.model_copy(update={"positions": [p + 5 for p in tensors.positions]})
        return step.model_copy(update={"tensors": moved})  # type: ignore[attr-defined]

    sound = make_trace("a.jsonl", turns=[[1, 1], [1, 2]], mode="eager")
    wrong = make_trace("b.jsonl", turns=[[1, 1], [1, 2]], change=far)
    app = open_app(sound, wrong)
    assert "prompt-0 turn 1, step 0" in html_of(app)
    checked(app.selectbox(key="root").set_value(1).run())
    assert "prompt-1 turn 1, step 0" in html_of(app)
    assert query_of(app)["root"] == "1"


def test_equal_traces_say_so(make_trace: Callable[..., Path], open_app: Opener) -> None:
    app = open_app(make_trace("a.jsonl"), make_trace("b.jsonl", mode="eager"))
    assert "EQUAL: no decision differs" in html_of(app)
    assert drawings_of(app).count("draft tree of step 0") == 2


def test_a_lossy_rule_is_seen_on_the_step_page(tmp_path: Path, open_app: Opener) -> None:
    typical = store(toy_lines(Toy("typical", levels=False, fallback_at=0)), tmp_path / "typical.jsonl")
    html = html_of(open_app(typical))
    assert html.count("lossy (typical acceptance)") == 2, "in a note, and about the run"
    assert "full-reorder; fallback: a path that does not ascend" in html
    assert "violated" not in html
    html = html_of(open_app(typical, typical))
    assert html.count("lossy (typical acceptance)") == 2, "in the card, and in what was compared"


def test_rows_side_by_side_are_turns_like_any_other(tmp_path: Path, open_app: Opener) -> None:
    batch = store(toy_lines(Toy("sampling", batch_size=2)), tmp_path / "batch.jsonl")
    app = open_app(batch, turn="1", step="3")
    assert app.selectbox(key="turn").value == 1
    html = html_of(app)
    assert "lossy" not in html
    assert "violated" not in html
    assert "sampling, temperature 1, point-mass draft, seed 0" in html
    assert "2 rows at most" in html
    assert "draft tree of step 3" in drawings_of(app)


def test_a_truncated_trace_warns(make_trace: Callable[..., Path], open_app: Opener) -> None:
    path = make_trace(run_end=False)
    with path.open("ab") as file:
        file.write(b'{"kind":"step"')
    html = html_of(open_app(path))
    assert "This trace is truncated" in html
    assert "Its last 14 bytes are a torn record" in html


@pytest.mark.parametrize(
    ("turns", "words"),
    [([], "This trace holds no turns yet"), ([[]], "This turn has no steps")],
    ids=["turns", "steps"],
)
def test_empty_traces_say_so(
    make_trace: Callable[..., Path], open_app: Opener, turns: list[list[int]], words: str
) -> None:
    assert words in html_of(open_app(make_trace(turns=turns)))


def test_sections_that_were_not_recorded(make_trace: Callable[..., Path], open_app: Opener) -> None:
    def bare(step: object) -> object:
        names = ("tree", "tensors", "verify", "accept", "commit", "timing")
        return step.model_copy(update=dict.fromkeys(names))  # type: ignore[attr-defined]

    html = html_of(open_app(make_trace(change=bare)))
    for words in ("records no tree", "records no mask", "records no slots", "records no commit", "records no timings"):
        assert words in html


def test_a_file_that_vanished_is_an_error_in_words(make_trace: Callable[..., Path], open_app: Opener) -> None:
    path = make_trace()
    path.unlink()
    assert "no such file" in html_of(open_app(path))


def test_without_files_it_says_how_to_start(open_app: Opener) -> None:
    assert "specscope view FILE" in html_of(open_app())
