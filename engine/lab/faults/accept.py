"""Faults of the acceptance, F20 to F23, the padding of F27, and F38: the walk, the coins, the bonus token, a block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from specscope.engine.accept.block import Weigh, accept_block, weigh_chain
from specscope.engine.accept.greedy import Acceptance
from specscope.engine.accept.sampling import (
    Weighed,
    drafted,
    rows_at,
    target_probs,
    weigh_point_masses,
)
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget, Places
from specscope.engine.loop.phases import AcceptInputs
from specscope.engine.tree.tensors import TreeTensors

#: Where rounding moved a choice elsewhere in the same tree, the inputs of the path are not equal, and the rule that the
#: path breaks is the root: ``accept.walk``.
PATH_OR_RULE: Places = (("accept", "path"), ("accept", "walk"))


def _changing_acceptance(
    change: Callable[[AcceptInputs, Acceptance], Acceptance],
) -> Callable[[FaultTarget], FaultTarget]:
    def inject(target: FaultTarget) -> FaultTarget:
        honest = target.phases.accept
        return target.with_phases(accept=lambda inputs: change(inputs, honest(inputs)))

    return inject


def _at(values: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """(B,) of ``values`` (B, P) each row's at its slot (B,)."""
    return values.gather(1, slots[:, None])[:, 0]


def _first_child_unchecked(inputs: AcceptInputs, honest: Acceptance) -> Acceptance:
    if inputs.tree.padded_slots < 2:
        return honest
    none = (honest.lengths == 0) & inputs.tree.valid[:, 1]
    paths = honest.paths.clone()
    paths[:, 0] = torch.where(none, 1, paths[:, 0])
    slots = torch.where(none, 1, honest.bonus_slots)
    bonus = torch.where(none, _at(inputs.argmax, slots), honest.bonus_tokens)
    return replace(honest, lengths=honest.lengths + none.long(), paths=paths, bonus_slots=slots, bonus_tokens=bonus)


def _matches_counted(inputs: AcceptInputs, honest: Acceptance) -> Acceptance:
    """Every node that its parent's choice agrees with is taken, in the order of the slots, wherever it hangs."""
    paths, lengths, last = honest.paths.clone(), honest.lengths.clone(), honest.bonus_slots.clone()
    for row, matches in enumerate(honest.accepted & drafted(inputs.tree)):
        slots = matches.nonzero().flatten()[: paths.shape[1]]
        if len(slots):
            paths[row, : len(slots)], lengths[row], last[row] = slots, len(slots), slots[-1]
    return replace(honest, lengths=lengths, paths=paths, bonus_slots=last, bonus_tokens=_at(inputs.argmax, last))


def _bonus_of_the_row_before(inputs: AcceptInputs, honest: Acceptance) -> Acceptance:
    slots = _at(inputs.tree.parents, honest.bonus_slots)
    return replace(honest, bonus_slots=slots, bonus_tokens=_at(inputs.argmax, slots))


def _path_padding_taken(inputs: AcceptInputs, honest: Acceptance) -> Acceptance:
    """The path's next entry counts too, which is the 0 that fills it up."""
    most = honest.paths.shape[1]
    return replace(honest, lengths=torch.where(honest.lengths < most, honest.lengths + 1, honest.lengths))


def _not_renormalised(inputs: AcceptInputs, honest: Acceptance) -> Acceptance:
    """The bonus is drawn from what the rejected children left, which does not sum to 1."""
    if honest.trials is None or inputs.child_probs is not None:
        return honest
    left = weigh_point_masses(inputs.tree, target_probs(inputs.logits, inputs.rule)).residuals
    weights = rows_at(left, honest.bonus_slots).double()  # (B, V)
    shares = weights.cumsum(dim=-1)
    reached = torch.searchsorted(shares, honest.trials.bonus_coins.double()[:, None], right=True)
    tokens = reached.clamp(max=weights.shape[1] - 1)
    low = torch.where(tokens > 0, shares.gather(1, (tokens - 1).clamp(min=0)), 0.0)
    trials = replace(honest.trials, bonus_low=low[:, 0], bonus_high=shares.gather(1, tokens)[:, 0], residuals=weights)
    return replace(honest, bonus_tokens=tokens[:, 0], trials=trials)


def _coin_reused(target: FaultTarget) -> FaultTarget:
    honest = target.phases.accept

    def accept(inputs: AcceptInputs) -> Acceptance:
        if inputs.coins is None:
            return honest(inputs)
        coins = [row._replace(slots=row.slots[-1:].expand_as(row.slots).clone()) for row in inputs.coins]
        return honest(inputs._replace(coins=coins))

    return target.with_phases(accept=accept)


def _temperature_missing(target: FaultTarget) -> FaultTarget:
    honest = target.phases.accept

    def accept(inputs: AcceptInputs) -> Acceptance:
        return honest(inputs._replace(rule=replace(inputs.rule, temperature=1.0)))

    return target.with_phases(accept=accept)


def _block_weighed_by(weigh: Weigh) -> Callable[[FaultTarget], FaultTarget]:
    """With the coins of the step, and another weight of each slot."""

    def change(inputs: AcceptInputs, honest: Acceptance) -> Acceptance:
        trials = honest.trials
        if honest.rule != "block" or trials is None or trials.coins is None or inputs.child_probs is None:
            return honest
        probs = target_probs(inputs.logits, inputs.rule)
        return accept_block(inputs.tree, probs, inputs.child_probs, trials.coins, trials.bonus_coins, weigh)

    return _changing_acceptance(change)


def _product_forgotten(tree: TreeTensors, target: torch.Tensor, draft: torch.Tensor) -> Weighed:
    """Each slot is weighed by its own ratio, as if the tokens before it had been certain."""

    def ratios_of(target_at: torch.Tensor, draft_at: torch.Tensor) -> torch.Tensor:
        each = torch.where(draft_at > 0, target_at / draft_at, 0.0).clamp(max=1.0)
        return torch.cat([torch.ones_like(each[:, :1]), each[:, 1:]], dim=1)

    return weigh_chain(tree, target, draft, ratios_of)


ACCEPT_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F20",
        says="where nothing is accepted, the root's first child is taken unchecked",
        expect=Expectation(places=(("accept", "path"),), invariant="accept.walk"),
        inject=_changing_acceptance(_first_child_unchecked),
    ),
    Fault(
        id="F21",
        says="all matching nodes are accepted, not only those of one path",
        expect=Expectation(places=PATH_OR_RULE, invariant="accept.path-connected"),
        inject=_changing_acceptance(_matches_counted),
    ),
    Fault(
        id="F22.coin",
        says="one coin decides all trials of a step",
        expect=Expectation(places=(("accept", "coins"),), invariant="accept.coins-distinct"),
        scenario="sampling",
        inject=_coin_reused,
    ),
    Fault(
        id="F22.temperature",
        says="the teacher's probabilities lack the temperature",
        expect=Expectation(
            places=(("accept", "trials."), ("accept", "bonus_")),
            invariant="accept.target-probs",
        ),
        scenario="sampling",
        inject=_temperature_missing,
    ),
    Fault(
        id="F23.residual",
        says="what the rejected children leave is not renormalised",
        expect=Expectation(places=(("accept", "bonus_"),), invariant="accept.bonus"),
        scenario="point-mass",
        inject=_changing_acceptance(_not_renormalised),
    ),
    Fault(
        id="F23.row",
        says="the bonus token is read one row before the last accepted",
        expect=Expectation(places=(("accept", "bonus_token"),), invariant="accept.bonus"),
        inject=_changing_acceptance(_bonus_of_the_row_before),
    ),
    Fault(
        id="F27.padding",
        says="the entry that fills the path up is accepted: the root once more",
        expect=Expectation(places=PATH_OR_RULE, invariant="accept.path-connected"),
        inject=_changing_acceptance(_path_padding_taken),
    ),
    Fault(
        id="F38",
        says="a slot of a block is weighed by its own ratio, without those of the slots before it",
        expect=Expectation(places=(("accept", "child"), ("accept", "trials.")), invariant="accept.thresholds"),
        scenario="block",
        inject=_block_weighed_by(_product_forgotten),
    ),
)
