"""Random calls of an attention kernel, as verifying and drafting trees make them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from specscope.engine.tree.tensors import mask_behind


@st.composite
def calls(draw: st.DrawFn) -> tuple[torch.Tensor, ...]:
    """(query, key, value, mask): random visibility in which every row sees itself or a committed key, as trees have."""
    rows, batch, kv_heads, group, width = (draw(st.integers(1, most)) for most in (12, 3, 3, 3, 9))
    lengths = draw(st.lists(st.integers(0, 40), min_size=batch, max_size=batch))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    keys = rows + draw(st.integers(0, 3))  # while drafting, more nodes are there than ask
    seen = torch.rand(batch, rows, keys, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    seen[:, torch.arange(rows), torch.arange(rows) + keys - rows] = True
    mask = mask_behind(lengths, seen, torch.float64)

    def noise(heads: int, length: int) -> torch.Tensor:
        return torch.randn(batch, heads, length, width, generator=generator, dtype=torch.float64)

    return noise(kv_heads * group, rows), noise(kv_heads, mask.shape[3]), noise(kv_heads, mask.shape[3]), mask
