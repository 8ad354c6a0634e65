"""The attention mask of a step as a plotly heatmap. Knows records; knows nothing of Streamlit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from specscope.schemas import Step
from specscope.tracer.invariants.structure import expected_rows
from specscope.tracer.text import html_text
from specscope.tracer.tokens import TokenTexts
from specscope.viewer import palette

HIDDEN, VISIBLE, EXTRA, MISSING = 0, 1, 2, 3
COLOURS = {HIDDEN: "#EBEEF2", VISIBLE: palette.ACCEPTED, EXTRA: palette.DIVERGENT, MISSING: palette.PROBABILITY}
MEANINGS = {
    HIDDEN: "does not see",
    VISIBLE: "sees",
    EXTRA: "sees, though it is no ancestor,",
    MISSING: "does not see, though it is an ancestor,",
}
#: Above this many slots the tooltips name slots alone: a text for each cell would weigh megabytes.
NAMED_SLOTS = 96

Cells = npt.NDArray[np.int8]


def mask_cells(step: Step) -> Cells | None:
    """Rows by columns, each cell one of HIDDEN, VISIBLE, EXTRA and MISSING; None where no mask was recorded."""
    tree, tensors = step.tree, step.tensors
    if tensors is None or not tensors.mask_rows:
        return None
    size = len(tensors.mask_rows)
    bits = np.zeros((size, size), dtype=np.int8)
    wanted = np.zeros_like(bits)
    parents = tree.parents if tree is not None else []
    expected = expected_rows(parents, min(len(parents), size), size) if parents else []
    for row, text in enumerate(tensors.mask_rows):
        bits[row] = _columns(int.from_bytes(bytes.fromhex(text), "little"), size)
        if row < len(expected):
            wanted[row] = _columns(expected[row], size)
    if not expected:
        return bits
    cells = np.where(bits == 1, np.where(wanted == 1, VISIBLE, EXTRA), np.where(wanted == 1, MISSING, HIDDEN))
    return cells.astype(np.int8)


def _columns(row: int, size: int) -> Cells:
    raw = np.frombuffer((row & (1 << size) - 1).to_bytes((size + 7) // 8, "little"), dtype=np.uint8)
    return np.unpackbits(raw, bitorder="little")[:size].astype(np.int8)


def mask_figure(step: Step, texts: TokenTexts, *, height: int = 330) -> go.Figure | None:
    """The heatmap, the root at the top left; None where no mask was recorded."""
    cells = mask_cells(step)
    if cells is None:
        return None
    last = max(COLOURS)
    scale = [
        [edge, COLOURS[kind]] for kind in COLOURS for edge in (kind / (last + 1), (kind + 1) / (last + 1))
    ]  # four flat steps
    size = cells.shape[0]
    heat = go.Heatmap(
        z=cells,
        zmin=-0.5,
        zmax=last + 0.5,
        colorscale=scale,
        showscale=False,
        xgap=1 if size <= 48 else 0,
        ygap=1 if size <= 48 else 0,
        hoverinfo="text",
        hovertext=_hover(step, texts, cells) if size <= NAMED_SLOTS else None,
    )
    if size > NAMED_SLOTS:
        heat.update(hoverinfo="x+y")
    axis = {"showgrid": False, "zeroline": False, "tickfont": {"size": 11, "color": palette.MUTED}, "ticks": ""}
    figure = go.Figure(heat)
    figure.update_layout(
        height=height,
        margin={"l": 28, "r": 4, "t": 24, "b": 4},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis={**axis, "side": "top", "constrain": "domain", "range": [-0.5, size - 0.5]},
        yaxis={
            **axis,
            "range": [size - 0.5, -0.5],
            "scaleanchor": "x",
            "constrain": "domain",
        },
        dragmode=False,
    )
    return figure


def _hover(step: Step, texts: TokenTexts, cells: Cells) -> list[list[str]]:
    tokens = step.tree.tokens if step.tree is not None else []
    names = [
        f"slot {slot} <b>{html_text(texts.shown(tokens[slot]))}</b>" if slot < len(tokens) else f"padding {slot}"
        for slot in range(cells.shape[0])
    ]
    return [
        [f"{names[row]}<br>{MEANINGS[int(cell)]}<br>{names[column]}" for column, cell in enumerate(line)]
        for row, line in enumerate(cells)
    ]
