"""Faults of rows that one request takes after another, F39: something of the request before stays in the row."""

from __future__ import annotations

from collections.abc import Callable

import torch

from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget, Places
from specscope.engine.loop.rows import TakenRow

Take = Callable[[TakenRow], int]


def _is_left(taken: TakenRow) -> bool:
    """Whether another request had the row, and left its keys and values there."""
    return not taken.held_ids and taken.cache.committed_lengths[taken.number] > 0


def _as_known_prefix(taken: TakenRow) -> int:
    """What the row holds counts as the beginning of the prompt, whatever tokens it was made of."""
    held = min(taken.cache.committed_lengths[taken.number], len(taken.prompt_ids) - 1)
    start = max(0, min(held - 1, taken.drafter.num_pairs[taken.number]))
    taken.cache.truncate(taken.number, start)
    taken.drafter.begin_turn(taken.number, taken.prompt_ids, start)
    return start


def _teacher_alone(taken: TakenRow) -> int:
    """The teacher's cache is emptied, and the drafter is not told."""
    taken.cache.truncate(taken.number, 0)
    return 0


def _taking_left_rows(take: Take) -> Callable[[FaultTarget], FaultTarget]:
    """Rows that another request has left are taken by ``take``; the others as they must be."""

    def inject(target: FaultTarget) -> FaultTarget:
        honest = target.phases.take_row
        return target.with_phases(take_row=lambda taken: (take if _is_left(taken) else honest)(taken))

    return inject


def _generators_stay(target: FaultTarget) -> FaultTarget:
    """The random numbers are a row's, and not a turn's."""
    honest, kept = target.phases.new_generator, dict[int, torch.Generator]()

    def new_generator(row: int, seed: int) -> torch.Generator:
        return kept.setdefault(row, honest(row, seed))

    return target.with_phases(new_generator=new_generator)


def _row_fault(
    form: str, says: str, inject: Callable[[FaultTarget], FaultTarget], places: Places, rule: str = "nothing-kept"
) -> Fault:
    return Fault(
        id=f"F39.{form}",
        says=says,
        expect=Expectation(places=places, invariant=f"rows.{rule}"),
        scenario="arrivals",
        inject=inject,
    )


ROW_FAULTS: tuple[Fault, ...] = (
    _row_fault(
        "prefix",
        "a row's new request takes the old one's keys and values for the beginning of its prompt",
        _taking_left_rows(_as_known_prefix),
        places=(("verify", "prefill"),),
    ),
    _row_fault(
        "drafter",
        "a row's new request is drafted for with what the drafter holds of the old one",
        _taking_left_rows(_teacher_alone),
        places=(("draft", ""),),
    ),
    _row_fault(
        "generator",
        "a row's new request goes on drawing where the old one left off",
        _generators_stay,
        places=(("verify", "prefill"),),
        rule="draws-anew",
    ),
)
