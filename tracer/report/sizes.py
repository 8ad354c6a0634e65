"""How large differences are, in words: against the noise floor, one value or all, and what would have been seen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from specscope.schemas.verdict import Difference, DriftFinding, NoiseFloor, Root, Verdict
from specscope.tracer.naming.text import counted, figures

SOURCES = {
    "given": "given by --tolerance",
    "noise-file": "measured between the baseline and the run of --noise",
    "this-pair": "measured on values of this pair with equal inputs",
    "dtype": "by dtype; too few values to measure it on",
}


class Size(NamedTuple):
    """How large a difference is, as a row of the card."""

    name: str
    value: str


def size_row(root: Root) -> Size | None:
    """How large the difference is, against the noise floor: as margins where choices differ, else of the values; None
    where it is no matter of size."""
    difference, floor = root.difference, root.difference.floor
    against = "" if floor is None else f"; noise floor {floor:.3g}"
    if difference.margin_a is not None and difference.margin_b is not None:
        both = f"{difference.margin_a:.6g} in the baseline, {difference.margin_b:.6g} in the candidate"
        return Size("margin", both + against)
    size = difference_size(difference)
    if floor is None or size is None:
        return None
    times = f"{figures(size / floor)} times the noise floor {floor:.3g}" if floor > 0 else "the noise floor is 0"
    return Size("differs by", f"{size:.3g}: {times}")


def difference_size(difference: Difference) -> float | None:
    """How far two numbers are apart; None where the values are no finite numbers."""
    try:
        size = abs(float(difference.a) - float(difference.b))
    except ValueError:
        return None
    return size if math.isfinite(size) else None


def floor_texts(floors: Iterable[NoiseFloor]) -> list[str]:
    """How far one value may drift, how far all of them do, and where that is known from: a line for all quantities of
    which the same holds."""
    quantities: dict[str, list[str]] = {}
    for floor in floors:
        quantities.setdefault(_floor_text(floor), []).append(floor.quantity)
    return [f"{', '.join(names)}: {text}" for text, names in quantities.items()]


def _floor_text(floor: NoiseFloor) -> str:
    parts = [SOURCES[floor.source], *([counted(floor.sample_size, "value")] if floor.sample_size else [])]
    if floor.rounding is None:
        return f"{floor.floor:.3g} ({', '.join(parts)})"
    if floor.typical is not None and floor.allowed is not None:
        parts.append(f"{floor.typical:.2g} on the whole, {floor.allowed:.2g} allowed")
    return f"{floor.floor / floor.rounding:.3g} roundings ({', '.join(parts)})"


def drift_text(finding: DriftFinding) -> str:
    """What no single value tells: how far all of them drift, and what noise would come to."""
    against = {
        "dtype": "this dtype's noise reaches {} at most; --noise or float32 would say more",
        "noise-file": "the run of --noise allows {} at most",
        "same-kernels": "the run of --noise says that the same kernels made it: every bit should agree",
    }[finding.against]
    share = f"{finding.share:.0%} of {counted(finding.num_values, 'value')} of {finding.quantity} are off"
    return f"{share}, by {figures(finding.typical)} roundings on the whole; {against.format(figures(finding.allowed))}"


def sensitivity_text(verdict: Verdict) -> str | None:
    """How small a fault in all numbers would have been seen; None where nothing was measured that tells."""
    if verdict.sensitivity is None:
        return None
    measured = any(floor.source == "noise-file" for floor in verdict.floors)
    more = "" if measured else "; --noise FILE or float32 would show smaller ones"
    return f"faults that move all logits by {verdict.sensitivity:.2g} of their size or more{more}"
