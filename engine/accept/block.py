"""Block verification: a chain of drawn drafts is weighed as a whole, which keeps at least as many of them on average.

Sun et al., "Block Verification Accelerates Speculative Decoding" (ICLR 2025), algorithm 2. Token by token, a chain ends
at its first rejection. Here each slot has a coin, and the path goes up to the last slot whose coin lies below its
threshold: a slot is kept if a later one is accepted, whatever its own coin says. The thresholds are such that the
tokens of a step, bonus included, are distributed as if the teacher had drawn them one by one.

Pure functions, for all rows at once; nothing waits for the device. Letters: B rows of the batch, P padded slots, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from specscope.engine.accept.greedy import Acceptance
from specscope.engine.accept.sampling import Weighed, drafted, normalised, outcome_of, probs_of_tokens
from specscope.engine.tree.tensors import TreeTensors

#: From the teacher's and the drafter's probabilities of each slot's token, (B, P) both, to the r of ``weigh_chain``.
Ratios = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
#: From a tree, and the teacher's and the drafter's distributions (B, P, V), to what the rule makes of each slot.
Weigh = Callable[[TreeTensors, torch.Tensor, torch.Tensor], Weighed]


def running_ratios(target_at: torch.Tensor, draft_at: torch.Tensor) -> torch.Tensor:
    """r (B, P) of ``weigh_chain``, of each slot's probabilities (B, P); a token that q cannot have drawn ends it."""
    each = torch.where(draft_at > 0, target_at / draft_at, 0.0)
    ratios = [torch.ones_like(each[:, 0])]
    for slot in range(1, each.shape[1]):
        ratios.append((ratios[-1] * each[:, slot]).clamp(max=1.0))
    return torch.stack(ratios, dim=1)


def weigh_chain(
    tree: TreeTensors, target_probs: torch.Tensor, draft_probs: torch.Tensor, ratios_of: Ratios = running_ratios
) -> Weighed:
    """Down the chain, r is the smaller of 1 and r p / q, from 1 at the root: p and q of the slot's token at its parent.

    With S = the sum over all tokens of max(0, r p - q) at the slot, its threshold is S / (S + 1 - r), and the bonus
    after it is drawn from max(0, r p - q); at the end of the chain they are r, and p.
    """
    target, draft = normalised(target_probs.double()), normalised(draft_probs.double())
    target_at, draft_at = probs_of_tokens(tree, target), probs_of_tokens(tree, draft)
    ratios = ratios_of(target_at, draft_at)
    left = (ratios[:, :, None] * target - draft).clamp(min=0.0)
    masses = left.sum(dim=-1)  # (B, P)
    ends = tree.valid & ~torch.nn.functional.pad(tree.valid[:, 1:], (0, 1))
    others = masses + 1 - ratios
    # Where nothing is left over and nothing was lost, p equals q: the slot may be kept, and the bonus is p's.
    thresholds = torch.where(ends, ratios, torch.where(others > 0, masses / others, 1.0))
    residuals = torch.where((ends | (masses == 0))[:, :, None], target, left)
    return Weighed(target_at, draft_at, thresholds, residuals, masses)


def accept_block(
    tree: TreeTensors,
    target_probs: torch.Tensor,
    draft_probs: torch.Tensor,
    coins: torch.Tensor,
    bonus_coins: torch.Tensor,
    weigh: Weigh = weigh_chain,
) -> Acceptance:
    """Lossless acceptance of chains by the coins (B, P) and (B,), given the teacher's distributions (B, P, V) at each
    slot, and in row k of ``draft_probs`` (B, P, V) the one that the child of slot k was drawn from.

    The slots of a row must be a chain, each the child of the one before.
    """
    weighed = weigh(tree, target_probs, draft_probs)
    accepted = drafted(tree) & (coins < weighed.thresholds)
    later = accepted.flip(1).cumsum(dim=1).flip(1)  # how many are accepted from each slot on
    return outcome_of(
        "block", tree, chosen=drafted(tree) & (later > 0), weighed=weighed, coins=coins, bonus_coins=bonus_coins
    )
