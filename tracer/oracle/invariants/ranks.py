"""Invariants of runs of several ranks: all of them compute the same step, and must decide the same."""

from __future__ import annotations

from collections.abc import Sequence

from specscope.schemas import RankDecisions
from specscope.tracer.oracle.invariants.base import Context, Invariant, present

#: What a rank decided, in the order of the phases: the first of them that differs is where the ranks parted.
DECIDED = {
    "tree_digest": "drafted another tree",
    "path_digest": "accepted another path",
    "emitted_digest": "emitted other tokens",
}


def disagreement(ranks: Sequence[RankDecisions]) -> str | None:
    """Which rank decided otherwise than rank 0, and what; None where all decided the same.

    Where they part in several decisions of a step, the first one counts. Of two ranks, no record tells which is right.
    """
    first = ranks[0]
    for field, says in DECIDED.items():
        wanted = getattr(first, field)
        others = [rank for rank, decided in enumerate(ranks) if getattr(decided, field) != wanted]
        if others:
            names = f"rank {others[0]}" if len(others) == 1 else f"ranks {', '.join(map(str, others))}"
            return f"{names} of {len(ranks)} {says} than rank 0: {getattr(ranks[others[0]], field)}, {wanted}"
    return None


def _agree(c: Context) -> str | None:
    ranks, parallel = present(c.step.ranks), c.manifest.tensor_parallel
    if not ranks or (parallel is not None and len(ranks) != parallel.world_size):
        wanted = "at least 1" if parallel is None else str(parallel.world_size)
        return f"got the decisions of {len(ranks)} ranks, wanted {wanted}"
    return disagreement(ranks)


RANKS: tuple[Invariant[Context], ...] = (
    Invariant(
        id="ranks.agree",
        statement="all ranks draft the same tree, accept the same path and emit the same tokens",
        check=_agree,
        needs=("ranks",),
        applies=lambda c: c.manifest.tensor_parallel is not None or c.step.ranks is not None,
        phase="accept",
    ),
)
