"""Invariants of runs of several ranks: all of them compute the same step, and must decide the same.

The engine compares its ranks here as well, before they go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import xxhash

from specscope.schemas import RankDecisions
from specscope.tracer.oracle.invariants.base import Context, Invariant, present


class Decision(NamedTuple):
    """One of the things that a rank decides in a step."""

    field: str  # of ``RankDecisions``
    parted: str  # what a rank did that differs in it
    recorded: str  # what of the record is the same decision


#: In the order of the phases: the first of them that differs is where the ranks parted.
DECISIONS = (
    Decision("tree_digest", "drafted another tree", "tree"),
    Decision("path_digest", "accepted another path", "accept.path"),
    Decision("emitted_digest", "emitted other tokens", "accepted tokens with the bonus token"),
)


class Parting(NamedTuple):
    """Where ranks decided otherwise than rank 0. Which of them is right, no record tells."""

    says: str  # which of the ranks, and what they did
    theirs: object  # what the first of them decided
    wanted: object  # what rank 0 decided


def parting(ranks: Sequence[Sequence[object]]) -> Parting | None:
    """The first decision in which a rank differs from rank 0; None where all decided the same.

    Args:
        ranks: of each rank, what it decided, in the order of ``DECISIONS``.
    """
    for number, decision in enumerate(DECISIONS):
        wanted = ranks[0][number]
        others = [rank for rank, decided in enumerate(ranks) if decided[number] != wanted]
        if others:
            names = f"rank {others[0]}" if len(others) == 1 else f"ranks {', '.join(map(str, others))}"
            says = f"{names} of {len(ranks)} {decision.parted} than rank 0"
            return Parting(says, ranks[others[0]][number], wanted)
    return None


def disagreement(ranks: Sequence[RankDecisions]) -> str | None:
    """The same of recorded digests, in words."""
    parted = parting([[getattr(decided, decision.field) for decision in DECISIONS] for decided in ranks])
    return parted and f"{parted.says}: {parted.theirs}, {parted.wanted}"


def digest_ids(*lists: Sequence[int]) -> str:
    """xxh3_64 over the numbers of all ``lists`` as little-endian int64, in hexadecimal."""
    digest = xxhash.xxh3_64()
    for numbers in lists:
        digest.update(b"".join((number % 2**64).to_bytes(8, "little") for number in numbers))
    return digest.hexdigest()


def _agree(c: Context) -> str | None:
    ranks, parallel = present(c.step.ranks), c.manifest.tensor_parallel
    if not ranks or (parallel is not None and len(ranks) != parallel.world_size):
        wanted = "at least 1" if parallel is None else str(parallel.world_size)
        return f"got the decisions of {len(ranks)} ranks, wanted {wanted}"
    return disagreement(ranks)


def _recorded(c: Context) -> str | None:
    """Rank 0 writes the trace."""
    ranks, tree, accept = present(c.step.ranks), present(c.step.tree), present(c.step.accept)
    if not ranks:
        return None  # ranks.agree says so
    recorded = {"tree_digest": digest_ids(tree.tokens, tree.parents), "path_digest": digest_ids(accept.path)}
    if all(0 <= slot < len(tree.tokens) for slot in accept.path):  # else an invariant of the path is violated
        tokens = [*(tree.tokens[slot] for slot in accept.path), accept.bonus_token]
        recorded["emitted_digest"] = digest_ids(tokens)
    for decision in DECISIONS:
        given, digest = getattr(ranks[0], decision.field), recorded.get(decision.field)
        if digest is not None and given is not None and given != digest:
            return f"rank 0 decided {given}, and the recorded {decision.recorded} has the digest {digest}"
    return None


def _has_ranks(c: Context) -> bool:
    return c.manifest.tensor_parallel is not None or c.step.ranks is not None


RANKS: tuple[Invariant[Context], ...] = (
    Invariant(
        id="ranks.agree",
        statement="all ranks draft the same tree, accept the same path and emit the same tokens",
        check=_agree,
        needs=("ranks",),
        applies=_has_ranks,
        phase="accept",
    ),
    Invariant(
        id="ranks.recorded",
        statement="the recorded tree, path and accepted tokens are those that rank 0 decided",
        check=_recorded,
        needs=("ranks", "tree", "accept", "ids_as_decoded"),
        applies=_has_ranks,
        phase="accept",
    ),
)
