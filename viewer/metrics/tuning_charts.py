"""Figures for tuning: accepted lengths, which child was right, calibration, and what other trees would have accepted.

Pure: from metrics to plotly figures, as those of ``charts``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from specscope.tracer.naming.text import html_text
from specscope.tracer.tuning.intervals import Mean
from specscope.tracer.tuning.whatif import Outcome
from specscope.viewer.drawing.style.palette import Palette
from specscope.viewer.metrics.charts import Look, figure_of, is_one_turn, line_of, looks, shown_name
from specscope.viewer.metrics.numbers import RunMetrics

#: Prompts that are drawn; beyond them nothing can be read.
MOST_PROMPTS = 40
NOT_IN_TREE = "not in the tree"


def accepted_lengths(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """Share of steps by accepted length."""
    figure = figure_of(runs, palette, "drafted nodes accepted in a step", "share of steps")
    for run, look in zip(runs, looks(palette), strict=False):
        walks = run.tuning.walks
        lengths = sorted(walks.lengths)
        if not lengths:
            continue
        shares = [walks.lengths[length] / walks.num_steps for length in lengths]
        counts = [walks.lengths[length] for length in lengths]
        words = "%{x} accepted: %{y:.1%}<br>%{customdata:,} steps"
        figure.add_trace(_bars(run.name, lengths, shares, look=look, words=words, counts=counts))
    figure.update_xaxes(dtick=1 if all(len(run.tuning.walks.lengths) <= 20 for run in runs) else 5)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def right_child(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """At every node where the walk stood, the drafter's rank of the child that was right."""
    figure = figure_of(runs, palette, "the drafter's rank of the right child", "share of places")
    for run, look in zip(runs, looks(palette), strict=False):
        walks = run.tuning.walks
        total = sum(walks.ranks.values()) + walks.not_in_tree
        if total:
            counts = [*(walks.ranks[rank] for rank in sorted(walks.ranks)), walks.not_in_tree]
            names = [*map(str, sorted(walks.ranks)), NOT_IN_TREE]
            shares = [count / total for count in counts]
            words = "%{x}: %{y:.1%}<br>%{customdata:,} places"
            figure.add_trace(_bars(run.name, names, shares, look=look, words=words, counts=counts))
    figure.update_xaxes(type="category")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def _bars(name: str, x: Sequence[Any], y: Sequence[float], *, look: Look, words: str, counts: Sequence[int]) -> go.Bar:
    return go.Bar(
        name=shown_name(name),
        meta=html_text(name),
        x=list(x),
        y=list(y),
        marker={"color": look.colour, "opacity": 0.85, "pattern": {"shape": look.pattern, "size": 6}},
        customdata=list(counts),
        hovertemplate=words,
        text=[f"{share:.0%}" for share in y],
        textposition="outside",
        cliponaxis=False,
    )


def calibration(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """The drafter's probability against the share of children that were right, by tenths."""
    figure = figure_of(runs, palette, "draft probability, given the parent", "share that was right")
    for run, look in zip(runs, looks(palette), strict=False):
        tenths = run.tuning.walks.bins
        if tenths:
            points = line_of(
                run.name,
                np.array([tenth.mean_probability for tenth in tenths]),
                np.array([tenth.accepted / tenth.num_children for tenth in tenths]),
                look,
                mode="markers+lines",
                customdata=[tenth.num_children for tenth in tenths],
                hovertemplate="p %{x:.2f}: %{y:.1%} right<br>%{customdata:,} children",
            )
            points.marker.size = [
                6 + 10 * (tenth.num_children / max(t.num_children for t in tenths)) ** 0.5 for tenth in tenths
            ]
            figure.add_trace(points)
    figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line={"dash": "dot", "color": palette.muted, "width": 1.5})
    figure.update_xaxes(range=[-0.02, 1.04])
    figure.update_yaxes(range=[-0.03, 1.06], tickformat=".0%")
    return figure


def other_budgets(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """What other budgets would have accepted, depth and top-k as recorded."""
    figure = figure_of(runs, palette, "budget, in nodes", "accepted length")
    for run, look in zip(runs, looks(palette), strict=False):
        outcomes = varied(run, "budget")
        if outcomes:
            figure.add_trace(_outcomes(run.name, outcomes, look, lambda outcome: outcome.setting.budget))
    figure.update_xaxes(type="log", tickvals=[2**power for power in range(11)])
    figure.update_yaxes(rangemode="tozero")
    return figure


def other_shapes(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """What smaller depths and smaller top-k would have accepted, each with the rest as recorded."""
    figure = figure_of(runs, palette, "depth, or top-k", "accepted length")
    for run, look in zip(runs, looks(palette), strict=False):
        depths, widths = varied(run, "depth"), varied(run, "top_k")
        if depths:
            figure.add_trace(_outcomes(f"{run.name}: depth", depths, look, lambda outcome: outcome.setting.depth))
        if widths:
            line = _outcomes(f"{run.name}: top-k", widths, look, lambda outcome: outcome.setting.top_k)
            line.update(line={"dash": "dot", "width": 1.5}, marker={"symbol": "x"})
            figure.add_trace(line)
    figure.update_layout(showlegend=True, margin={"t": 30})
    figure.update_xaxes(dtick=1)
    figure.update_yaxes(rangemode="tozero")
    return figure


def varied(run: RunMetrics, name: str) -> list[Outcome]:
    """The outcomes of settings that differ from the recorded one in only this number, in its order; empty where there
    is nothing but the recorded one."""
    all_outcomes = run.tuning.what_if
    if not all_outcomes:
        return []
    recorded = all_outcomes[0].setting._replace(**{name: 0})
    outcomes = [outcome for outcome in all_outcomes if outcome.setting._replace(**{name: 0}) == recorded]
    return sorted(outcomes, key=lambda outcome: getattr(outcome.setting, name)) if len(outcomes) > 1 else []


def _outcomes(name: str, outcomes: Sequence[Outcome], look: Look, of: Callable[[Outcome], int]) -> go.Scatter:
    means = [outcome.accepted_length for outcome in outcomes]
    line = line_of(
        name,
        [of(outcome) for outcome in outcomes],
        [mean.value for mean in means],
        look,
        mode="lines+markers",
        customdata=[
            [mean.low, mean.high, outcome.num_exact, mean.size] for outcome, mean in zip(outcomes, means, strict=True)
        ],
        hovertemplate="%{x}: %{y:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})"
        "<br>exact at %{customdata[2]:,} of %{customdata[3]:,} steps",
    )
    return line.update(error_y=_errors(means, look))


def _errors(means: Sequence[Mean], look: Look) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [mean.high - mean.value for mean in means],
        "arrayminus": [mean.value - mean.low for mean in means],
        "thickness": 1.2,
        "width": 3,
        "color": look.colour,
    }


def by_prompt(runs: Sequence[RunMetrics], palette: Palette) -> go.Figure:
    """Accepted length of each turn, with its interval."""
    figure = figure_of(runs, palette, "turn", "accepted length")
    for run, look in zip(runs, looks(palette), strict=False):
        rows = run.tuning.turns[:MOST_PROMPTS]
        if rows and not is_one_turn(runs):
            means = [row.accepted_length for row in rows]
            points = line_of(
                run.name,
                [min(row.turn, 1 << 53) for row in rows],
                [mean.value for mean in means],
                look,
                mode="markers",
                customdata=[[shown_name(row.prompt_id), row.accepted_length.size] for row in rows],
                hovertemplate="turn %{x}, %{customdata[0]}: %{y:.3f}<br>%{customdata[1]:,} steps",
            )
            figure.add_trace(points.update(error_y=_errors(means, look)))
    figure.update_xaxes(dtick=1 if all(len(run.tuning.turns) <= 20 for run in runs) else None)
    figure.update_yaxes(rangemode="tozero")
    return figure
