"""The Timeline page: tokens on their way through the stages, the numbers, zoom and keys, and the report's part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.pages import Opener, boards_of, checked, html_of, query_of
from support.pipeline_mutants import PIPELINE_RUN
from support.timelines import MS, PERIOD, STAGES, timeline_lines, write_timeline
from support.traces import FUSED, load, store

from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.timeline.board import Looked, timeline_board
from specscope.viewer.drawing.timeline.flow import TurnFlow, flow_of
from specscope.viewer.drawing.timeline.numbers import numbers_of
from specscope.viewer.drawing.timeline.picture import COLUMNS, MOST_PIECES, busy_columns
from specscope.viewer.drawing.timeline.window import LEAST_NS, Window, around, parse_window, whole
from specscope.viewer.report.choice import Wanted
from specscope.viewer.report.run_report import run_report
from specscope.viewer.screens.inspector import show_board

SVG = "{http://www.w3.org/2000/svg}"
TOKENS = 40


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_timeline(tmp_path_factory.mktemp("timeline") / "stages.jsonl", TOKENS)


def flow_in(path: Path) -> TurnFlow:
    """The first turn of the trace."""
    with TraceReader(path) as reader:
        assert reader.manifest.pipeline is not None
        turn = reader.turns[0]
        records = (reader.turn_start(turn), reader.steps(turn), reader.turn_end(turn))
        flow = flow_of(reader.manifest.pipeline.stages, *records)
    assert flow is not None
    return flow


@pytest.fixture(scope="module")
def flow(trace: Path) -> TurnFlow:
    return flow_in(trace)


def drawn(flow: TurnFlow, window: Window, item: int | None = None) -> ElementTree.Element:
    """The board, which must be well-formed."""
    looked = Looked(window, None if item is None else flow.items[item])
    return ElementTree.fromstring(timeline_board(flow, looked, lambda token: f"<{token}>").html)


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if name in (element.get("class") or "").split()]


def test_every_token_has_its_fate(flow: TurnFlow) -> None:
    fates = [item.fate for item in flow.items]
    assert (fates.count("prompt"), fates.count("refill")) == (1, TOKENS // PERIOD - 1)
    assert fates.count("accepted") == TOKENS - fates.count("refill")
    assert fates.count("dropped") == 2 * (TOKENS // PERIOD)
    assert [item.step for item in flow.items if item.step is not None] == list(range(TOKENS))
    dropped = next(item for item in flow.items if item.fate == "dropped")
    before = next(item for item in flow.items if item.position == dropped.position - 1 and item.epoch == dropped.epoch)
    assert (dropped.token, dropped.dropped_by, dropped.drop_reason) == (7, 2, "refuted")
    assert before.draft is not None
    assert not before.draft.held


def test_the_numbers_are_those_of_the_schedule(flow: TurnFlow) -> None:
    """Of five tokens four take 1 ms and the fifth 3: seven in all, of which the last stage works five."""
    numbers = numbers_of(flow)
    assert set(numbers.refills) == {STAGES * MS}
    assert len(numbers.refills) == TOKENS // PERIOD - 1
    assert numbers.decoding_ns == (TOKENS // PERIOD) * 7 * MS
    last = numbers.stages[-1]
    assert last.useful == pytest.approx(TOKENS * MS / numbers.decoding_ns)
    assert last.wasted == 0
    assert last.useful + last.idle == pytest.approx(1)
    first = numbers.stages[0]
    assert first.wasted == pytest.approx(2 * (TOKENS // PERIOD) * MS / numbers.decoding_ns, rel=0.05)
    busy = sum(stage.useful + stage.wasted for stage in numbers.stages)
    assert numbers.overlap == pytest.approx(busy, rel=0.01), "some stage is always at work here"


def test_a_recorded_run_is_drawn_whole() -> None:
    recorded = flow_in(PIPELINE_RUN)
    steps = [line for line in load(PIPELINE_RUN) if line["kind"] == "step"]
    assert [item.position for item in recorded.items if item.step is not None] == [
        step["pipeline"]["position"] for step in steps
    ]
    num_pieces = sum(piece.activity != "hop" for piece in recorded.pieces)
    assert len(of_class(drawn(recorded, whole(recorded)), "piece")) == num_pieces
    numbers = numbers_of(recorded)
    assert all(0 <= shares.idle <= 1 for shares in numbers.stages)
    assert numbers.overlap is not None
    assert 1 <= numbers.overlap <= len(recorded.stages)


def test_a_turn_that_was_cut_off_is_drawn_as_far_as_it_goes(tmp_path: Path) -> None:
    lines = timeline_lines(TOKENS)
    cut = flow_in(store(lines[:8], tmp_path / "cut.jsonl"))
    assert len([item for item in cut.items if item.step is not None]) == 6
    alone = flow_in(store(lines[:2], tmp_path / "alone.jsonl"))
    assert numbers_of(alone).decoding_ns is None
    assert "Nothing was decoded" in "".join(drawn(alone, whole(alone), 0).itertext())


def test_a_board_shows_the_stretch_and_the_life_of_a_token(flow: TurnFlow) -> None:
    item = flow.of_step(11)
    assert item is not None
    root = drawn(flow, around(item, flow), item.number)
    [life] = of_class(root, "ss-card-life")
    words = "".join(life.itertext())
    assert f"position {item.position}, epoch {item.epoch}" in words
    assert "through all stages3.00 ms" in words
    assert [
        row[1].text for row in life.iter() if row.tag.endswith("}tr") and row[0].text in ("stage 0", "stage 2")
    ] == [
        "verify",
        "verify",
    ]
    boxes = [box for box in of_class(root, "piece") if box.get("data-node") == str(item.number)]
    assert len(boxes) >= STAGES
    assert "accepted" in (boxes[0].get("class") or "")
    assert [mark.tag for mark in of_class(root, "here")] == [f"{SVG}rect"]


def test_ten_thousand_tokens_are_graphs_that_say_how_busy_stages_were(tmp_path: Path) -> None:
    """What is not drawn as a box is summed up: the shares of all columns are those of the turn."""
    flow = flow_in(write_timeline(tmp_path / "long.jsonl", 2_000))
    assert len(flow.pieces) > MOST_PIECES
    columns = busy_columns(flow, whole(flow), COLUMNS)
    for stage, lane in enumerate(columns):
        for fate in ("accepted", "refill", "dropped"):
            drawn_ns = sum(shares.get(fate, 0.0) for shares in lane) * whole(flow).length / COLUMNS
            worked = (p for p in flow.pieces if p.stage == stage and flow.items[p.item].fate == fate)
            assert drawn_ns == pytest.approx(sum(piece.end - piece.start for piece in worked), abs=MS)
    root = drawn(flow, whole(flow))
    assert not of_class(root, "piece")
    assert {path.get("class") for path in of_class(root, "busy")} >= {"busy accepted", "busy refill", "busy dropped"}
    assert "400 epochs" in "".join(root.itertext())
    requests = [hit.get("data-do") or "" for hit in of_class(root, "hit")]
    zoomed = parse_window(requests[3].removeprefix("window:"), flow)
    assert zoomed is not None
    assert zoomed.length < whole(flow).length / 30
    near = drawn(flow, around(flow.items[1_000], flow))
    assert 0 < len(of_class(near, "piece")) <= MOST_PIECES


def test_windows_stay_within_the_turn(flow: TurnFlow) -> None:
    window = around(flow.items[20], flow)
    assert window.zoomed(0.5, flow).length == pytest.approx(window.length / 2, abs=2)
    assert window.zoomed(100, flow) == whole(flow)
    assert window.zoomed(1e-9, flow).length == LEAST_NS
    assert window.moved(-100, flow) == Window(flow.start, flow.start + window.length)
    assert window.moved(100, flow).end == flow.end
    again = parse_window(window.words(flow), flow)
    assert again is not None
    assert abs(again.start - window.start) <= 2_000
    for nonsense in (None, "", "5", "9-3", "7-7", "a-b", "9999999999-9999999999", "1-2\n"):
        assert parse_window(nonsense, flow) is None


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Callable[[Any], None]]]:
    """What the page listens with, by name."""
    listeners: list[dict[str, Callable[[Any], None]]] = []

    def listening(*arguments: Any, **settings: Any) -> None:
        listeners.append({"pick": settings["on_pick"], "ask": settings["on_request"]})
        show_board(*arguments, **settings)

    monkeypatch.setattr("specscope.viewer.screens.timeline.show_board", listening)
    return listeners


def test_the_page_moves_and_its_link_keeps_the_place(
    trace: Path, open_app: Opener, heard: list[dict[str, Callable[[Any], None]]]
) -> None:
    app = open_app(trace, page="timeline")

    def after(listener: str, what: str | None) -> dict[str, str]:
        heard[-1][listener](what)
        return query_of(checked(app.run()))

    assert after("ask", "token:next")["node"] == "0"
    at_one = after("ask", "token:next")
    assert (at_one["node"], at_one["step"], at_one["page"]) == ("1", "0", "timeline")
    refill = after("ask", "refill:next")
    assert refill["step"] == str(PERIOD)
    assert "refill: the true token" in html_of(app)
    wide = refill["window"]
    near = after("ask", "zoom:in")["window"]
    assert near != wide
    assert after("ask", "pan:right")["window"] != near
    assert after("ask", "window:1000-9000")["window"] == "1000-9000"
    for nonsense in ("window:9-1", "token:sideways", "open:x", "bend:spoon"):
        assert after("ask", nonsense)["window"] == "1000-9000"
    assert after("pick", "12")["node"] == "12"
    assert "node" not in after("pick", None)
    linked = open_app(trace, page="timeline", turn="0", node="12", window="1000-9000")
    [board] = boards_of(linked)
    assert board["picked"] == "12"
    assert 'data-window="1000-9000"' in board["html"]
    heard[-1]["ask"]("open:3")
    step = query_of(checked(linked.run()))
    assert (step["page"], step["step"]) == ("step", "3")


def test_a_step_leads_to_its_token(trace: Path, open_app: Opener) -> None:
    [board] = boards_of(open_app(trace, page="timeline", turn="0", step="7"))
    assert board["picked"] == str(flow_in(trace).of_step(7).number)  # type: ignore[union-attr]


def test_only_pipelined_runs_have_a_timeline(trace: Path, open_app: Opener) -> None:
    app = open_app(FUSED, page="timeline")
    assert "This run has no stages" in html_of(app)
    assert "Timeline" in str(open_app(trace, page="step").get("button_group")[0].proto)
    assert "Timeline" not in str(open_app(FUSED, page="step").get("button_group")[0].proto)


def test_the_report_has_the_stages(trace: Path) -> None:
    page = run_report(trace, Wanted(step=9), TokenTexts(None)).page
    assert "overlap factor" in page
    assert "Idle share" in page
    assert page.count('class="ss-flow"') == 2
    assert "data-" not in page.partition("</style>")[2]
    ElementTree.fromstring(page.partition("\n")[2])
    assert 'class="ss-flow"' not in run_report(FUSED, Wanted(step=9), TokenTexts(None)).page
