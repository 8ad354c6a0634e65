"""Trees for tests: from plain lists, and random ragged batches."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from specscope.engine.tree.grow import DraftTree


def batch_of(rows: list[tuple[list[int], list[int]]]) -> DraftTree:
    """Trees of the given tokens and parents, padded to the longest as the engine pads them."""
    longest = max(len(tokens) for tokens, _ in rows)
    tokens, parents, depths = (torch.zeros(len(rows), longest, dtype=torch.int64) for _ in range(3))
    for row, (own_tokens, own_parents) in enumerate(rows):
        tokens[row] = own_tokens[0]
        for slot, (token, parent) in enumerate(zip(own_tokens, own_parents, strict=True)):
            tokens[row, slot], parents[row, slot] = token, parent
            depths[row, slot] = depths[row, parent] + 1 if slot else 0
    values = torch.zeros(len(rows), longest)
    return DraftTree(
        tokens=tokens,
        parents=parents,
        depths=depths,
        logprobs=values,
        scores=values,
        num_slots=[len(t) for t, _ in rows],
    )


@st.composite
def ragged_trees(draw: st.DrawFn, max_rows: int = 3, max_slots: int = 24, vocab: int = 90) -> DraftTree:
    """A batch of random trees with distinct siblings, of unlike sizes."""
    rows = []
    for _ in range(draw(st.integers(1, max_rows))):
        parents, tokens = [0], [draw(st.integers(0, vocab - 1))]
        taken: set[tuple[int, int]] = set()
        for slot in range(1, draw(st.integers(1, max_slots))):
            parent, token = draw(st.integers(0, slot - 1)), draw(st.integers(0, vocab - 1))
            while (parent, token) in taken:
                token = (token + 1) % vocab
            taken.add((parent, token))
            parents.append(parent)
            tokens.append(token)
        rows.append((tokens, parents))
    return batch_of(rows)
