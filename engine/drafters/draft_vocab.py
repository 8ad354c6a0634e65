"""The draft vocabulary: which teacher ids a draft head can propose, how they are chosen, stored and checked.

The one place that knows how ``d2t`` and ``t2d`` state it: ``d2t`` holds offsets (teacher id = draft id + d2t[draft
id]), ``t2d`` marks the teacher ids that are covered. Knows no torch.

Letters: D draft vocabulary, V teacher vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from specscope.tracer.errors import UsageError
from specscope.tracer.files.whole import written_whole

CACHE_FORMAT = "specscope.draft-vocab/1"


@dataclass(frozen=True, eq=False)
class DraftVocab:
    """The teacher id of each draft id: within the teacher's vocabulary, and no id twice."""

    ids: NDArray[np.int64]  # (D,)
    teacher_vocab_size: int

    def __post_init__(self) -> None:
        low, high = int(self.ids.min(initial=0)), int(self.ids.max(initial=0))
        if low < 0 or high >= self.teacher_vocab_size:
            raise UsageError(
                f"d2t maps outside the teacher's vocabulary: got {low}..{high}, wanted "
                f"0..{self.teacher_vocab_size - 1}; d2t holds offsets, not absolute ids"
            )
        order = np.argsort(self.ids, kind="stable")
        twice = np.flatnonzero(np.diff(self.ids[order]) == 0)
        if twice.size:
            first, second = order[twice[0]], order[twice[0] + 1]
            raise UsageError(
                f"d2t maps the draft ids {first} and {second} both to the teacher's {self.ids[first]}, wanted each id "
                "once; d2t holds offsets, not absolute ids"
            )

    @classmethod
    def identity(cls, size: int, teacher_vocab_size: int) -> DraftVocab:
        """Draft ids that are the teacher's first ``size`` ids."""
        return cls(np.arange(size, dtype=np.int64), teacher_vocab_size)

    @classmethod
    def from_offsets(cls, d2t: NDArray[Any], t2d: NDArray[Any] | None, teacher_vocab_size: int) -> DraftVocab:
        """The vocabulary that a checkpoint's ``d2t`` (D,) states, its ``t2d`` (V,) agreeing where there is one.

        Raises:
            UsageError: where an id is outside the vocabulary or there twice, or the two tensors disagree.
        """
        vocab = cls(np.arange(len(d2t), dtype=np.int64) + d2t.astype(np.int64), teacher_vocab_size)
        if t2d is not None:
            different = np.flatnonzero(t2d.astype(bool) != vocab.t2d())
            if different.size:
                first = int(different[0])
                only, other = ("t2d", "d2t") if t2d[first] else ("d2t", "t2d")
                raise UsageError(
                    f"t2d and d2t disagree on {different.size} of the teacher's ids: the first is {first}, which "
                    f"{only} covers and {other} does not; one of them belongs to another head"
                )
        return vocab

    @property
    def size(self) -> int:
        """Draft ids."""
        return len(self.ids)

    @property
    def mapping(self) -> Literal["identity", "offset"]:
        """``identity`` where every draft id is the teacher's id of the same number."""
        return "offset" if bool(self.d2t().any()) else "identity"

    def d2t(self) -> NDArray[np.int64]:
        """(D,) what to add to a draft id."""
        return self.ids - np.arange(self.size, dtype=np.int64)

    def t2d(self) -> NDArray[np.bool_]:
        """(V,) whether a teacher id is covered."""
        covered = np.zeros(self.teacher_vocab_size, dtype=np.bool_)
        covered[self.ids] = True
        return covered

    def covered_share(self, counts: NDArray[np.int64]) -> float:
        """The share of the tokens counted in ``counts`` (V,) whose id is covered; 0 where none was counted."""
        return float(counts[self.ids].sum() / max(1, int(counts.sum())))


class BuiltVocab(NamedTuple):
    """A draft vocabulary built from data."""

    vocab: DraftVocab
    covered_share: float  # of the data's tokens


def count_tokens(data: Sequence[NDArray[Any]], teacher_vocab_size: int) -> NDArray[np.int64]:
    """(V,) how often each id occurs in the arrays of ``data``, of any shape.

    Raises:
        UsageError: for ids that are not integers or outside the vocabulary, or no data at all.
    """
    counts = np.zeros(teacher_vocab_size, dtype=np.int64)
    for array in data:
        if array.size == 0:
            continue
        if not np.issubdtype(array.dtype, np.integer):
            raise UsageError(f"cannot count tokens of type {array.dtype}, wanted integer ids")
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= teacher_vocab_size:
            raise UsageError(
                f"the data holds ids {low}..{high}, the teacher has 0..{teacher_vocab_size - 1}: it was made with "
                "another tokenizer"
            )
        counts += np.bincount(array.ravel(), minlength=teacher_vocab_size)
    if not counts.any():
        raise UsageError("got no token to choose a draft vocabulary by: give data of the teacher's own text")
    return counts


def most_frequent(counts: NDArray[np.int64], size: int, required_ids: Sequence[int] = ()) -> DraftVocab:
    """The ``required_ids`` and, for the rest, the most frequent of ``counts`` (V,): ids ascending, ties to the lower.

    Raises:
        UsageError: where ``size`` is more than the teacher's ids or less than the required ones.
    """
    needed = sorted(set(required_ids))
    if not max(1, len(needed)) <= size <= len(counts):
        raise UsageError(
            f"got a draft vocabulary of {size}, wanted {max(1, len(needed))}..{len(counts)}: at least the required "
            "ids, at most the teacher's"
        )
    if needed and not 0 <= needed[0] <= needed[-1] < len(counts):
        raise UsageError(f"got required ids {needed}, the teacher has 0..{len(counts) - 1}")
    rank = counts.astype(np.int64)
    rank[needed] = np.iinfo(np.int64).max
    order = np.lexsort((np.arange(len(counts)), -rank))  # count descending, then id ascending
    return DraftVocab(np.sort(order[:size]).astype(np.int64), len(counts))


def build_draft_vocab(
    data: Sequence[NDArray[Any]],
    size: int,
    teacher_vocab_size: int,
    required_ids: Sequence[int] = (),
    cache: Path | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> BuiltVocab:
    """The draft vocabulary of ``data``, read from ``cache`` where that holds the answer to this very question.

    A cache of other data, another size or another teacher is replaced; so is a corrupt one, after a call of ``warn``.

    Raises:
        UsageError: where there is no such vocabulary (see ``count_tokens`` and ``most_frequent``).
    """
    question = {
        "format": CACHE_FORMAT,
        "data_digest": _digest(data),
        "size": size,
        "teacher_vocab_size": teacher_vocab_size,
        "required_ids": sorted(set(required_ids)),
    }
    if cache is not None:
        known = _read_cache(cache, question, warn)
        if known is not None:
            return known
    counts = count_tokens(data, teacher_vocab_size)
    vocab = most_frequent(counts, size, required_ids)
    built = BuiltVocab(vocab, vocab.covered_share(counts))
    if cache is not None:
        _write_cache(cache, question, built)
    return built


def _digest(data: Sequence[NDArray[Any]]) -> str:
    """xxh3_128 over the arrays' ids, in order; where one array ends is part of it."""
    digest = xxhash.xxh3_128()
    for array in data:
        digest.update(array.size.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(array, dtype="<i8").data)
    return digest.hexdigest()


def _checksum(ids: NDArray[np.int64]) -> str:
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(ids, dtype="<i8").data)


def _read_cache(path: Path, question: dict[str, Any], warn: Callable[[str], None]) -> BuiltVocab | None:
    """The answer in ``path``; None where there is none, or to another question, or it is corrupt."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if {name: entry[name] for name in question} != question:
            return None
        vocab = DraftVocab(np.array(entry["ids"], dtype=np.int64), question["teacher_vocab_size"])
        share = float(entry["covered_share"])
        if vocab.size != question["size"] or entry["checksum"] != _checksum(vocab.ids) or not 0 <= share <= 1:
            raise ValueError("its checksum does not fit its ids")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, UsageError) as error:
        warn(f"{path} is corrupt ({error}): the draft vocabulary is built anew")
        return None
    return BuiltVocab(vocab, share)


def _write_cache(path: Path, question: dict[str, Any], built: BuiltVocab) -> None:
    entry = question | {
        "covered_share": built.covered_share,
        "checksum": _checksum(built.vocab.ids),
        "ids": built.vocab.ids.tolist(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:  # no half of it is ever read
        partial.write_text(json.dumps(entry) + "\n", encoding="utf-8")
