"""What a step costs on this device: measured, for trees that are no larger than pays.

Times are medians of a few forwards over arbitrary tokens, after ``CONTEXT`` of them. They say what the machine took
just now, so that two measurements differ; trees that are to be the same take the same costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from statistics import median

import torch

from specscope.engine.backends.devices import backend_of
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.base import Drafter, DraftPairs
from specscope.engine.drafters.eagle3.drafter import Eagle3Drafter
from specscope.engine.drafters.model import ModelDrafter
from specscope.engine.teacher.model import Teacher
from specscope.engine.tree.policy import TreePolicy
from specscope.engine.tree.tensors import causal_mask
from specscope.schemas import StepCosts
from specscope.tracer.errors import UsageError

CONTEXT = 128
ROUNDS = 7
COMMITTED = 3  # tokens that a step's drafter takes in: an ordinary step's
LEAST_MS = 1e-3  # below what a clock tells

Forward = Callable[[], object]
GrowingDrafter = Eagle3Drafter | ModelDrafter


def size_by_costs(drafter: Drafter, teacher: Teacher, costs: StepCosts | None) -> None:
    """From now on the drafter's trees are no larger than pays by ``costs``; None: by those of this device now.

    Raises:
        UsageError: where the drafter grows no levels.
    """
    if not isinstance(drafter, (Eagle3Drafter, ModelDrafter)):
        raise UsageError(
            f"got budget auto with drafter {drafter.manifest().kind}, wanted eagle3 or model: their trees grow level "
            "by level, and cost more the deeper they are"
        )
    measured = measure_costs(teacher, drafter) if costs is None else costs
    drafter.policy = replace(drafter.policy, sizing=measured)


def measure_costs(teacher: Teacher, drafter: GrowingDrafter) -> StepCosts:
    """The costs of the drafter's steps, each part measured in turn with the others, ``ROUNDS`` times."""
    policy = drafter.policy
    slots = _slots(policy.budget + 1)
    deep = min(3, policy.depth)
    with torch.inference_mode():
        cache = _filled(teacher)
        runs: dict[str, Forward] = {f"verify {count}": _verification(teacher, cache, count) for count in slots}
        runs |= {f"draft {depth}": _draft(teacher, drafter, replace(policy, depth=depth)) for depth in (1, deep)}
        times = _medians(runs, lambda: backend_of(teacher.device.type).synchronise(teacher.device))
    drafter.policy = policy
    level_ms = (times[f"draft {deep}"] - times["draft 1"]) / max(1, deep - 1)
    # Noise aside, more slots never take less.
    verify_ms = accumulate((_rounded(times[f"verify {count}"]) for count in slots), max)
    return StepCosts(
        fixed_ms=_rounded(times["draft 1"]),
        level_ms=_rounded(level_ms),
        verify_slots=slots,
        verify_ms=list(verify_ms),
    )


def _rounded(milliseconds: float) -> float:
    """To three digits, which is more than such a measurement is good for."""
    return float(f"{max(milliseconds, LEAST_MS):.3g}")


def _slots(most: int) -> list[int]:
    """1, 2, 4, 8 and so on, the last not below ``most``."""
    return [2**power for power in range(1 + (most - 1).bit_length())]


def _filled(teacher: Teacher) -> TreeCache:
    """A cache of one row that holds ``CONTEXT`` tokens."""
    cache = teacher.new_cache()
    _forward(teacher, cache, CONTEXT)
    cache.commit_length([CONTEXT])
    return cache


def _forward(teacher: Teacher, cache: TreeCache, count: int) -> None:
    """Of ``count`` tokens after what is committed."""
    committed = cache.committed_lengths[0]
    positions = torch.arange(committed, committed + count, device=teacher.device)[None]
    mask = causal_mask(count, committed, teacher.dtype, teacher.device)
    teacher.forward(torch.zeros_like(positions), positions, mask, cache, feature_layers=())


def _verification(teacher: Teacher, cache: TreeCache, count: int) -> Forward:
    def run() -> None:
        _forward(teacher, cache, count)
        cache.drop_tail()

    return run


def _draft(teacher: Teacher, drafter: GrowingDrafter, policy: TreePolicy) -> Forward:
    """A draft by ``policy`` after an ordinary step; its own context grows by what each takes in."""
    width = len(drafter.feature_layers) * teacher.hidden_size

    def pairs(count: int) -> list[DraftPairs]:
        features = torch.zeros(count, width, dtype=teacher.dtype, device=teacher.device)
        tokens = torch.zeros(count, dtype=torch.int64, device=teacher.device)
        return [DraftPairs(list(range(count)), features, tokens, [0] * count)]

    def run() -> None:
        drafter.policy = policy
        drafter.propose(pairs(COMMITTED), teacher.new_cache())

    drafter.policy = policy
    drafter.begin_session(teacher.new_cache())
    drafter.begin_turn(0, [0] * CONTEXT, 0)
    drafter.propose(pairs(CONTEXT), teacher.new_cache())
    return run


def _medians(runs: dict[str, Forward], synchronise: Callable[[], None]) -> dict[str, float]:
    """The median time of each run in ms, once warm. In turn, so that what slows the machine slows all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + ROUNDS):
        for name, run in runs.items():
            synchronise()
            begun = time.perf_counter()
            run()
            synchronise()
            times[name].append((time.perf_counter() - begun) * 1e3)
    return {name: median(measured[1:]) for name, measured in times.items()}
