"""The viewer's pages run by Streamlit's own test harness: what tests of every page share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

import specscope.viewer

APP = Path(next(iter(specscope.viewer.__path__))) / "app.py"
#: Opens the viewer on files and folders, with a link's parameters.
Opener = Callable[..., AppTest]


def checked(app: AppTest) -> AppTest:
    """``app``, which must have run without an exception."""
    assert not app.exception, app.exception
    return app


def boards_of(app: AppTest) -> list[dict[str, Any]]:
    """What every inspector on the page was given; other components have no markup."""
    given = [json.loads(element.proto.bytes) for element in app.get("bidi_component")]
    return [board for board in given if "html" in board]


def html_of(app: AppTest) -> str:
    """All markup on the page but style sheets, drawings and boards and what they say of nodes included."""
    parts = [element.proto.body for element in app.get("html") if "<style>" not in element.proto.body]
    for board in boards_of(app):
        parts += [board["html"], board["strip"], *board["notes"].values()]
    return "".join(parts)


def query_of(app: AppTest) -> dict[str, str]:
    """The address bar's parameters."""
    return {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}
