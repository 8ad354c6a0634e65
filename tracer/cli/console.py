"""The one rich console of the command line: colours only on a terminal, full width when piped."""

from __future__ import annotations

import sys

from rich.console import Console


def console() -> Console:
    """A console on standard output; piped, it never wraps and never colours."""
    piped = not sys.stdout.isatty()
    return Console(file=sys.stdout, width=200 if piped else None, no_color=piped or None, emoji=False)
