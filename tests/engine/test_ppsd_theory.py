"""The closed form and the simulation agree where both hold, and with what can be worked out by hand."""

from __future__ import annotations

import random

import pytest

from specscope.engine.ppsd.simulate import Simulation
from specscope.engine.ppsd.theory import (
    Costs,
    draft_then_verify_speedup,
    ideal_speedup,
    pipeline_time,
)

TOKENS = 1500


def simulated_time(costs: Costs, acceptance: float, *, window: int | None = None, drafts: bool = True) -> float:
    """Per token."""
    chance = random.Random(3)
    held = [chance.random() < acceptance for _ in range(TOKENS + 1)]
    simulation = Simulation(costs, lambda position: held[position % len(held)], window=window, drafts=drafts)
    return simulation.run(TOKENS) / TOKENS


@pytest.mark.parametrize("num_stages", [2, 4, 8])
@pytest.mark.parametrize("acceptance", [0.0, 0.5, 0.8056, 1.0])
def test_equal_stages_without_hop_or_head_are_the_closed_form(num_stages: int, acceptance: float) -> None:
    costs = Costs(stages=[1.0] * num_stages, draft=0.0, hop=0.0)
    speedup = num_stages / simulated_time(costs, acceptance)
    assert speedup == pytest.approx(ideal_speedup(num_stages, acceptance), rel=0.04)
    assert costs.sequential / pipeline_time(costs, acceptance) == pytest.approx(ideal_speedup(num_stages, acceptance))


UNEQUAL = [[1.0, 1.0], [1.0, 0.6, 0.9], [0.5, 1.0, 0.7, 0.8], [1.2, 0.8], [1.0] * 8]


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("stages", UNEQUAL)
def test_the_closed_form_with_hop_and_head_bounds_the_simulation(acceptance: float, stages: list[float]) -> None:
    """Below it no schedule gets; a refuted draft may find the first stage busy, which the closed form does not know."""
    costs = Costs(stages=stages, draft=0.1, hop=0.05)
    ratio = simulated_time(costs, acceptance) / pipeline_time(costs, acceptance)
    assert 0.98 < ratio < 1.25
    if acceptance == 1.0:
        assert ratio < 1.01


@pytest.mark.parametrize("stages", UNEQUAL)
def test_drafts_that_never_hold_cost_little_where_the_window_adapts(stages: list[float]) -> None:
    costs = Costs(stages=stages, draft=0.1, hop=0.05)
    assert costs.sequential / simulated_time(costs, 0.0) > 0.97
    fixed = costs.sequential / simulated_time(costs, 0.0, window=len(stages))
    assert (fixed < 0.97) or stages in ([1.0] * 8,), "so that a fixed window does cost something"


@pytest.mark.parametrize("acceptance", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("stages", UNEQUAL)
def test_the_window_that_adapts_is_nearly_as_good_as_the_best_fixed_one(acceptance: float, stages: list[float]) -> None:
    costs = Costs(stages=stages, draft=0.1, hop=0.05)
    fixed = [simulated_time(costs, acceptance, window=window) for window in range(1, len(stages) + 1)]
    assert simulated_time(costs, acceptance) < 1.08 * min(fixed)


def test_sequential_decoding_takes_every_stage_and_every_hop() -> None:
    costs = Costs(stages=[2.0, 3.0], draft=9.0, hop=0.5)
    assert simulated_time(costs, 1.0, drafts=False) == pytest.approx(6.0, rel=1e-3)
    assert costs.sequential == 6.0


def test_a_draft_is_skipped_where_its_item_is_stale_already() -> None:
    costs = Costs(stages=[1.0, 1.0], draft=0.2, hop=0.1)
    assert simulated_time(costs, 0.0) == pytest.approx(costs.sequential, rel=2e-2)


def test_drafting_first_can_lose() -> None:
    assert draft_then_verify_speedup(0.4, 0.1, 4) < 1 < draft_then_verify_speedup(0.4, 0.9, 4)
    assert draft_then_verify_speedup(0.25, 0.5, 2) == pytest.approx((1 + 0.5 + 0.25) / 1.5)
