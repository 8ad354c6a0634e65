"""A run in words: what was run, with what, and with which result. Knows manifests and the index, no steps."""

from __future__ import annotations

from specscope.tracer.files.reader import TraceReader
from specscope.tracer.report.card import Row, one_line
from specscope.viewer.drawing.fragments import rows
from specscope.viewer.drawing.frames import DIFFERS, folded, row, table
from specscope.viewer.drawing.labels.manifest import UNSTATED, manifest_rows
from specscope.viewer.drawing.labels.numbers import decimals, tokens_per_step
from specscope.viewer.drawing.markup import Markup, html_text, joined, markup
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
    mean = mean_accepted_length(reader)
    entries = [
        ("trace", str(reader.path)),
        *manifest_rows(reader.manifest),
        ("accepted length", f"{decimals(mean, 3)} on average, without root and bonus token"),
        ("tokens per step", f"{decimals(tokens_per_step(mean), 3)} on average, with the bonus token"),
        ("end", _end(reader)),
    ]
    return [Row(name, one_line(value, MAX_VALUE)) for name, value in entries]


def run_words(reader: TraceReader) -> Markup:
    """The run as markup: what a person asks first, and the rest folded."""
    entries = run_rows(reader)
    first = [entry for entry in entries if entry.name in FIRST_ASKED]
    rest = [entry for entry in entries if entry.name not in FIRST_ASKED]
    return joined([rows(first), folded("The rest of the manifest", rows(rest))])


def both_runs(a: TraceReader, b: TraceReader) -> Markup:
    """Two runs as markup: where they differ side by side, and the rest folded."""
    pairs = list(zip(run_rows(a), run_rows(b), strict=True))
    lines = [_differing(of_a, of_b) for of_a, of_b in pairs if of_a != of_b]
    same = [of_a for of_a, of_b in pairs if of_a == of_b]
    common = [entry for entry in same if entry.value != UNSTATED]
    unstated = [entry.name for entry in same if entry.value == UNSTATED]
    common += [Row("stated by neither run", ", ".join(unstated))] if unstated else []
    return joined(
        [table(("differs", "baseline", "candidate"), lines), folded("What they have in common", rows(common))]
    )


def _differing(of_a: Row, of_b: Row) -> Markup:
    name = joined([DIFFERS, markup(" "), html_text(of_a.name)])
    return row([name, html_text(of_a.value), html_text(of_b.value)], DIFFERING)


def _end(reader: TraceReader) -> str:
    end = reader.run_end()
    if end is not None:
        return end.reason
    torn = reader.index.torn_bytes
    return "truncated: no end record" + (f", and {torn} bytes of a torn one" if torn else "")
