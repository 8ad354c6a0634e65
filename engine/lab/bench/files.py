"""A report as files: CSV with a row per measured turn, JSON with everything, Markdown with the tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

import orjson

from specscope.engine.lab.bench.plots import render_plots
from specscope.engine.lab.bench.report import BenchReport
from specscope.engine.lab.bench.tables import Table, tables
from specscope.engine.lab.bench.turns import TurnMeasure
from specscope.schemas.phases import TIMED_PHASES

COLUMNS = (
    *("state", "variant", "round", "prompt_id", "prompt_turn", "category", "rank", "num_turns", "num_tokens"),
    *("duration_s", "prefill_s", "tokens_per_s", "speed_up", "num_steps", "num_drafted", "accepted_length"),
    *(f"{phase}_ms" for phase in TIMED_PHASES),
    *("trace_bytes", "output_digest"),
)


def render_csv(report: BenchReport) -> str:
    """One row per measured turn; the first column says whether the run was complete."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    first = report.facts.variants[0]
    base = {measure.key: measure for measure in report.measures if measure.variant == first}
    for measure in report.measures:
        same = base.get(measure.key)
        ratio = "" if same is None else f"{measure.tokens_per_s / same.tokens_per_s:.4f}"
        writer.writerow({"state": report.state, "speed_up": ratio, **_row(measure)})
    return text.getvalue()


def _row(measure: TurnMeasure) -> dict[str, object]:
    names = ("variant", "round", "prompt_id", "prompt_turn", "category", "rank", "num_turns", "num_tokens")
    more = ("num_steps", "num_drafted", "trace_bytes", "output_digest")
    lengths = measure.accepted_lengths
    return {
        **{name: getattr(measure, name) for name in (*names, *more)},
        "duration_s": f"{measure.duration_ns / 1e9:.6f}",
        "prefill_s": f"{measure.prefill_ns / 1e9:.6f}",
        "tokens_per_s": f"{measure.tokens_per_s:.2f}",
        "accepted_length": f"{sum(lengths) / len(lengths):.4f}" if lengths else "",
        **{f"{phase}_ms": f"{measure.phase_ns.get(phase, 0) / 1e6:.4f}" for phase in TIMED_PHASES},
    }


def render_json(report: BenchReport) -> str:
    """Settings, summaries, what is missing, and every turn."""
    return orjson.dumps(report.to_json(), option=orjson.OPT_INDENT_2).decode() + "\n"


def render_markdown(report: BenchReport) -> str:
    """The tables of the terminal, and the remarks."""
    return markdown_of(f"specscope bench --compare {report.facts.compare}", tables(report), report.remarks)


def markdown_of(title: str, tables: Sequence[Table], remarks: Sequence[str]) -> str:
    """Tables as Markdown, and what they rest on."""
    parts = [f"## {title}", *(_markdown_table(table) for table in tables)]
    parts.append("\n".join(f"- {_cell(remark)}" for remark in remarks))
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in (table.columns, rule, *table.rows)]
    return "\n".join([f"### {table.title}", "", *lines])


def _cell(text: str) -> str:
    """Text of a prompt file may hold what Markdown reads."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


#: The files that a report can be written to, by the option that names one.
RENDERERS: dict[str, Callable[[BenchReport], str]] = {
    "csv": render_csv,
    "json": render_json,
    "markdown": render_markdown,
    "plots": render_plots,
}
