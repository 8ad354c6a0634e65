"""Growing draft trees from scores, as pure functions on small tensors, for all rows of a batch at once.

Knows no model, cache or tokenizer. Candidates are numbered flat over all levels, in the order in which they were
proposed; ties are broken by that number, so that a child is never selected before its parent. Nothing here waits for
the device: how many candidates there are follows from the policy alone.

Letters: B rows of the batch, k proposals per row, R frontier rows, C candidates, M drafted nodes, N = M + 1 slots,
V draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from specscope.engine.host import lies_on_host, moved, sent
from specscope.engine.tree.policy import TreePolicy
from specscope.schemas import StepCosts
from specscope.tracer.errors import UsageError
from specscope.tracer.goodput import LevelMass, TreeSize, best_size, with_another_level


@dataclass(frozen=True, kw_only=True)
class Level:
    """What one drafter forward proposed."""

    frontier: torch.Tensor  # (B, R) flat numbers of the candidates that were fed; (B, 0) at the first level
    positions: torch.Tensor  # (B, R) drafter positions of the rows that proposed
    parents: torch.Tensor  # (B, R) flat number + 1 of each row's candidate; 0 is the root
    tokens: torch.Tensor  # (B, R, k) proposed teacher token ids, best first
    logprobs: torch.Tensor  # (B, R, k) given the row's candidate
    scores: torch.Tensor  # (B, R, k) sum of log-probabilities from the root
    all_finite: torch.Tensor  # (B,) whether every score of the forward was finite
    logsumexp: torch.Tensor | None = None  # (B, R) of the logits that the log-probabilities are of
    probs: torch.Tensor | None = None  # (B, R, V) what the proposals were drawn from; None where they are the best
    perturbed: torch.Tensor | None = None  # (B, R, k) what ranked proposals that were drawn


@dataclass(frozen=True, kw_only=True)
class Proposers:
    """Which of several drafters proposed each slot of a tree."""

    names: tuple[str, ...]  # by the number of their bit
    bits: torch.Tensor  # (B, N) int64: bit i is of ``names[i]``; 0 at the root and at padding


@dataclass(frozen=True, kw_only=True)
class DraftTree:
    """Trees in slots: the root, then nodes with parents before children, then padding (root token, parent 0)."""

    tokens: torch.Tensor  # (B, N) teacher token ids; slot 0 is the pending token
    parents: torch.Tensor  # (B, N) slots; parents[:, 0] = 0
    depths: torch.Tensor  # (B, N) edges from the root
    logprobs: torch.Tensor  # (B, N) given the parent; 0 at the root
    scores: torch.Tensor  # (B, N) sums from the root
    num_slots: list[int]  # real slots of each row, the root included
    proposers: Proposers | None = None  # None where one drafter proposed them all


class Frontier(NamedTuple):
    """What a drafter is fed to make the next level."""

    parent_rows: torch.Tensor  # (B, R) rows of the forward before that proposed these tokens
    tokens: torch.Tensor  # (B, R) teacher token ids
    positions: torch.Tensor  # (B, R) drafter positions
    seen: torch.Tensor  # (B, R, W) bool: which of the W tree rows fed so far, these included, each of them sees


Expand = Callable[[Frontier], torch.Tensor]  # to logits (B, R, V) over the draft vocabulary
#: Of the roots (None), or of a frontier: (B, R, V) bool, what may not be proposed; in no row all of it.
Forbidden = Callable[[Frontier | None], torch.Tensor]
ToTeacher = Callable[[torch.Tensor], torch.Tensor]  # draft ids to teacher ids, any shape


class Draw(NamedTuple):
    """How proposals are drawn instead of taken best first: without replacement, by perturbing log-probabilities."""

    temperature: float
    noise: Callable[[int, int], torch.Tensor]  # (R, V) -> (B, R, V) standard Gumbel


LEAST_SHARE = 64  # of a row, per search, from which searching is faster than sorting
FEW = 1024  # scores in a row up to which sorting them all is fastest


def stable_topk(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the k best of the last dimension: score descending, then index ascending.

    ``torch.topk`` leaves ties open. ``scores`` must be float32 and finite or -inf.
    """
    if lies_on_host(scores):
        if scores.shape[-1] <= FEW:
            return _few_sorted(scores, k)
        if 0 < k * LEAST_SHARE <= scores.shape[-1]:
            searched = _searched_topk(scores, k)
            if searched is not None:
                return searched
    return sorted_topk(scores, k)


def _few_sorted(scores: torch.Tensor, k: int) -> torch.Tensor:
    """The same by one stable sort of numpy's, which takes no longer than one of torch's calls."""
    order = np.argsort(-scores.numpy(), axis=-1, kind="stable")
    return torch.from_numpy(order[..., :k])


def _searched_topk(scores: torch.Tensor, k: int) -> torch.Tensor | None:
    """The same by looking for the best k times: numpy finds it so fast that this takes a fraction of the time. None
    where -inf is among the best, which a search cannot tell from what it took out.
    """
    left = scores.numpy().copy()
    flat = left.reshape(-1, left.shape[-1])
    rows, best = np.arange(len(flat)), []
    for _ in range(min(k, flat.shape[1])):
        best.append(flat.argmax(axis=1))  # the first of equal ones
        if np.isneginf(flat[rows, best[-1]]).any():
            return None
        flat[rows, best[-1]] = -np.inf
    return torch.from_numpy(np.stack(best, axis=1)).reshape(*scores.shape[:-1], len(best))


def sorted_topk(scores: torch.Tensor, k: int) -> torch.Tensor:
    """``stable_topk`` on any device, for any k: each float32 score becomes an integer of the same order, the index its
    low half, so that all keys differ.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal 0.0
    ordered = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(torch.int64)
    index = torch.arange(scores.shape[-1], device=scores.device)
    keys = ordered * 2**32 + (2**32 - 1 - index)
    return keys.topk(min(k, scores.shape[-1])).indices


def propose(
    logits: torch.Tensor,
    frontier: torch.Tensor,
    scores: torch.Tensor,
    positions: torch.Tensor,
    width: int,
    draw: Draw | None = None,
    forbidden: torch.Tensor | None = None,
) -> Level:
    """The level that rows with ``logits`` (B, R, V) propose; ``scores`` (B, R) are the rows' own.

    Tokens are still draft-vocabulary ids. ``frontier`` (B, R) numbers the rows' candidates; (B, 0) is the root. With
    ``draw``, the order of perturbed log-probabilities is that of drawing one after another without replacement (Kool
    et al. 2019, Gumbel-top-k). What is ``forbidden`` (B, R, V) has no probability: it is proposed for want of others.
    """
    logits = logits.float() if draw is None else logits.float() / draw.temperature
    given = logits
    if forbidden is not None:
        logits = logits.masked_fill(forbidden, -torch.inf)
    logprobs = torch.log_softmax(logits, dim=-1)
    # Log-probabilities are never +inf; what is forbidden has -inf, whatever its score was.
    finite = torch.isfinite((logprobs if forbidden is None else given).amin(dim=-1))
    if forbidden is not None:
        finite &= torch.isfinite(logprobs.amax(dim=-1))
    all_finite = finite.all(dim=1)
    ranked = (
        logprobs
        if draw is None
        else logprobs + moved(draw.noise(*logits.shape[1:]).to(logprobs.dtype), logprobs.device)
    )
    best = stable_topk(torch.nan_to_num(ranked, nan=-float("inf")), width)  # (B, R, k)
    # Rounding can lift a sure token a hair above 0, and a child above its parent.
    plain = logprobs.gather(-1, best)
    chosen = torch.nan_to_num(plain.clamp(max=0.0), nan=-float("inf"), neginf=-float("inf"))
    parents = frontier + 1 if frontier.shape[1] else frontier.new_zeros(len(frontier), 1)
    sums = scores[:, :, None] + chosen
    drawn = draw is not None
    return Level(
        frontier=frontier,
        positions=positions,
        parents=parents,
        tokens=best,
        logprobs=chosen,
        scores=sums,
        all_finite=all_finite,
        logsumexp=(logits.gather(-1, best[..., :1]) - plain[..., :1])[..., 0],
        probs=logprobs.exp() if drawn else None,
        perturbed=ranked.gather(-1, best) if drawn else None,
    )


def grow(
    policy: TreePolicy,
    root_logits: torch.Tensor,
    root_positions: torch.Tensor,
    expand: Expand,
    *,
    to_teacher: ToTeacher,
    draw: Draw | None = None,
    forbidden: Forbidden | None = None,
) -> list[Level]:
    """All levels of proposals below the pending tokens, whose logits (B, 1, V) and drafter positions (B, 1) are given.

    Raises:
        UsageError: where a fixed tree is wider than the draft vocabulary.
    """
    num_rows, device = len(root_logits), root_logits.device
    if policy.is_fixed and root_logits.shape[-1] < policy.top_k:
        raise UsageError(f"the tree wants {policy.top_k} children, the draft vocabulary has {root_logits.shape[-1]}")

    def level(fed: Frontier | None, logits: torch.Tensor, frontier: torch.Tensor, scores: torch.Tensor) -> Level:
        proposed = propose(
            logits,
            frontier=frontier,
            scores=scores,
            positions=root_positions if fed is None else fed.positions,
            width=_width(policy, len(levels)),
            draw=draw,
            forbidden=None if forbidden is None else forbidden(fed),
        )
        return replace(proposed, tokens=to_teacher(proposed.tokens))

    levels: list[Level] = []
    none = torch.zeros(num_rows, 0, dtype=torch.int64, device=device)
    levels.append(level(None, root_logits, none, torch.zeros(num_rows, 1, device=device)))
    seen = torch.zeros(num_rows, 1, 0, dtype=torch.bool, device=device)  # per frontier row: tree rows on its path
    numbered = 0  # candidates before the last level's
    for depth in range(1, policy.depth):
        last = levels[-1]
        chosen = _frontier(policy, depth, last)  # (B, R) within the level
        if policy.costs is not None and not another_level_pays(policy.costs, levels, chosen, policy.budget):
            break
        rows = chosen // last.tokens.shape[2]
        seen = _seen_from(rows, seen)
        positions = root_positions.expand_as(chosen) + depth
        tokens = last.tokens.flatten(1).gather(1, chosen)
        fed = Frontier(rows, tokens, positions, seen)
        levels.append(level(fed, expand(fed), chosen + numbered, last.scores.flatten(1).gather(1, chosen)))
        numbered += last.tokens[0].numel()
    return levels


def _seen_from(rows: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """(B, R, W + R) bool: which tree rows, the new ones included, each new row sees: those that the row which proposed
    it saw, ``seen`` (B, R', W) at ``rows`` (B, R), and itself."""
    itself = torch.eye(rows.shape[1], dtype=torch.bool, device=rows.device).expand(len(rows), -1, -1)
    return torch.cat([seen.gather(1, rows[:, :, None].expand(-1, -1, seen.shape[2])), itself], dim=2)


def _width(policy: TreePolicy, level: int) -> int:
    return policy.static_levels[level].width if policy.is_fixed else policy.top_k


def _frontier(policy: TreePolicy, depth: int, level: Level) -> torch.Tensor:
    """(B, R) the level's own numbers of the candidates that are fed next, best first where the tree is dynamic."""
    if policy.is_fixed:
        fed = sent(policy.static_levels[depth - 1].fed, level.tokens.device)
        return fed.expand(len(level.tokens), -1)
    return stable_topk(level.scores.flatten(1), policy.top_k)


def select_tree(levels: list[Level], pending_tokens: torch.Tensor, policy: TreePolicy) -> DraftTree:
    """The trees that ``policy`` takes from all candidates, in flat order, under the roots ``pending_tokens`` (B,).

    Dynamic: the best ``budget`` of them, or as many as pay by the policy's costs. Cumulative scores never rise along a
    path and ties go to the lower number, so the selection holds the parent of each of its nodes. Fixed: those that its
    choices name.
    """
    return tree_of(levels, selected_numbers(levels, policy), pending_tokens)


class Candidates(NamedTuple):
    """All candidates of a draft, by their flat numbers."""

    tokens: torch.Tensor  # (B, C) teacher token ids
    parents: torch.Tensor  # (B, C) flat number + 1; 0 is the root
    depths: torch.Tensor  # (B, C)
    logprobs: torch.Tensor  # (B, C) given the parent
    scores: torch.Tensor  # (B, C) sums from the root


def candidates_in(levels: list[Level]) -> Candidates:
    """The candidates of ``levels``, which propose at least one token."""
    return Candidates(
        tokens=torch.cat([level.tokens.flatten(1) for level in levels], dim=1),
        parents=torch.cat([level.parents.repeat_interleave(level.tokens.shape[2], dim=1) for level in levels], dim=1),
        depths=torch.cat([torch.full_like(level.tokens.flatten(1), d) for d, level in enumerate(levels, 1)], dim=1),
        logprobs=torch.cat([level.logprobs.flatten(1) for level in levels], dim=1),
        scores=torch.cat([level.scores.flatten(1) for level in levels], dim=1),
    )


def tree_of(levels: list[Level], selected: torch.Tensor, pending_tokens: torch.Tensor) -> DraftTree:
    """The trees of the candidates ``selected`` (B, M), flat numbers ascending, under the roots ``pending_tokens`` (B,).

    Each one's parent must be selected too: it is looked for among them.
    """
    return tree_of_candidates(candidates_in(levels), selected, pending_tokens)


def tree_of_candidates(candidates: Candidates, selected: torch.Tensor, pending_tokens: torch.Tensor) -> DraftTree:
    """As ``tree_of``, of candidates that need not be a drafter's levels."""
    parent_numbers = candidates.parents.gather(1, selected)  # flat number + 1, or 0
    slots = torch.searchsorted(selected, parent_numbers - 1) + 1
    pending, zero = pending_tokens[:, None], candidates.scores.new_zeros(len(selected), 1)
    none = torch.zeros_like(pending)
    return DraftTree(
        tokens=torch.cat([pending, candidates.tokens.gather(1, selected)], dim=1),
        parents=torch.cat([none, torch.where(parent_numbers > 0, slots, 0)], dim=1),
        depths=torch.cat([none, candidates.depths.gather(1, selected)], dim=1),
        logprobs=torch.cat([zero, candidates.logprobs.gather(1, selected)], dim=1),
        scores=torch.cat([zero, candidates.scores.gather(1, selected)], dim=1),
        num_slots=[selected.shape[1] + 1] * len(selected),
    )


def selected_numbers(levels: list[Level], policy: TreePolicy) -> torch.Tensor:
    """(B, M) flat numbers of the candidates that become slots 1..M, ascending."""
    if policy.is_fixed:
        return _static_numbers(policy, levels)
    scores = torch.cat([level.scores.flatten(1) for level in levels], dim=1)
    size = policy.budget if policy.costs is None else size_that_pays(policy.costs, levels, policy.budget).num_nodes
    return stable_topk(scores, size).sort().values


def size_that_pays(costs: StepCosts, levels: list[Level], most: int) -> TreeSize:
    """How many nodes each row's tree gets of its candidates. Reads their scores: on a device, it waits for them."""
    scores = torch.cat([level.scores.flatten(1) for level in levels], dim=1)
    ranked = scores.double().sort(dim=1, descending=True).values[:, :most].tolist()
    return best_size(costs, ranked, len(levels), most)


def another_level_pays(costs: StepCosts, levels: list[Level], next_fed: torch.Tensor, most: int) -> bool:
    """Whether to feed ``next_fed`` (B, R), the last level's own numbers of candidates. Waits as above."""
    size, last = size_that_pays(costs, levels, most), levels[-1]
    scores = last.scores.flatten(1).double()
    mass = LevelMass(
        fed=float((last.scores - last.logprobs)[..., 0].double().exp().sum()),
        proposed=float(scores.exp().sum()),
        next_fed=float(scores.gather(1, next_fed).exp().sum()),
    )
    return with_another_level(costs, size, len(levels), mass, len(scores)) > size.goodput


def _static_numbers(policy: TreePolicy, levels: list[Level]) -> torch.Tensor:
    """(B, M) flat numbers of a fixed tree's nodes."""
    numbers, before = [], 0
    for plan, level in zip(policy.static_levels, levels, strict=True):
        numbers += [before + number for number in plan.numbers]
        before += level.tokens[0].numel()
    return sent(numbers, levels[0].tokens.device).expand(len(levels[0].tokens), -1).contiguous()


def child_distributions(levels: list[Level], policy: TreePolicy, num_slots: int) -> torch.Tensor:
    """(B, N, V) over the draft vocabulary: what each slot's children were drawn from; zeros at the leaves.

    Only for fixed trees, whose slots are known beforehand: a tree that is shaped by what was drawn is not lossless.
    """
    first = levels[0].probs
    assert first is not None, "the levels were not drawn"
    result = first.new_zeros(len(first), num_slots, first.shape[2])
    result[:, 0] = first[:, 0]
    slot = 1
    for plan, below in zip(policy.static_levels, levels[1:], strict=False):
        fed = [slot + plan.numbers.index(number) for number in plan.fed]
        assert below.probs is not None
        result[:, sent(fed, result.device)] = below.probs
        slot += len(plan.numbers)
    return result


def root_only(pending_tokens: torch.Tensor) -> DraftTree:
    """Trees without a drafted node under ``pending_tokens`` (B,): teacher-only decoding."""
    tokens = pending_tokens[:, None]
    index = torch.zeros_like(tokens)
    score = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device)
    return DraftTree(
        tokens=tokens, parents=index, depths=index, logprobs=score, scores=score, num_slots=[1] * len(tokens)
    )
