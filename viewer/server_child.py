"""The child process of ``specscope view``: Streamlit, until the parent is gone. Knows nothing of traces.

Its standard input is a pipe that the parent holds and never writes to. It closes when the parent ends, even by kill -9,
so that no server is left behind.
"""

from __future__ import annotations

import os
import sys
import threading

from streamlit.web.cli import main as streamlit


def end_with_parent() -> None:
    """Ends this process, at once, when standard input closes."""
    while os.read(0, 1):  # unbuffered: a buffer's lock would trouble the interpreter's own end
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    streamlit(sys.argv[1:], prog_name="streamlit")
