"""What a deliberate fault is: where it goes in, and what the verdict must then say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.base import Draft, Drafter, DrafterProxy, DraftPairs, innermost
from specscope.engine.drafters.eagle3.drafter import Eagle3Drafter
from specscope.engine.load.models import Models
from specscope.engine.run.runner import Workings, unchanged
from specscope.engine.settings import AcceptanceChoice, ModelChoice
from specscope.schemas.phases import Phase
from specscope.tracer.errors import UsageError

Places = tuple[tuple[Phase, str], ...]


@dataclass(frozen=True)
class FaultTarget(Workings):
    """What a fault may change: the loop's phases, and the models, which are its own to spoil."""

    @property
    def eagle3(self) -> Eagle3Drafter:
        """The drafter, where it is an EAGLE-3 head; behind proxies too, so that faults can be combined.

        Raises:
            UsageError: where it is another.
        """
        drafter = innermost(self.models.drafter)
        if not isinstance(drafter, Eagle3Drafter):
            raise UsageError(_requires_eagle3(drafter))
        return drafter

    def with_phases(self, **changed: Any) -> FaultTarget:
        """With these phases instead."""
        return replace(self, phases=replace(self.phases, **changed))

    def with_drafter(self, drafter: Drafter) -> FaultTarget:
        """With this drafter instead."""
        return replace(self, models=replace(self.models, drafter=drafter))


def _requires_eagle3(drafter: Drafter) -> str:
    return f"the fault goes into an EAGLE-3 head, got drafter {drafter.manifest().kind}: use --drafter eagle3"


@dataclass(frozen=True)
class Expectation:
    """What the verdict on an honest baseline and a candidate with the fault in must say.

    ``outcome``: ``root``, a first root at one of ``places``; ``violation``, no decision differs, but the oracle finds
    the candidate wrong; ``incomparable``, the manifests tell; ``refused``, loading or decoding ends with an error.
    """

    outcome: Literal["root", "violation", "incomparable", "refused"] = "root"
    places: Places = ()  # phase and the beginning of the field's name, each that is right
    invariant: str | None = None  # that the candidate alone violates; None: no record tells, and no side may be blamed
    says: str | None = None  # refused, incomparable: what the message or the named field must contain


ONE_OF_SEVERAL = "the fault goes into one of several ranks: use --tensor-parallel"


def _unchanged(target: FaultTarget) -> FaultTarget:
    return target


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of bug, in one of its forms."""

    id: str  # F15.sibling; F16 where the catalogue's entry has one form
    says: str
    expect: Expectation
    scenario: str = "greedy"  # the selftest's, by name, in which it shows
    inject: Callable[[FaultTarget], FaultTarget] = _unchanged
    #: Instead of ``inject``, for what goes wrong at loading: the choice with a damaged copy of a checkpoint, which is
    #: written to the folder given.
    damage: Callable[[ModelChoice, Path], ModelChoice] | None = None
    into_eagle3: bool = False  # it goes into an EAGLE-3 head, and into no other drafter
    not_run: str | None = None  # why the selftest cannot run it; None where it can
    cache: Literal["dense", "paged"] | None = None  # how the cache must lie; None: either
    into_rank: bool = False  # it goes into one of several ranks
    into_share: bool = True  # it is still there where each rank accepts for a share of the rows alone
    is_half_already: bool = False  # it computes in a half format what the run computes in another: there it is none

    @property
    def entry(self) -> str:
        """The catalogue's entry, such as F15."""
        return self.id.partition(".")[0]


def check_fits(fault: Fault, models: Models) -> None:
    """Refuses a fault that these models have no place for.

    Raises:
        UsageError: where it goes into another drafter.
    """
    if fault.into_eagle3 and not isinstance(innermost(models.drafter), Eagle3Drafter):
        raise UsageError(f"{fault.id}: {_requires_eagle3(models.drafter)}")


def check_cache(fault_id: str, wanted: str | None, got: str) -> None:
    """Refuses a fault of the cache of one kind in a run with another.

    Raises:
        UsageError: where the run has that.
    """
    if wanted is not None and wanted != got:
        raise UsageError(f"{fault_id}: the fault goes into a {wanted} cache, got a {got} one: use --cache {wanted}")


def check_ranks(fault: Fault, num_ranks: int, acceptance: AcceptanceChoice) -> None:
    """Refuses a fault of one rank where there is no other, or where no rank decides what it changes by itself.

    Raises:
        UsageError: naming what to do.
    """
    if fault.into_rank and num_ranks == 1:
        raise UsageError(f"{fault.id}: {ONE_OF_SEVERAL}")
    if fault.into_rank and not fault.into_share and acceptance == "sharded":
        raise UsageError(
            f"{fault.id}: with --acceptance sharded, ranks take over what one of them accepted, and none differs: use "
            "--acceptance replicated"
        )


def injecting(fault: Fault | None) -> Callable[[Workings], Workings]:
    """What a run is changed by that has ``fault`` in; nothing where there is none."""
    return unchanged if fault is None else lambda workings: inject(FaultTarget(workings.models, workings.phases), fault)


def inject(target: FaultTarget, fault: Fault) -> FaultTarget:
    """``target`` with the fault in. The loop then goes on at a violated invariant, so that the trace shows it.

    Raises:
        UsageError: where these models have no place for it.
    """
    check_fits(fault, target.models)
    changed = fault.inject(target)
    return replace(changed, phases=replace(changed.phases, stop_on_violation=False))


class ChangedDrafts(DrafterProxy):
    """A drafter whose drafts are changed before anyone sees them."""

    def __init__(self, inner: Drafter, change: Callable[[Draft], Draft]) -> None:
        super().__init__(inner)
        self._change = change

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """The inner drafter's draft, changed."""
        return self._change(self.inner.propose(pairs, branch, generators))


def changing_drafts(target: FaultTarget, change: Callable[[Draft], Draft]) -> FaultTarget:
    """``target`` with every draft changed before it is made into tensors."""
    return target.with_drafter(ChangedDrafts(target.models.drafter, change))
