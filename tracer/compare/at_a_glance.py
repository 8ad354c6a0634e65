"""The floats of two steps that number their nodes and candidates alike, as nearly all pairs do: lists against lists.

Each function is certain, or gives None: then the nodes are looked at one by one, which finds the same in other order.
"""

from __future__ import annotations

import math
from typing import Literal

from specscope.schemas import DraftLevel, VerifySection
from specscope.tracer.compare.nodes import StepNodes, numbered_alike
from specscope.tracer.compare.said import EqualLists
from specscope.tracer.files.candidates import CandidateRow


def verify_lists(a: StepNodes, b: StepNodes) -> list[EqualLists] | None:
    """What the teacher said at every slot: logits of the same tokens, their sum, entropy. None where it chose other
    tokens somewhere, where a list has another length than the slots, or where a number is not finite."""
    ours, theirs, count = a.step.verify, b.step.verify, a.num_slots
    if ours is None or theirs is None or not count or not numbered_alike(a, b):
        return None
    widths = None if ours.top_tokens is None else list(map(len, ours.top_tokens))
    if widths is None or not _chose_alike(ours, theirs, count):
        return None
    if not all(_is_whole(verify, widths, count) for verify in (ours, theirs)):
        return None
    sizes = _sizes_at(ours, theirs)
    lists = [_logits(ours, theirs, sizes, widths)]
    if ours.logsumexp is not None and theirs.logsumexp is not None:
        lists.append(_of_slots("logsumexp", ours.logsumexp, theirs.logsumexp, sizes))
    if ours.entropy is not None and theirs.entropy is not None:
        lists.append(_of_slots("entropy", ours.entropy, theirs.entropy, sizes))
    return lists


def _logits(a: VerifySection, b: VerifySection, sizes: list[float], widths: list[int]) -> EqualLists:
    return EqualLists(
        quantity="logits",
        field="top_logits",
        a=_flat(a),
        b=_flat(b),
        least_size=min(sizes),
        made_of=lambda: [size for size, width in zip(sizes, widths, strict=True) for _ in range(width)],
    )


def _of_slots(
    quantity: Literal["logsumexp", "entropy"], a: list[float], b: list[float], sizes: list[float]
) -> EqualLists:
    return EqualLists(quantity=quantity, field=quantity, a=a, b=b, least_size=min(sizes), made_of=lambda: sizes)


def _chose_alike(a: VerifySection, b: VerifySection, count: int) -> bool:
    """Whether both name the same tokens at every slot, and nothing else that is compared there differs."""
    same_windows = None in (a.windows, b.windows) or a.windows == b.windows
    same_finite = (
        a.nonfinite_slots is None or b.nonfinite_slots is None or set(a.nonfinite_slots) == set(b.nonfinite_slots)
    )
    same_best = len(a.argmax) == count and a.argmax == b.argmax and a.top_tokens == b.top_tokens
    return same_windows and same_finite and same_best


def _is_whole(verify: VerifySection, widths: list[int], count: int) -> bool:
    """Whether every slot has as many logits as tokens, and a sum and an entropy where any has; no log-probabilities."""
    logits, sums, entropy = verify.top_logits, verify.logsumexp, verify.entropy
    if logits is None or len(widths) != count or 0 in widths or list(map(len, logits)) != widths:
        return False
    if any(values is not None and len(values) != count for values in (sums, entropy)):
        return False
    finite = math.isfinite(sum(map(abs, _flat(verify)))) and math.isfinite(sum(map(abs, sums or ())))
    return finite and (sums is None or 0 not in sums)


def _sizes_at(a: VerifySection, b: VerifySection) -> list[float]:
    """Per slot, the size of the logits as far as it is known: that of the best, or of their sum."""
    columns = [[logits[0] for logits in verify.top_logits or ()] for verify in (a, b)]
    columns += [verify.logsumexp for verify in (a, b) if verify.logsumexp is not None]
    return list(map(max, *(map(abs, column) for column in columns)))


def _flat(verify: VerifySection) -> list[float]:
    return [logit for logits in verify.top_logits or () for logit in logits]


def level_lists(a: StepNodes, b: StepNodes) -> list[EqualLists] | None:
    """The scores of every candidate, level by level. None where the drafters were fed or proposed other candidates
    somewhere or in other order, where a token was proposed twice, or a candidate of an earlier level was fed."""
    ours = a.step.draft.levels if a.step.draft is not None else None
    theirs = b.step.draft.levels if b.step.draft is not None else None
    if ours is None or theirs is None or len(ours) != len(theirs) or a.rows is None or b.rows is None:
        return None
    if not all(map(_same_level, ours, theirs)) or not _is_plain(a.rows, ours):
        return None
    widths: list[list[int]] = [[] for _ in ours]
    for row in a.rows:
        widths[row.level].append(row.stop - row.start)
    pairs = zip(widths, ours, theirs, strict=True)
    return [_scores(a, b, x, y, level=number, widths=fed) for number, (fed, x, y) in enumerate(pairs, start=1)]


def _scores(a: StepNodes, b: StepNodes, x: DraftLevel, y: DraftLevel, *, level: int, widths: list[int]) -> EqualLists:
    return EqualLists(
        quantity="draft-scores",
        field="scores",
        a=x.logprobs,
        b=y.logprobs,
        least_size=max(a.least_in_level(x, len(widths)), b.least_in_level(y, len(widths))),
        made_of=lambda: list(map(max, a.logit_sizes(x, widths), b.logit_sizes(y, widths))),
        level=level,
    )


def _same_level(a: DraftLevel, b: DraftLevel) -> bool:
    same_rows = a.frontier == b.frontier and set(a.positions) == set(b.positions)
    return same_rows and a.tokens == b.tokens and a.finite == b.finite


def _is_plain(rows: list[CandidateRow], levels: list[DraftLevel]) -> bool:
    """Whether every row was fed another candidate of the level before, the first one the root, and proposed no token
    twice."""
    starts = [0, 0]  # of the level before, and of this one: the number of its first candidate
    fed: set[int | None] = set()
    for number, level in enumerate(levels):
        if number and not (level.frontier and starts[-2] <= min(level.frontier)):
            return False
        starts.append(starts[-1] + len(level.tokens))
    for row in rows:
        tokens = levels[row.level].tokens[row.start : row.stop]
        if row.parent in fed or len(set(tokens)) != len(tokens):
            return False
        fed.add(row.parent)
    return True
