"""``specscope repro``: a failed step, run again from its record."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from specscope.engine.cli.computing import ATTENTION_NAME, DEVICE
from specscope.tracer.cli.console import echo_words
from specscope.tracer.errors import EXIT_DIFFERENT, EXIT_EQUAL, EXIT_USAGE
from specscope.tracer.naming.text import printable

if TYPE_CHECKING:
    from specscope.engine.lab.rerun.repro import Reproduction
    from specscope.schemas import Failure

EXIT_CODES = {"reproduced": EXIT_DIFFERENT, "not reproduced": EXIT_EQUAL, "another failure": EXIT_USAGE}


@click.command(short_help="Run a failed step again")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--teacher", help="Load the teacher from here. Default: from where the run loaded it.")
@click.option("--drafter", help="Load the drafter from here, named as for run. Default: from where the run loaded it.")
@click.option("--device", type=DEVICE, metavar="NAME", help="Default: that of the run.")
@click.option(
    "--attention",
    type=ATTENTION_NAME,
    metavar="NAME",
    help="Load the run's kernel from here, as it is now. Default: as it was recorded.",
)
@click.option(
    "--index", type=int, help="Run only the row of this failure record, counted from 0. Default: all rows as they were."
)
@click.option("--allow-remote-code", is_flag=True, help="Run code that comes with a model's folder.")
def repro(file: Path, index: int | None, **changes: Any) -> None:
    """Run the step that failed in a trace again, from its failure record, and say whether it fails again.

    Caches are rebuilt from the committed tokens, so that minutes of decoding need not be repeated; a prefill that
    failed is run as a prefill. A fault that was injected is injected again.

    Exits 1 where the same error came at the same phase, 0 where the step ran through, 2 where it cannot be run or
    fails in another way, 3 where the models are not those of the run.
    """
    from specscope.engine.lab.rerun.recorded_run import Overrides
    from specscope.engine.lab.rerun.repro import reproduce

    result = reproduce(file, Overrides(**changes), index)
    _print(result)
    sys.exit(EXIT_CODES[result.outcome])


def _print(result: Reproduction) -> None:
    recorded = result.recorded
    echo_words(printable(f"{result.outcome}: {_said(result.failure or recorded)}"))
    if result.outcome == "another failure":
        echo_words(printable(f"  recorded: {_said(recorded)}"))
    assert recorded.state is not None
    tokens = len(recorded.state.context_ids)
    where = f"prefill of {tokens} tokens" if recorded.step is None else f"step {recorded.step}, {tokens - 1} committed"
    rows = f"{result.num_rows} of the {result.num_recorded} rows that failed together"
    echo_words(f"  rebuilt:  turn {recorded.turn}, {where}; " + (rows if result.num_recorded > 1 else "one row"))
    if result.compared:
        same = f"as recorded ({', '.join(result.compared)})"
        echo_words("  inputs:   " + (f"not as recorded: {', '.join(result.differing)}" if result.differing else same))
    if result.tree_put_in:
        echo_words("  tree:     the recorded one was put in, for the drafter finds another one here")
    for note in result.notes:
        echo_words(printable(f"  note:     {note}"))


def _said(failure: Failure) -> str:
    where = "" if failure.phase is None else f" at {failure.phase}"
    return f"{failure.error}{where}: {failure.message}"
