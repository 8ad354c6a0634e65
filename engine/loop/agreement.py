"""Whether several ranks that compute the same step decide the same: each says what it decided, by digests.

How numbers get from rank to rank is a seam of the phases. Trees are compared before the teacher's forward, which would
add up the partial sums of different slots, and outcomes before the next step. Knows no transformers.
"""

from __future__ import annotations

from specscope.engine.loop.in_flight import StepInFlight
from specscope.engine.loop.phases import Exchange, RankDecided
from specscope.tracer.errors import ViolationError
from specscope.tracer.oracle.invariants.ranks import digest_ids, parting


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
        ours.append(digest_number(tree.tokens[row.number][kept].tolist(), tree.parents[row.number][kept].tolist()))
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
        ours += [digest_number(accepted.path), digest_number([*accepted.tokens, accepted.bonus_token])]
    of_ranks = exchange(ours)
    for number, row in enumerate(step.rows):
        row.ranks = [
            trees._replace(path=numbers[2 * number], emitted=numbers[2 * number + 1])
            for trees, numbers in zip(row.ranks or (), of_ranks, strict=True)
        ]
    return disagreement(step)


def disagreement(step: StepInFlight) -> RanksDifferError | None:
    """Names the ranks that differ from rank 0, and in what; None where none does. What ranks that have parted compute
    together is of no text: the run ends there."""
    for row in step.rows:
        parted = parting(row.ranks) if row.ranks else None
        if parted is not None:
            return RanksDifferError(f"{parted.says} in step {row.turn.step} of row {row.number}")
    return None


def digest_number(*lists: list[int]) -> int:
    """The digest of ``lists``, as a number that int64 holds: ranks exchange tensors."""
    return int.from_bytes(bytes.fromhex(digest_ids(*lists)), "big", signed=True)
