"""A run in words: who ran what, with what, and what it came to. Knows manifests and the index, no steps."""

from __future__ import annotations

from specscope.tracer.files.reader import TraceReader
from specscope.tracer.report.card import Row, one_line
from specscope.tracer.words.text import html_text
from specscope.viewer.drawing.fragments import rows
from specscope.viewer.drawing.frames import DIFFERS, folded, row, table
from specscope.viewer.drawing.words.manifest import UNSAID, manifest_rows
from specscope.viewer.drawing.words.numbers import decimals
from specscope.viewer.runs.summary import mean_accepted_length

MAX_VALUE = 300  # characters
DIFFERING = ("ss-whole-word", "", "")
#: What a person asks first; the rest is folded.
FIRST_ASKED = (
    *("trace", "teacher", "drafter", "mode", "device", "tree"),
    *("acceptance rule", "seed", "set apart by", "end"),
)


def run_rows(reader: TraceReader) -> list[Row]:
    """The run for people, the same names in the same order for every run."""
    found = [
        ("trace", str(reader.path)),
        *manifest_rows(reader.manifest),
        ("accepted length", f"{decimals(mean_accepted_length(reader), 3)} on average; root and bonus not counted"),
        ("end", _end(reader)),
    ]
    return [Row(name, one_line(value, MAX_VALUE)) for name, value in found]


def run_words(reader: TraceReader) -> str:
    """The run as markup: what a person asks first, and the rest folded."""
    found = run_rows(reader)
    first = [one for one in found if one.name in FIRST_ASKED]
    rest = [one for one in found if one.name not in FIRST_ASKED]
    return rows(first) + folded("The rest of what its manifest says", rows(rest))


def both_runs(a: TraceReader, b: TraceReader) -> str:
    """Two runs as markup: where they differ side by side, and the rest folded."""
    pairs = list(zip(run_rows(a), run_rows(b), strict=True))
    lines = [
        row([f"{DIFFERS} {html_text(of_a.name)}", html_text(of_a.value), html_text(of_b.value)], DIFFERING)
        for of_a, of_b in pairs
        if of_a != of_b
    ]
    same = [of_a for of_a, of_b in pairs if of_a == of_b]
    common = [one for one in same if one.value != UNSAID]
    unsaid = [one.name for one in same if one.value == UNSAID]
    common += [Row("neither says", ", ".join(unsaid))] if unsaid else []
    return table(("differs", "baseline", "candidate"), lines) + folded("What they have in common", rows(common))


def _end(reader: TraceReader) -> str:
    end = reader.run_end()
    if end is not None:
        return end.reason
    torn = reader.index.torn_bytes
    return "truncated: no end record" + (f", and {torn} bytes of a torn one" if torn else "")
