"""Acceptance rules that sample: pure functions of trees, probabilities and coins, for all rows at once.

Nothing here waits for the device, and each function does the same work whatever is accepted. Coins come from outside,
one per slot and one per row (``draw_coins``): a child is accepted iff its coin lies below its threshold and no earlier
sibling was. With those thresholds the tokens of a step, bonus included, are distributed as if the teacher had drawn
them one by one. The proof for one draft is in Leviathan et al., "Fast Inference from Transformers via Speculative
Decoding" (ICML 2023), for siblings drawn without replacement in Jeon et al., "Recursive Speculative Decoding" (2024).

That holds for point masses whichever nodes the tree has. Drawn siblings must stand in the order in which they were
drawn, and the tree's shape must not depend on what was drawn: a tree pruned by score prefers some draws to others.

Letters: B rows of the batch, P padded slots, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from specscope.engine.accept.greedy import Acceptance, Trials, Walk, elder_siblings, eldest_only
from specscope.engine.settings import SamplingRule
from specscope.engine.tree.tensors import TreeTensors
from specscope.schemas.manifest import RuleName

_TINY = torch.finfo(torch.float64).tiny  # divides what would otherwise be 0 / 0


class Coins(NamedTuple):
    """One row's randomness for one step: float64, uniform in [0, 1)."""

    slots: torch.Tensor  # (num_slots,) the root's is never read
    bonus: torch.Tensor  # ()


def draw_coins(generator: torch.Generator, num_slots: int) -> Coins:
    """The coins of a step whose tree has ``num_slots`` real slots, from the row's own generator, on the CPU.

    Always ``num_slots + 1`` draws, the bonus coin first, whatever is accepted: what a row draws depends on its own
    trees alone, not on its neighbours, its padding or its device.
    """
    coins = torch.rand(num_slots + 1, dtype=torch.float64, device="cpu", generator=generator)
    return Coins(coins[1:], coins[0])


def target_probs(logits: torch.Tensor, rule: SamplingRule) -> torch.Tensor:
    """The distributions that ``rule`` draws from, of ``logits`` (..., V): (..., V), float32 or wider.

    Temperature, top-k, top-p with transformers' own warpers in the order of its ``generate``.
    """
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32)).reshape(-1, logits.shape[-1])
    unread_ids = torch.empty(0, dtype=torch.int64, device=logits.device)  # the warpers' other argument
    if rule.temperature != 1:
        scores = TemperatureLogitsWarper(float(rule.temperature))(unread_ids, scores)
    if rule.top_k is not None:
        scores = TopKLogitsWarper(rule.top_k)(unread_ids, scores)
    if rule.top_p is not None and rule.top_p < 1:
        scores = TopPLogitsWarper(rule.top_p)(unread_ids, scores)
    return scores.softmax(dim=-1).view(logits.shape)


def accept_sampling(
    tree: TreeTensors,
    target_probs: torch.Tensor,
    draft_probs: torch.Tensor | None,
    coins: torch.Tensor,
    bonus_coins: torch.Tensor,
    max_children: int | None = None,
) -> Acceptance:
    """Lossless acceptance by the coins (B, P) and (B,), given the teacher's distributions (B, P, V) at each slot.

    ``draft_probs`` (B, P, V): row k is the distribution from which the children of slot k were drawn one after another
    without replacement, in slot order. None: the children are the drafter's best tokens, point masses.
    ``max_children`` bounds how many children of a node are tried, where they were drawn; without it the bound is P - 1,
    which is right but slow.
    """
    if draft_probs is None:
        weighed = weigh_point_masses(tree, target_probs)
    else:
        weighed = weigh_draws(tree, target_probs, draft_probs, max_children)
    chosen = eldest_only(tree, coins < weighed.thresholds)
    return outcome_of("sampling", tree, chosen=chosen, weighed=weighed, coins=coins, bonus_coins=bonus_coins)


def accept_typical(
    tree: TreeTensors, target_probs: torch.Tensor, rule: SamplingRule, bonus_coins: torch.Tensor
) -> Acceptance:
    """Typical acceptance of Cai et al., "Medusa" (ICML 2024). Not lossless.

    A child is acceptable where the teacher's probability of it exceeds min(epsilon, delta exp(-entropy)) of the
    distribution at its parent. Medusa takes the longest acceptable path; here each node goes to the acceptable child of
    the highest probability, the lowest slot among equals, so that a path is judged node by node as under the other
    rules. The bonus is drawn from the whole distribution at the last slot.
    """
    total = target_probs.sum(dim=-1, dtype=torch.float64)  # (B, P)
    entropy = torch.special.entr(target_probs).sum(dim=-1, dtype=torch.float64)  # (B, P) nats
    limits = (rule.delta * torch.exp(-entropy)).clamp(max=rule.epsilon)
    at_slots = probs_of_tokens(tree, target_probs) / total.gather(1, tree.parents)
    thresholds = limits.gather(1, tree.parents)

    acceptable = drafted(tree) & (at_slots > thresholds)
    elder = elder_siblings(tree)
    likelier = at_slots[:, None, :] > at_slots[:, :, None]  # (B, P, P) column than row
    better = ((elder | elder.transpose(1, 2)) & likelier) | (elder & (at_slots[:, None, :] == at_slots[:, :, None]))
    chosen = acceptable & ~(better & acceptable[:, None, :]).any(dim=2)

    weighed = Weighed(at_slots, torch.ones_like(at_slots), thresholds, target_probs)
    return outcome_of("typical", tree, chosen=chosen, weighed=weighed, coins=None, bonus_coins=bonus_coins)


class Weighed(NamedTuple):
    """What a rule makes of each slot before a coin is looked at."""

    target_probs: torch.Tensor  # (B, P) of the slot's token at its parent
    draft_probs: torch.Tensor  # (B, P) the drafter's; 1 where the token was not drawn
    thresholds: torch.Tensor  # (B, P) float64
    residuals: torch.Tensor  # (B, P, V) left at each slot when all its children are rejected; need not sum to 1
    masses: torch.Tensor | None = None  # (B, P) of a block; see ``block``


def weigh_point_masses(tree: TreeTensors, target_probs: torch.Tensor) -> Weighed:
    """A rejected child's token leaves the distribution, and what stays is renormalised.

    So the threshold is p(child) / (p(child) + p of its younger siblings + p of all other tokens): a sum, not
    1 - p(elder siblings), which would cancel. Where nothing else is left it is exactly 1, so that a row whose
    children are all rejected always has something left to draw the bonus from.
    """
    residuals = without(tree, target_probs, drafted(tree))
    others = residuals.sum(dim=-1, dtype=torch.float64).gather(1, tree.parents)  # (B, P)
    at_slots = probs_of_tokens(tree, target_probs)
    elder = elder_siblings(tree)
    # A token that an elder sibling had already has no probability left.
    repeated = (elder & (tree.token_ids[:, :, None] == tree.token_ids[:, None, :])).any(dim=2)
    unrepeated = torch.where(drafted(tree) & ~repeated, at_slots, 0.0)
    left = unrepeated + others + _sum_over(elder.transpose(1, 2), unrepeated)
    total = left + _sum_over(elder, unrepeated)
    return Weighed(at_slots / total, torch.ones_like(unrepeated), unrepeated / left.clamp(min=_TINY), residuals)


def weigh_draws(
    tree: TreeTensors, target_probs: torch.Tensor, draft_probs: torch.Tensor, max_children: int | None
) -> Weighed:
    """Siblings in turn: threshold min(1, p / q), after a rejection p <- norm(max(0, p - q)), q <- norm(q without it).

    A child that q cannot have drawn, such as a repeated token, is never accepted and changes nothing. Younger siblings
    than ``max_children`` are not tried, which loses speed only. Memory: about four float64 tensors (B, P, V).
    """
    target, draft = normalised(target_probs.double()), normalised(draft_probs.double())
    target_at_first, draft_at_first = probs_of_tokens(tree, target), probs_of_tokens(tree, draft)
    rank = elder_siblings(tree).sum(dim=2)  # (B, P)
    thresholds = torch.zeros_like(target_at_first)
    most = tree.padded_slots - 1
    for turn in range(most if max_children is None else min(max_children, most)):
        target_at, draft_at = probs_of_tokens(tree, target), probs_of_tokens(tree, draft)
        tried = drafted(tree) & (rank == turn) & (draft_at > 0)
        thresholds = torch.where(tried, (target_at / draft_at).clamp(max=1.0), thresholds)
        left = (target - draft).clamp(min=0.0)
        mass = left.sum(dim=-1, keepdim=True)  # (B, P, 1)
        tries = torch.zeros_like(rank).scatter_add(1, tree.parents, tried.long())[:, :, None] > 0
        # Without mass, p equals q but for rounding: a coin can reject there, and the bonus must come from somewhere.
        target = torch.where(tries & (mass > 0), left / mass, target)
        draft = normalised(without(tree, draft, tried))
    return Weighed(target_at_first, draft_at_first, thresholds, target)


class TokenDraw(NamedTuple):
    """Each row's token, and the share of the distribution that holds its coin: low <= coin < high."""

    tokens: torch.Tensor  # (B,)
    low: torch.Tensor  # (B,)
    high: torch.Tensor  # (B,)
    probs: torch.Tensor  # (B, V) what it was drawn from


def draw_bonus(weights: torch.Tensor, coins: torch.Tensor) -> TokenDraw:
    """The tokens at which the cumulative share of ``weights`` (B, V), by token id, first exceeds the coin (B,).

    Such a token raises the cumulative share, so its weight is positive, at the coin 0 as well; and the last share is
    exactly 1, above every coin. The first token after a prompt is drawn in the same way.
    """
    cumulative = weights.double().cumsum(dim=-1)
    total = cumulative[:, -1:]
    shares = cumulative / total
    # The clamp is for weights that are not numbers: those are reported elsewhere, and no index may go astray first.
    reached = torch.searchsorted(shares, coins.double().contiguous()[:, None], right=True)  # (B, 1)
    tokens = reached.clamp(max=weights.shape[1] - 1)
    low = torch.where(tokens > 0, shares.gather(1, (tokens - 1).clamp(min=0)), 0.0)
    return TokenDraw(tokens[:, 0], low[:, 0], shares.gather(1, tokens)[:, 0], weights.double() / total)


def drafted(tree: TreeTensors) -> torch.Tensor:
    """(B, P) bool: a slot that is neither the root nor padding."""
    return tree.valid & (torch.arange(tree.padded_slots, device=tree.valid.device) > 0)


def probs_of_tokens(tree: TreeTensors, probs: torch.Tensor) -> torch.Tensor:
    """(B, P) float64: each slot's token in the distribution of ``probs`` (B, P, V) at its parent."""
    return probs.flatten(1).gather(1, tree.parents * probs.shape[2] + tree.token_ids).double()


def without(tree: TreeTensors, probs: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    """``probs`` (B, P, V) with 0 for the tokens of the slots ``gone`` (B, P), at their parents."""
    places = tree.parents * probs.shape[2] + tree.token_ids
    # The minimum, because a slot that stays may share its place with one that goes: the root with a child of its token.
    most = torch.where(gone, 0.0, torch.inf).to(probs.dtype)
    return probs.flatten(1).scatter_reduce(1, places, most, "amin").view_as(probs)


def rows_at(probs: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """(B, V): of ``probs`` (B, P, V) each row's distribution at its slot (B,)."""
    return probs.gather(1, slots[:, None, None].expand(-1, 1, probs.shape[2]))[:, 0]


def _sum_over(related: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """(B, P): for each row of ``related`` (B, P, P) bool the sum of ``values`` (B, P) over its columns.

    A running sum, for its order does not depend on the padding: a row alone and in a batch are equal to the bit.
    """
    return torch.where(related, values[:, None, :], 0.0).cumsum(dim=2)[:, :, -1]


def normalised(probs: torch.Tensor) -> torch.Tensor:
    """Each distribution of ``probs`` (..., V) scaled to sum to 1; zeros stay zeros."""
    return probs / probs.sum(dim=-1, keepdim=True).clamp(min=_TINY)


def outcome_of(
    rule: RuleName,
    tree: TreeTensors,
    chosen: torch.Tensor,
    weighed: Weighed,
    coins: torch.Tensor | None,
    bonus_coins: torch.Tensor,
) -> Acceptance:
    """Walks to the end of the path of ``chosen`` (B, P), and draws the bonus from what is left there."""
    walk = Walk(tree, chosen)
    bonus = draw_bonus(rows_at(weighed.residuals, walk.last_slots), bonus_coins)
    trials = Trials(
        target_probs=weighed.target_probs,
        draft_probs=weighed.draft_probs,
        thresholds=weighed.thresholds,
        coins=coins,
        bonus_coins=bonus_coins,
        bonus_low=bonus.low,
        bonus_high=bonus.high,
        residuals=bonus.probs,
        masses=weighed.masses,
    )
    return Acceptance(
        rule=rule,
        lengths=walk.lengths,
        paths=walk.paths,
        bonus_slots=walk.last_slots,
        bonus_tokens=bonus.tokens,
        accepted=chosen,
        trials=trials,
    )
