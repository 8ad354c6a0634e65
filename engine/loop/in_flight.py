"""What a prefill or a step has produced so far: a complete step's parts when it ends, a failure's record when it fails.

Knows no transformers. Of the file format it uses how a shape is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from specscope.engine.accept.greedy import Acceptance
from specscope.engine.accept.sampling import Coins
from specscope.engine.cache.blocks import BlockNote
from specscope.engine.cache.commit import Commit
from specscope.engine.drafters.base import Draft, DraftPairs
from specscope.engine.guided.walk import SlotMasks
from specscope.engine.loop.phases import (
    Custody,
    GuidedStep,
    InFlight,
    PhaseName,
    RankDecided,
    RowAcceptance,
    StepResult,
    StepTensors,
    TurnState,
    Verification,
)
from specscope.engine.loop.stopping import StopDecision
from specscope.engine.loop.turns import Row, Turn, TurnRequest
from specscope.engine.tree.checks import CheckReport, InputSnapshot
from specscope.engine.tree.tensors import TreeTensors
from specscope.schemas import ShapeSection
from specscope.schemas.phases import TimedPhase


class PhaseClock:
    """Which phase is running, and how long each took.

    Args:
        settle: waits for the device at the end of each phase; None: the phases of a device only launch.
    """

    def __init__(self, settle: Callable[[], None] | None = None) -> None:
        self.settle = settle
        self.current: PhaseName = "prefill"
        self.durations_ns: dict[str, int] = {}

    @contextmanager
    def phase(self, name: TimedPhase) -> Iterator[None]:
        """Times the block as phase ``name``; ``current`` keeps the name where the block fails, if one can be its."""
        if name != "deliver":
            self.current = name
        begun = time.perf_counter_ns()
        yield
        if self.settle is not None:
            self.settle()
        self.durations_ns[name] = time.perf_counter_ns() - begun


@dataclass(kw_only=True)
class PrefillInFlight:
    """A prompt that is being taken in."""

    row: int
    turn: Turn
    request: TurnRequest
    clock: PhaseClock = field(default_factory=PhaseClock)

    def of_row(self, row: int) -> InFlight | None:
        """What ``row`` was working on; None where the prefill is not its."""
        if row != self.row:
            return None
        seed = self.request.generator_seed if self.turn.generator is not None else None
        state = TurnState(context_ids=self.request.prompt_ids, generator_seed=seed)
        return InFlight(phase=self.clock.current, row=row, state=state)


@dataclass(kw_only=True)
class RowInFlight:
    """One row of a running step."""

    number: int
    turn: Turn
    committed_ids: list[int]  # before the step
    committed_length: int
    pairs: DraftPairs  # what the drafter is fed
    generator_state: torch.Tensor | None  # before the step; None where nothing is drawn, or nobody observes
    custody: Custody | None = None  # None where nobody observes the row
    report: CheckReport | None = None  # None where the check is left to the device
    acceptance: RowAcceptance | None = None
    masks: SlotMasks | None = None  # what its grammar allows in its tree; None where it has none
    guided: GuidedStep | None = None  # the same with where the step left the grammar
    ranks: list[RankDecided] | None = None  # what each rank decided; None where one computes the step

    @classmethod
    def of(cls, number: int, row: Row, committed_length: int, *, observed: bool) -> RowInFlight:
        """The row as the step finds it."""
        turn = row.turn
        assert turn is not None
        assert turn.pairs is not None
        draws = observed and turn.generator is not None
        return cls(
            number=number,
            turn=turn,
            committed_ids=row.committed_ids,
            committed_length=committed_length,
            pairs=turn.pairs,
            generator_state=turn.generator.get_state() if draws and turn.generator is not None else None,
        )

    @property
    def state(self) -> TurnState:
        """Where the turn stood when the step began."""
        context = [*self.committed_ids[: self.committed_length], self.pairs.token_list[-1]]
        return TurnState(
            step=self.turn.step,
            context_ids=context,
            num_emitted=len(context) - self.turn.prompt_length,
            pairs=self.pairs,
            generator_state=self.generator_state,
        )

    @property
    def fed(self) -> DraftPairs:
        """What the drafter is fed, with what the grammar allows it to propose."""
        return self.pairs if self.turn.guide is None else replace(self.pairs, guide=self.turn.guide)

    @property
    def checked(self) -> CheckReport:
        """What the check of its tree says, once the acceptance is over."""
        assert self.report is not None
        return self.report

    @property
    def violates(self) -> bool:
        """Whether the check of its tree failed."""
        return self.report is not None and bool(self.report.failed)

    @property
    def accepted(self) -> RowAcceptance:
        """What the row accepted, once the phase is over."""
        assert self.acceptance is not None
        return self.acceptance


class Decision(NamedTuple):
    """A commit and a stop of one row, and what became of its blocks."""

    commit: Commit
    stop: StopDecision
    blocks: BlockNote | None = None  # None where the cache is dense, or nobody observes


@dataclass(kw_only=True)
class StepInFlight:
    """One running step of all rows."""

    rows: list[RowInFlight]
    observed: bool  # whether anybody observes one of the rows
    clock: PhaseClock = field(default_factory=PhaseClock)
    shape: ShapeSection | None = None  # None where none is chosen
    draft: Draft | None = None
    tensors: TreeTensors | None = None
    snapshot: InputSnapshot | None = None  # None where nobody observes
    verification: Verification | None = None
    coins: list[Coins] | None = None
    acceptance: Acceptance | None = None

    @classmethod
    def of(cls, rows: list[Row], committed_lengths: list[int], settle: Callable[[], None] | None) -> StepInFlight:
        """The step that all ``rows``, each with a running turn, are about to take; where one is observed, ``settle`` is
        called after each phase."""
        observed = any(row.turn is not None and row.turn.observer is not None for row in rows)
        return cls(
            rows=[
                RowInFlight.of(number, row, length, observed=observed)
                for number, (row, length) in enumerate(zip(rows, committed_lengths, strict=True))
            ],
            observed=observed,
            clock=PhaseClock(settle if observed else None),
        )

    def take_back_draws(self) -> None:
        """Sets the generators of observed rows back to where the step found them."""
        for row in self.rows:
            if row.generator_state is not None and row.turn.generator is not None:
                row.turn.generator.set_state(row.generator_state)

    @property
    def turns(self) -> list[Turn]:
        """The turn of each row."""
        return [row.turn for row in self.rows]

    @property
    def committed_lengths(self) -> list[int]:
        """Of each row, before the step."""
        return [row.committed_length for row in self.rows]

    def of_row(self, row: int) -> InFlight:
        """What ``row`` was working on."""
        running = self.rows[row]
        return InFlight(
            phase=self.clock.current,
            row=row,
            state=running.state,
            shape=self.shape,
            draft=self.draft,
            tensors=self.tensors,
            verification=self.verification,
            acceptance=running.acceptance,
            ranks=running.ranks,
        )

    @property
    def shared(self) -> StepTensors:
        """What all rows computed together, once the acceptance is over."""
        assert self.draft is not None
        assert self.tensors is not None
        assert self.verification is not None
        assert self.acceptance is not None
        return StepTensors(
            draft=self.draft,
            tensors=self.tensors,
            verification=self.verification,
            acceptance=self.acceptance,
            coins=self.coins,
            snapshot=self.snapshot,
        )

    def results(self, decisions: list[Decision], drafter_pairs: list[int]) -> list[StepResult]:
        """One result per row."""
        shared = self.shared
        return [
            StepResult(
                step=row.turn.step,
                row=row.number,
                shape=self.shape,
                shared=shared,
                report=row.checked,
                custody=row.custody,
                acceptance=row.accepted,
                commit=decision.commit,
                blocks=decision.blocks,
                drafter_pairs=drafter_pairs[row.number],
                stop=decision.stop,
                guided=row.guided,
                ranks=row.ranks,
                durations_ns=self.clock.durations_ns,
                synchronised=self.clock.settle is not None,
            )
            for row, decision in zip(self.rows, decisions, strict=True)
        ]
