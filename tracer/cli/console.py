"""The one rich console of the command line: colours only on a terminal, full width when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def console() -> Console:
    """A console on standard output; piped, it never wraps and never colours."""
    piped = not sys.stdout.isatty()
    return Console(file=sys.stdout, width=200 if piped else None, no_color=piped or None, emoji=False)


def echo_document(text: str) -> None:
    """Prints what programs read, such as JSON, XML and HTML: as UTF-8, whatever a terminal's encoding is."""
    click.echo(text.encode(), nl=False)


@contextmanager
def progress(what: str, total: int, unit: str, *, shown: bool) -> Iterator[Callable[[str], None]]:
    """A bar with a rate on standard error, where that is a terminal and ``shown``. Call what it gives after each unit,
    with what else to say."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}, {{task.fields[rate]}} {unit}/s, {{task.fields[more]}}"),
        TimeElapsedColumn(),
    )
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        disable=not (shown and sys.stderr.isatty()),
    )
    begun = time.monotonic()
    with bar:
        task = bar.add_task(what, total=total, rate="-", more="")
        done = 0

        def advance(more: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, rate=f"{done / max(time.monotonic() - begun, 1e-9):.1f}", more=more)

        yield advance
