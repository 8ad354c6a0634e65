"""A run in words: who ran what, with what, and what it came to. Knows manifests and the index, no steps."""

from __future__ import annotations

import math

from specscope.tracer.reader import TraceReader
from specscope.tracer.report.card import Row, one_line
from specscope.tracer.text import html_text
from specscope.viewer.drawing.fragments import Fact, facts, rows
from specscope.viewer.drawing.manifest_words import manifest_rows
from specscope.viewer.report.page import folded, table

NOT_RECORDED = "not recorded"
MAX_VALUE = 300  # characters
#: What a person asks first; the rest is folded.
FIRST_ASKED = ("trace", "teacher", "drafter", "mode", "device", "tree", "acceptance rule", "seed", "end")
SPECIAL = ("injected fault", "replay of", "redacted")


def run_facts(reader: TraceReader) -> str:
    """How much was decoded, and how well it was drafted."""
    steps = sum(len(turn.steps) for turn in reader.turns)
    length = mean_accepted_length(reader)
    return facts(
        [
            Fact("turns", str(len(reader.turns))),
            Fact("steps", str(steps)),
            Fact("mean accepted length", _number(length), "nodes; root and bonus not counted"),
            Fact("tokens per step", _number(None if length is None else length + 1), "accepted length + 1"),
        ]
    )


def mean_accepted_length(reader: TraceReader) -> float | None:
    """Over all steps; None where there is none, or their writer supplies none. Infinite beyond floats."""
    lengths = [length for turn in reader.turns for length in turn.accepted_lengths]
    if not lengths or "accept" not in {name.split(".")[0] for name in reader.manifest.capabilities}:
        return None
    try:
        return sum(lengths) / len(lengths)
    except OverflowError:
        return math.inf


def run_rows(reader: TraceReader) -> list[Row]:
    """The run for people, the same names in the same order for every run; at the end what is not every run's."""
    manifest = reader.manifest
    found = [
        ("trace", str(reader.path)),
        *manifest_rows(manifest),
        ("accepted length", f"{_number(mean_accepted_length(reader))} on average; root and bonus not counted"),
        ("end", _end(reader)),
        *([("injected fault", manifest.fault)] if manifest.fault else []),
        *([("replay of", manifest.replay_of)] if manifest.replay_of else []),
        *([("redacted", "token ids are permuted, and have no text")] if manifest.redaction else []),
    ]
    return [Row(name, one_line(value, MAX_VALUE)) for name, value in found]


def run_words(reader: TraceReader) -> str:
    """The run as markup: what a person asks first, and the rest folded."""
    found = run_rows(reader)
    first = [row for row in found if row.name in (*FIRST_ASKED, *SPECIAL)]
    rest = [row for row in found if row not in first]
    return rows(first) + folded("The rest of what its manifest says", rows(rest))


def both_runs(a: TraceReader, b: TraceReader) -> str:
    """Two runs as markup: where they differ side by side, and the rest folded."""
    values_a, values_b = dict(run_rows(a)), dict(run_rows(b))
    names = dict.fromkeys([*values_a, *values_b])
    pairs = {name: (values_a.get(name, "none"), values_b.get(name, "none")) for name in names}
    lines = [
        [f'<span class="ss-whole-word"><b class="ss-at-fault">≠</b> {html_text(name)}</span>', *map(html_text, pair)]
        for name, pair in pairs.items()
        if pair[0] != pair[1]
    ]
    same = [Row(name, pair[0]) for name, pair in pairs.items() if pair[0] == pair[1]]
    return table(("differs", "baseline", "candidate"), lines) + folded("What they have in common", rows(same))


def _number(value: float | None) -> str:
    return NOT_RECORDED if value is None else f"{value:.3f}"


def _end(reader: TraceReader) -> str:
    end = reader.run_end()
    if end is not None:
        return end.reason
    torn = reader.index.torn_bytes
    return "truncated: no end record" + (f", and {torn} bytes of a torn one" if torn else "")
