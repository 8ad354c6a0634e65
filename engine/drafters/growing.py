"""From scores to a draft: the part of ``propose`` that every drafter that grows its trees shares.

Runs no model and touches no cache: a drafter hands in what it scored the roots with, and a function that scores more
rows. Where a row's output follows a grammar, what that forbids is not proposed, as long as it allows anything that the
drafter knows.

Letters: B rows of the batch, V draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from specscope.engine.drafters.base import Draft, DraftPairs, PathGuide, nothing_drafted, pending_tokens
from specscope.engine.drafters.draws import DraftSampler
from specscope.engine.tree.grow import DraftTree, Expand, Frontier, Level, ToTeacher, grow, select_tree
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
    logits, guides = roots.logits, [pairs.guide for pairs in roots.pairs]
    if any(guide is not None for guide in guides):
        guided = GuidedScores(guides, to_teacher)
        logits, expand = guided.at_roots(logits), guided.behind(expand)
    levels = grow(policy, logits, roots.positions, expand, to_teacher=to_teacher, draw=draw)
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


class GuidedScores:
    """A drafter's scores without what its rows' grammars forbid, one forward after another, the roots' first.

    Reads back from the device which rows were fed. A path that is forbidden itself keeps its scores: it was proposed
    for want of others.

    Args:
        guides: a row each; None where a row is free.
        to_teacher: teacher ids of draft ids.
    """

    def __init__(self, guides: list[PathGuide | None], to_teacher: ToTeacher) -> None:
        self._guides, self._to_teacher = guides, to_teacher
        self._paths: list[list[list[int]]] = [[[]] for _ in guides]  # of each row that was fed last, from the root

    def at_roots(self, logits: torch.Tensor) -> torch.Tensor:
        """``logits`` (B, 1, V) with -inf for what is forbidden."""
        return self._without_forbidden(logits)

    def behind(self, expand: Expand) -> Expand:
        """The same of what ``expand`` gives."""

        def guided(frontier: Frontier) -> torch.Tensor:
            logits = expand(frontier)
            fed = zip(self._paths, frontier.parent_rows.tolist(), frontier.tokens.tolist(), strict=True)
            self._paths = [
                [[*paths[row], token] for row, token in zip(rows, tokens, strict=True)] for paths, rows, tokens in fed
            ]
            return self._without_forbidden(logits)

        return guided

    def _without_forbidden(self, logits: torch.Tensor) -> torch.Tensor:
        ids = self._to_teacher(torch.arange(logits.shape[2], device=logits.device)).cpu().numpy()
        forbidden = torch.zeros(logits.shape, dtype=torch.bool)
        for row, (guide, paths) in enumerate(zip(self._guides, self._paths, strict=True)):
            for number, path in enumerate(paths):
                allowed = guide.allowed_after(path) if guide is not None else None
                if allowed is not None and allowed[ids].any():
                    forbidden[row, number] = torch.from_numpy(~allowed[ids])
        return logits.masked_fill(forbidden.to(logits.device), -torch.inf)
