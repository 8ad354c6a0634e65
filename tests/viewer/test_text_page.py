"""The text of a turn: which token came about how, where two runs part, and hostile texts as texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.pages import Opener, boards_of, checked, html_of, query_of
from support.traces import EAGER, FUSED, load

from specscope.schemas import Step
from specscope.viewer.drawing.text.board import MOST_TOKENS, RunText, text_board
from specscope.viewer.drawing.text.tokens import TextToken, TurnText, first_difference
from specscope.viewer.screens.inspector import show_one_board

TraceMaker = Callable[..., Path]


def tokens(ids: Sequence[int]) -> list[TextToken]:
    """Bonus tokens, one a step."""
    return [TextToken(token=token, kind="bonus", step=step) for step, token in enumerate(ids)]


def parsed(*runs: TurnText) -> ElementTree.Element:
    """The board, which must be well-formed."""
    return ElementTree.fromstring(text_board(*(RunText(name, run) for name, run in zip("ab", runs, strict=False))).html)


def of_class(root: ElementTree.Element, name: str) -> list[str]:
    """The texts of all elements of that class."""
    named = [element for element in root.iter() if name in (element.get("class") or "").split()]
    return ["".join(element.itertext()) for element in named]


def test_the_text_is_the_recorded_output_and_each_token_says_how_it_came(open_app: Opener) -> None:
    app = open_app(FUSED, page="text", turn="1")
    [board] = boards_of(app)
    root = ElementTree.fromstring(board["html"])
    end = next(line for line in load(FUSED) if line["kind"] == "turn_end" and line["turn"] == 1)
    steps = [line for line in load(FUSED) if line["kind"] == "step" and line["turn"] == 1]
    asked = [element.get("data-do") for element in root.iter() if element.get("data-do")]
    assert asked == [f"read-a:{step['step']}" for step in steps]
    titles = [element.get("title") or "" for element in root.iter() if element.get("title")]
    assert [int(title.split("(id ")[1].split(")")[0]) for title in titles] == end["output_ids"]
    kept = sum(min(step["accept"]["accepted_length"], step["stop"]["kept"]) for step in steps)
    assert sum(", drafted and accepted, depth " in title for title in titles) == kept
    assert "the prompt's own forward gave it" in titles[0]
    assert query_of(app)["turn"] == "1"


def test_a_click_opens_the_step(open_app: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Callable[[str], None]] = []

    def listening(*arguments: object, on_request: Callable[[str], None], **settings: object) -> None:
        heard.append(on_request)
        show_one_board(*arguments, on_request=on_request, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("specscope.viewer.screens.text.show_one_board", listening)
    for request, run in (("read-a:3", "eager.jsonl"), ("read-b:4", "fused.jsonl")):
        app = open_app(EAGER, FUSED, page="text", run="fused.jsonl", turn="1")
        for nonsense in ("read-c:1", "read-a:", "step:1"):
            heard[-1](nonsense)
        assert query_of(checked(app.run()))["page"] == "text"
        heard[-1](request)
        query = query_of(checked(app.run()))
        assert (query["page"], query["run"], query["turn"], query["step"]) == ("step", run, "1", request[-1])


def test_two_runs_say_where_they_part(make_trace: TraceMaker, open_app: Opener) -> None:
    def other(step: Step) -> Step:
        assert step.stop is not None
        emitted = [*step.stop.emitted[:-1], 88] if step.step == 1 else step.stop.emitted
        return step.model_copy(update={"stop": step.stop.model_copy(update={"emitted": emitted})})

    a, b = make_trace("a.jsonl"), make_trace("b.jsonl", change=other)
    app = open_app(a, b, page="text")
    assert "The texts part at token 4: #51 ≠ #88" in html_of(app)
    assert "step 1 of the baseline, step 1 of the candidate" in html_of(app)
    assert of_class(ElementTree.fromstring(boards_of(app)[0]["html"]), "ss-t-differs") == ["#51", "#88"]
    assert "Both texts are equal" in html_of(open_app(a, make_trace("c.jsonl"), page="text"))
    assert first_difference(tokens([1, 2]), tokens([1, 2, 3])) == 2
    assert first_difference(tokens([1, 2]), tokens([1, 2])) is None
    assert "ends first" in "".join(
        parsed(*(TurnText(tokens(ids), frozenset(), {}) for ids in ((1,), (1, 2)))).itertext()
    )


def test_texts_read_as_texts_whatever_they_hold() -> None:
    texts = {
        1: "····",
        2: "⏎⏎",
        3: "<script>alert(1)</script>",
        4: "\u202egnp.exe",
        5: "مرحبا",
        6: "·return",
        7: "a⏎b",
    }
    root = parsed(TurnText(tokens([1, 2, 3, 4, 5, 6, 7, 99]), frozenset({0}), texts))
    shown = of_class(root, "ss-text")[0]
    assert "\xa0\xa0\xa0 " in shown
    assert " return" in shown
    assert "<script>alert(1)</script>" in shown
    assert "\\u202egnp.exe" in shown
    assert "#99" in shown
    line_ends = [element for element in root.iter() if element.tag.endswith("}br")]
    assert len(line_ends) == 3
    assert of_class(root, "none")[0].startswith("0"), "a step that accepted nothing is marked"


def test_a_very_long_turn_is_cut_and_says_so() -> None:
    root = parsed(TurnText(tokens(range(MOST_TOKENS + 5)), frozenset(), {}))
    assert "and 5 more tokens" in "".join(root.itertext())
