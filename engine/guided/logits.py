"""The teacher's logits without what a grammar forbids.

Letters: B rows of the batch, P padded slots, N slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from specscope.engine.guided.walk import SlotMasks


def forbid(logits: torch.Tensor, masks: Sequence[SlotMasks | None]) -> torch.Tensor:
    """``logits`` (B, P, V) with -inf for what each row's masks do not allow; a row of None stays as it is."""
    forbidden = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    for row, of_row in enumerate(masks):
        if of_row is not None:
            forbidden[row, of_row.slots] = torch.from_numpy(~of_row.allowed).to(logits.device)
    return logits.masked_fill(forbidden, -torch.inf)


def forbid_next(logits: torch.Tensor, allowed: NDArray[np.bool_]) -> torch.Tensor:
    """``logits`` (V,) with -inf for what is not ``allowed`` (V,)."""
    return logits.masked_fill(torch.from_numpy(~allowed).to(logits.device), -torch.inf)


def applied(before: NDArray[np.floating], after: NDArray[np.floating], allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N, V) the tokens that logits (N, V) really allow, seen from what was done to them.

    A token that had no finite logit ``before`` cannot tell: of it stands what is ``allowed`` (N, V).
    """
    seen: NDArray[np.bool_] = np.where(np.isfinite(before), np.isfinite(after), allowed)
    return seen
