"""``specscope diff``: two traces, one card first."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from specscope.schemas.verdict import Root, Verdict
from specscope.tracer.cli.console import console
from specscope.tracer.cli.options import tokenizer_option
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.reader import TraceReader
from specscope.tracer.rules import LOSSY
from specscope.tracer.text import printable
from specscope.tracer.tokens import TokenTexts

SHOWN_ROOTS = 5


@click.command()
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--tolerance", type=click.FloatRange(min=0), help="On logits and log-probabilities.  [default: by dtype]")
@click.option(
    "--allow", multiple=True, metavar="FIELD", help="Let this manifest field differ, e.g. teacher.weights_digest."
)
@click.option("--fail-on", type=click.Choice(["real", "near-tie"]), default="real", show_default=True)
@tokenizer_option
def diff(
    baseline: Path,
    candidate: Path,
    form: str,
    tolerance: float | None,
    allow: tuple[str, ...],
    fail_on: str,
    tokenizer: Path | None,
) -> None:
    """Say where CANDIDATE parts from BASELINE, which side is wrong, and whether it matters.

    Exits 0 when equal but for drift and ties, 1 at a root difference or a violated invariant, 3 when the two runs are
    not comparable, 4 when too little was recorded to judge.
    """
    if tolerance is not None and not math.isfinite(tolerance):
        raise UsageError(f"got tolerance {tolerance}, wanted a number")
    options = DiffOptions(tolerance, frozenset(allow), fail_on_ties=fail_on == "near-tie")
    texts = TokenTexts.load(tokenizer)
    verdict = diff_traces(baseline, candidate, options)
    _learn_texts(texts, verdict, baseline)
    if form == "json":
        click.echo(verdict.model_dump_json(indent=2, by_alias=True, exclude_none=True))
    else:
        print_verdict(verdict, texts)
    sys.exit(verdict.exit_code)


def _learn_texts(texts: TokenTexts, verdict: Verdict, baseline: Path) -> None:
    """Takes in the token texts that the baseline recorded at the steps that the verdict speaks of."""
    with TraceReader(baseline) as reader:
        for root in verdict.roots[:SHOWN_ROOTS]:
            entry = next(turn for turn in reader.turns if turn.turn == root.place.turn)
            if root.place.step_a < len(entry.steps):
                texts.learn(reader.step(entry, root.place.step_a))


HEADLINES = {
    "equal": "EQUAL: no decision differs",
    "ties": "TIES: every difference is a tie within the tolerance",
    "different": "DIFFERENT",
    "incomparable": "INCOMPARABLE: these runs were not meant to be equal",
    "uncovered": "NOT JUDGED: too little was recorded",
}
STYLES = {"equal": "green", "ties": "green", "different": "red", "incomparable": "yellow", "uncovered": "yellow"}


def print_verdict(verdict: Verdict, texts: TokenTexts) -> None:
    """The card, then what surrounds it."""
    out = console()
    style = STYLES[verdict.verdict]
    body = _card(verdict, texts) if verdict.roots or verdict.violations else _summary_lines(verdict)
    title = f"[bold {style}]{escape(_headline(verdict))}[/]"
    out.print(Panel(body, title=title, title_align="left", border_style=style, width=min(out.width, 110)))
    _print_notes(verdict)
    if len(verdict.roots) > 1:
        _print_roots(verdict, texts)


def _headline(verdict: Verdict) -> str:
    if verdict.verdict == "different" and not verdict.roots:
        return "VIOLATED: the runs agree, and break an invariant"
    return HEADLINES[verdict.verdict]


def _summary_lines(verdict: Verdict) -> str:
    lines = [f"{verdict.num_turns} turns, {verdict.num_steps} pairs of steps compared"]
    lines += [escape(printable(f"rule: {verdict.rule}"))] if LOSSY in verdict.rule else []
    lines += [escape(f"not comparable: {printable(line)}") for line in verdict.incomparable]
    lines += [escape(f"missing: {printable(line)}") for line in verdict.uncovered]
    if verdict.incomparable:
        lines.append("next: record both runs alike, or allow a field with --allow FIELD")
    return "\n".join(lines)


def _card(verdict: Verdict, texts: TokenTexts) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    if LOSSY in verdict.rule:
        grid.add_row("rule", escape(printable(verdict.rule)))
    if verdict.roots:
        _root_rows(grid, verdict.roots[0], texts)
        others = len(verdict.roots) - 1
        grid.add_row("roots", f"{len(verdict.roots)} root{'s' * (others > 0)}, {verdict.num_inherited} inherited")
        place = verdict.roots[0].place
        where = f"--turn {place.turn_b} --step {place.step_b}"
        grid.add_row("next", escape(f"specscope show {verdict.candidate} {where}"))
        grid.add_row("", escape(f"specscope view {verdict.baseline} {verdict.candidate}"))
    else:
        for found in verdict.violations[:SHOWN_ROOTS]:
            grid.add_row("violated", escape(f"{_side(found.side)}: {found.invariant}: {printable(found.witness)}"))
        grid.add_row("next", escape(f"specscope check {verdict.candidate}"))
    return grid


def _root_rows(grid: Table, root: Root, texts: TokenTexts) -> None:
    place, found = root.place, root.difference
    steps = f"step {place.step_a}" if place.step_a == place.step_b else f"steps {place.step_a} and {place.step_b}"
    where = f"{place.prompt_id} turn {place.prompt_turn + 1}, {steps}, position {place.position}"
    grid.add_row("where", escape(printable(where)))
    node = ""
    if found.node is not None:
        node = "  node " + (" > ".join(texts.shown(token) for token in found.node) or "root")
    grid.add_row("phase", escape(f"{found.phase}: {found.field}{node}"))
    grid.add_row("baseline", escape(printable(found.a)))
    grid.add_row("candidate", escape(printable(found.b)))
    grid.add_row("kind", f"{found.kind}; inputs {'equal' if found.inputs_equal else 'differ'}")
    if found.margin_a is not None and found.margin_b is not None:
        grid.add_row("margin", f"{found.margin_a:.6g} in the baseline, {found.margin_b:.6g} in the candidate")
    for blame in root.blame[:2]:
        grid.add_row("wrong", escape(f"{_side(blame.side)} violates {blame.invariant}: {printable(blame.witness)}"))
    if not root.blame:
        grid.add_row("wrong", "neither side violates an invariant at this step")


def _side(side: str) -> str:
    return "the baseline" if side == "a" else "the candidate"


def _print_notes(verdict: Verdict) -> None:
    out = console()
    out.print(f"  acceptance rule  {escape(printable(verdict.rule))}", highlight=False, soft_wrap=True)
    for line in verdict.axis:
        out.print(f"  compared across  {escape(printable(line))}", highlight=False, soft_wrap=True)
    if verdict.roots:
        for line in verdict.uncovered:
            out.print(f"  not judged       {escape(printable(line))}", highlight=False, soft_wrap=True)
    out.print(
        f"  tolerance        {verdict.tolerance:g} ({escape(printable(verdict.tolerance_source))})",
        highlight=False,
        soft_wrap=True,
    )
    for drift in verdict.drift:
        out.print(
            f"  drift            {drift.field}: {drift.count} values, at most {drift.largest:.3g}", highlight=False
        )
    tokens = "equal" if verdict.tokens_equal else "different"
    out.print(
        f"  output tokens    {tokens}; {verdict.num_steps} pairs of steps, {verdict.num_regrouped} without a partner",
        highlight=False,
    )


def _print_roots(verdict: Verdict, texts: TokenTexts) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("  root", "prompt", "step", "phase", "field", "kind", "inherited"):
        table.add_column(name)
    for number, root in enumerate(verdict.roots[:SHOWN_ROOTS], start=1):
        found = root.difference
        table.add_row(
            f"  {number}",
            escape(printable(f"{root.place.prompt_id} turn {root.place.prompt_turn + 1}")),
            str(root.place.step_b),
            found.phase,
            escape(found.field),
            found.kind,
            str(root.inherited),
        )
    console().print(table)
    if len(verdict.roots) > SHOWN_ROOTS:
        console().print(f"  and {len(verdict.roots) - SHOWN_ROOTS} more; --format json lists them", highlight=False)
