"""How large differences are, in words: against the noise floor, one value or all, and what would have been seen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, get_args

from specscope.schemas.verdict import Contender, Difference, DriftFinding, NoiseFloor, Root, Side, Verdict
from specscope.tracer.naming.text import counted, figures
from specscope.tracer.report.values import SideTexts, node_text

SOURCES = {
    "given": "given by --tolerance",
    "noise-file": "measured between the baseline and the run of --noise",
    "this-pair": "measured on values of this pair with equal inputs",
    "dtype": "by dtype; too few values to measure it on",
}


#: One rounding of float32 at magnitude 16, which floors are stated at.
FLOAT32_ROUNDING = 16 * 2.0**-23


class Size(NamedTuple):
    """How large a difference is, as a row of the card."""

    name: str
    value: str


def size_rows(root: Root, texts: SideTexts) -> list[Size]:
    """How large the difference is: the scores of what a choice lay between, and what stands against the noise floor;
    each where it is known."""
    return [row for row in (_scores_row(root.difference, texts), size_row(root)) if row is not None]


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


def _scores_row(difference: Difference, texts: SideTexts) -> Size | None:
    """What the choice lay between, with the scores of both on both sides; None where that is not known."""
    a, b = (side_scores(difference, side, texts) for side in get_args(Side))
    return None if a is None or b is None else Size("scores", f"in the baseline {a}; in the candidate {b}")


def side_scores(difference: Difference, side: Side, texts: SideTexts) -> str | None:
    """The same of one side, its own choice first."""
    if not difference.contenders:
        return None
    scores = [contender.a if side == "a" else contender.b for contender in difference.contenders]
    named = [
        f"{_contender_text(contender, side, texts)} {_score(score)}"
        for contender, score in zip(difference.contenders, scores, strict=True)
    ]
    is_choice = all(contender.what is None for contender in difference.contenders)
    return ", ".join(reversed(named) if is_choice and side == "b" else named)


def _contender_text(contender: Contender, side: Side, texts: SideTexts) -> str:
    if contender.token is not None:
        return texts.shown(contender.token, side)
    return contender.what or node_text(contender.node or [], texts, side)


def _score(score: float | None) -> str:
    """With all digits of a float32: the scores of a tie differ in the last of them."""
    return "not recorded" if score is None else f"{score:.9g}"


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
        "dtype": "this dtype's noise reaches {} at most; --noise would say more",
        "noise-file": "the run of --noise allows {} at most",
        "same-kernels": "the run of --noise says that the same kernels made it: every bit should agree",
    }[finding.against]
    share = f"{share_text(finding)} of {counted(finding.num_values, 'value')} of {finding.quantity} are off"
    return f"{share}, by {figures(finding.typical)} roundings on the whole; {against.format(figures(finding.allowed))}"


def share_text(finding: DriftFinding) -> str:
    """How many of the values drift further than noise does; all only where it is all."""
    if finding.share >= 1:
        return "100%"
    return f"{min(finding.share, 0.99):.0%}" if finding.share >= 0.01 else "less than 1%"


def sensitivity_text(verdict: Verdict) -> str | None:
    """How small a fault in all numbers would have been seen; None where nothing was measured that tells."""
    if verdict.sensitivity is None:
        return None
    measured = any(floor.source == "noise-file" for floor in verdict.floors)
    is_half = any(floor.rounding is not None and floor.rounding > FLOAT32_ROUNDING for floor in verdict.floors)
    more = "" if measured else f"; --noise FILE{' or float32' if is_half else ''} would show smaller ones"
    return f"faults that move all logits by {verdict.sensitivity:.2g} of their size or more{more}"
