"""What the pipeline's benchmarks draft, and that they keep what they have measured."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.kept import kept
from benchmarks.ppsd import drafts_of
from benchmarks.ppsd_lossless import known_lines
from benchmarks.ppsd_plot import Measured, speedup_figure, write_plot

VOCAB = 7


@given(st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=9))
def test_always_holds_never_does_not_and_both_are_of_the_vocabulary(text: list[int]) -> None:
    def head(hidden: object, item: object) -> None:
        """Its draft is not what counts here."""

    always, never = (drafts_of(mode, text, head, VOCAB) for mode in ("always", "never"))
    for position, following in enumerate(text[1:]):
        item = SimpleNamespace(position=position)
        assert always(None, item).token == following
        assert never(None, item).token != following
    for position in range(len(text) + 2):
        item = SimpleNamespace(position=position)
        assert {always(None, item).token, never(None, item).token} <= set(range(VOCAB))


def test_an_interrupted_benchmark_measures_only_what_is_missing(tmp_path: Path) -> None:
    measured: list[int] = []

    def measure(number: int, broken: int | None) -> dict[str, int]:
        if number == broken:
            raise KeyboardInterrupt
        measured.append(number)
        return {"ns": number * number}

    def run(broken: int | None) -> list[dict[str, int]]:
        return [kept(tmp_path / "kept", {"prompt": n}, partial(measure, n, broken)) for n in range(4)]

    with pytest.raises(KeyboardInterrupt):
        run(broken=2)
    assert measured == [0, 1]
    assert run(broken=None) == run(broken=0) == [{"ns": 0}, {"ns": 1}, {"ns": 4}, {"ns": 9}]
    assert measured == [0, 1, 2, 3]
    assert len(list((tmp_path / "kept").iterdir())) == 4
    assert kept(None, {"prompt": 0}, lambda: {"ns": 5}) == {"ns": 5}, "without a folder nothing is kept"


def test_a_line_that_was_cut_off_is_computed_again(tmp_path: Path) -> None:
    out = tmp_path / "lossless.jsonl"
    assert known_lines(out) == {}
    whole = json.dumps({"key": "a", "equal": True}) + "\n"
    out.write_text(whole + whole.replace('"a"', '"b"')[:-4])
    assert known_lines(out) == {"a": {"key": "a", "equal": True}}
    assert out.read_text() == whole


def test_the_plot_has_what_was_measured_among_the_curves(tmp_path: Path) -> None:
    measured = [Measured("always", 1.0, 1.9), Measured("never", 0.0, 0.98)]
    figure = speedup_figure(measured, {"closed form, 2 stages": lambda share: 1 / (1 - share / 2)})
    curve, points = figure.data
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0.0, 1.0, 1.0, 2.0)
    assert [*zip(points.text, points.x, points.y, strict=True)] == measured
    write_plot(tmp_path / "plot.html", figure)
    page = (tmp_path / "plot.html").read_text()
    assert "share of drafts that hold" in page
    assert 'src="http' not in page, "the page needs no network"
