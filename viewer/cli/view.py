"""``specscope view``: the viewer in the browser."""

from __future__ import annotations

import contextlib
import webbrowser
from pathlib import Path

import click

from specscope.tracer.cli.options import tokenizer_option
from specscope.tracer.errors import UsageError
from specscope.tracer.reader import TraceReader
from specscope.tracer.tokens import TokenTexts


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(1, 65535), help="On 127.0.0.1.  [default: 8501, or a free one]")
@click.option("--no-browser", is_flag=True, help="Print the address alone.")
@tokenizer_option
def view(files: tuple[Path, ...], port: int | None, no_browser: bool, tokenizer: Path | None) -> None:
    """Step through the trees of a trace, or look at where two traces part: the first is the baseline.

    Without FILES it opens the *.jsonl of the current folder, the newest first. Ends on Ctrl-C.
    """
    import streamlit  # noqa: F401  (so that its absence is reported in words, before anything starts)

    from specscope.viewer.server import choose_port, serve

    chosen = files or newest_traces(Path.cwd())
    for path in (place for place in chosen if not place.is_dir()):
        with TraceReader(path) as reader:
            assert reader.index  # reads the file once; a line that is no record is reported here
    TokenTexts.load(tokenizer)
    arguments = [*(["--tokenizer", str(tokenizer.resolve())] if tokenizer else []), *(str(f.resolve()) for f in chosen)]

    def ready(address: str) -> None:
        click.echo(f"SpecScope is at {address}  (Ctrl-C ends it)")
        if not no_browser:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(address)

    serve(arguments, choose_port(port), ready)


def newest_traces(folder: Path) -> list[Path]:
    """Every ``*.jsonl`` of ``folder``, the newest first.

    Raises:
        UsageError: where there is none.
    """
    found = sorted(folder.glob("*.jsonl"), key=lambda path: (-path.stat().st_mtime, path.name))
    if not found:
        raise UsageError(f"no *.jsonl in {folder}: name a trace, or record one with specscope run")
    return found
