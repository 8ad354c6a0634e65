"""Links keep the view, garbage in them is ignored, and no page is left without the runs that it is about."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specscope.viewer.screens.session import parse_arguments
from specscope.viewer.screens.view import PAGES, View, clamp, hidden_key

NAMES = ["a.jsonl", "b.jsonl", "sub/c.jsonl"]
RUNS = st.sampled_from([*NAMES, None])
PARAMETERS = ["page", "run", "baseline", "candidate", "turn", "step", "node", "file"]
WORDS = st.one_of(st.text(), st.sampled_from([*NAMES, *PAGES, "0", "7", "a5", "b0", "../../etc/passwd", "/etc/passwd"]))
SETTLED = st.builds(
    View,
    page=st.sampled_from(PAGES),
    run=RUNS,
    baseline=RUNS,
    candidate=RUNS,
    turn=st.integers(0, 10**9 - 1),
    step=st.integers(0, 10**9 - 1),
    node=st.sampled_from([None, "5", "a0", "b123456"]),
    hidden=st.sampled_from([(), (hidden_key("a.jsonl"),), tuple(sorted(map(hidden_key, NAMES)))]),
)


def test_arguments(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    found = parse_arguments(["--tokenizer", "t.json", str(tmp_path), str(tmp_path / "a.jsonl")])
    assert found.tokenizer == Path("t.json")
    assert found.catalogue.folders == [tmp_path]
    assert found.num_files == 1
    assert parse_arguments([]).catalogue.runs() == []


@given(SETTLED)
def test_a_link_opens_the_same_view(view: View) -> None:
    view.settle()
    assert View.from_query(view.to_query(), NAMES, 0).to_query() == view.to_query()


@given(SETTLED, st.integers(1, 3))
def test_a_link_of_a_pair_opens_the_same_view_whatever_files_are_named(view: View, num_files: int) -> None:
    if view.has_pair:
        view.settle()
        assert View.from_query(view.to_query(), NAMES, num_files).to_query() == view.to_query()


@given(st.dictionaries(st.sampled_from(PARAMETERS), WORDS), st.integers(0, 3), st.integers(0, 3))
def test_whatever_a_link_says_there_is_a_page_for_it(query: dict[str, str], num_names: int, num_files: int) -> None:
    names = NAMES[:num_names]
    view = View.from_query(query, names, min(num_files, num_names))
    assert view.page in PAGES
    assert {view.run, view.baseline, view.candidate} <= {*names, None}
    assert view.page == "runs" or view.run is not None
    assert view.page != "diff" or view.has_pair
    assert 0 <= min(view.turn, view.step) <= max(view.turn, view.step) < 10**9
    assert view.node is None or view.node.lstrip("ab").isdecimal()


@pytest.mark.parametrize(("num_files", "page"), [(0, "runs"), (1, "step"), (2, "diff"), (3, "diff")])
def test_the_first_look(num_files: int, page: str) -> None:
    view = View.from_query({}, NAMES, num_files)
    assert view.page == page
    assert view.run == (NAMES[0] if num_files else None)
    assert [view.baseline, view.candidate] == (NAMES[:2] if num_files > 1 else [None, None])


def test_a_page_that_lacks_its_runs_is_left() -> None:
    assert View.from_query({"page": "diff"}, NAMES, 1).page == "step"
    assert View.from_query({"page": "diff", "candidate": "b.jsonl"}, NAMES, 0).run == "b.jsonl"
    assert View.from_query({"page": "health", "run": "gone.jsonl"}, NAMES, 0).page == "runs"
    assert View.from_query({"page": "metrics"}, [], 0).page == "runs"


@pytest.mark.parametrize("text", ["-1", "1e3", "²", "٣", "9" * 40, "../../etc/passwd", "", " 1", "1\n"])
def test_only_plain_numbers_count(text: str) -> None:
    view = View.from_query({"step": text, "turn": text}, NAMES, 2)
    assert (view.turn, view.step) == (0, 0)


@pytest.mark.parametrize("text", ["<script>", "c5", "5\n", "a", "-1", "٣", "a1234567", "ab1"])
def test_only_nodes_are_nodes(text: str) -> None:
    assert View.from_query({"node": text}, NAMES, 1).node is None


def test_clamp() -> None:
    assert [clamp(n, 3) for n in (-1, 0, 2, 3)] == [0, 0, 2, 2]
    assert clamp(5, 0) == 0


def test_tabs_and_history_tell_views_apart() -> None:
    view = View(page="diff", run="b", baseline="a", candidate="b\u202e", turn=1, step=3)
    assert view.title == "≠ 1/3 a | b\\u202e · SpecScope"
    view.page = "step"
    assert view.title == "1/3 b · SpecScope"
    view.page = "metrics"
    assert view.title == "Metrics b · SpecScope"
