"""Reading whole traces while somebody waits: a bar that moves, an estimate that learns, results that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st
from support.pages import Opener, boards_of, checked, html_of
from support.traces import EAGER, FUSED

from specscope.tracer.compare.diff import compare_traces
from specscope.viewer.screens import reading, session
from specscope.viewer.screens.kept import Kept


class Place:
    """Where the bar is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[float, str]] = []
        self.is_empty = False

    def progress(self, share: float, words: str) -> None:
        self.shown.append((share, words))

    def empty(self) -> None:
        self.is_empty = True


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place()
    monkeypatch.setattr(st, "empty", lambda: place)
    monkeypatch.setattr(reading, "MOVE_SECONDS", 0.0)
    monkeypatch.setattr(reading, "_measured", {})
    return place


def test_a_comparison_moves_the_bar_to_its_end(place: Place) -> None:
    with reading.reading("compare", sum(path.stat().st_size for path in (EAGER, FUSED))) as watch:
        compare_traces(EAGER, FUSED, watch=watch)
        assert not place.is_empty
    shares = [share for share, _ in place.shown]
    assert len(shares) > 20
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0, abs=0.01)
    assert place.shown[0][1].startswith("Comparing the two traces: ")
    assert place.is_empty


def test_the_bar_says_how_long_the_rest_may_take(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.5, 10.0, 10.0])
    monkeypatch.setattr("specscope.viewer.screens.reading.time.monotonic", lambda: next(clock))
    with reading.reading("check", 4 << 20) as watch:
        watch(1 << 19)
        watch(1 << 19)
    assert [words for _, words in place.shown] == [
        "Checking every record: 12 %",
        "Checking every record: 25 %, about 30 s left",
    ]
    assert reading.seconds_for("check", 8 << 20) == pytest.approx(20.0), "as fast as it was the last time"


def test_small_files_tell_no_speed(place: Place) -> None:
    before = reading.seconds_for("compare", 10 << 20)
    with reading.reading("compare", 1000) as watch:
        watch(2000)
    assert place.shown
    assert reading.seconds_for("compare", 10 << 20) == before
    assert before > reading.seconds_for("check", 10 << 20), "a comparison reads what a check does, and more"


def test_what_was_compared_is_kept_and_what_was_not_asked_for_is_estimated(
    open_app: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_compared = 0

    def counted(*arguments: Path, **options: object) -> object:
        nonlocal num_compared
        num_compared += 1
        return compare_traces(*arguments, **options)  # type: ignore[arg-type]

    st.cache_resource.clear()
    monkeypatch.setattr(session, "compare_traces", counted)
    monkeypatch.setattr(session, "LARGE_BYTES", 1000)
    monkeypatch.setattr(reading, "_measured", {"compare": (EAGER.stat().st_size + FUSED.stat().st_size) / 77.0})
    app = open_app(EAGER, FUSED, page="diff")
    assert "which takes about 77 s" in html_of(app)
    assert num_compared == 0
    checked(app.button(key="compare").click().run())
    checked(app.button(key="next").click().run())
    assert boards_of(app)
    assert num_compared == 1


def test_the_value_that_was_not_used_for_longest_is_forgotten() -> None:
    kept: Kept[str, int] = Kept(2)
    kept.keep("a", 1)
    kept.keep("b", 2)
    assert kept.get("a") == 1
    assert kept.keep("c", 3) == 3
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)
