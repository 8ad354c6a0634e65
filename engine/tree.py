"""Growing a draft tree from scores: the EAGLE-2 dynamic tree, as pure functions on small tensors.

Knows no model, cache or tokenizer. Candidates are numbered flat over all levels, in the order in which they were
proposed; ties are broken by that number, so that a child is never selected before its parent.

Letters: k top-k, R rows that propose, C candidates, M drafted nodes, N = M + 1 slots, V draft vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from specscope.tracer.errors import UsageError


@dataclass(frozen=True)
class TreePolicy:
    """How trees are grown."""

    kind: str  # dynamic, or none for teacher-only decoding
    depth: int  # deepest level, in edges from the root
    top_k: int  # children proposed by each frontier node, and nodes kept as the next frontier
    budget: int  # drafted nodes at most; the root is not one

    def __post_init__(self) -> None:
        for name, most in (("depth", 128), ("top_k", 1024), ("budget", 4096)):
            if self.kind != "none" and not 1 <= getattr(self, name) <= most:
                raise UsageError(f"got {name} {getattr(self, name)}, wanted 1 to {most}")


NO_TREE = TreePolicy("none", 0, 0, 0)


@dataclass(frozen=True)
class Level:
    """What one drafter forward proposed."""

    frontier: torch.Tensor  # (R,) flat numbers of the candidates that were fed; empty at the first level
    positions: torch.Tensor  # (R,) drafter positions of the rows that proposed
    parents: torch.Tensor  # (R,) flat number + 1 of each row's candidate; 0 is the root
    tokens: torch.Tensor  # (R, k) proposed teacher token ids, best first
    logprobs: torch.Tensor  # (R, k) given the row's candidate
    scores: torch.Tensor  # (R, k) sum of log-probabilities from the root
    all_finite: torch.Tensor  # () whether every score of the forward was finite


@dataclass(frozen=True)
class DraftTree:
    """A tree in slots: the root, then nodes with parents before children."""

    tokens: torch.Tensor  # (N,) teacher token ids; slot 0 is the pending token
    parents: torch.Tensor  # (N,) slots; parents[0] = 0
    depths: torch.Tensor  # (N,) edges from the root
    logprobs: torch.Tensor  # (N,) given the parent; 0 at the root
    scores: torch.Tensor  # (N,) sums from the root

    @property
    def num_slots(self) -> int:
        """Slots, the root included."""
        return self.tokens.numel()


def stable_topk(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the k best of the last dimension: score descending, then index ascending.

    ``torch.topk`` leaves ties open. Here each float32 score becomes an integer of the same order, the index its low
    half, so that all keys differ. ``scores`` must be float32 and finite or -inf.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal 0.0
    ordered = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(torch.int64)
    index = torch.arange(scores.shape[-1], device=scores.device)
    keys = ordered * 2**32 + (2**32 - 1 - index)
    return keys.topk(min(k, scores.shape[-1])).indices


def propose(
    logits: torch.Tensor, frontier: torch.Tensor, scores: torch.Tensor, positions: torch.Tensor, top_k: int
) -> Level:
    """The level that rows with ``logits`` (R, V) propose; ``scores`` (R,) are the rows' own.

    Tokens are still draft-vocabulary ids. ``frontier`` (R,) numbers the rows' candidates, or is empty for the root.
    """
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    all_finite = torch.isfinite(logprobs).all()
    best = stable_topk(torch.nan_to_num(logprobs, nan=-float("inf")), top_k)  # (R, k)
    # Rounding can lift a sure token a hair above 0, and a child above its parent.
    chosen = torch.nan_to_num(logprobs.gather(-1, best).clamp(max=0.0), nan=-float("inf"), neginf=-float("inf"))
    parents = frontier + 1 if frontier.numel() else torch.zeros(1, dtype=torch.int64, device=logits.device)
    return Level(frontier, positions, parents, best, chosen, scores[:, None] + chosen, all_finite)


def best_candidates(level: Level, top_k: int) -> torch.Tensor:
    """The level's own numbers (at most k) of the candidates that become the next frontier, best first."""
    return stable_topk(level.scores.flatten(), top_k)


def select_tree(levels: list[Level], pending_token: torch.Tensor, budget: int) -> DraftTree:
    """The best ``budget`` of all candidates as a tree, in flat order, under the root ``pending_token`` ().

    Cumulative scores never rise along a path and ties go to the lower number, so the selection holds the parent of
    each of its nodes.
    """
    scores = torch.cat([level.scores.flatten() for level in levels])  # (C,)
    logprobs = torch.cat([level.logprobs.flatten() for level in levels])
    tokens = torch.cat([level.tokens.flatten() for level in levels])
    parents = torch.cat([level.parents.repeat_interleave(level.tokens.shape[1]) for level in levels])
    sizes = torch.tensor([level.tokens.numel() for level in levels], device=scores.device)
    depths = torch.repeat_interleave(torch.arange(1, len(levels) + 1, device=scores.device), sizes)

    selected = stable_topk(scores, budget).sort().values  # (M,) flat numbers
    parent_numbers = parents[selected]  # flat number + 1, or 0
    slots = torch.searchsorted(selected, parent_numbers - 1) + 1
    parent_slots = torch.where(parent_numbers > 0, slots, 0)

    def with_root(root: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return torch.cat([root.reshape(1).to(values.dtype), values])

    zero = scores.new_zeros(())
    return DraftTree(
        tokens=with_root(pending_token, tokens[selected]),
        parents=with_root(zero, parent_slots),
        depths=with_root(zero, depths[selected]),
        logprobs=with_root(zero, logprobs[selected]),
        scores=with_root(zero, scores[selected]),
    )


def root_only(pending_token: torch.Tensor) -> DraftTree:
    """The tree without a drafted node: teacher-only decoding."""
    index = torch.zeros(1, dtype=torch.int64, device=pending_token.device)
    score = torch.zeros(1, dtype=torch.float32, device=pending_token.device)
    return DraftTree(pending_token.reshape(1), index, index, score, score)
