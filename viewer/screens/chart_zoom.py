"""What zooms and smooths a chart: a slider with two ends, a drag across the chart, and a choice of moving means."""

from __future__ import annotations

import math
from typing import NamedTuple

import streamlit as st

from specscope.viewer.metrics.smooth import Axis, Sight, Stretch

#: The choice of no moving mean.
OFF = "off"


class Zoom(NamedTuple):
    """How a chart is looked at, and where the browser keeps that."""

    sight: Sight
    whole: Stretch
    slider: str  # its key

    @property
    def key(self) -> str:
        """Tells charts of one card apart: a browser keeps what was dragged across one."""
        stretch = self.sight.stretch
        return "" if stretch is None else f"-{stretch.first}-{stretch.last}"

    def take(self, asked: str) -> None:
        """Looks at what was dragged across, two numbers; at the whole axis where ``asked`` is empty. What is no such
        stretch changes nothing."""
        if not asked:
            st.session_state[self.slider] = tuple(self.whole)
            return
        try:
            low, high = sorted(map(float, asked.split()))
        except ValueError:
            return
        if math.isfinite(low) and math.isfinite(high):
            first, last = max(self.whole.first, math.ceil(low)), min(self.whole.last, math.floor(high))
            if first < last:
                st.session_state[self.slider] = (first, last)


def choose_sight(name: str, axis: Axis, whole: Stretch) -> Zoom:
    """The controls of the chart ``name``, and what they come to."""
    slider = f"shown-{name}"
    _keep_within(slider, whole)
    with st.container(key=f"zoom-{name}", horizontal=True, vertical_alignment="bottom", gap="small"):
        st.slider(
            f"{axis.what.capitalize()} shown",
            whole.first,
            whole.last,
            key=slider,
            help="A drag across the chart does the same",
        )
        shown: tuple[int, int] = st.session_state[slider]
        stretch = None if shown == tuple(whole) else Stretch(*shown)

        def reset() -> None:
            st.session_state[slider] = tuple(whole)

        st.button("All", key=f"whole-{name}", on_click=reset, disabled=stretch is None, help=f"All {axis.what} again")
        sizes = {OFF: None, **{f"{size} {axis.smoothed}": size for size in axis.means}}
        at_first = list(sizes.values()).index(axis.mean_of)
        mean_of = sizes[st.selectbox("Moving mean", sizes, index=at_first, key=f"mean-{name}", width=140)]
    return Zoom(Sight(stretch, mean_of), whole, slider)


def _keep_within(slider: str, whole: Stretch) -> None:
    """Has the slider show what it did before, as far as that lies within ``whole``: a trace grows, and runs are laid
    over. Who looked at the whole axis still does."""
    former = f"{slider}-whole"
    before, shown = st.session_state.get(former), st.session_state.get(slider)
    st.session_state[former] = tuple(whole)
    first, last = whole if shown is None or shown == before else shown
    first, last = max(whole.first, first), min(whole.last, last)
    kept = (first, last) if first < last else tuple(whole)
    if kept != shown or before != tuple(whole):  # else the browser need not be told what it said itself
        st.session_state[slider] = kept
