"""``specscope show``: one step in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Literal, get_args

import click
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.tree import Tree

from specscope.schemas import AcceptSection, RankDecisions, ShapeSection, Step
from specscope.tracer.cli.console import console
from specscope.tracer.cli.options import tokenizer_option
from specscope.tracer.errors import NoSuchStepError, TraceError, UsageError
from specscope.tracer.export.graph import GraphFormat, graph_text, tree_graph
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.failures import stopped_text
from specscope.tracer.naming.places import turn_name
from specscope.tracer.naming.ranks import ranks_text
from specscope.tracer.naming.requests import request_text
from specscope.tracer.naming.rules import is_lossy, rule_text
from specscope.tracer.naming.stages import stages_text
from specscope.tracer.naming.text import counted, printable, shorten, visible
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.invariants.ranks import disagreement
from specscope.tracer.oracle.step import context_at, step_violations
from specscope.tracer.report.fitted import BOUNDLESS, print_line, print_table


@click.command(short_help="One step or turn in the terminal, or as a graph")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--turn", default=0, show_default=True, help="Number of the turn in the run.")
@click.option("--step", type=int, help="Number of the step in the turn.  [default: an overview of all]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", *get_args(GraphFormat)]),
    default="text",
    show_default=True,
    help="dot, for Graphviz, and graphml, for yEd and Gephi, print one step's tree; give --step.",
)
@tokenizer_option
def show(file: Path, turn: int, step: int | None, form: GraphFormat | Literal["text"], tokenizer: Path | None) -> None:
    """Draw a step's tree with the accepted path, or list the turn's steps."""
    texts = TokenTexts.load_for(tokenizer, file)
    with TraceReader(file) as reader:
        if not reader.turns:
            _print_failures(reader, None)
            raise UsageError(f"got turn {turn}, but {file} has no turns")
        if not 0 <= turn < len(reader.turns):
            raise NoSuchStepError(f"got turn {turn}, wanted 0..{len(reader.turns) - 1}, the turns of {file}")
        entry = reader.turns[turn]
        if form != "text":
            if step is None:
                raise UsageError(f"got --format {form} without a step: give --step, whose tree is printed")
            click.echo(graph_text(tree_graph(reader.step(entry, step), texts), form), nl=False)
            return
        if step is None:
            _print_overview(reader, entry, texts)
            return
        record = reader.step(entry, step)
        texts.learn(record)
        _print_step(record, texts)
        if is_lossy(reader.manifest.sampling):
            console().print(f"[yellow]{rule_text(reader.manifest.sampling)}[/]", highlight=False)
        out = console()
        context = context_at(reader, entry, step)
        if context.previous_is_lost:
            out.print("the step before cannot be read: what it left is not known, and not judged", highlight=False)
        for violation in step_violations(context):
            words = f"{escape(violation.invariant)}: {escape(printable(violation.witness))}"
            print_line(out, f"[red]violated[/] {words}", hanging=2)


def _print_overview(reader: TraceReader, entry: TurnEntry, texts: TokenTexts) -> None:
    out = console()
    length = reader.turn_start(entry).prompt_length
    prompt = "prompt of unknown length" if length is None else counted(length, "prompt token")
    print_line(
        out,
        f"{escape(printable(turn_name(entry.turn, entry.prompt_id)))}: "
        f"{prompt}, {counted(len(entry.steps), 'step')} "
        f"(of {counted(len(reader.turns), 'turn')}; choose with --turn N --step N)",
    )
    out.print(f"acceptance rule: {rule_text(reader.manifest.sampling)}", highlight=False)
    request = request_text(reader.manifest, reader.turn_start(entry), reader.turn_end(entry))
    if request is not None:
        out.print(f"request: {request}", highlight=False, soft_wrap=True)
    parallel = reader.manifest.tensor_parallel
    if parallel is not None:
        out.print(escape(printable(ranks_text(parallel))), highlight=False, soft_wrap=True)
    pipeline = reader.manifest.pipeline
    if pipeline is not None:
        print_line(out, escape(printable(stages_text(pipeline))))
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("step", "position", "nodes", "accepted", "emitted"):
        table.add_column(name, justify="left" if name == "emitted" else "right", no_wrap=name != "emitted")
    for number in range(len(entry.steps)):
        try:
            record = reader.step(entry, number)
        except TraceError:
            table.add_row(str(number), *"---", "cannot be read")
            continue
        texts.learn(record)
        cells = (
            str(record.step),
            "-" if record.committed_length is None else str(record.committed_length),
            "-" if record.num_drafted is None else str(record.num_drafted),
            "-" if record.accepted_length is None else str(record.accepted_length),
            escape(texts.joined(record.stop.emitted[: record.stop.kept])) if record.stop else "-",
        )
        table.add_row(*cells)
    print_table(out, table)
    _print_failures(reader, entry)


def _print_failures(reader: TraceReader, entry: TurnEntry | None) -> None:
    """Why the turn has no further step, or the run no turn, where it stopped there."""
    for failure in reader.failures():
        if failure.turn is None or (entry is not None and failure.turn == entry.turn):
            text = escape(printable(stopped_text(failure)))
            print_line(console(), f"[red]the run[/] {text}", hanging=2)


def _print_step(record: Step, texts: TokenTexts) -> None:
    out = console()
    if record.tree is None:
        out.print("this step records no tree", highlight=False)
        return
    if record.shape is not None:
        print_line(out, _shape_text(record.shape))
    _print_tree(out, record, texts)
    if record.accept is not None:
        out.print(
            f"accepted {record.accept.accepted_length}, then the bonus token "
            f"{escape(texts.shown(record.accept.bonus_token))} from slot {record.accept.bonus_slot}"
            f"{_draw_text(record.accept)}",
            highlight=False,
        )
        _print_trials(record, record.accept, texts)
    if record.commit is not None:
        commit = record.commit
        out.print(
            f"committed {commit.committed_before} -> {commit.committed_after}: slots {commit.source_slots} to rows "
            f"{commit.destination_rows}",
            highlight=False,
        )
    if record.ranks:
        out.print(escape(printable(_ranks_line(record.ranks))), highlight=False, soft_wrap=True)


def _ranks_line(ranks: list[RankDecisions]) -> str:
    """Whether the ranks that computed the step decided the same."""
    return disagreement(ranks) or f"{counted(len(ranks), 'rank')} decided the same"


def _print_tree(out: Console, record: Step, texts: TokenTexts) -> None:
    """The tree as a drawing, or where that is too deep for the console, as a list of its slots."""
    tree = draw_tree(record, texts)
    if Measurement.get(out, out.options.update(width=BOUNDLESS), tree).maximum <= out.width:
        out.print(tree)
        return
    assert record.tree is not None
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("below slot", "depth", "node and its slot"):
        table.add_column(name, justify="left" if name.startswith("node") else "right")
    labels = _labels(record, texts)
    for parent, depth, label in zip_longest(record.tree.parents, record.tree.depths, labels, fillvalue="–"):
        table.add_row(str(parent), str(depth), str(label))  # of lists that ought to be equally long
    print_table(out, table)


def _shape_text(shape: ShapeSection) -> str:
    """Which shape the step has, and why."""
    name, best = (escape(shorten(visible(text), 40)) for text in (shape.name, shape.best))
    why = {
        "first": "the best for the first step",
        "best": "still the best",
        "better": "better than the one before by more than the hysteresis",
        "kept": f"kept, though {best} promises {shape.best_promised:.1f}",
    }[shape.reason]
    load = f"{counted(shape.rows, 'row')} of {shape.context} tokens"
    return f"shape {name} for {load}: {shape.promised:.1f} tokens per second promised, {why}"


def _draw_text(accept: AcceptSection) -> str:
    draw = accept.bonus_draw
    return "" if draw is None else f", drawn by coin {draw.coin:.6g} in {draw.low:.6g} to {draw.high:.6g}"


def _print_trials(record: Step, accept: AcceptSection, texts: TokenTexts) -> None:
    """Every child that was tried, and by what it was accepted or not."""
    tokens = record.tree.tokens if record.tree is not None else []
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("tried", "at", "token", "teacher p", "draft p", "threshold", "coin", ""):
        table.add_column(name, justify="left" if name in ("token", "") else "right")
    for visit in accept.visited or []:
        for trial in visit.trials or []:
            known = 0 <= trial.slot < len(tokens)
            cells = (
                str(trial.slot),
                str(visit.slot),
                escape(texts.shown(tokens[trial.slot])) if known else "-",
                *(f"{value:.4g}" for value in (trial.target_prob, trial.draft_prob, trial.threshold)),
                "-" if trial.coin is None else f"{trial.coin:.4g}",
                "✓ accepted" if trial.slot == visit.child else "acceptable" if trial.accepted else "rejected",
            )
            table.add_row(*cells)
    if table.row_count:
        print_table(console(), table)


def draw_tree(record: Step, texts: TokenTexts) -> Tree:
    """The draft tree; the accepted path is bold with a tick, so that it is seen without colours too."""
    tree = record.tree
    assert tree is not None
    branches: dict[int, Tree] = {}
    for slot, label in enumerate(_labels(record, texts)):
        parent = tree.parents[slot] if slot < len(tree.parents) else 0
        above = branches.get(parent)
        branches[slot] = Tree(label, guide_style="dim") if slot == 0 else (above or branches[0]).add(label)
    return branches[0] if branches else Tree("an empty tree, without even a root")


def _labels(record: Step, texts: TokenTexts) -> Iterator[str]:
    """What is said of each node, in the order of the slots, as markup."""
    tree = record.tree
    assert tree is not None
    path = {0, *(record.accept.path if record.accept is not None else ())}
    for slot, token in enumerate(tree.tokens):
        text = escape(texts.shown(token))
        label = f"[bold blue]✓ {text}[/]" if slot in path else text
        label += f"{_prob(tree.logprobs, slot)} [dim]{slot}[/]{_proposers(tree.proposed_by, slot)}"
        if record.accept is not None and slot == record.accept.bonus_slot:
            label += f"  [dim]→[/] [bold]{escape(texts.shown(record.accept.bonus_token))}[/] [dim]bonus[/]"
        yield label


def _proposers(proposed_by: list[str] | None, slot: int) -> str:
    """The drafters that proposed a node, where there were several."""
    names = proposed_by[slot] if proposed_by is not None and slot < len(proposed_by) else ""
    return f" [dim]{escape(names)}[/]" if names else ""


def _prob(logprobs: list[float] | None, slot: int) -> str:
    """The draft probability of a drafted node, where it was recorded and is one."""
    if logprobs is None or slot == 0 or slot >= len(logprobs) or not logprobs[slot] <= 0:
        return ""
    return f" [dim]{math.exp(logprobs[slot]):.2f}[/]"
