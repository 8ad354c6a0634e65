"""The ranks of a run in words."""

from __future__ import annotations

from specscope.schemas import TensorParallel


def ranks_text(parallel: TensorParallel) -> str:
    """``2 ranks that divide the teacher, sums carried by gloo, acceptance replicated``."""
    return (
        f"{parallel.world_size} ranks that divide the teacher, sums carried by {parallel.backend}, acceptance "
        f"{parallel.acceptance}"
    )
