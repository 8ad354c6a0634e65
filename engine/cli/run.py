"""``specscope run``: decode prompts, stream the text, record a trace."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
import orjson

from specscope.engine.cli.choices import (
    CHOICE_SECTIONS,
    build_choice,
    build_processors,
    model_options,
    rule_options,
    tree_options,
    warn_once,
)
from specscope.engine.record.redaction import check_redaction
from specscope.engine.run.prompts import Prompt, load_prompts
from specscope.engine.settings import CACHE_STRATEGIES, TRACE_LEVELS, Settings
from specscope.tracer.cli.console import echo_document, keeping, progress, working
from specscope.tracer.cli.sections import SectionedCommand
from specscope.tracer.cli.streams import EXIT_BROKEN_PIPE, output_is_read
from specscope.tracer.errors import UsageError
from specscope.tracer.files.writer import check_writable
from specscope.tracer.naming.places import turn_name
from specscope.tracer.naming.text import counted, printable

if TYPE_CHECKING:
    from specscope.engine.lab.faults import Fault
    from specscope.engine.load.models import Models
    from specscope.engine.run.runner import RunRequest, TraceTarget, TurnReport


SECTIONS = {
    "Prompts": ("prompt", "prompts_file", "batch_size", "seed"),
    "Stopping": ("max_new_tokens", "stop_strings", "strict"),
    "Trace": ("trace", "trace_level", "trace_text", "redact", "overwrite"),
    **CHOICE_SECTIONS,
}


@click.command(short_help="Decode prompts; record a trace with --trace", cls=SectionedCommand, sections=SECTIONS)
@click.option("--prompt", help="Text to continue.")
@click.option(
    "--prompts",
    "prompts_file",
    type=click.Path(path_type=Path),
    help="JSON Lines with prompt, turns or ids, and an optional id; MT-Bench and HumanEval files load as they are.",
)
@model_options
@tree_options
@rule_options
@click.option("--max-new-tokens", default=64, show_default=True, help="Maximum new tokens per turn.")
@click.option("--stop", "stop_strings", multiple=True, help="End a turn at the token that completes this text.")
@click.option("--batch-size", default=1, show_default=True, help="Conversations decoded side by side.")
@click.option(
    "--cache-strategy",
    type=click.Choice(CACHE_STRATEGIES),
    default="in-place",
    show_default=True,
    envvar="SPECSCOPE_CACHE_STRATEGY",
    show_envvar=True,
    help="How accepted tokens are committed; all give bit-identical caches.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Random seed.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    envvar="SPECSCOPE_TRACE",
    show_envvar=True,
    help="Write a trace to this file.",
)
@click.option("--trace-level", type=click.Choice(TRACE_LEVELS), default="decisions", show_default=True)
@click.option("--trace-text", is_flag=True, help="Record text as well as token ids.")
@click.option(
    "--redact",
    metavar="KEY",
    envvar="SPECSCOPE_REDACT",
    show_envvar=True,
    help="Replace every token id in the trace by a permutation derived from this key; no text is recorded.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing trace.")
@click.option(
    "--inject",
    "fault",
    metavar="FAULT",
    help="Inject a fault by its catalogue ID, such as F16 or F15.transpose; specscope selftest --list lists them.",
)
@click.option(
    "--strict", is_flag=True, help="End the run at the first violated invariant, even where a fault was injected."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per turn and nothing else.")
def run(as_json: bool, **options: Any) -> None:
    """Decode prompts by tree speculation, in fused or eager mode, or with only the teacher.

    Exits 0, or 1 when a structural check stopped it, 2 for a mistake or a failure, and where the trace could not be
    written to its end although every prompt was decoded.
    """
    with working("loading torch, the teacher and the drafter"):
        request, fault = _with_fault(build_request(**options))
        from specscope.engine.lab.faults import check_fits, injecting
        from specscope.engine.load.models import load_models
        from specscope.engine.run.runner import TurnEvents, open_trace, run_turns

        models = load_models(request.settings.choice, warn=warn_once)
    if fault is not None:
        check_fits(fault, models)
    writer = open_trace(request, models, warn=warn_once)
    stream = _Stream(models, quiet=as_json or request.settings.batch_size > 1, traced=writer is not None)
    events = TurnEvents(stream.turn_begins, stream.tokens)
    reports = []
    kept = f"the trace {writer.path} is kept up to here" if writer is not None else "no trace was asked for"
    with keeping(kept), progress("decoding", len(request.prompts), "prompts", shown=stream.quiet) as advance:
        for report in run_turns(request, models, writer, events, change=injecting(fault)):
            reports.append(report)
            if as_json:
                echo_document(orjson.dumps(report_json(report)).decode() + "\n")
            else:
                stream.turn_ends(report)
            advance(f"{sum(len(r.result.output_ids) for r in reports)} tokens")
    if not as_json:
        _print_summary(reports, request)
        if writer is not None and not writer.broken:
            click.echo(f"trace: {writer.path}  (specscope check, show, view)")
    if writer is not None:
        writer.check_whole()


def _with_fault(request: RunRequest) -> tuple[RunRequest, Fault | None]:
    """The request with its fault by the catalogue's name, and a damaged copy of a checkpoint in it where the fault is
    one of loading; and the fault."""
    settings = request.settings
    if settings.fault is None:
        return request, None
    from specscope.engine.lab.faults import find_fault

    fault = find_fault(settings.fault)
    settings = replace(settings, fault=fault.id)
    if fault.damage is not None:
        folder = click.get_current_context().with_resource(TemporaryDirectory())
        settings = replace(settings, choice=fault.damage(settings.choice, Path(folder)))
    return replace(request, settings=settings), fault


def build_request(prompt: str | None, prompts_file: Path | None, **options: Any) -> RunRequest:
    """The command line's options as one request.

    Raises:
        UsageError: where they contradict each other or a prompt file cannot be read.
    """
    if (prompt is None) == (prompts_file is None):
        raise UsageError("give either --prompt TEXT or --prompts FILE")
    prompts = load_prompts(prompts_file) if prompts_file is not None else [Prompt("prompt", turns=(prompt or "",))]
    _check_target(options)
    settings = build_settings(**options)

    # What can be said without torch has been said.
    from specscope.engine.run.runner import RunRequest

    return RunRequest(settings, prompts, _trace_target(options))


def build_settings(**options: Any) -> Settings:
    """The command line's options as settings.

    Raises:
        UsageError: where they contradict each other.
    """
    named = ("max_new_tokens", "batch_size", "cache_strategy", "seed", "strict", "fault")
    return Settings(
        choice=build_choice(**options),
        stop_strings=tuple(options["stop_strings"]),
        processors=build_processors(options),
        bad_words=tuple(options["bad_words"]),
        **{name: options[name] for name in named},
    )


def _check_target(options: dict[str, Any]) -> None:
    """Refuses a trace that cannot be written, or cannot hold what is asked for, before minutes of loading."""
    if options["trace"] is None:
        return
    check_writable(options["trace"], overwrite=options["overwrite"])
    if options["redact"] is not None:
        check_redaction(options["redact"], level=options["trace_level"], with_text=options["trace_text"])


def _trace_target(options: dict[str, Any]) -> TraceTarget | None:
    from specscope.engine.run.runner import TraceTarget

    if options["trace"] is None:
        return None
    return TraceTarget(
        options["trace"],
        options["trace_level"],
        overwrite=options["overwrite"],
        with_text=options["trace_text"],
        redact=options["redact"],
    )


class _Stream:
    """Prints a turn's text as it grows; quiet where the caller wants JSON."""

    def __init__(self, models: Models, quiet: bool, traced: bool) -> None:
        self._models = models
        self.quiet = quiet
        self._traced = traced
        self._printed = ""
        self._heading = ""

    def turn_begins(self, prompt: Prompt, turn: int) -> None:
        """Keeps the turn's heading until its first token: a prompt that is refused has none."""
        self._printed = ""
        self._heading = f"[{printable(turn_name(turn, prompt.id))}]"

    def tokens(self, prompt: Prompt, output_ids: list[int]) -> None:
        """Prints what is new; half a letter waits for its other half. Where nobody reads it and no trace is written,
        there is nothing left to decode for."""
        if not self._traced and not output_is_read():
            sys.exit(EXIT_BROKEN_PIPE)
        if self.quiet:
            return
        from specscope.engine.run.runner import decode_text

        if self._heading:
            click.secho(self._heading, dim=True)
            self._heading = ""
        text = decode_text(self._models.teacher, output_ids)
        text = " ".join(map(str, output_ids)) if text is None else text.rstrip("\ufffd")
        if text.startswith(self._printed):
            click.echo(printable(text[len(self._printed) :]), nl=False)
            self._printed = text

    def turn_ends(self, report: TurnReport) -> None:
        """Ends the turn's text; prints it whole where it was not streamed, because others ran beside it."""
        if self.quiet:
            click.secho(f"[{printable(turn_name(report.turn, report.prompt_id))}]", dim=True)
            ids = " ".join(map(str, report.result.output_ids))
            click.echo(printable(ids if report.text is None else report.text), nl=False)
        click.echo()


def report_json(report: TurnReport) -> dict[str, Any]:
    """A turn as the object that ``--json`` prints."""
    result = report.result
    return {
        "id": report.prompt_id,
        "turn": report.turn,
        "prompt_turn": report.prompt_turn,
        "output_ids": result.output_ids,
        "text": report.text,
        "reason": result.reason,
        "metrics": {
            "num_tokens": len(result.output_ids),
            "num_steps": len(result.accepted_lengths),
            "num_drafted": result.num_drafted,
            "num_fallbacks": result.num_fallbacks,
            "accepted_length": round(result.mean_accepted_length, 4),
            "tokens_per_step": round(result.mean_accepted_length + 1, 4) if result.accepted_lengths else None,
            "tokens_per_s": round(result.tokens_per_s, 2),
            "prefill_s": round(result.prefill_ns / 1e9, 6),
            "duration_s": round(result.duration_ns / 1e9, 6),
        },
    }


def _print_summary(reports: list[TurnReport], request: RunRequest) -> None:
    lengths = [n for report in reports for n in report.result.accepted_lengths]
    tokens = sum(len(report.result.output_ids) for report in reports)
    seconds = sum(report.result.duration_ns for report in reports) / 1e9
    accepted = sum(lengths) / max(1, len(lengths))
    click.echo()
    click.echo(
        f"{counted(len(reports), 'turn')}, {counted(tokens, 'token')} in {counted(len(lengths), 'step')}, "
        f"{tokens / max(seconds, 1e-9):.1f} tokens/s"
    )
    click.echo(
        f"accepted length {accepted:.2f} a step (root and bonus not counted), "
        f"{accepted + 1 if lengths else 0:.2f} tokens per step"
    )
    fallbacks = sum(report.result.num_fallbacks for report in reports)
    if fallbacks:
        click.echo(f"{counted(fallbacks, 'commit')} fell back from {request.settings.cache_strategy} to full-reorder")
    if not request.settings.choice.rule.lossless:
        click.echo("typical acceptance is lossy: the output does not have the teacher's distribution")
