"""Nodes across runs: path keys instead of slots, so that two runs may number the same tree differently."""

from __future__ import annotations

from functools import cached_property

from specscope.schemas import Step
from specscope.tracer.invariants.structure import columns

#: Tokens from below the root to the node, each with its rank among equal siblings (0 in an honest tree).
PathKey = tuple[tuple[int, int], ...]
ROOT: PathKey = ()


def key_tokens(key: PathKey) -> list[int]:
    """The tokens of a path key."""
    return [token for token, _ in key]


class StepNodes:
    """A step whose slots are addressed by path key."""

    def __init__(self, step: Step) -> None:
        self.step = step

    @cached_property
    def keys(self) -> list[PathKey]:
        """Per slot, its path key."""
        tree = self.step.tree
        if tree is None:
            return []
        keys: list[PathKey] = [ROOT]
        ranks: dict[tuple[PathKey, int], int] = {}
        for slot in range(1, len(tree.tokens)):
            parent = tree.parents[slot] if slot < len(tree.parents) else len(tree.tokens)  # none: no slot either
            above = keys[parent] if 0 <= parent < slot else ((parent, 1),)  # no slot: keep it apart from all others
            token = tree.tokens[slot]
            rank = ranks[above, token] = ranks.get((above, token), -1) + 1
            keys.append((*above, (token, rank)))
        return keys

    @cached_property
    def slots(self) -> dict[PathKey, int]:
        """Path key to slot."""
        return {key: slot for slot, key in enumerate(self.keys)}

    def key_of(self, slot: int) -> PathKey | None:
        """The key of ``slot``; None where there is no such slot."""
        return self.keys[slot] if 0 <= slot < len(self.keys) else None

    @cached_property
    def visible(self) -> dict[PathKey, frozenset[PathKey | int]]:
        """Per real slot, the keys of the slots that it sees; a padding column stands as its number."""
        tensors = self.step.tensors
        if tensors is None:
            return {}
        rows = {}
        for key, text in zip(self.keys, tensors.mask_rows, strict=False):
            row = int.from_bytes(bytes.fromhex(text), "little")
            rows[key] = frozenset(self.keys[c] if c < len(self.keys) else c for c in columns(row))
        return rows

    @cached_property
    def candidates(self) -> dict[PathKey, float]:
        """Every candidate that the drafter proposed, with its cumulative score; none where it has no levels."""
        draft = self.step.draft
        if draft is None:
            return {}
        numbered: list[PathKey] = []
        scores: dict[PathKey, float] = {}
        for level in draft.levels or []:
            rows = [numbered[n] if 0 <= n < len(numbered) else ROOT for n in level.frontier] or [ROOT]
            width = max(1, len(level.tokens) // len(rows))
            proposed = []
            for at, (token, logprob) in enumerate(zip(level.tokens, level.logprobs, strict=False)):
                above = rows[min(at // width, len(rows) - 1)]
                key = (*above, (token, 0))
                proposed.append(key)
                scores[key] = scores.get(above, 0.0) + logprob
            numbered += proposed
        return scores

    @cached_property
    def frontiers(self) -> list[list[PathKey]]:
        """Per level, the keys of the candidates that were fed."""
        draft = self.step.draft
        if draft is None:
            return []
        numbered: list[PathKey] = []
        frontiers = []
        for level in draft.levels or []:
            rows = [numbered[n] if 0 <= n < len(numbered) else ROOT for n in level.frontier] or [ROOT]
            frontiers.append(rows)
            width = max(1, len(level.tokens) // len(rows))
            numbered += [(*rows[min(at // width, len(rows) - 1)], (token, 0)) for at, token in enumerate(level.tokens)]
        return frontiers
