"""Whether several ranks that compute the same step decide the same: each says what it decided, by digests.

How numbers get from rank to rank is a seam of the phases. Trees are compared before the teacher's forward, which would
add up the partial sums of different slots, and outcomes before the next step. Knows no transformers.
"""

from __future__ import annotations

import numpy as np
import xxhash

from specscope.engine.loop.in_flight import StepInFlight
from specscope.engine.loop.phases import Exchange, RankDecided
from specscope.tracer.errors import ViolationError
from specscope.tracer.oracle.invariants.ranks import DECIDED

#: What a rank decides, in the order of the fields of ``RankDecided``.
DECISIONS = tuple(DECIDED.values())


class RanksDifferError(ViolationError):
    """Ranks that compute the same step decided otherwise."""


def exchange_trees(step: StepInFlight, exchange: Exchange) -> None:
    """Every rank's trees, as digests, into the rows.

    Raises:
        RanksDifferError: where they differ.
    """
    assert step.draft is not None
    tree, ours = step.draft.tree, []
    for row in step.rows:
        kept = slice(tree.num_slots[row.number])
        ours.append(digest_ids(tree.tokens[row.number][kept].tolist(), tree.parents[row.number][kept].tolist()))
    for theirs in exchange(ours):
        for row, digest in zip(step.rows, theirs, strict=True):
            row.ranks = [*(row.ranks or ()), RankDecided(digest)]
    parted = disagreement(step)
    if parted is not None:
        raise parted


def exchange_outcomes(step: StepInFlight, exchange: Exchange) -> RanksDifferError | None:
    """Every rank's accepted paths and emitted tokens, as digests, into the rows; what to raise, once the step is
    recorded, where they differ."""
    ours = []
    for row in step.rows:
        accepted = row.accepted
        ours += [digest_ids(accepted.path), digest_ids([*accepted.tokens, accepted.bonus_token])]
    of_ranks = exchange(ours)
    for number, row in enumerate(step.rows):
        row.ranks = [
            trees._replace(path=numbers[2 * number], emitted=numbers[2 * number + 1])
            for trees, numbers in zip(row.ranks or (), of_ranks, strict=True)
        ]
    return disagreement(step)


def disagreement(step: StepInFlight) -> RanksDifferError | None:
    """Names the first rank that differs from rank 0, and in what; None where none does. What ranks that have parted
    compute together is of no text: the run ends there."""
    for row in step.rows:
        ranks = row.ranks or []
        for rank, decided in enumerate(ranks):
            pairs = zip(DECISIONS, decided, ranks[0], strict=True)
            differing = next((says for says, theirs, first in pairs if theirs != first), None)
            if differing is not None:
                place = f"step {row.turn.step} of row {row.number}"
                return RanksDifferError(f"rank {rank} of {len(ranks)} {differing} than rank 0 in {place}")
    return None


def digest_ids(*lists: list[int]) -> int:
    """xxh3_64 over the numbers of all ``lists`` as little-endian int64, as a number that int64 holds."""
    digest = xxhash.xxh3_64()
    for numbers in lists:
        digest.update(np.array(numbers, dtype="<i8").tobytes())
    return int.from_bytes(digest.digest(), "big", signed=True)
