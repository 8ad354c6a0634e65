"""Figures of one run, or of two side by side. Pure: from metrics to plotly figures, without Streamlit.

The second run differs from the first by dash, marker and fill as well as by colour. Plotly reads some markup in names
and hover texts, so every text of a trace is escaped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from specscope.tracer.naming.text import html_text, shorten
from specscope.viewer.drawing.style.palette import SANS, Palette
from specscope.viewer.metrics.numbers import Floats, RunMetrics
from specscope.viewer.metrics.smooth import moving_mean

HEIGHT = 270
#: A hostile record's turn may be a number of any size.
LARGEST_TURN = 1 << 53


class Look(NamedTuple):
    """How one run is drawn."""

    colour: str
    dash: str
    symbol: str
    pattern: str  # of bars


#: Points of single steps or ranges that are joined by a line; of more, the line covers everything.
MOST_JOINED = 120
#: As many runs as can be told apart.
MOST_RUNS = 6


def looks(palette: Palette) -> tuple[Look, ...]:
    """Of each run, in order: as many as can be told apart."""
    return (
        Look(palette.accepted, "solid", "circle", ""),
        Look(palette.divergent, "dash", "diamond-open", "/"),
        Look("#009E73", "dot", "square", "x"),
        Look("#CC79A7", "dashdot", "triangle-up-open", "-"),
        Look(palette.bar, "longdash", "cross", "."),
        Look(palette.muted, "longdashdot", "star-open", "+"),
    )


def depth_of_reached(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """Of the steps that reached each depth, the share that accepted one more node."""
    return _depth_figure(runs, palette, of_all=False)


def depth_of_all(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """Of all steps, the share that accepted at least as many nodes."""
    return _depth_figure(runs, palette, of_all=True)


def _depth_figure(runs: Sequence[RunMetrics], palette: Palette, *, of_all: bool) -> go.Figure:
    figure = figure_of(
        runs, palette, "depth of the node", "share of all steps" if of_all else "share of those that reached it"
    )
    for run, look in zip(runs, looks(palette), strict=False):
        if run.depths is not None:
            base = np.full(len(run.depths.reached), run.depths.num_steps) if of_all else run.depths.reached
            shares = run.depths.of_all if of_all else run.depths.of_reached
            customdata = np.column_stack([run.depths.accepted, base])
            figure.add_trace(_depth_line(run.name, shares, customdata, look))
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    figure.update_xaxes(dtick=1 if all(r.depths is None or len(r.depths.reached) <= 20 for r in runs) else 5)
    return figure


def _depth_line(name: str, shares: Floats, customdata: Any, look: Look) -> go.Scatter:
    """A line of ``shares``, (D,); ``customdata``, (D, 2), holds the counts that each is the quotient of."""
    return line_of(
        name,
        np.arange(1, len(shares) + 1),
        shares,
        look,
        mode="lines+markers",
        customdata=customdata,
        hovertemplate="depth %{x}: %{y:.1%}<br>%{customdata[0]:,} of %{customdata[1]:,} steps",
    )


def acceptance_by_position(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """Mean accepted length against the committed length before the step."""
    figure = figure_of(runs, palette, "committed length before the step, in tokens", "accepted length")
    for run, look in zip(runs, looks(palette), strict=False):
        if run.positions is not None:
            bins = run.positions
            figure.add_trace(
                line_of(
                    run.name,
                    (bins.first + bins.last) / 2,
                    bins.mean,
                    look,
                    mode="lines+markers",
                    error_y={"type": "data", "array": bins.margin, "thickness": 1, "width": 2},
                    customdata=np.column_stack([bins.first, bins.last, bins.sizes]),
                    hovertemplate="%{customdata[0]:,} to %{customdata[1]:,} tokens: accepted length %{y:.3f}"
                    "<br>mean of %{customdata[2]:,} steps",
                )
            )
            mean = moving_mean(bins.mean * bins.sizes, bins.sizes, run.mean_of)
            _add_mean(figure, run, look, mean=mean, what="ranges")
    figure.update_yaxes(rangemode="tozero")
    return figure


def tokens_over_time(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """Tokens per step over the run: ranges of steps as points, the moving mean as a line."""
    figure = figure_of(runs, palette, "step of the run, in the order of the records", "tokens per step")
    for run, look in zip(runs, looks(palette), strict=False):
        if run.course is not None:
            bins = run.course.bins
            points = line_of(
                run.name,
                bins.first,
                bins.mean,
                look,
                mode="markers",
                customdata=np.column_stack([bins.last, bins.sizes]),
                hovertemplate="steps %{x:,} to %{customdata[0]:,}: %{y:.3f} tokens per step",
            )
            points.marker.size = 5
            if run.course.mean_of is None:
                points.update(mode="lines+markers" if len(bins.first) <= MOST_JOINED else "markers")
                figure.add_trace(points)
            else:
                points.update(showlegend=False, opacity=0.25)
                figure.add_trace(points)
                mean = line_of(mean_name(run.name, run.course.mean_of, "steps"), bins.last, run.course.moving, look)
                words = f"the {run.course.mean_of} steps up to %{{x:,}}: %{{y:.3f}} tokens per step"
                mean.update(mode="lines", meta=html_text(run.name), hovertemplate=words)
                figure.add_trace(mean)
    figure.update_yaxes(rangemode="tozero")
    return figure


def mean_name(name: str, mean_of: int, what: str) -> str:
    """What the line of a moving mean is called."""
    return f"{shorten(name, 40)}, mean of {mean_of} {what}"


def _add_mean(figure: go.Figure, run: RunMetrics, look: Look, *, mean: Floats | None, what: str) -> None:
    """A line of the moving mean over the points drawn last, which it makes paler; none where none is wanted."""
    if mean is None or run.mean_of is None:
        return
    points = figure.data[-1]
    points.update(opacity=0.35, mode="markers")
    words = f"%{{y:.3f}}: mean of the last {run.mean_of} {what}"
    line = line_of(mean_name(run.name, run.mean_of, what), points.x, mean, look, mode="lines", hovertemplate=words)
    line.update(meta=html_text(run.name))
    figure.add_trace(line)
    figure.update_layout(showlegend=True, margin_t=30)


def stage_times(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """Median time of each phase as a bar, the 90th percentile as a mark."""
    figure = figure_of(runs, palette, "milliseconds: median as a bar, 90th percentile as a mark; inside, share", "")
    for run, look in zip(runs, looks(palette), strict=False):
        if run.times is None:
            continue
        names = [phase.name for phase in run.times.phases]
        ahead = [(phase.p90_ns - phase.median_ns) / 1e6 for phase in run.times.phases]
        bar = go.Bar(
            name=shown_name(run.name),
            meta=html_text(run.name),
            y=names,
            x=np.array([phase.median_ns for phase in run.times.phases]) / 1e6,
            orientation="h",
            error_x={"type": "data", "symmetric": False, "array": ahead, "thickness": 1.4, "color": palette.ink},
            text=[f"{phase.share:.0%}" for phase in run.times.phases],
            textposition="inside",
            marker={"color": look.colour, "opacity": 0.8, "pattern": {"shape": look.pattern, "size": 6}},
            customdata=np.array([[phase.p90_ns / 1e6, phase.share] for phase in run.times.phases]),
            hovertemplate="%{y}: median %{x:.3f} ms<br>90th percentile %{customdata[0]:.3f} ms"
            "<br>%{customdata[1]:.1%} of the time",
        )
        figure.add_trace(bar)
    figure.update_layout(uniformtext={"minsize": 11, "mode": "hide"})  # a share that its bar has no room for
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=True, gridcolor=palette.line, rangemode="tozero")
    return figure


def is_one_turn(runs: Sequence[RunMetrics]) -> bool:
    """Whether no run has a second turn: a chart by turn would be a single point, whose number stands above it."""
    return all(run.num_turns <= 1 for run in runs)


def speed_by_turn(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """Output tokens per second of every turn."""
    figure = figure_of(runs, palette, "turn", "tokens per second")
    for run, look in zip(runs, looks(palette), strict=False):
        turns = run.speed.turns
        if turns and not is_one_turn(runs):
            figure.add_trace(
                line_of(
                    run.name,
                    np.array([float(min(turn.turn, LARGEST_TURN)) for turn in turns]),
                    np.array([turn.tokens_per_second for turn in turns]),
                    look,
                    mode="lines+markers" if len(turns) <= 50 else "markers",
                    customdata=[[shown_name(turn.prompt_id), turn.num_tokens, turn.seconds] for turn in turns],
                    hovertemplate="turn %{x}, %{customdata[0]}: %{y:.1f} tokens per second"
                    "<br>%{customdata[1]:,} tokens in %{customdata[2]:.3f} s",
                )
            )
            speeds = moving_mean([t.num_tokens for t in turns], [t.seconds for t in turns], run.mean_of)
            _add_mean(figure, run, look, mean=speeds, what="turns")
    figure.update_yaxes(rangemode="tozero")
    if all(len(run.speed.turns) <= 20 for run in runs):
        figure.update_xaxes(dtick=1)
    return figure


def line_of(name: str, x: Any, y: Any, look: Look, **settings: Any) -> go.Scatter:
    """A line or points of one run; ``settings`` are those of plotly."""
    return go.Scatter(
        name=shown_name(name),
        meta=html_text(name),
        x=x,
        y=y,
        line={"color": look.colour, "dash": look.dash, "width": 2},
        marker={"color": look.colour, "symbol": look.symbol, "size": 7},
        **settings,
    )


def shown_name(text: str) -> str:
    """A text of a trace, for names and hover texts, with no markup that plotly would follow."""
    return html_text(shorten(text, 60))


def figure_of(runs: Sequence[RunMetrics], palette: Palette, x_title: str, y_title: str) -> go.Figure:
    """An empty figure in the look of the pages."""
    axis = {
        "linecolor": palette.line,
        "tickfont": {"color": palette.muted, "size": 12},
        "title": {"font": {"color": palette.muted, "size": 12}, "standoff": 8},
        "zeroline": False,
        "fixedrange": True,  # the wheel scrolls the page
        "automargin": True,
    }
    figure = go.Figure()
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 8, "r": 12, "t": 30 if len(runs) > 1 else 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": SANS, "size": 12, "color": palette.ink},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": palette.ink}},
        hoverlabel={"bgcolor": palette.paper, "bordercolor": palette.line, "font": {"color": palette.ink, "size": 12}},
        showlegend=len(runs) > 1,
        barmode="group",
        template="none",
    )
    figure.update_xaxes(**axis, showgrid=False)
    figure.update_yaxes(**axis, showgrid=True, gridcolor=palette.line)
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text=y_title)
    return figure
