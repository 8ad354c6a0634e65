"""Wrapped drafters: everything is handed on, and what a fault goes into is found behind every wrapper."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from support.tiny_models import tiny_models

from specscope.engine.drafters.base import Drafter, DrafterProxy, NoDrafter, innermost
from specscope.engine.lab.faults import FaultTarget, find_fault, inject
from specscope.engine.lab.faults.base import check_fits
from specscope.engine.lab.rerun.recorded_trees import RecordedTrees
from specscope.engine.loop.phases import Phases
from specscope.tracer.errors import UsageError


def members(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_a_proxy_hands_on_every_member_of_the_protocol() -> None:
    assert members(DrafterProxy) == members(Drafter)
    for name in members(Drafter):
        wanted, handed_on = vars(Drafter)[name], vars(DrafterProxy)[name]
        assert isinstance(handed_on, property) == isinstance(wanted, property), name
        if not isinstance(wanted, property):
            assert inspect.signature(handed_on) == inspect.signature(wanted), name


def test_the_drafter_that_does_the_work_is_found_behind_every_proxy() -> None:
    drafter = NoDrafter()
    assert innermost(drafter) is drafter
    assert innermost(RecordedTrees(DrafterProxy(drafter))) is drafter


def test_a_fault_goes_into_a_head_that_another_fault_has_wrapped(teacher_folder: Path, head_folder: Path) -> None:
    models = tiny_models(teacher_folder, head_folder)
    target = inject(FaultTarget(models, Phases()), find_fault("F01.off-by-one"))
    assert target.models.drafter is not models.drafter
    assert target.eagle3 is models.drafter
    check_fits(find_fault("F09"), target.models)
    inject(target, find_fault("F09"))


def test_a_wrapped_drafter_without_a_head_is_refused_by_its_kind(teacher_folder: Path) -> None:
    models = tiny_models(teacher_folder, None)
    wrapped = FaultTarget(models, Phases()).with_drafter(DrafterProxy(models.drafter))
    with pytest.raises(UsageError, match="got drafter none"):
        inject(wrapped, find_fault("F09"))
