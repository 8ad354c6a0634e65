"""One finding for what moves every value a little: one root, and what follows from it.

Single values may each be within bounds, and all of them together be no noise. Then there is one root, at the first
place where it shows, and numbers and choices that differ after it are its consequences, not further roots.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from specscope.schemas import Manifest
from specscope.schemas.phases import Phase
from specscope.schemas.verdict import TIES, Difference, DriftFinding, NoiseFloor, Quantity
from specscope.tracer.compare.drift import Drift, DriftPlace
from specscope.tracer.compare.manifests import compare_manifests
from specscope.tracer.compare.noise import Excess, find_excess, find_movement
from specscope.tracer.compare.steps import difference
from specscope.tracer.naming.text import figures

#: Where a quantity shows, in the order in which a step computes them.
SHOWN: dict[Quantity, tuple[Phase, str]] = {
    "hidden-norms": ("draft", "inputs.hidden_norms"),
    "draft-scores": ("draft", "levels"),
    "logits": ("verify", "top_logits"),
    "logsumexp": ("verify", "logsumexp"),
    "entropy": ("verify", "entropy"),
}
ORDER = list(SHOWN)
#: What may differ between two runs of the same kernels.
NO_KERNEL = ("level", "fault", "cache_strategy", "cache", "block_size")


class UniformDrift(NamedTuple):
    """What drifts on the whole, and the first place where it shows."""

    place: DriftPlace
    difference: Difference
    finding: DriftFinding
    also: int  # further quantities
    quantities: frozenset[Quantity]  # in which differences follow from it

    def explains(self, differing: Difference) -> bool:
        """Whether a difference after the first place is one of its consequences: a number, or a choice by numbers."""
        follows = quantity_of(differing)
        by_numbers = differing.kind == "real" or (follows == "draft-scores" and differing.kind == "structural")
        return by_numbers and follows in self.quantities

    def begins_at(self, turn: int, step: int | None) -> bool:
        """Whether it shows first at that step of the baseline, or in that turn's prefill (None)."""
        return self.place.turns.a.turn == turn and self.place.step_a == step


def uniform_drift(
    drift: Drift, floors: list[NoiseFloor], against: Literal["dtype", "noise-file"]
) -> UniformDrift | None:
    """What of the pair drifts further on the whole than its floors allow."""
    return _first(drift, find_excess(drift, floors), against)


def movement(noise: Manifest, candidate: Manifest, drift: Drift) -> UniformDrift | None:
    """Where the run of --noise and the candidate say that the same kernels made them, on a device that repeats itself:
    what differs between them all the same. ``drift`` is that from the one to the other."""
    return _first(drift, find_movement(drift), "same-kernels") if same_kernels(noise, candidate) else None


def same_kernels(a: Manifest, b: Manifest) -> bool:
    """Whether two runs say that the same kernels made them on a CPU, which then leave the same bits."""
    if a.device.backend != "cpu" or a.device.instructions is None:
        return False
    comparison = compare_manifests(a, b, frozenset())
    differing = {line.partition(":")[0].partition(".")[0] for line in (*comparison.axis, *comparison.incomparable)}
    return not differing - set(NO_KERNEL)


def _first(
    drift: Drift, excesses: list[Excess], against: Literal["dtype", "noise-file", "same-kernels"]
) -> UniformDrift | None:
    if not excesses:
        return None
    first = min(excesses, key=lambda excess: (excess.number, ORDER.index(excess.quantity)))
    place = drift.places[first.number]
    phase, field = SHOWN[first.quantity]
    if first.level:
        field = f"levels[{first.level}].logprobs"
    if place.step_a is None:
        field = f"prefill.{field}"
    finding = DriftFinding(
        quantity=first.quantity,
        num_values=first.num_values,
        typical=first.typical,
        allowed=first.allowed,
        share=first.share,
        against=against,
    )
    wanted = f"{figures(first.allowed)} roundings at most" if first.allowed else "the same bits"
    got = f"{figures(first.typical)} roundings on the whole, {first.num_values} values"
    drifting = difference(phase, field, wanted, got, kind="real", inputs_equal=True)
    return UniformDrift(
        place=place,
        difference=drifting,
        finding=finding,
        also=len(excesses) - 1,
        quantities=_downstream(first.quantity),
    )


def _downstream(quantity: Quantity) -> frozenset[Quantity]:
    """What is computed from it, itself included: of the teacher's numbers everything."""
    if quantity in ("draft-scores", "hidden-norms"):
        return frozenset(ORDER[ORDER.index(quantity) : 2])
    return frozenset(ORDER)


def is_teachers_number(differing: Difference) -> bool:
    """Whether a difference is one of what the teacher's forward gives: logits, what they sum up to, features."""
    features = differing.phase == "draft" and differing.field.startswith("inputs.hidden_norms")
    return features or (differing.phase == "verify" and quantity_of(differing) is not None)


def quantity_of(differing: Difference) -> Quantity | None:
    """The quantity that a difference is one of, or was decided by; None where that is no float."""
    if differing.kind in TIES or differing.phase not in ("draft", "verify", "accept"):
        return None
    if differing.phase == "verify":
        for quantity, (phase, field) in SHOWN.items():
            if phase == "verify" and field in differing.field:
                return quantity
        return "logits"
    if differing.phase == "draft":
        if differing.field.startswith("inputs.hidden_norms"):
            return "hidden-norms"
        numeric = ("frontier", "tokens", "logprobs")
        return (
            "draft-scores"
            if differing.field.startswith("levels[") and any(n in differing.field for n in numeric)
            else None
        )
    return "draft-scores" if differing.field.endswith("draft_prob") else "logits"
