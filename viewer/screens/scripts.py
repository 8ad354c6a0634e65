"""What the browser does with boards, as one module of JavaScript. Loads no Streamlit: bundles need it as well."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

#: In the order in which they depend on each other.
FILES = (
    "tree_window.js",
    "tree_shades.js",
    "slot_filter.js",
    "tree_folds.js",
    "walker.js",
    "access.js",
    "save.js",
    "timeline.js",
    "noted.js",
    "palette.js",
    "keys.js",
    "requests.js",
    "inspector.js",
)


def inspector_script() -> str:
    """The whole module; its default export is what Streamlit calls."""
    return _script(FILES)


def chart_script() -> str:
    """The module that saves charts."""
    return _script(("save.js", "chart.js"))


def _script(names: Iterable[str]) -> str:
    return "".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names)
