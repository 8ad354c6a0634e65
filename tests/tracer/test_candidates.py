"""How candidates are numbered from the levels of a draft."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specscope.schemas import DraftInputs, DraftLevel, DraftSection, Step
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.files.candidates import candidates_of, columns_of

FIRST = DraftLevel(frontier=[], positions=[7], tokens=[4, 6], logprobs=[-0.5, -2.0], finite=True)
SECOND = DraftLevel(
    frontier=[1, 0], positions=[8, 8], tokens=[8, 1, 8, 3], logprobs=[-1.0, -1.5, -0.25, -4.0], finite=True
)
NO_PAIRS = DraftInputs(source_rows=[], tokens=[], positions=[])


def test_rows_and_ranks_follow_from_how_many_rows_a_level_has() -> None:
    candidates = candidates_of([FIRST, SECOND])
    assert [candidate.number for candidate in candidates] == list(range(6))
    assert [candidate.parent_number for candidate in candidates] == [None, None, 1, 1, 0, 0]
    assert [candidate.ranks for candidate in candidates] == [(0,), (1,), (1, 0), (1, 1), (0, 0), (0, 1)]
    assert [candidate.score for candidate in candidates] == [-0.5, -2.0, -3.0, -3.5, -0.75, -4.5]
    assert [(candidate.level, candidate.row, candidate.entry) for candidate in candidates[3:5]] == [
        (1, 0, 1),
        (1, 1, 2),
    ]


def test_tokens_left_over_belong_to_the_last_row() -> None:
    ragged = SECOND.model_copy(update={"tokens": [8, 1, 8, 3, 9], "logprobs": [-1.0] * 5})
    assert [candidate.parent_number for candidate in candidates_of([FIRST, ragged])[2:]] == [1, 1, 0, 0, 0]
    assert [candidate.rank for candidate in candidates_of([FIRST, ragged])[2:]] == [0, 1, 0, 1, 2]


def test_of_equal_siblings_the_first_counts() -> None:
    twice = FIRST.model_copy(update={"tokens": [4, 4]})
    columns = columns_of([twice])
    assert columns.numbers == {(None, 4): 0}
    assert columns.distinct(range(2)) == [0]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 9)), min_size=1, max_size=4)
)
def test_columns_hold_what_the_candidates_are(shapes: list[tuple[list[int], int]]) -> None:
    levels: list[DraftLevel] = []
    for tokens, fed in shapes:
        before = sum(len(level.tokens) for level in levels)
        frontier = sorted({fed % before, (fed + 1) % before}) if before else []
        logprobs = [-0.25 * (1 + token) for token in tokens]
        levels.append(FIRST.model_copy(update={"tokens": tokens, "logprobs": logprobs, "frontier": frontier}))
    candidates, columns = candidates_of(levels), columns_of(levels)
    assert columns.parents == [candidate.parent_number for candidate in candidates]
    assert columns.tokens == [candidate.token for candidate in candidates]
    assert columns.scores == [candidate.score for candidate in candidates]
    assert [[candidate.level for candidate in candidates].count(n) for n in range(len(levels))] == [
        len(level) for level in columns.levels
    ]
    first: dict[tuple[int | None, int], int] = {}
    for candidate in candidates:
        first.setdefault((candidate.parent_number, candidate.token), candidate.number)
    assert columns.numbers == first
    assert list(columns.distinct(range(len(candidates)))) == sorted(first.values())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"logprobs": [-1.0] * 3}, "level 2: 3 log-probabilities for 4 tokens"),
        ({"frontier": [0, 2]}, "level 2 was fed a candidate that the levels before it do not have"),
        ({"frontier": [-1, 0]}, "level 2 was fed a candidate that the levels before it do not have"),
    ],
)
def test_malformed_levels_are_refused_and_compared_as_none(changes: dict[str, list[float]], problem: str) -> None:
    levels = [FIRST, SECOND.model_copy(update=changes)]
    with pytest.raises(ValueError, match=f"^{problem}$"):
        candidates_of(levels)
    draft = DraftSection(inputs=NO_PAIRS, kv_before=7, kv_after=7, num_candidates=6, levels=levels)
    nodes = StepNodes(Step(seq=2, turn=0, step=0, draft=draft))
    assert nodes.proposals == {}
    assert nodes.frontiers == [[()], [()]]
