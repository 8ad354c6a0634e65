"""The draft vocabulary: chosen by frequency, cached against its question, and checked where a checkpoint states it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specscope.engine.drafters.draft_vocab import DraftVocab, build_draft_vocab, count_tokens, most_frequent
from specscope.tracer.errors import UsageError

V = 12
ids_lists = st.lists(st.integers(0, V - 1), min_size=1, max_size=60)


@given(ids_lists, st.integers(1, V), st.sets(st.integers(0, V - 1), max_size=4))
def test_the_most_frequent_are_chosen_ties_to_the_lower_id(ids: list[int], size: int, required: set[int]) -> None:
    size = max(size, len(required))
    built = build_draft_vocab([np.array(ids)], size, V, sorted(required))
    by_rank = sorted(range(V), key=lambda i: (i not in required, -ids.count(i), i))
    assert built.vocab.ids.tolist() == sorted(by_rank[:size])
    covered = [i for i in ids if i in by_rank[:size]]
    assert built.covered_share == pytest.approx(len(covered) / len(ids))


@given(ids_lists, st.integers(1, V))
def test_how_the_data_is_cut_into_arrays_does_not_matter(ids: list[int], size: int) -> None:
    whole = build_draft_vocab([np.array(ids, np.int32)], size, V)
    apart = build_draft_vocab([np.array(ids[:7]), np.array(ids[7:]).reshape(1, -1)], size, V)
    assert whole.vocab.ids.tolist() == apart.vocab.ids.tolist()
    assert whole.covered_share == apart.covered_share


@given(st.sets(st.integers(0, V - 1), min_size=1))
def test_d2t_and_t2d_say_the_same_and_lead_back(ids: set[int]) -> None:
    vocab = DraftVocab(np.array(sorted(ids)), V)
    assert [i + int(offset) for i, offset in enumerate(vocab.d2t())] == sorted(ids)
    assert set(np.flatnonzero(vocab.t2d())) == ids
    again = DraftVocab.from_offsets(vocab.d2t(), vocab.t2d(), V)
    assert again.ids.tolist() == vocab.ids.tolist()
    assert vocab.mapping == ("identity" if ids == set(range(len(ids))) else "offset")


@given(st.lists(st.integers(-V, V), min_size=1, max_size=V), st.lists(st.booleans(), min_size=V, max_size=V))
def test_any_tensors_are_a_vocabulary_or_refused(offsets: list[int], marks: list[bool]) -> None:
    ids = [i + offset for i, offset in enumerate(offsets)]
    right = len(set(ids)) == len(ids) and set(ids) == {i for i, mark in enumerate(marks) if mark}
    try:
        vocab = DraftVocab.from_offsets(np.array(offsets), np.array(marks), V)
    except UsageError:
        assert not right
    else:
        assert right
        assert vocab.ids.tolist() == ids


def test_the_whole_vocabulary_is_the_identity() -> None:
    vocab = DraftVocab.identity(V, V)
    assert (vocab.mapping, vocab.size, bool(vocab.t2d().all())) == ("identity", V, True)
    assert vocab.covered_share(np.zeros(V, np.int64)) == 0


@pytest.mark.parametrize(
    ("data", "size", "required", "message"),
    [
        ([np.array([], np.int64)], 3, [], "got no token"),
        ([], 3, [], "got no token"),
        ([np.array([0.5])], 3, [], "of type float64, wanted integer ids"),
        ([np.array([1, V])], 3, [], r"holds ids 1..12, the teacher has 0..11: .* another tokenizer"),
        ([np.array([-1])], 3, [], r"holds ids -1..-1"),
        ([np.array([1])], V + 1, [], r"a draft vocabulary of 13, wanted 1..12"),
        ([np.array([1])], 0, [], r"a draft vocabulary of 0, wanted 1..12"),
        ([np.array([1])], 1, [3, 4], r"of 1, wanted 2..12: at least the required ids"),
        ([np.array([1])], 3, [V], r"required ids \[12\], the teacher has 0..11"),
    ],
)
def test_what_makes_no_vocabulary_is_refused(
    data: list[np.ndarray], size: int, required: list[int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build_draft_vocab(data, size, V, required)


DATA = [np.array([[5, 5, 2], [2, 5, 9]]), np.array([7])]


def test_the_cache_answers_its_own_question_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "made" / "vocab.json"
    built = build_draft_vocab(DATA, 3, V, cache=path)
    assert built.vocab.ids.tolist() == [2, 5, 7]
    written = path.read_bytes()
    # A telltale that only reading the cache can bring out.
    path.write_bytes(written.replace(b'"covered_share": 0.857', b'"covered_share": 0.157'))
    assert build_draft_vocab(DATA, 3, V, cache=path).covered_share < 0.2
    for question in (
        {"data": [*DATA, np.array([7])]},
        {"data": [DATA[1], DATA[0]]},
        {"size": 4},
        {"teacher_vocab_size": V + 1},
        {"required_ids": [0]},
    ):
        path.write_bytes(written)
        asked: dict[str, Any] = {"data": DATA, "size": 3, "teacher_vocab_size": V, "required_ids": ()} | question
        warnings: list[str] = []
        fresh = build_draft_vocab(**asked, warn=warnings.append)
        cached = build_draft_vocab(**asked, cache=path, warn=warnings.append)
        assert cached.vocab.ids.tolist() == fresh.vocab.ids.tolist()
        assert path.read_bytes() != written
        assert not warnings
    assert list(path.parent.iterdir()) == [path]


@given(st.data())
def test_a_corrupt_cache_is_reported_and_rebuilt(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("cache") / "vocab.json"
    built = build_draft_vocab(DATA, 3, V, cache=path)
    whole = path.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "flip", "other"]))
    if kind == "cut":
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
    elif kind == "flip":
        at = data.draw(st.integers(0, len(whole) - 1))
        path.write_bytes(whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :])
    else:
        path.write_text(data.draw(st.sampled_from(["[]", "null", "7", '"x"', "{}", "[" * 100_000])))
    warnings: list[str] = []
    again = build_draft_vocab(DATA, 3, V, cache=path, warn=warnings.append)
    assert again.vocab.ids.tolist() == built.vocab.ids.tolist()
    if kind != "flip":
        assert len(warnings) == 1
        assert "vocab.json is corrupt" in warnings[0]
        assert path.read_bytes() == whole


def test_ids_that_do_not_fit_their_checksum_are_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    build_draft_vocab(DATA, 3, V, cache=path)
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"ids": [2, 5, 8]}))
    warnings: list[str] = []
    assert build_draft_vocab(DATA, 3, V, cache=path, warn=warnings.append).vocab.ids.tolist() == [2, 5, 7]
    assert "checksum" in warnings[0]


def test_a_file_beside_the_cache_is_nobody_elses(tmp_path: Path) -> None:
    """Whatever it is called."""
    beside = [tmp_path / f"vocab.json{ending}" for ending in (".part", ".partial", ".tmp")]
    for path in beside:
        path.write_text("the user's")
    build_draft_vocab(DATA, 3, V, cache=tmp_path / "vocab.json")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "vocab.json", *beside])
    assert {path.read_text() for path in beside} == {"the user's"}


def test_counts_and_choice_by_hand() -> None:
    counts = count_tokens(DATA, V)
    assert counts.tolist() == [0, 0, 2, 0, 0, 3, 0, 1, 0, 1, 0, 0]
    assert most_frequent(counts, 3).ids.tolist() == [2, 5, 7]
    assert most_frequent(counts, 6).ids.tolist() == [0, 1, 2, 5, 7, 9]
    assert most_frequent(counts, 3, [11]).ids.tolist() == [2, 5, 11]
