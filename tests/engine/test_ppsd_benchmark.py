"""What the pipeline's benchmarks draft, and that they keep what they have measured."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.called import specscope as called
from support.commands import specscope

from benchmarks.ppsd_lossless import known_lines
from specscope.engine.lab.bench.kept import kept
from specscope.engine.lab.bench.pipeline.measure import drafts_of
from specscope.engine.lab.bench.pipeline.plot import Measured, speedup_figure, write_plot
from specscope.engine.ppsd.outcome import Drafted
from specscope.engine.ppsd.schedule import Item

VOCAB = 7
NO_ROWS = torch.empty(0)


@given(st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=9))
def test_always_holds_never_does_not_and_both_are_of_the_vocabulary(text: list[int]) -> None:
    def head(hidden: torch.Tensor, item: Item) -> Drafted:
        """Its draft is not what counts here."""
        return Drafted(0, None)

    always, never = (drafts_of(mode, text, head, VOCAB) for mode in ("always", "never"))
    assert always is not None
    assert never is not None
    for position, following in enumerate(text[1:]):
        item = Item(position, 0, 0)
        assert always(NO_ROWS, item).token == following
        assert never(NO_ROWS, item).token != following
    for position in range(len(text) + 2):
        item = Item(position, 0, 0)
        assert {always(NO_ROWS, item).token, never(NO_ROWS, item).token} <= set(range(VOCAB))


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


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--compare", "overhead"), "--compare"),
        (("--csv", "a.csv", "--device", "cpu"), "--csv, --device"),
        (("--ranks", "folder"), "--ranks"),
    ],
)
def test_bench_refuses_what_a_pipelines_measurements_do_not_know(flags: tuple[str, ...], names: str) -> None:
    done = called("bench", "--suite", "ppsd", *flags)
    assert (done.code, done.out) == (2, "")
    assert f"got {names} with --suite ppsd, which takes --limit, --max-new-tokens" in done.err


def test_bench_wants_two_tokens_of_a_pipeline() -> None:
    done = called("bench", "--suite", "ppsd", "--max-new-tokens", "1")
    assert (done.code, done.out) == (2, "")
    assert "got 1 new tokens, wanted at least 2" in done.err


@pytest.mark.slow
def test_bench_measures_the_pipeline(tmp_path: Path) -> None:
    plot = tmp_path / "plot.html"
    flags = ("--limit", "1", "--rounds", "1", "--max-new-tokens", "6", "--plots", plot)
    done = specscope("bench", "--suite", "ppsd", *flags)
    assert (done.code, done.err) == (0, "")
    measured = json.loads(done.out.splitlines()[-1])
    rows = measured["rows"]
    assert measured["options"]["num_stages"] == 2
    assert [rows[mode]["a"] for mode in ("always", "never")] == [1.0, 0.0]
    for mode in ("sequential", "head", "always", "never", "one process", "EAGLE-3"):
        assert rows[mode]["ms"] > 0
    assert rows["sequential"]["speedup"] == 1.0
    assert "word" in done.out
    assert plot.is_file()
    refused = specscope("bench", "--suite", "ppsd", *flags)
    assert refused.code == 2, "nothing is written over"
