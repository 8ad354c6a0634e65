"""The one rich console of the command line: colours only on a terminal, full width when piped."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from specscope.tracer.report.fitted import PLAIN_WIDTH, print_line

LONGEST_NAME = 20  # columns of what a line begins with, and is about
LARGE_BYTES = 20_000_000  # files from which on reading takes seconds
DRAWN_BYTES = 500_000  # between two updates of a bar


def console() -> Console:
    """A console on standard output; piped, it never wraps and never colours. COLUMNS says nothing there: readline sets
    it for every child of a Python program, whose reader has no columns."""
    piped = not sys.stdout.isatty()
    return Console(file=sys.stdout, width=PLAIN_WIDTH if piped else None, no_color=piped or None, emoji=False)


def echo_words(text: str, *, err: bool = False) -> None:
    """Prints lines for people, which hold nothing to be copied: wrapped between words where they are read on a
    terminal."""
    stream = sys.stderr if err else sys.stdout
    out = Console(file=stream, emoji=False)
    for line in text.splitlines() or [text]:
        if stream.isatty():
            words = line.lstrip(" ")
            print_line(out, escape(words), indent=len(line) - len(words), hanging=_hanging(words))
        else:
            click.echo(line, err=err)


def _hanging(words: str) -> int:
    """Where a line goes on below: behind its name, where it begins with one."""
    name = re.match(r"\S+ {2,}", words)
    return name.end() if name is not None and name.end() <= LONGEST_NAME else 2


def echo_document(text: str) -> None:
    """Prints what programs read, such as JSON, XML and HTML: as UTF-8, whatever a terminal's encoding is."""
    click.echo(text.encode(), nl=False)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says on standard error what is being done, until it is done; where that is a terminal only."""
    errors = Console(stderr=True)
    if not errors.is_terminal:
        yield
        return
    with errors.status(what):
        yield


@contextmanager
def keeping(what: str) -> Iterator[None]:
    """Says, where the block is interrupted, what it leaves: as a note on the interrupt, which ``main`` prints."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(what)
        raise


def _size(path: Path) -> int:
    """Of a file in bytes; 0 of what is not one, or cannot be asked: the reader says what is wrong with it."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


@contextmanager
def reading(what: str, paths: Iterable[Path], passes: int = 1) -> Iterator[Callable[[int], None] | None]:
    """A bar on standard error over the bytes of large files that are read ``passes`` times, where that is a terminal.

    Call what it gives with the bytes read since; None where nothing is shown.
    """
    errors = Console(stderr=True)
    total = passes * sum(_size(path) for path in paths)
    if total < LARGE_BYTES or not errors.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(what, total=total)
        pending = 0

        def advance(num_bytes: int) -> None:
            nonlocal pending
            pending += num_bytes
            if pending >= DRAWN_BYTES:  # a record may be small, and an update is not free
                bar.advance(task, pending)
                pending = 0

        yield advance


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
