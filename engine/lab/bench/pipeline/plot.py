"""A pipeline's speed-up over the share of drafts that hold: measured, by the closed form, and simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from specscope.tracer.report.formats import write_whole

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHARES = [step / 20 for step in range(21)]  # of drafts that hold


class Measured(NamedTuple):
    """One kind of drafts on the stages that were measured."""

    name: str
    share: float
    speedup: float


def speedup_figure(measured: list[Measured], curves: Mapping[str, Callable[[float], float]]) -> go.Figure:
    """The curves over the share of drafts that hold, and what was measured as points among them."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, curve in curves.items():
        dash = "solid" if name.startswith("closed") else "dot"
        figure.add_scatter(x=SHARES, y=[curve(share) for share in SHARES], name=name, line={"dash": dash})
    figure.add_scatter(
        x=[point.share for point in measured],
        y=[point.speedup for point in measured],
        text=[point.name for point in measured],
        name="measured",
        mode="markers+text",
        textposition="top left",
        marker={"size": 11, "symbol": "diamond"},
    )
    figure.update_layout(
        title="Speed-up over sequential decoding on the same stages",
        template="plotly_white",
        xaxis_title="share of drafts that hold",
        yaxis_title="speed-up",
    )
    return figure


def write_plot(path: Path, figure: go.Figure) -> None:
    """Writes a page that needs no network."""
    write_whole(path, figure.to_html(include_plotlyjs=True, config={"displaylogo": False}))
