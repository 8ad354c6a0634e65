"""Links keep the view, and garbage in them is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specscope.viewer.session import Arguments, View, clamp, parse_arguments


def test_arguments() -> None:
    assert parse_arguments(["--tokenizer", "t.json", "a.jsonl", "b.jsonl"]) == Arguments(
        (Path("a.jsonl"), Path("b.jsonl")), Path("t.json")
    )
    assert parse_arguments([]) == Arguments((), None)


@pytest.mark.parametrize(
    "view", [View(page="step", trace=1, turn=2, step=3), View(page="diff", baseline=1, candidate=0, root=4)]
)
def test_a_link_opens_the_same_view(view: View) -> None:
    again = View.from_query(view.to_query(), 2)
    assert again.to_query() == view.to_query()


def test_the_first_look() -> None:
    assert View.from_query({}, 1).page == "step"
    assert View.from_query({}, 2).page == "diff"
    assert View.from_query({"page": "diff"}, 1).page == "step"


@given(st.dictionaries(st.sampled_from(["page", "trace", "turn", "step", "root", "candidate", "file"]), st.text()))
def test_garbage_in_a_link_is_ignored(query: dict[str, str]) -> None:
    view = View.from_query(query, 2)
    assert view.page in ("step", "diff")
    assert 0 <= view.trace <= 1
    assert 0 <= view.candidate <= 1
    assert min(view.turn, view.step, view.root) >= 0


@pytest.mark.parametrize("text", ["-1", "1e3", "²", "٣", "9" * 40, "../../etc/passwd", ""])
def test_only_plain_numbers_count(text: str) -> None:
    assert View.from_query({"step": text}, 2).step == 0


def test_clamp() -> None:
    assert [clamp(n, 3) for n in (-1, 0, 2, 3)] == [0, 0, 2, 2]
    assert clamp(5, 0) == 0
