"""``specscope run``: decode prompts, stream the text, record a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
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
    pipeline_options,
    rank_options,
    rule_options,
    trace_options,
    tree_options,
    warn_once,
)
from specscope.engine.cli.grammars import GRAMMAR_SECTIONS, build_grammar, grammar_options
from specscope.engine.cli.parallel import heard_by, run_ranks
from specscope.engine.cli.ppsd import pipeline_choice, prefer_early_exit, run_stages
from specscope.engine.cli.stream import RowTime, Stream
from specscope.engine.record.redaction import check_redaction
from specscope.engine.run.prompts import Prompt, load_arrivals, load_prompts
from specscope.engine.settings import (
    ARRIVALS_CLOCKS,
    BLOCK_SIZE,
    CACHE_STRATEGIES,
    CACHES,
    MAX_BLOCK_SIZE,
    OVERLAPS,
    Settings,
)
from specscope.tracer.cli.console import echo_document, echo_words, keeping, progress, working
from specscope.tracer.cli.sections import SectionedCommand
from specscope.tracer.errors import UsageError
from specscope.tracer.files.writer import check_writable
from specscope.tracer.fleet.table import parse_shard
from specscope.tracer.naming.text import counted

if TYPE_CHECKING:
    from specscope.engine.lab.faults import Fault
    from specscope.engine.ranks.lifeline import Lifeline
    from specscope.engine.run.runner import RunRequest, TraceTarget, TurnReport, Workings


SECTIONS = {
    "Engine": ("engine", "stages", "exit_layer", "window", "stage_timeout", "carrier"),
    "Ranks": ("tensor_parallel", "acceptance"),
    "Prompts": ("prompt", "prompts_file", "arrivals_file", "arrivals_clock", "shard", "batch_size", "overlap", "seed"),
    "Stopping": ("max_new_tokens", "stop_strings", "strict"),
    "Trace": ("trace", "trace_level", "trace_text", "redact", "overwrite"),
    **CHOICE_SECTIONS,
    **GRAMMAR_SECTIONS,
}


@click.command(short_help="Decode prompts; record a trace with --trace", cls=SectionedCommand, sections=SECTIONS)
@click.option("--prompt", help="Text to continue.")
@click.option(
    "--prompts",
    "prompts_file",
    type=click.Path(path_type=Path),
    help="JSON Lines with prompt, turns or ids, and an optional id; MT-Bench and HumanEval files load as they are.",
)
@click.option(
    "--arrivals",
    "arrivals_file",
    type=click.Path(path_type=Path),
    help="Prompts as above, each with the time that it arrives_at, and if it is to be cancelled, cancel_at.",
)
@click.option(
    "--arrivals-clock",
    type=click.Choice(ARRIVALS_CLOCKS),
    default="steps",
    show_default=True,
    help="What these times are: steps that the rows have taken together, so that a file gives the same run again, or "
    "seconds since decoding began.",
)
@click.option("--shard", default="1/1", metavar="i/N", help="Decode the i-th of N parts of the prompts; see merge.")
@pipeline_options
@rank_options
@model_options
@tree_options
@rule_options
@grammar_options
@click.option("--max-new-tokens", default=64, show_default=True, help="Maximum new tokens per turn.")
@click.option("--stop", "stop_strings", multiple=True, help="End a turn at the token that completes this text.")
@click.option(
    "--batch-size", "--max-rows", default=1, show_default=True, help="Conversations decoded side by side at most."
)
@click.option(
    "--overlap",
    type=click.Choice(OVERLAPS),
    default="auto",
    show_default=True,
    help="Deliver a step's results while the device drafts the next step, or before it begins (off). auto: on where "
    "an accelerator drafts on the fused path.",
)
@click.option(
    "--cache-strategy",
    type=click.Choice(CACHE_STRATEGIES),
    default="in-place",
    show_default=True,
    envvar="SPECSCOPE_CACHE_STRATEGY",
    show_envvar=True,
    help="How accepted tokens are committed; all give bit-identical caches.",
)
@click.option(
    "--cache",
    type=click.Choice(CACHES),
    default="dense",
    show_default=True,
    help="How committed keys and values lie: in one buffer, or in blocks. Both give the same bits.",
)
@click.option(
    "--block-size",
    type=click.IntRange(1, MAX_BLOCK_SIZE),
    metavar="N",
    help=f"Positions of a block, with --cache paged.  [default: {BLOCK_SIZE}]",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Random seed.")
@trace_options
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
    if _run_in_stages(options, as_json=as_json):
        return
    if options["tensor_parallel"] > 1:
        settings, _ = check_request(**options)
        run_ranks(settings, lambda: _request_of(options), partial(_decode, as_json=as_json), trace=options["trace"])
        return
    with working("loading torch, the teacher and the drafter"):
        request, fault = _request_of(options)
        from specscope.engine.lab.faults import injecting
    _decode(request, fault, injecting(fault), as_json=as_json)


def _request_of(options: dict[str, Any]) -> tuple[RunRequest, Fault | None]:
    return _with_fault(build_request(**options))


def _decode(
    request: RunRequest,
    fault: Fault | None,
    change: Callable[[Workings], Workings],
    lifeline: Lifeline | None = None,
    *,
    as_json: bool,
) -> None:
    """Decodes every prompt; says so, unless this is one of several ranks and not the first.

    Args:
        lifeline: of a rank; hears what the rank does.
    """
    with working("loading torch, the teacher and the drafter"):
        from specscope.engine.lab.faults import check_fits
        from specscope.engine.load.models import load_models
        from specscope.engine.run.runner import QUIET, open_trace, run_turns

        models = load_models(request.settings.choice, warn=warn_once)
    if fault is not None:
        check_fits(fault, models)
    writer = open_trace(request, models, warn=warn_once)
    if lifeline is not None and lifeline.rank:
        for _ in run_turns(request, models, writer, heard_by(lifeline, QUIET), change=change):
            pass
        return
    stream = Stream(models.teacher, quiet=as_json or request.settings.batch_size > 1, traced=writer is not None)
    taken = RowTime()
    events = taken.listening(stream.events(warn_once))
    if lifeline is not None:
        events = heard_by(lifeline, events)
    reports: list[TurnReport] = []
    kept = f"the trace {writer.path} is kept up to here" if writer is not None else "no trace was asked for"
    with keeping(kept), progress("decoding", len(request.prompts), "prompts", shown=stream.quiet) as advance:
        for report in run_turns(request, models, writer, events, change=change):
            taken.turn_ends()
            reports.append(report)
            if as_json:
                echo_document(orjson.dumps(report_json(report)).decode() + "\n")
            else:
                stream.turn_ends(report)
            advance(f"{sum(len(r.result.output_ids) for r in reports)} tokens")
    if not as_json:
        _print_summary(reports, request, taken_s=taken.seconds)
        if writer is not None and not writer.broken:
            echo_words(f"trace: {writer.path}  (specscope check, show, view)")
    if writer is not None:
        writer.check_whole()


def _run_in_stages(options: dict[str, Any], *, as_json: bool) -> bool:
    """Runs the pipeline, where that is the engine; its options are taken out of ``options`` either way."""
    pipeline = pipeline_choice(options.pop("engine"), options)
    if pipeline is None:
        return False
    if options["arrivals_file"] is not None:
        raise UsageError("got --arrivals with --engine ppsd, which decodes one prompt at a time: give --prompts")
    prefer_early_exit(options)
    settings, _ = check_request(**options)
    run_stages(settings, pipeline, lambda: build_request(**options), trace=options["trace"], as_json=as_json)
    return True


def _with_fault(request: RunRequest) -> tuple[RunRequest, Fault | None]:
    """The request with its fault by the catalogue's name, and a damaged copy of a checkpoint in it where the fault is
    one of loading; and the fault."""
    settings = request.settings
    if settings.fault is None:
        return request, None
    from specscope.engine.lab.faults import check_cache, check_ranks, find_fault

    fault = find_fault(settings.fault)
    check_cache(fault.id, fault.cache, settings.cache)
    check_ranks(fault, settings.choice.num_ranks, settings.acceptance)
    settings = replace(settings, fault=fault.id)
    if fault.damage is not None:
        folder = click.get_current_context().with_resource(TemporaryDirectory())
        settings = replace(settings, choice=fault.damage(settings.choice, Path(folder)))
    return replace(request, settings=settings), fault


def build_request(**options: Any) -> RunRequest:
    """The command line's options as one request.

    Raises:
        UsageError: where they contradict each other or a prompt file cannot be read.
    """
    settings, prompts = check_request(**options)

    # What can be said without torch has been said.
    from specscope.engine.run.runner import RunRequest

    return RunRequest(settings, prompts, _trace_target(options))


def check_request(
    prompt: str | None, prompts_file: Path | None, arrivals_file: Path | None, **options: Any
) -> tuple[Settings, list[Prompt]]:
    """The settings and the prompts; the target is checked. Loads no torch.

    Raises:
        UsageError: as ``build_request`` does.
    """
    if sum(source is not None for source in (prompt, prompts_file, arrivals_file)) != 1:
        raise UsageError("give either --prompt TEXT or --prompts FILE, or --arrivals FILE")
    if arrivals_file is None and options["arrivals_clock"] != "steps":
        raise UsageError("got --arrivals-clock without --arrivals: give the file whose times it is of")
    if prompts_file is not None:
        listed = load_prompts(prompts_file)
    elif arrivals_file is not None:
        listed = load_arrivals(arrivals_file, options["arrivals_clock"])
    else:
        listed = [Prompt("prompt", turns=(prompt or "",))]
    shard = options.pop("shard", "1/1")
    prompts = parse_shard(shard).of(listed)
    if not prompts:
        raise UsageError(f"no prompt in this shard: {shard} of a list of {len(listed)}")
    _check_target(options)
    return build_settings(**options), prompts


def build_settings(**options: Any) -> Settings:
    """The command line's options as settings.

    Raises:
        UsageError: where they contradict each other.
    """
    named = (
        "max_new_tokens",
        "batch_size",
        "arrivals_clock",
        "cache_strategy",
        "cache",
        "block_size",
        "acceptance",
        "overlap",
        "seed",
        "strict",
        "fault",
    )
    return Settings(
        choice=build_choice(**options),
        stop_strings=tuple(options["stop_strings"]),
        processors=build_processors(options),
        bad_words=tuple(options["bad_words"]),
        grammar=build_grammar(options),
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


def _print_summary(reports: list[TurnReport], request: RunRequest, *, taken_s: float) -> None:
    """What all turns came to. Their speed is by the time in which any row was taken."""
    lengths = [n for report in reports for n in report.result.accepted_lengths]
    tokens = sum(len(report.result.output_ids) for report in reports)
    accepted = sum(lengths) / max(1, len(lengths))
    click.echo()
    echo_words(
        f"{counted(len(reports), 'turn')}, {counted(tokens, 'token')} in {counted(len(lengths), 'step')}, "
        f"{tokens / max(taken_s, 1e-9):.1f} tokens/s while any row was taken"
    )
    echo_words(
        f"accepted length {accepted:.2f} a step (root and bonus not counted), "
        f"{accepted + 1 if lengths else 0:.2f} tokens per step"
    )
    fallbacks = sum(report.result.num_fallbacks for report in reports)
    if fallbacks:
        echo_words(f"{counted(fallbacks, 'commit')} fell back from {request.settings.cache_strategy} to full-reorder")
    if not request.settings.choice.rule.lossless:
        echo_words("typical acceptance is lossy: the output does not have the teacher's distribution")
