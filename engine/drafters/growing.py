"""From scores to a draft: the part of ``propose`` that every drafter that grows its trees shares.

Runs no model and touches no cache: a drafter hands in what it scored the roots with, and a function that scores more
rows. Where a row's output follows a grammar, what that forbids is not proposed, as long as it allows anything that the
drafter knows.

Letters: B rows of the batch, V draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from specscope.engine.drafters.base import Draft, DraftPairs, PathGuide, nothing_drafted, pending_tokens
from specscope.engine.drafters.draws import DraftSampler
from specscope.engine.host import moved
from specscope.engine.tree.grow import DraftTree, Expand, Forbidden, Frontier, Level, ToTeacher, grow, select_tree
from specscope.engine.tree.policy import TreePolicy


@dataclass(frozen=True, kw_only=True)
class ScoredRoots:
    """Where the rows' trees begin: the pending tokens, after the drafter has taken in the rows' pairs."""

    pairs: list[DraftPairs]  # one per row; the last token of each is the row's root
    logits: torch.Tensor  # (B, 1, V) at the roots
    positions: torch.Tensor  # (B, 1) drafter positions of the roots
    kv_before: list[int]  # pairs in the drafter's cache before these were fed
    kv_after: list[int]  # and after


#: From levels, the pending tokens (B,) and the policy to the tree.
SelectTree = Callable[[list[Level], torch.Tensor, TreePolicy], DraftTree]


def same_ids(tokens: torch.Tensor) -> torch.Tensor:
    """The teacher ids of a drafter that has the teacher's whole vocabulary: its own."""
    return tokens


def grow_draft(
    policy: TreePolicy,
    roots: ScoredRoots,
    expand: Expand,
    *,
    to_teacher: ToTeacher = same_ids,
    select: SelectTree = select_tree,
    sampler: DraftSampler | None = None,
    generators: list[torch.Generator] | None = None,
) -> Draft:
    """The draft that grows from ``roots``; ``expand`` scores the rows of each further level, and ``select`` takes the
    tree from all levels, under the pending tokens (B,).

    With a ``sampler`` and ``generators``, one per row, the proposals are drawn; else they are the best ones.

    Raises:
        UsageError: where a fixed tree is wider than the draft vocabulary.
    """
    if policy.kind == "none":
        return nothing_drafted(roots.pairs, roots.kv_before, roots.kv_after)
    draw = sampler.draw(generators) if sampler is not None and generators is not None else None
    levels = grow(
        policy,
        roots.logits,
        roots.positions,
        expand,
        to_teacher=to_teacher,
        draw=draw,
        forbidden=_forbidden(roots, to_teacher),
    )
    tree = select(levels, pending_tokens(roots.pairs), policy)
    num_candidates = sum(level.tokens[0].numel() for level in levels)  # the same in every row
    return Draft(
        tree=tree,
        pairs=roots.pairs,
        levels=levels,
        num_candidates=[num_candidates] * len(roots.pairs),
        kv_before=roots.kv_before,
        kv_after=roots.kv_after,
        child_probs=sampler.child_probs(levels, policy, tree, to_teacher) if sampler and draw else None,
    )


class ForbiddenProposals:
    """What the rows' grammars forbid of the proposals of one forward after another, the roots' first.

    Reads back from the device which rows were fed. After a path that is forbidden itself nothing is: it was proposed
    for want of others, and is never accepted.

    Args:
        guides: a row each; None where a row is free.
        ids: (V,) on the host, the teacher ids of the draft ids.
        device: of the drafter.
    """

    def __init__(self, guides: list[PathGuide | None], ids: NDArray[np.int64], device: torch.device) -> None:
        self._guides, self._ids, self._device = guides, ids, device
        self._paths: list[list[list[int]]] = [[[]] for _ in guides]  # of each row that was fed last, from the root

    def __call__(self, fed: Frontier | None) -> torch.Tensor:
        """(B, R, V) of the roots, or of the rows ``fed`` next; in no row all of it."""
        if fed is not None:
            frontiers = zip(self._paths, fed.parent_rows.tolist(), fed.tokens.tolist(), strict=True)
            self._paths = [
                [[*paths[row], token] for row, token in zip(rows, tokens, strict=True)]
                for paths, rows, tokens in frontiers
            ]
        forbidden = np.zeros((len(self._paths), len(self._paths[0]), len(self._ids)), dtype=np.bool_)
        for row, (guide, paths) in enumerate(zip(self._guides, self._paths, strict=True)):
            for number, path in enumerate(paths):
                allowed = guide.allowed_after(path) if guide is not None else None
                known = None if allowed is None else allowed[self._ids]
                if known is not None and known.any():
                    np.logical_not(known, out=forbidden[row, number])
        return moved(torch.from_numpy(forbidden), self._device)


def _forbidden(roots: ScoredRoots, to_teacher: ToTeacher) -> Forbidden | None:
    """What the grammars of the rows forbid; None where all are free."""
    guides = [pairs.guide for pairs in roots.pairs]
    if all(guide is None for guide in guides):
        return None
    device = roots.logits.device
    ids = to_teacher(torch.arange(roots.logits.shape[2], device=device))
    return ForbiddenProposals(guides, ids.cpu().numpy(), device)
