"""The phases are those that the records have."""

from __future__ import annotations

from specscope.schemas import Step, TimingSection
from specscope.schemas.phases import COMPARED_PHASES, TIMED_PHASES


def test_every_compared_phase_is_a_section_of_a_step_in_their_order() -> None:
    assert [name for name in Step.model_fields if name in COMPARED_PHASES] == list(COMPARED_PHASES)


def test_every_timed_phase_has_its_time_in_their_order() -> None:
    timed = [
        name.removesuffix("_ns") for name in TimingSection.model_fields if name.endswith("_ns") and name != "begun_ns"
    ]
    assert timed == list(TIMED_PHASES)
