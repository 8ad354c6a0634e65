"""A sweep as figures in one HTML file: what each way is worth over no speculation, by rows, a figure per context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from specscope.engine.lab.bench.batch.plan import DISPATCHED, OFF
from specscope.engine.lab.bench.batch.report import LoadSummary, SweepReport
from specscope.engine.lab.bench.plots import new_figure, page

if TYPE_CHECKING:
    import plotly.graph_objects as go


def render_sweep(report: SweepReport) -> str:
    """The figures that the measurements are enough for, one after another."""
    return page("specscope bench --suite batch", report.remarks, list(_figures(report)))


def _figures(report: SweepReport) -> Iterator[go.Figure]:
    for context in dict.fromkeys(summary.load.context for summary in report.loads):
        loads = [summary for summary in report.loads if summary.load.context == context]
        yield _over_off(report, loads, context)
        yield _goodput(loads, context)


def _over_off(report: SweepReport, loads: list[LoadSummary], context: int) -> go.Figure:
    figure = new_figure(f"Context {context}: times as many tokens per second as without speculation", "rows", "times")
    rows = [summary.load.rows for summary in loads]
    for way in report.ways:
        if way != OFF:
            line = {"width": 4} if way == DISPATCHED else {"dash": "dot"}
            figure.add_scatter(x=rows, y=[s.over_off[way] for s in loads], name=way, mode="lines+markers", line=line)
    figure.add_hline(y=1, line_dash="dash")
    figure.update_xaxes(type="log", tickvals=rows, ticktext=[str(number) for number in rows])
    return figure


def _goodput(loads: list[LoadSummary], context: int) -> go.Figure:
    """Tokens per second of all rows over the time between two tokens of one: what a server gives, and what it costs."""
    figure = new_figure(f"Context {context}: goodput by what a user waits", "ms between tokens of a row", "tokens/s")
    for way in (OFF, DISPATCHED):
        figure.add_scatter(
            x=[summary.token_ms[way] for summary in loads],
            y=[summary.goodput[way] for summary in loads],
            text=[f"{summary.load.rows} rows" for summary in loads],
            name=way,
            mode="lines+markers+text",
            textposition="top left",
        )
    return figure
