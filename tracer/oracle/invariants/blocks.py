"""What is recorded of a chain that was weighed as a whole, under rule block.

Source: Sun et al., "Block Verification Accelerates Speculative Decoding" (ICLR 2025), algorithm 2. Down the chain, r is
the smaller of 1 and r p / q of the slot's token; with S = the sum over all tokens of max(0, r p - q) at a slot, its
threshold is S / (S + 1 - r), and at the end of the chain r. S is recorded, and bounded by what is known beside it.
"""

from __future__ import annotations

from typing import NamedTuple

from specscope.schemas import AcceptSection, Trial
from specscope.tracer.oracle.invariants.probabilities import TOLERANCE, Bounds, exactly


class Link(NamedTuple):
    """One slot of the chain, and what the tokens down to it come to."""

    trial: Trial
    ratio: float  # r
    following: Trial | None  # of the slot after it


def chain_of(accept: AcceptSection) -> list[Link]:
    """The slots of the chain in order."""
    trials = [trial for visit in accept.visited or [] for trial in visit.trials or []]
    links, ratio = [], 1.0
    for number, trial in enumerate(trials):
        ratio = min(1.0, ratio * trial.target_prob / trial.draft_prob) if trial.draft_prob > 0 else 0.0
        links.append(Link(trial, ratio, trials[number + 1] if number + 1 < len(trials) else None))
    return links


def block_problem(accept: AcceptSection, num_slots: int) -> str | None:
    """What is wrong with the thresholds of a chain, or with what they were made of."""
    links = chain_of(accept)
    if [link.trial.slot for link in links] != list(range(1, num_slots)):
        return f"tried slots {[link.trial.slot for link in links][:8]}, wanted the whole chain, 1 to {num_slots - 1}"
    return next(filter(None, map(_link_problem, links)), None)


def _link_problem(link: Link) -> str | None:
    trial = link.trial
    if trial.residual_mass is None:
        if link.following is not None:
            return f"slot {trial.slot}: no residual mass was recorded, and it is not the end of the chain"
        wanted = exactly(link.ratio)
    else:
        mass = _mass_bounds(link)
        if not mass.low - TOLERANCE <= trial.residual_mass <= mass.high + TOLERANCE:
            return f"slot {trial.slot}: residual mass {trial.residual_mass:.9g}, wanted {mass}"
        wanted = _threshold(trial.residual_mass, link.ratio)
    if wanted.low - TOLERANCE <= trial.threshold <= wanted.high + TOLERANCE:
        return None
    return f"slot {trial.slot}: threshold {trial.threshold:.9g}, wanted {wanted}"


def _mass_bounds(link: Link) -> Bounds:
    """S lies between what the drafted token adds to it, and r less what that token takes away from it."""
    if link.following is None:
        return Bounds(0.0, link.ratio)
    weighed, drawn = link.ratio * link.following.target_prob, link.following.draft_prob
    return Bounds(max(0.0, weighed - drawn), link.ratio - min(weighed, drawn))


def _threshold(mass: float, ratio: float) -> Bounds:
    """S / (S + 1 - r). Where both S and 1 - r are rounding, so is their share."""
    others = mass + 1 - ratio
    return Bounds(0.0, 1.0) if others <= TOLERANCE else exactly(mass / others)


def block_walk_problem(accept: AcceptSection) -> str | None:
    """What keeps the path from going up to the last slot that was accepted."""
    last = max((link.trial.slot for link in chain_of(accept) if link.trial.accepted), default=0)
    wanted = list(range(1, last + 1))
    if accept.path != wanted:
        return f"got path {accept.path}, the last accepted slot of the block is {last}"
    children = [visit.child for visit in accept.visited or []]
    went = [*wanted, *[None] * (len(children) - last)]
    return None if children == went else f"it went to {children[:8]}, wanted {went[:8]}"


def bonus_bounds(accept: AcceptSection, target: Bounds) -> Bounds:
    """The share of the bonus token, of whose teacher's probability the bounds are known.

    At the end of the chain it is that. Before, it is max(0, r p - q) / S, and q is not recorded of it: r p / S at most.
    """
    links = {link.trial.slot: link for link in chain_of(accept)}
    link = links.get(accept.bonus_slot)
    if link is None:  # nothing of the chain was accepted: what the root leaves is not recorded
        return target if not links else Bounds(0.0, 1.0)
    mass = link.trial.residual_mass
    if mass is None:
        return target
    return Bounds(0.0, 1.0 if mass <= TOLERANCE else min(1.0, link.ratio * target.high / mass))
