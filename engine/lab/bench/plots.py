"""A report as figures in one HTML file that fetches nothing. Plotly is imported where it draws: it is in the viewer
extra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

from specscope.engine.lab.bench.report import BenchReport
from specscope.engine.lab.bench.summary import speed_ups

if TYPE_CHECKING:
    import plotly.graph_objects as go

HEIGHT = 380
STYLE = "body{font-family:system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}"


def render_plots(report: BenchReport) -> str:
    """The figures that the measurements are enough for, one after another."""
    figures = [figure for draw in FIGURES if (figure := draw(report)) is not None]
    return page(f"specscope bench: {report.facts.compare}", report.remarks, figures)


def page(title: str, remarks: Sequence[str], figures: Sequence[go.Figure]) -> str:
    """One HTML file of ``figures`` that fetches nothing, below what they rest on."""
    divs = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0, config={"displaylogo": False})
        for number, figure in enumerate(figures)
    ]
    title, items = escape(title), "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1><ul>{items}</ul>\n{''.join(divs)}\n</body></html>\n"
    )


def new_figure(title: str, across: str, up: str) -> go.Figure:
    """An empty one with these words on it."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(title=title, height=HEIGHT, template="plotly_white", xaxis_title=across, yaxis_title=up)
    return figure


def _speed_up_figure(report: BenchReport) -> go.Figure | None:
    """Per variant the ratios of all turns, lowest first: what share of the turns is at most so fast."""
    first = report.facts.variants[0]
    base = {measure.key: measure for measure in report.measures if measure.variant == first}
    figure = new_figure(f"Speed over {first}, turn by turn", "share of the turns", "times as fast")
    for name in report.facts.variants[1:]:
        ratios = sorted(speed_ups([m for m in report.measures if m.variant == name], base))
        shares = [(number + 1) / len(ratios) for number in range(len(ratios))]
        figure.add_scatter(x=shares, y=ratios, name=name, mode="lines+markers", line_shape="hv")
    figure.add_hline(y=1, line_dash="dot")
    figure.update_xaxes(tickformat=".0%")
    return figure


def _depth_figure(report: BenchReport) -> go.Figure | None:
    drafted = [summary for summary in report.summaries if summary.depths]
    if not drafted:
        return None
    figure = new_figure("Acceptance by depth: solid of all steps, dashed of those that got there", "depth", "share")
    for summary in drafted:
        depths = [depth.depth for depth in summary.depths]
        marginal = [depth.marginal for depth in summary.depths]
        figure.add_scatter(x=depths, y=marginal, name=summary.name, mode="lines+markers", legendgroup=summary.name)
        colour = {"dash": "dash"}
        conditional = [depth.conditional for depth in summary.depths]
        figure.add_scatter(
            x=depths, y=conditional, name=f"{summary.name}, conditional", line=colour, legendgroup=summary.name
        )
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    return figure


def _stage_figure(report: BenchReport) -> go.Figure | None:
    staged = [summary for summary in report.summaries if summary.stages]
    if not staged:
        return None
    figure = new_figure("Stages of a step", "", "ms per step")
    for number, stage in enumerate(staged[0].stages):
        times = [summary.stages[number].ms for summary in staged]
        figure.add_bar(x=[summary.name for summary in staged], y=times, name=stage.name)
    figure.update_layout(barmode="stack")
    return figure


def _category_figure(report: BenchReport) -> go.Figure | None:
    compared = [summary for summary in report.summaries if summary.speed_up and len(summary.categories) > 1]
    if not compared:
        return None
    figure = new_figure(f"Mean speed over {report.facts.variants[0]}, by category", "", "times as fast")
    for summary in compared:
        rows = [(c.category, c.speed_up.mean) for c in summary.categories if c.speed_up is not None]
        figure.add_bar(x=[escape(name) for name, _ in rows], y=[mean for _, mean in rows], name=summary.name)
    figure.add_hline(y=1, line_dash="dot")
    return figure


FIGURES: tuple[Callable[[BenchReport], go.Figure | None], ...] = (
    _speed_up_figure,
    _depth_figure,
    _stage_figure,
    _category_figure,
)
