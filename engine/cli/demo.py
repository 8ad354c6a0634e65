"""``specscope demo``: the whole path on the bundled models."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

import click
from rich.markup import escape
from rich.table import Table

from specscope.engine.cli.choices import warn_once
from specscope.tracer.cli.check import exit_code, print_report
from specscope.tracer.cli.console import console, echo_words
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import EXIT_DIFFERENT, EngineError
from specscope.tracer.naming.text import printable
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.report.fitted import print_table
from specscope.tracer.report.report import Report
from specscope.tracer.report.text import print_verdict

if TYPE_CHECKING:
    from specscope.engine.load.models import Models
    from specscope.engine.run.runner import TurnReport

MAX_NEW_TOKENS = 64
FAULT = "F16"
SHOWN_PROMPT = 3  # the others are decoded alike, and counted


@click.command(short_help="Decode, trace, check and diff in one go")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
    help="Folder for the demo's traces; those of an earlier demo are replaced.",
)
def demo(out: Path) -> None:
    """Decode held-out prompts in both modes, trace, check and diff them; then break one run and find it."""
    from specscope.engine.load.models import DEMO_MODELS

    out.mkdir(parents=True, exist_ok=True)
    texts = TokenTexts.load(DEMO_MODELS / "teacher")
    terminal = console()
    terminal.rule("1  decode: only the teacher, then tree speculation in eager and in fused mode", align="left")
    reports = {
        "baseline": _decode("baseline", None),
        "eager": _decode("eager", out / "eager.jsonl"),
        "fused": _decode("fused", out / "fused.jsonl"),
    }
    _print_runs(reports)
    terminal.rule("2  check: every invariant, recomputed from the trace alone", align="left")
    paths = [out / "eager.jsonl", out / "fused.jsonl"]
    checks = [check_trace(path) for path in paths]
    for report in checks:
        print_report(report, verbose=False)
    terminal.rule("3  diff: where does fused part from eager?", align="left")
    verdict = diff_traces(paths[0], paths[1])
    print_verdict(terminal, Report(verdict, texts))
    terminal.rule(f"4  and a broken run: fault {FAULT}, positions by slot instead of depth", align="left")
    broken = out / f"{FAULT}.jsonl"
    _decode("fused", broken, FAULT, num_prompts=2)
    eager_part = out / "eager-2.jsonl"
    _decode("eager", eager_part, num_prompts=2)
    broken_verdict = diff_traces(eager_part, broken)
    print_verdict(terminal, Report(broken_verdict, texts))
    terminal.rule("5  look at them", align="left")
    terminal.print(f"  specscope view {paths[0]} {paths[1]}", highlight=False)
    terminal.print(f"  specscope view {eager_part} {broken}", highlight=False)
    if verdict.exit_code or any(exit_code(report) for report in checks) or broken_verdict.exit_code != EXIT_DIFFERENT:
        raise EngineError("the demo did not come out as it should: fused and eager equal, and the broken run found")


def _decode(
    mode: Literal["fused", "eager", "baseline"],
    trace: Path | None,
    fault: str | None = None,
    num_prompts: int | None = None,
) -> list[TurnReport]:
    from specscope.engine.lab.faults import find_fault, injecting
    from specscope.engine.load.models import DEMO_MODELS, load_models
    from specscope.engine.run.prompts import load_prompts
    from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
    from specscope.engine.settings import Settings

    injected = find_fault(fault) if fault is not None else None
    settings = Settings.of(mode=mode, max_new_tokens=MAX_NEW_TOKENS, fault=fault)
    prompts = load_prompts(DEMO_MODELS / "prompts.jsonl")[:num_prompts]
    target = TraceTarget(trace, overwrite=True, with_text=True) if trace is not None else None
    request = RunRequest(settings, prompts, target)
    models: Models = load_models(settings.choice, warn=warn_once)
    writer = open_trace(request, models, warn=lambda text: echo_words(f"warning: {text}", err=True))
    reports = list(run_turns(request, models, writer, change=injecting(injected)))
    if writer is not None:
        writer.check_whole()
    return reports


def _print_runs(reports: dict[str, list[TurnReport]]) -> None:
    out = console()
    shown = reports["fused"][SHOWN_PROMPT]
    out.print(f"[dim]{escape(printable(shown.prompt_id))}[/] continues:", highlight=False)
    out.print(f"[blue]{escape(printable(shown.text or ''))}[/]", highlight=False)
    table = Table(box=None, padding=(0, 3, 0, 0))
    for name in ("mode", "prompts", "tokens", "steps", "accepted length", "tokens per step", "tokens/s", "speed"):
        table.add_column(name, justify="left" if name == "mode" else "right")
    for mode, runs in reports.items():
        lengths = [n for run in runs for n in run.result.accepted_lengths]
        accepted = sum(lengths) / max(1, len(lengths))
        same = [a.result.output_ids == b.result.output_ids for a, b in zip(runs, reports["baseline"], strict=True)]
        table.add_row(
            mode,
            str(len(runs)),
            str(sum(len(run.result.output_ids) for run in runs)) + (" =" if all(same) else " ≠"),
            str(len(lengths)),
            f"{accepted:.2f}" if mode != "baseline" else "-",
            f"{accepted + 1:.2f}",
            f"{_rate(runs):.0f}",
            _speed(runs, reports["baseline"]),
        )
    print_table(out, table)
    out.print("[dim]= : the same tokens as without speculation. Accepted length counts neither root nor bonus.[/]")
    out.print("[dim]speed: the median over the prompts, and the lowest and highest.[/]")


def _speed(runs: list[TurnReport], baseline: list[TurnReport]) -> str:
    """How many times as fast as the baseline, prompt by prompt: one number alone would hide how far they vary."""
    ratios = [b.result.duration_ns / max(1, run.result.duration_ns) for run, b in zip(runs, baseline, strict=True)]
    if runs is baseline:
        return "1.00x"
    return f"{median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def _rate(runs: list[TurnReport]) -> float:
    tokens = sum(len(run.result.output_ids) for run in runs)
    return tokens / max(1e-9, sum(run.result.duration_ns for run in runs) / 1e9)
