"""``specscope view``: the viewer in the browser."""

from __future__ import annotations

import contextlib
import sys
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from specscope.tracer.cli.console import echo_words
from specscope.tracer.cli.main import EXIT_INTERRUPTED
from specscope.tracer.cli.options import STEP_PLACE, allow_option, tokenizer_option
from specscope.tracer.errors import NoSuchStepError, UsageError
from specscope.tracer.naming.places import StepPlace
from specscope.tracer.naming.text import counted, printable
from specscope.viewer.runs.catalogue import Catalogue, Run
from specscope.viewer.screens.view import View
from specscope.viewer.serve.listener import LOOPBACK, Listener
from specscope.viewer.serve.server import serve

if TYPE_CHECKING:  # loading them takes about as long as the server takes to start: it is done meanwhile
    from specscope.tracer.files.index import TurnEntry
    from specscope.tracer.files.reader import TraceReader


_bundle_option = click.option(
    "--bundle",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write a static site of FILE, or of the diff of two, into FOLDER, and serve nothing.",
)
_expose_option = click.option(
    "--expose",
    "exposed_as",
    multiple=True,
    metavar="NAME",
    help="Let other machines read the traces by this name of this machine; required unless --host is loopback.",
)


@click.command(short_help="Step through the trees in a browser")
@click.argument("places", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE|FOLDER]...")
@click.option(
    "--at",
    type=STEP_PLACE,
    metavar="TURN/STEP",
    help="Open this step of FILE; with two files, this step of the first in their diff.",
)
@allow_option
@click.option("--host", default=LOOPBACK, show_default=True, metavar="ADDRESS", help="Address to listen on.")
@_expose_option
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: 8501, or a free port]")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@_bundle_option
@tokenizer_option
def view(
    places: tuple[Path, ...],
    at: StepPlace | None,
    allow: tuple[str, ...],
    host: str,
    exposed_as: tuple[str, ...],
    port: int | None,
    no_browser: bool,
    bundle: Path | None,
    tokenizer: Path | None,
) -> None:
    """Step through the trees of a trace, or see where two traces diverge: the first is the baseline.

    Traces in and below each FOLDER are listed, new ones as they appear; without FILE or FOLDER, those of the current
    folder. Ends on Ctrl-C.
    """
    if find_spec("streamlit") is None:
        raise ModuleNotFoundError("No module named 'streamlit'", name="streamlit")
    catalogue = Catalogue(places or [Path.cwd()])
    files = catalogue.runs()[: len(catalogue.files)]
    if at is not None:
        check_num_files(len(files))
    if allow and len(files) != 2:
        raise UsageError(f"got --allow and {len(files)} files, wanted two: a baseline and a candidate")
    if bundle is not None:
        _write_bundle(bundle, [run.path for run in files], tokenizer=tokenizer, allow=allow)
        return
    listener = Listener.of(host, exposed_as, port)
    arguments = ["--tokenizer", str(tokenizer.resolve())] if tokenizer else []
    arguments += [str(path) for path in catalogue.given]

    def ready(address: str) -> None:
        link = address
        if at is not None or allow:
            link = f"{address}/?{urlencode(first_view(files, at, allow).to_query())}"
        click.echo(f"SpecScope is at {link}  (Ctrl-C ends it)")
        if exposed_as:
            echo_words(f"warning: anyone who can reach {host} can read these traces", err=True)
        if not no_browser:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(link)

    try:
        serve(arguments, listener, ready, meanwhile=lambda: read_once(files, at, tokenizer))
    except KeyboardInterrupt:  # how it is meant to end: there is nothing to say
        click.echo(err=True)
        sys.exit(EXIT_INTERRUPTED)


def _write_bundle(folder: Path, files: list[Path], *, tokenizer: Path | None, allow: tuple[str, ...]) -> None:
    from specscope.viewer.bundle.write import write_bundle

    written = write_bundle(folder, files, tokenizer=tokenizer, allow=allow)
    left_out = f"; {counted(written.num_left_out, 'step')} beyond the first left out" if written.num_left_out else ""
    size = f"{written.num_bytes / 1e6:.2f} MB"
    echo_words(printable(f"wrote {folder / 'index.html'}: {counted(written.num_steps, 'step')}, {size}{left_out}"))


def read_once(files: Sequence[Run], place: StepPlace | None, tokenizer: Path | None) -> None:
    """Reads all that the command names, so that errors are reported here, and indexes are ready.

    Raises:
        UsageError: where there is no such tokenizer or step, or a file is not a trace.
    """
    from specscope.tracer.files.reader import TraceReader
    from specscope.tracer.naming.tokens import TokenTexts

    TokenTexts.load(tokenizer)
    for run in files:
        with TraceReader(run.path):
            pass  # before any file is read as a whole: a first line that is not a manifest is reported at once
    for run in files:
        with TraceReader(run.path) as reader:
            assert reader.index  # a line that is not a record is reported here
            if place is not None and run is files[0]:
                check_place(place, reader)


def check_num_files(num_files: int) -> None:
    """That ``--at`` can name a step of so many files.

    Raises:
        UsageError: where there are not one or two.
    """
    if num_files not in (1, 2):
        raise UsageError(f"got --at and {num_files} files, wanted one, or the two of a diff")


def check_place(place: StepPlace, reader: TraceReader) -> None:
    """That the trace has this step.

    Raises:
        UsageError: saying what there is instead.
    """
    asked = f"got --at {place.turn}/{place.step}, but {reader.path.name}"
    turn = next((turn for turn in reader.turns if turn.turn == place.turn), None)
    if turn is None:
        raise NoSuchStepError(f"{asked} has {_turns(reader.turns)}")
    if place.step >= len(turn.steps):
        has = f"has steps 0 to {len(turn.steps) - 1}" if turn.steps else "has no steps"
        raise NoSuchStepError(f"{asked}'s turn {place.turn} {has}")


def _turns(turns: Sequence[TurnEntry]) -> str:
    numbers = sorted(turn.turn for turn in turns)
    return f"turns {numbers[0]} to {numbers[-1]}" if numbers else "no turns"


def first_view(files: Sequence[Run], place: StepPlace | None, allow: Sequence[str] = ()) -> View:
    """The first look: at a step of one file, or of the first of two in their diff."""
    view = View(page="step", run=files[0].name, allow=tuple(allow))
    if place is not None:
        view.look_at(view.run, *place)
    if len(files) > 1:
        view.page = "diff"
        view.baseline = files[0].name
        view.candidate = files[1].name
    return view
