"""``specscope replay``: every recorded step once more, each from equal state, into a second trace."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from specscope.engine.cli.computing import ATTENTION_NAME, DEVICE, SYNONYMS
from specscope.engine.settings import ATTENTIONS, CACHE_STRATEGIES, CACHES, DTYPE_NAMES, choose_attention
from specscope.tracer.cli.console import echo_words, progress
from specscope.tracer.naming.text import counted, printable

if TYPE_CHECKING:
    from specscope.engine.lab.rerun.replay import ReplayReport, ReplayRequest
    from specscope.schemas import Manifest


@click.command(short_help="Run recorded steps again, from equal state")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new trace.")
@click.option("--mode", type=click.Choice([*ATTENTIONS, *SYNONYMS]), help="[default: the run's]")
@click.option(
    "--attention",
    type=ATTENTION_NAME,
    metavar="NAME",
    help="Run this kernel, named as for run, in place of the fused attention.  [default: the run's]",
)
@click.option("--dtype", type=click.Choice(DTYPE_NAMES), help="[default: that of the run]")
@click.option("--device", type=DEVICE, metavar="NAME", help="[default: that of the run]")
@click.option(
    "--cache-strategy",
    type=click.Choice(CACHE_STRATEGIES),
    help="[default: that of the run]",
)
@click.option("--cache", type=click.Choice(CACHES), help="dense or paged.  [default: that of the run]")
@click.option("--teacher", help="Load the teacher from here.  [default: from where the run loaded it]")
@click.option("--drafter", help="Load the drafter from here, as for run.  [default: from where the run loaded it]")
@click.option("--turn", type=click.IntRange(min=0), help="Replay only this turn.  [default: all]")
@click.option("--with-fault", is_flag=True, help="Re-inject the recorded fault.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--allow-remote-code", is_flag=True, help="Run code that comes with a model's folder.")
def replay(trace: Path, out: Path, turn: int | None, with_fault: bool, overwrite: bool, **changes: Any) -> None:
    """Run each step of TRACE again from equal state, in another configuration or the same, and record it.

    Each step is given the recorded tree, and the recorded path is what it commits, so that no difference is carried
    into the next step's tokens; the new trace says what each step itself found and decided. A fault of the run is left
    out unless --with-fault. ``specscope diff TRACE NEW`` then compares step by step. First tokens, coins, stops and
    what was reused of an earlier turn are taken from TRACE: a replay says nothing of them.

    Exits 0 when every step ran, 2 where the trace cannot be replayed or the new one not be written to its end, 3 where
    the models are not those of the run.
    """
    from specscope.engine.lab.rerun.recorded_run import Overrides
    from specscope.engine.lab.rerun.replay import Replay, ReplayRequest

    mode = SYNONYMS.get(changes["mode"], changes["mode"])
    if changes["attention"] is not None:
        chosen = choose_attention(mode, changes["attention"])
        mode, changes["attention"] = chosen.mode, chosen.kernel
    changes["mode"] = mode
    request = ReplayRequest(
        trace=trace, out=out, overrides=Overrides(**changes), turn=turn, with_fault=with_fault, overwrite=overwrite
    )
    run = Replay(request, warn=lambda text: echo_words(f"warning: {text}", err=True))
    with progress("replaying", run.num_steps, "steps", shown=True) as advance:
        report = run.run(advance)
    _print(report, run.manifest, request)
    if report.lost is not None:
        raise report.lost
    echo_words(printable(f"trace: {request.out}  (next: {next_command(request)})"))


def _print(report: ReplayReport, manifest: Manifest, request: ReplayRequest) -> None:
    fault = f", fault {manifest.fault} in" if manifest.fault else ""
    strategy = f", {manifest.cache_strategy}" if manifest.cache_strategy else ""
    strategy += ", paged cache" if manifest.cache == "paged" else ""
    where = f"{manifest.attention} attention, {manifest.dtype}, {manifest.device.backend}{strategy}{fault}"
    how_many = f"{counted(report.num_steps, 'step')} of {counted(report.num_turns, 'turn')}"
    echo_words(printable(f"replayed {how_many}: {where}"))
    if report.first_other is None:
        echo_words("  decided:  every step as recorded")
    else:
        place = f"turn {report.first_other.turn} step {report.first_other.step}"
        echo_words(f"  decided:  {counted(report.num_others, 'step')} otherwise than recorded, {place} first")
    if report.num_trees:
        echo_words(f"  trees:    {report.num_trees} recorded ones were put in, for the drafter finds others here")
    echo_words("  taken:    first tokens, coins, stops and reuse are the recording's; nothing is said of them here")
    for note in report.notes:
        echo_words(printable(f"  note:     {note}"))
    if request.turn is not None:
        echo_words(f"  note:     turn {request.turn} alone: the other turns of the run are not in the replay")


def next_command(request: ReplayRequest) -> str:
    """The diff of the two traces, as a line for a shell. Another dtype makes them incomparable unless it is allowed."""
    command = ["specscope", "diff", str(request.trace), str(request.out)]
    if request.overrides.dtype is not None:
        command += ["--allow", "dtype"]
    return shlex.join(command)
