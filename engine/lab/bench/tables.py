"""A report as tables of words, narrow enough for a terminal of 80 columns: the same for the terminal and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from specscope.engine.lab.bench.report import BenchReport
from specscope.engine.lab.bench.summary import Spread, VariantSummary

CATEGORY_COLUMNS = 4  # variants side by side
DEPTH_COLUMNS = 8
NOTHING = "-"


class Table(NamedTuple):
    """One table. The first column is names, the others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(report: BenchReport) -> list[Table]:
    """All that there is something to say of."""
    summaries = report.summaries
    ratios = _overhead(report) if report.facts.compare == "overhead" else _speed_up(summaries)
    return [_speed(summaries), ratios, *_depths(summaries), *_stages(summaries), *_categories(summaries)]


def _speed(summaries: Sequence[VariantSummary]) -> Table:
    columns = ("variant", "tokens/s", "mean", "p50", "p90", "p99", "accepted length", "tokens per step")
    rows = [
        (
            summary.name,
            f"{summary.total_tokens_per_s:.1f}",
            *_percentiles(summary.tokens_per_s, ".1f"),
            f"{summary.accepted_length:.2f}" if summary.depths else NOTHING,
            f"{summary.tokens_per_step:.2f}",
        )
        for summary in summaries
    ]
    return Table("Speed: all tokens over all time; mean and percentiles over turns", columns, rows)


def _speed_up(summaries: Sequence[VariantSummary]) -> Table:
    columns = ("variant", "mean", "p50", "p90", "p99", "lowest", "highest")
    rows = []
    for summary in summaries[1:]:
        ratios = summary.speed_up
        if ratios is None:
            rows.append((summary.name, *[NOTHING] * 6))
        else:
            rows.append((summary.name, *_percentiles(ratios, ".2f"), f"{ratios.lowest:.2f}", f"{ratios.highest:.2f}"))
    first = summaries[0].name if summaries else ""
    return Table(f"Speed over {first}: ratios per turn", columns, [_times(row) for row in rows])


def _times(row: Sequence[str]) -> Sequence[str]:
    """Numbers as multiples."""
    return (row[0], *(cell if cell == NOTHING else f"{cell}x" for cell in row[1:]))


def _percentiles(numbers: Spread, form: str) -> tuple[str, ...]:
    return tuple(format(n, form) for n in (numbers.mean, numbers.p50, numbers.p90, numbers.p99))


def _overhead(report: BenchReport) -> Table:
    """Each traced variant beside the same one untraced, which was decoded in the same rounds."""
    rows = []
    for traced in report.overheads:
        ratios = traced.slowdown
        middle = f"{ratios.lower_quartile:.3f} to {ratios.upper_quartile:.3f}"
        rows.append((traced.name, f"{ratios.p50:.3f}x", middle, f"{traced.bytes_per_step:.0f}"))
    columns = ("variant", "time over untraced", "middle half", "bytes per step")
    return Table("Tracing: medians of ratios per turn", columns, rows)


def _depths(summaries: Sequence[VariantSummary]) -> Iterator[Table]:
    """The two kinds of acceptance; deep trees in several tables each."""
    drafted = [summary for summary in summaries if summary.depths]
    deepest = max((len(summary.depths) for summary in drafted), default=0)
    kinds = (("marginal", "share of all steps"), ("conditional", "of the steps that accepted one node fewer"))
    for kind, words in kinds:
        for first in range(0, deepest, DEPTH_COLUMNS):
            depths = range(first, min(first + DEPTH_COLUMNS, deepest))
            rows = [(summary.name, *(_share_at(summary, depth, kind) for depth in depths)) for summary in drafted]
            yield Table(f"Acceptance by depth, {kind}: {words}", ("variant", *(f"{d + 1}" for d in depths)), rows)


def _share_at(summary: VariantSummary, depth: int, kind: str) -> str:
    if depth >= len(summary.depths):
        return NOTHING
    share = getattr(summary.depths[depth], kind)
    return NOTHING if share is None else f"{share:.2f}"


def _stages(summaries: Sequence[VariantSummary]) -> Iterator[Table]:
    staged = [summary for summary in summaries if summary.stages]
    if not staged:
        return
    columns = ("variant", *(stage.name for stage in staged[0].stages))
    for title, form in (("Stages: ms per step", "{0.ms:.2f}"), ("Stages: share of a step", "{0.share:.1%}")):
        yield Table(title, columns, [(s.name, *(form.format(stage) for stage in s.stages)) for s in staged])


def _categories(summaries: Sequence[VariantSummary]) -> Iterator[Table]:
    """The mean speed-up in each category, some variants at a time; nothing where there is but one category."""
    names = list(dict.fromkeys(category.category for summary in summaries for category in summary.categories))
    for first in range(1, len(summaries) if len(names) > 1 else 0, CATEGORY_COLUMNS):
        part = summaries[first : first + CATEGORY_COLUMNS]
        rows = [(name, *(_mean_in(summary, name) for summary in part)) for name in names]
        columns = ("category", *(summary.name for summary in part))
        yield Table(f"Mean speed over {summaries[0].name}, by category", columns, rows)


def _mean_in(summary: VariantSummary, name: str) -> str:
    """The mean speed-up in the category ``name``."""
    ratios = next((c.speed_up for c in summary.categories if c.category == name), None)
    return NOTHING if ratios is None else f"{ratios.mean:.2f}x"
