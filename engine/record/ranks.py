"""What each of several ranks decided, as sections of a step or of a failure."""

from __future__ import annotations

from specscope.engine.loop.phases import RankDecided
from specscope.schemas import RankDecisions


def rank_sections(ranks: list[RankDecided] | None) -> list[RankDecisions] | None:
    """One for each rank; None where one rank computed the step."""
    if ranks is None:
        return None
    return [
        RankDecisions(
            tree_digest=_shown(decided.tree),
            path_digest=None if decided.path is None else _shown(decided.path),
            emitted_digest=None if decided.emitted is None else _shown(decided.emitted),
        )
        for decided in ranks
    ]


def _shown(digest: int) -> str:
    """16 hexadecimal digits of a digest that came as int64."""
    return digest.to_bytes(8, "big", signed=True).hex()
