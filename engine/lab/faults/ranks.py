"""Faults of runs of several ranks, F40: one of them decides differently from the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.distributed as dist

from specscope.engine.accept.greedy import Acceptance
from specscope.engine.accept.sampling import draw_coins
from specscope.engine.drafters.base import Draft
from specscope.engine.lab.faults.base import ONE_OF_SEVERAL, Expectation, Fault, FaultTarget, changing_drafts
from specscope.engine.loop.phases import AcceptInputs
from specscope.tracer.errors import UsageError

NOT_RUN = "it takes several processes: specscope run --tensor-parallel 2 --inject puts it in"
EXPECT = Expectation("violation", invariant="ranks.agree")


def _in_the_last_rank(inject: Callable[[FaultTarget], FaultTarget]) -> Callable[[FaultTarget], FaultTarget]:
    def inject_there(target: FaultTarget) -> FaultTarget:
        if not dist.is_initialized():
            raise UsageError(ONE_OF_SEVERAL)
        return inject(target) if dist.get_rank() == dist.get_world_size() - 1 else target

    return inject_there


def _own_generator(target: FaultTarget) -> FaultTarget:
    honest, generator = target.phases.accept, torch.Generator().manual_seed(7)

    def accept(inputs: AcceptInputs) -> Acceptance:
        coins = [draw_coins(generator, len(row.slots)) for row in inputs.coins or ()]
        return honest(inputs._replace(coins=coins) if coins else inputs)

    return target.with_phases(accept=accept)


def _tie_broken_elsewhere(target: FaultTarget) -> FaultTarget:
    """As if the two best logits at the end of the path were apart by rounding, which here went the other way."""
    honest = target.phases.accept

    def accept(inputs: AcceptInputs) -> Acceptance:
        outcome = honest(inputs)
        at_end = inputs.logits[torch.arange(len(outcome.bonus_slots)), outcome.bonus_slots]  # (B, V)
        return replace(outcome, bonus_tokens=at_end.topk(2, dim=-1).indices[:, 1])

    return target.with_phases(accept=accept)


def _last_nodes_token_exchanged(draft: Draft) -> Draft:
    tokens = draft.tree.tokens.clone()
    tokens[:, -1] = tokens[:, -1] // 2
    return replace(draft, tree=replace(draft.tree, tokens=tokens))


RANK_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F40.generator",
        says="one rank draws with its own generator",
        expect=EXPECT,
        scenario="sampling",
        inject=_in_the_last_rank(_own_generator),
        into_rank=True,
        into_share=False,
        not_run=NOT_RUN,
    ),
    Fault(
        id="F40.tie",
        says="one rank takes the second of two tokens that differ by rounding",
        expect=EXPECT,
        inject=_in_the_last_rank(_tie_broken_elsewhere),
        into_rank=True,
        into_share=False,
        not_run=NOT_RUN,
    ),
    Fault(
        id="F40.draft",
        says="one rank drafts another token",
        expect=EXPECT,
        inject=_in_the_last_rank(lambda target: changing_drafts(target, _last_nodes_token_exchanged)),
        into_rank=True,
        not_run=NOT_RUN,
    ),
)
