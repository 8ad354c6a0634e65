"""The noise floor, measured: how far floats lie apart that were computed from equal inputs.

From two runs that are known to differ by noise alone, or else from the pair itself: from the steps of each turn up to
the first one whose tree or tensors differ, because what follows a structural difference is no noise. A quarter of the
values may still be faulty: the floor is made of the upper quartile. A fault that moves every value alike cannot be told
from noise within one pair, so that floor has a ceiling, which the dtype gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median, quantiles
from typing import NamedTuple

from specscope.schemas import Step
from specscope.schemas.verdict import FloorSource, NoiseFloor, Quantity
from specscope.tracer.compare.align import align_steps, align_turns
from specscope.tracer.compare.judge import MAGNITUDE, scaled_gap
from specscope.tracer.compare.manifests import both_draft
from specscope.tracer.compare.nodes import ROOT, StepNodes
from specscope.tracer.reader import TraceReader

MOST_VALUES = 20_000  # logits; more tell nothing new
FEWEST_VALUES = 64  # fewer are no measurement
#: Quartile to floor. Honest pairs of eager and fused runs reached 22 upper quartiles, in draft scores of float32.
SPREAD = 32
#: Absolute, at magnitude 16: what honest kernels of a dtype may come to at worst.
MOST = {"float64": 1e-9, "float32": 1e-3, "float16": 3e-2, "bfloat16": 2.5e-1}
#: What another order of summation alone may do, in roundings at magnitude 16: no measured floor is lower, unless MOST
#: is. Values that are equal to the last bit in most places, as behind another batch size, tell nothing of the others.
ROUNDINGS = 16
#: Distance of 1 to the next number.
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
QUANTITIES: tuple[Quantity, ...] = ("logits", "draft-scores", "hidden-norms")


class EqualInputs(NamedTuple):
    """Two values of one quantity whose inputs are equal on both sides."""

    quantity: Quantity
    a: float
    b: float
    num_terms: int  # summed


def measured_floors(dtype: str, gaps: dict[Quantity, list[float]], source: FloorSource) -> list[NoiseFloor]:
    """The floors that scaled ``gaps`` give: 32 upper quartiles, between 16 roundings and the dtype's most.

    Between two runs that are known to be honest there is no ceiling, and no gap that was seen is above the floor.
    """
    least, most = _bounds(dtype)
    floors = []
    for quantity in QUANTITIES:
        sample = gaps.get(quantity, [])
        if len(sample) < FEWEST_VALUES:
            floors.append(_floor(quantity, most, "dtype", sample, least, most))
            continue
        wanted = max(SPREAD * quantiles(sample, n=4)[2], least)
        wanted = max(wanted, 2 * max(sample)) if source == "noise-file" else min(wanted, most)
        floors.append(_floor(quantity, wanted, source, sample, least, most))
    return floors


def given_floors(dtype: str, tolerance: float) -> list[NoiseFloor]:
    """The same floor for everything, as the user gave it."""
    least, most = _bounds(dtype)
    return [_floor(quantity, tolerance, "given", [], least, most) for quantity in QUANTITIES]


class _Bounds(NamedTuple):
    least: float
    most: float


def _bounds(dtype: str) -> _Bounds:
    most = MOST.get(dtype, MOST["float32"])
    return _Bounds(min(ROUNDINGS * EPSILON.get(dtype, EPSILON["float32"]) * MAGNITUDE, most), most)


def _floor(
    quantity: Quantity, floor: float, source: FloorSource, sample: list[float], least: float, most: float
) -> NoiseFloor:
    middle = median(sample) if sample else None
    return NoiseFloor(
        quantity=quantity, floor=floor, source=source, sample_size=len(sample), median=middle, least=least, most=most
    )


def coarser(dtype: str, other: str) -> str:
    """Of two dtypes the one that rounds more."""
    return max(dtype, other, key=lambda name: _bounds(name).most)


def _never(_a: Step, _b: Step) -> bool:
    return False


def measure_gaps(
    a: TraceReader, b: TraceReader, is_misshapen: Callable[[Step, Step], bool] = _never
) -> dict[Quantity, list[float]]:
    """Scaled distances of floats with equal inputs, per quantity, of the first steps that the two runs share; a turn is
    left at a step of which ``is_misshapen`` holds."""
    gaps: dict[Quantity, list[float]] = {quantity: [] for quantity in QUANTITIES}
    trees = both_draft(a.manifest, b.manifest)
    for pair in align_turns(a, b).pairs:
        for steps in align_steps(a, b, pair):
            if not steps.same_context:
                break
            if len(gaps["logits"]) >= MOST_VALUES:
                return gaps
            if is_misshapen(steps.a, steps.b):
                break
            nodes_a, nodes_b = StepNodes(steps.a), StepNodes(steps.b)
            if trees and not same_structure(nodes_a, nodes_b):
                break
            for value in equal_input_values(nodes_a, nodes_b, trees=trees, regrouped=steps.regrouped > 0):
                gap = scaled_gap(value.a, value.b, value.num_terms)
                if gap < float("inf"):
                    gaps[value.quantity].append(gap)
    return gaps


def same_structure(a: StepNodes, b: StepNodes) -> bool:
    """Whether both steps have the same nodes, at the same positions, seeing the same. Where neither records a tree,
    slots stand for nodes."""
    if set(a.keys) != set(b.keys) or a.visible != b.visible:
        return False
    fed_a, fed_b = a.step.tensors, b.step.tensors
    if fed_a is None or fed_b is None:
        return fed_a is fed_b
    if fed_a.committed_length != fed_b.committed_length:
        return False
    lists = (
        (fed_a.positions, fed_b.positions),
        (fed_a.token_ids, fed_b.token_ids),
        (fed_a.prefix_visible, fed_b.prefix_visible),
    )
    if not a.keys:
        return fed_a.mask_rows == fed_b.mask_rows and all(left == right for left, right in lists)
    places = [(a.slots[key], b.slots[key]) for key in a.keys]
    size = len(a.keys)
    return all(len(left) >= size <= len(right) and all(left[i] == right[j] for i, j in places) for left, right in lists)


def equal_input_values(a: StepNodes, b: StepNodes, *, trees: bool, regrouped: bool) -> Iterator[EqualInputs]:
    """The floats of two steps of the same structure; at the root alone where only one run drafts (``trees`` off)."""
    verify_a, verify_b = a.step.verify, b.step.verify
    if verify_a is not None and verify_b is not None:
        for key in a.keys if trees else [ROOT]:
            slot_a, slot_b = a.slots.get(key), b.slots.get(key)
            if slot_a is None or slot_b is None:
                continue
            if slot_a < len(verify_a.top_logits or []) and slot_b < len(verify_b.top_logits or []):
                pairs = zip(verify_a.best_logits(slot_a), verify_b.best_logits(slot_b), strict=False)
                yield from (EqualInputs("logits", x, y, 1) for x, y in pairs)
    draft_a, draft_b = a.step.draft, b.step.draft
    if not trees or regrouped or draft_a is None or draft_b is None:
        return
    norms = zip(draft_a.inputs.hidden_norms or [], draft_b.inputs.hidden_norms or [], strict=False)
    yield from (EqualInputs("hidden-norms", x, y, 1) for x, y in norms)
    for key, score in a.candidates.items():
        if key in b.candidates:
            yield EqualInputs("draft-scores", score, b.candidates[key], len(key))
