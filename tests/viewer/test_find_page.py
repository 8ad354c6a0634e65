"""Finding steps: what each word means, what is listed, and where a click leads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.pages import Opener, boards_of, checked, html_of, query_of

from specscope.schemas import Step
from specscope.tracer.errors import UsageError
from specscope.viewer.drawing.svg.strip import StripStep
from specscope.viewer.drawing.tables.turns import MOST_CELLS, MOST_FOUND, MOST_TURNS, FoundStep, TurnRow, turns_board
from specscope.viewer.runs.finding import StepFacts, parse_query
from specscope.viewer.screens.find import in_order
from specscope.viewer.screens.inspector import show_one_board
from specscope.viewer.screens.view import ORDERS

TraceMaker = Callable[..., Path]


def facts(step: int, **known: object) -> StepFacts:
    """What is known of a plain step that accepted as many nodes as its number."""
    plain = {"state": "plain", "violated": (), "kind": "", "text": "", "margin": None, "prompt": "json"}
    return StepFacts(turn=0, step=step, accepted=step, **{**plain, **known})  # type: ignore[arg-type]


STEPS = [
    facts(0, state="violated", violated=("tensors.mask-is-ancestors",), text="·return·self"),
    facts(1, state="root", kind="structural tensors", margin=0.5),
    facts(2, state="tie", kind="near-tie verify", margin=0.001),
    facts(3, prompt="stack", text="⏎····Return"),
]


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ("", [0, 1, 2, 3]),
        ("accepted:0", [0]),
        ("accepted:>=2", [2, 3]),
        ("accepted:<2 is:divergence", [1]),
        ("is:violated", [0]),
        ("violates:mask", [0]),
        ("violates:commit", []),
        ("kind:structural", [1]),
        ("margin:<0.01", [2]),
        ("margin:<1e-1", [2]),
        ("return", [0, 3]),
        ("stack return", [3]),
        ("json return", [0]),
    ],
)
def test_every_word_must_fit(words: str, steps: list[int]) -> None:
    assert [step.step for step in parse_query(words).find(STEPS)] == steps


@pytest.mark.parametrize(
    ("words", "wanted"),
    [("accepted:many", "wanted a number"), ("is:strange", "wanted one of is:violated"), ("margin:", "wanted a number")],
)
def test_what_cannot_be_understood_says_what_can(words: str, wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        parse_query(words)


def test_a_colon_in_a_token_is_no_filter() -> None:
    assert [step.step for step in parse_query("def:x").find([facts(0, text="def:x")])] == [0]


def test_large_runs_are_listed_in_part_and_say_so() -> None:
    steps = [StripStep(at % 5) for at in range(MOST_CELLS + 7)]
    rows = [TurnRow(turn, f"<b>{turn}</b>", steps) for turn in range(MOST_TURNS + 3)]
    hits = [FoundStep(0, step, "p", accepted=1, what="", text="") for step in range(MOST_FOUND + 2)]
    board = turns_board(rows, hits)
    text = "".join(ElementTree.fromstring(board.html).itertext())
    for words in ("1 of 203 turns", "and 7 more steps", "and 2 more", "202 steps fit"):
        assert words in text
    assert "<b>" not in board.html
    assert "and 3 more turns" in turns_board(rows, None).html
    assert "No step fits" in turns_board(rows[:1], []).html


def test_turns_are_listed_with_the_worst_first() -> None:
    rows = [
        TurnRow(0, "fine", [StripStep(4), StripStep(2)]),
        TurnRow(1, "empty", []),
        TurnRow(2, "short", [StripStep(1), StripStep(0)]),
        TurnRow(3, "wrong", [StripStep(4), StripStep(3, "violated"), StripStep(3, "root")]),
        TurnRow(4, "wrong once", [StripStep(1), StripStep(1, "violated")]),
    ]
    orders = {order: [turn.turn for turn in in_order(rows, order)] for order in ORDERS}
    assert orders == {"recorded": [0, 1, 2, 3, 4], "wrong": [3, 4, 0, 1, 2], "least": [2, 4, 0, 3, 1]}


def test_the_order_of_turns_is_chosen_and_kept_by_the_link(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace(turns=[[2, 2], [1, 0]]), page="find")
    assert "order" not in query_of(app)

    def listed() -> list[str]:
        root = ElementTree.fromstring(boards_of(app)[0]["html"])
        asks = [button.get("data-do") or "" for button in root.iter("{http://www.w3.org/1999/xhtml}button")]
        return [request for request in asks if request.endswith(".0")]

    assert listed() == ["go:0.0", "go:1.0"]
    checked(app.selectbox(key="order").select("least").run())
    assert listed() == ["go:1.0", "go:0.0"]
    assert query_of(app)["order"] == "least"


def test_steps_are_found_and_opened(make_trace: TraceMaker, open_app: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Callable[[str], None]] = []

    def listening(*arguments: object, on_request: Callable[[str], None], **settings: object) -> None:
        heard.append(on_request)
        show_one_board(*arguments, on_request=on_request, **settings)  # type: ignore[arg-type]

    def wrong(step: Step) -> Step:
        if (step.turn, step.step) != (1, 0) or step.tensors is None:
            return step
        return step.model_copy(update={"tensors": step.tensors.model_copy(update={"positions": [9] * 7})})

    monkeypatch.setattr("specscope.viewer.screens.find.show_one_board", listening)
    app = open_app(make_trace(turns=[[2, 0], [1, 3]], change=wrong), page="find")
    assert "2 turns" in html_of(app)
    for words, spots in (("is:violated", ["1.0"]), ("accepted:>1", ["0.0", "1.1"]), ("violates:position", ["1.0"])):
        checked(app.text_input(key="find-words").set_value(words).run())
        root = ElementTree.fromstring(boards_of(app)[0]["html"])
        [card] = [e for e in root.iter() if "ss-card-found" in (e.get("class") or "").split()]
        assert [e.get("data-do") for e in card.iter() if e.get("data-do")] == [f"go:{spot}" for spot in spots]
    checked(app.text_input(key="find-words").set_value("is:nothing").run())
    assert "This cannot be looked for" in html_of(app)
    heard[-1]("go:1.1")
    query = query_of(checked(app.run()))
    assert (query["page"], query["turn"], query["step"]) == ("step", "1", "1")
