"""``specscope view``: the viewer in the browser."""

from __future__ import annotations

import contextlib
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from specscope.tracer.cli.options import STEP_PLACE, tokenizer_option
from specscope.tracer.errors import NoSuchStepError, UsageError
from specscope.tracer.words.places import StepPlace
from specscope.viewer.runs.catalogue import Catalogue, Run
from specscope.viewer.screens.view import View
from specscope.viewer.serve.listener import LOOPBACK, Listener
from specscope.viewer.serve.server import serve

if TYPE_CHECKING:  # to load them takes as long as the server does to start, which is the time to do it in
    from specscope.tracer.files.index import TurnEntry
    from specscope.tracer.files.reader import TraceReader


@click.command()
@click.argument("places", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE|FOLDER]...")
@click.option(
    "--at",
    type=STEP_PLACE,
    metavar="TURN/STEP",
    help="Open at this step of FILE; of two files, of the first in their diff.",
)
@click.option("--host", default=LOOPBACK, show_default=True, metavar="ADDRESS", help="Listen here.")
@click.option(
    "--expose",
    "exposed_as",
    multiple=True,
    metavar="NAME",
    help="Let other machines read the traces, under this name of this machine; needed where --host is not loopback.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="[default: 8501, or a free one]")
@click.option("--no-browser", is_flag=True, help="Print the address alone.")
@tokenizer_option
def view(
    places: tuple[Path, ...],
    at: StepPlace | None,
    host: str,
    exposed_as: tuple[str, ...],
    port: int | None,
    no_browser: bool,
    tokenizer: Path | None,
) -> None:
    """Step through the trees of a trace, or look at where two traces part: the first is the baseline.

    The traces in and below a FOLDER are listed, and new ones as they come; without FILE and FOLDER those of the current
    folder. Ends on Ctrl-C.
    """
    if find_spec("streamlit") is None:
        raise ModuleNotFoundError("No module named 'streamlit'", name="streamlit")
    catalogue = Catalogue(places or [Path.cwd()])
    files = catalogue.runs()[: len(catalogue.files)]
    if at is not None:
        check_num_files(len(files))
    listener = Listener.of(host, exposed_as, port)
    arguments = ["--tokenizer", str(tokenizer.resolve())] if tokenizer else []
    arguments += [str(path) for path in catalogue.given]

    def ready(address: str) -> None:
        link = address if at is None else f"{address}/?{urlencode(view_at(at, files).to_query())}"
        click.echo(f"SpecScope is at {link}  (Ctrl-C ends it)")
        if exposed_as:
            click.echo(f"warning: whoever can reach {host} can read these traces", err=True)
        if not no_browser:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(link)

    serve(arguments, listener, ready, meanwhile=lambda: read_once(files, at, tokenizer))


def read_once(files: Sequence[Run], place: StepPlace | None, tokenizer: Path | None) -> None:
    """Reads all that the command names, so that what is wrong with it is said here, and indexes lie ready.

    Raises:
        UsageError: where there is no such tokenizer or place, or a file is no trace.
    """
    from specscope.tracer.files.reader import TraceReader
    from specscope.tracer.words.tokens import TokenTexts

    TokenTexts.load(tokenizer)
    for run in files:
        with TraceReader(run.path):
            pass  # before any file is read as a whole: one whose first line is no manifest is said at once
    for run in files:
        with TraceReader(run.path) as reader:
            assert reader.index  # a line that is no record is named here
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


def view_at(place: StepPlace, files: Sequence[Run]) -> View:
    """The first look: at a step of one file, or of the first of two in their diff."""
    found = View(page="step", run=files[0].name)
    found.look_at(found.run, *place)
    if len(files) > 1:
        found.page, found.baseline, found.candidate = "diff", files[0].name, files[1].name
    return found
