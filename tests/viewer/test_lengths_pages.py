"""The pages on a run of which only accepted lengths are recorded: they show those, and make nothing up."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.lengths_runs import lengths_lines
from support.pages import Opener, boards_of, checked, html_of
from support.traces import store


@pytest.fixture
def lengths(tmp_path: Path) -> Path:
    """Steps that accepted 3, 0, 2 and then 1 of 3 drafted tokens: 1.5 in the mean."""
    return store(lengths_lines([[(3, 3), (3, 0)], [(3, 2), (3, 1)]]), tmp_path / "lengths.jsonl")


def test_metrics_are_those_that_follow_from_lengths(lengths: Path, open_app: Opener) -> None:
    app = open_app(lengths, page="metrics")
    html = html_of(app)
    assert ">1.500<" in html, "the mean accepted length"
    assert ">2.500<" in html, "with the bonus token"
    assert "Accepted length: not recorded." not in html


def test_a_step_says_what_it_drafted_and_accepted(lengths: Path, open_app: Opener) -> None:
    [board] = boards_of(open_app(lengths, page="step", turn="1", step="0"))
    html = board["html"]
    for words in ("This step records no tree", "1 invariant holds at this step", ">drafted<", ">accepted<"):
        assert words in html


def test_no_text_is_no_text_of_no_tokens(lengths: Path, open_app: Opener) -> None:
    [board] = boards_of(open_app(lengths, page="text"))
    assert "no tokens of this turn are recorded" in board["html"]
    assert "0 tokens" not in board["html"]


@pytest.mark.parametrize("page", ["runs", "find", "health"])
def test_every_other_page_opens(lengths: Path, open_app: Opener, page: str) -> None:
    checked(open_app(lengths, page=page))


def test_a_pair_is_compared_by_what_there_is(lengths: Path, tmp_path: Path, open_app: Opener) -> None:
    other = store(lengths_lines([[(3, 3), (3, 1)], [(3, 2), (3, 1)]]), tmp_path / "other.jsonl")
    app = checked(open_app(lengths, other, page="diff"))
    html = html_of(app) + "".join(board["html"] for board in boards_of(app))
    for words in ("The accepted length is 0 in the baseline, 1 in the candidate", "Only accepted lengths are compared"):
        assert words in html
    for words in ("no turn for that prompt", "specscope replay"):
        assert words not in html
