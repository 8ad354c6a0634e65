"""What one stage computes: its layers over rows at consecutive positions, on its own keys and values.

Letters: P positions, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.teacher.model import CACHE_CAPACITY, Teacher
from specscope.engine.tree.tensors import causal_mask


def as_it_is(rows: torch.Tensor) -> torch.Tensor:
    """Rows that lie where the stage computes."""
    return rows


def at_once() -> None:
    """What the processor was given is done when the call returns."""


class Stage:
    """Some layers of a teacher, and what they keep.

    Args:
        part: the teacher with these layers alone.
        layers: their numbers in the whole teacher.
        bring: rows of a message to where the stage computes.
        finish: waits until all that was given to the stage's device is done.
    """

    def __init__(
        self,
        part: Teacher,
        layers: range,
        *,
        bring: Callable[[torch.Tensor], torch.Tensor] = as_it_is,
        finish: Callable[[], None] = at_once,
    ) -> None:
        self.part = part
        self.layers = layers
        self.bring, self._finish = bring, finish
        self.cache = TreeCache(len(layers), CACHE_CAPACITY)

    @property
    def length(self) -> int:
        """Positions that it keeps."""
        return self.cache.committed_lengths[0]

    def cut(self, length: int) -> None:
        """Keeps the first ``length`` positions."""
        self.cache.truncate(0, length)

    def embed(self, token_ids: list[int]) -> torch.Tensor:
        """(1, P, H) of the tokens; the first stage's alone."""
        ids = torch.tensor([token_ids], device=self.part.device)
        embedded: torch.Tensor = self.part.embedding(ids)
        return embedded

    def run(self, hidden: torch.Tensor) -> torch.Tensor:
        """(1, P, H) of ``hidden`` (1, P, H) after its layers, at the positions after those that it keeps. Finished: the
        rows may be sent, those that came in written over, and the time be noted."""
        start, count = self.length, hidden.shape[1]
        positions = torch.arange(start, start + count, device=hidden.device)[None]
        # A single row sees all that is kept and itself: the mask that takes six operations hides nothing.
        if count == 1:
            mask = hidden.new_zeros(1, 1, 1, start + 1)
        else:
            mask = causal_mask(count, start, hidden.dtype, hidden.device)
        hidden = self.part.run_layers(hidden, positions, mask, self.cache, layers=range(len(self.layers)))
        self.cache.commit_length([count])
        self._finish()
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(V,) of the last row of ``hidden`` (1, P, H); the last stage's alone."""
        return self.part.head(hidden[:, -1:])[0, -1]

    @property
    def num_bytes(self) -> int:
        """Of its weights."""
        return sum(p.numel() * p.element_size() for p in self.part.model.parameters())
