"""The child process of ``specscope view``: Streamlit, until the parent is gone. Reads no trace.

Its standard input is a pipe that the parent holds and never writes to. It closes when the parent ends, even by kill -9,
so that no server is left behind.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading

import streamlit.config
from streamlit.web.cli import main as streamlit_main

#: None of these imports Streamlit, nor a module that does: two threads that load modules which import each other could
#: see them half loaded.
AHEAD = ("specscope.viewer.drawing.step.board", "specscope.viewer.pairs.looks")


def end_with_parent() -> None:
    """Ends this process, at once, when standard input closes."""
    while os.read(0, 1):  # unbuffered: a buffer's lock would trouble the interpreter's own end
        pass
    os._exit(0)


def ignore_configuration_files() -> None:
    """A folder with traces may come from anyone; a .streamlit/config.toml in it must not open the server up."""
    streamlit.config.get_config_files = lambda file_name: []


def load_ahead() -> None:
    """Loads what the first page needs while the browser still loads the viewer's own code."""
    for name in AHEAD:
        importlib.import_module(name)


if __name__ == "__main__":
    for work in (end_with_parent, load_ahead):
        threading.Thread(target=work, daemon=True).start()
    ignore_configuration_files()
    streamlit_main(sys.argv[1:], prog_name="streamlit")
