"""The picture in docs/verdict.md: how far an honest pair's logits drift, and a faulty pair's, in roundings."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from benchmarks.verdicts.cells import cells
from benchmarks.verdicts.record import NumericFault, trace_path
from benchmarks.verdicts.settings import CANDIDATE, REFERENCE
from specscope.tracer.compare.drift import measure_drift
from specscope.tracer.compare.noise import bounds_of
from specscope.tracer.files.reader import TraceReader

SHOWN = "demo-16-nodes-float32"
FAULT = NumericFault(layer=1, size=3e-4)
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 260, 20, 44, 34
MOST_BIN = 11  # 2^11 roundings; the axis doubles from bar to bar


def draw(folder: Path) -> str:
    """The picture as SVG, from the runs below ``folder``."""
    cell = next(cell for cell in cells() if cell.id == SHOWN)
    baseline = trace_path(folder, cell, REFERENCE.name)
    honest = _bins(baseline, trace_path(folder, cell, CANDIDATE.name))
    faulty = _bins(baseline, trace_path(folder, cell, FAULT.name))
    allowed = bounds_of(cell.dtype, None).typical["logits"]
    parts = [
        _bars(honest, "#2b6cb0", 0),
        _bars(faulty, "#c05621", 1),
        _axis(),
        _line(allowed),
        _words(LEFT + 12, 18, "#2b6cb0", "honest: eager against fused"),
        _words(LEFT + 250, 18, "#c05621", f"one block's output {FAULT.size:.2%} too large"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="13"><rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _bins(baseline: Path, candidate: Path) -> dict[int, float]:
    """Share of the logits by the power of two that their drift reaches; below one rounding is bar 0."""
    with TraceReader(baseline) as a, TraceReader(candidate) as b:
        values = measure_drift(a, b).samples["logits"].roundings
    counts = Counter(min(MOST_BIN, max(0, math.floor(math.log2(value)) + 1 if value else 0)) for value in values)
    return {number: count / len(values) for number, count in counts.items()}


def _left(number: float) -> float:
    return LEFT + number * (WIDTH - 2 * LEFT) / (MOST_BIN + 1)


def _bars(shares: dict[int, float], colour: str, place: int) -> str:
    half, room = (_left(1) - _left(0)) * 0.42, HEIGHT - BOTTOM - TOP
    return "".join(
        f'<rect x="{_left(number) + 3 + place * half:.1f}" y="{HEIGHT - BOTTOM - room * share * 2:.1f}" '
        f'width="{half:.1f}" height="{room * share * 2:.1f}" fill="{colour}"/>'
        for number, share in sorted(shares.items())
    )


def _axis() -> str:
    names = ["0", *(str(2**number) for number in range(MOST_BIN))]
    marks = [_words(_left(number) + 2, HEIGHT - BOTTOM + 16, "#444444", name) for number, name in enumerate(names)]
    line = f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - LEFT}" stroke="#444444"/>'
    return line + "".join(marks) + _words(LEFT + 2, HEIGHT - 8, "#444444", "drift of a logit, in roundings, from")


def _line(allowed: float) -> str:
    x = _left(math.log2(allowed) + 1)
    words = _words(x + 6, TOP + 14, "#444444", f"mean allowed: {allowed:g}")
    return f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#444444" stroke-dasharray="4 3"/>{words}'


def _words(x: float, y: float, colour: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{text}</text>'
