"""The list of runs as a board: one row a trace, with buttons that choose it. Pure.

Its clicks ask for ``run:N``, ``baseline:N`` and ``candidate:N``, N being the run's place in the list as it was given,
for ``pair:chosen`` and ``pair:suggested``, and for ``index:all``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specscope.tracer.words.text import html_text
from specscope.viewer.drawing.board import Board, board_of
from specscope.viewer.drawing.fragments import SIGNS, commands, note, quiet, rows
from specscope.viewer.drawing.frames import box, classes_of, folded, row, table
from specscope.viewer.drawing.words.manifest import created_text
from specscope.viewer.drawing.words.numbers import about_seconds, size_text
from specscope.viewer.runs.summary import Mark, NoTrace, RunSummary

HEAD = ("Run", "Health", "Mode", "Models and tree", "Turns", "Steps", "Accepted length", "Tokens per step", "Compare")
NUMBERS = ("Turns", "Steps", "Accepted length", "Tokens per step")
CLASSES = [*classes_of(HEAD[:-1], NUMBERS), "ss-choose"]
HOW_COUNTED = "Accepted length: drafted nodes a step, without root and bonus. Tokens per step: accepted length + 1."
RECORD = ('specscope run --prompt "def parse(line):" --mode eager --trace runs/eager.jsonl', "specscope view runs")


@dataclass(frozen=True)
class RunList:
    """What is to be listed."""

    runs: Sequence[RunSummary]  # in the order in which they are numbered
    folders: Sequence[tuple[str, Sequence[int]]]  # name of each folder, and the places of its runs, as they are shown
    no_traces: Sequence[NoTrace] = ()
    baseline: str | None = None  # the name of the run that is chosen as such
    candidate: str | None = None
    suggested: tuple[str, str] | None = None  # names of an eager and a fused run that belong together
    seconds_to_index: float | None = None  # what reading the rest takes; None where nothing is left to read
    left_out: str = ""  # said below the table where the list is not all


def run_board(found: RunList) -> Board:
    """The list, with what to do above it and the files that are no traces below it."""
    if not found.runs:
        return Board(board_of(_nothing(found), _no_traces(found.no_traces)))
    left_out = quiet(found.left_out) if found.left_out else ""
    listed = box(_guide(found), _unread(found), _table(found), left_out, kind="ss-card-runs")
    return Board(board_of(listed, _no_traces(found.no_traces)))


def empty_board(folders: Sequence[Path]) -> Board:
    """What to do where there is no file at all."""
    where = f"No *.jsonl lies in {', '.join(map(str, folders[:3]))}." if folders else "No file or folder was given."
    told = [where, "Record a trace, then open its folder:"]
    return Board(board_of(box(note("info", "There are no runs here yet", told), commands(RECORD))))


def _nothing(found: RunList) -> str:
    if found.left_out:
        return box(note("info", "No run fits the filter", [found.left_out]))
    lines = ["None of the files here is a trace: see below why.", "Record one, then reload this page:"]
    return box(note("info", "There are no runs here yet", lines), commands(RECORD))


def _guide(found: RunList) -> str:
    say, button = "Pick one run to step through it, or a baseline and a candidate to compare them.", ""
    if found.baseline is not None and found.candidate is not None:
        say = f"Baseline {found.baseline}, candidate {found.candidate}."
        button = _button("pair:chosen", "Compare them")
    elif found.baseline is not None:
        say = f"Baseline {found.baseline}: now pick the candidate to compare it with."
    elif found.candidate is not None:
        say = f"Candidate {found.candidate}: now pick the baseline to compare it with."
    elif found.suggested is not None:
        eager, fused = found.suggested
        button = _button("pair:suggested", f"Compare {eager} with {fused}", "the same run, eager and fused")
    return f'<div class="ss-guide"><p>{html_text(say)}</p>{button}</div>'


def _button(request: str, label: str, remark: str = "") -> str:
    aside = f"<span>{html_text(remark)}</span>" if remark else ""
    return f'<button type="button" class="ss-lead" data-do="{request}">{html_text(label)}</button>{aside}'


def _table(found: RunList) -> str:
    lines = []
    for folder, places in found.folders:
        if len(found.folders) > 1:
            lines.append(f'<tr class="ss-folder"><td colspan="{len(HEAD)}">{html_text(folder)}</td></tr>')
        lines += [_row(found, place) for place in places]
    return table(HEAD, lines, numbers=NUMBERS, kind="ss-runs") + quiet(HOW_COUNTED)


def _row(found: RunList, place: int) -> str:
    run = found.runs[place]
    chosen = ' class="picked"' if run.run.name in (found.baseline, found.candidate) else ""
    cells = [
        f'<button type="button" class="ss-name-of-run" data-do="run:{place}">{html_text(run.run.name)}</button>'
        f"{quiet(created_text(run.created))}{quiet(size_text(run.num_bytes))}",
        marks(run.health),
        html_text(f"{run.mode}, {run.dtype}") + quiet(f"{run.attention}; {run.device}"),
        html_text(f"{run.teacher} · {run.drafter}") + quiet(f"{run.tree}; {run.rule}"),
        *_numbers(run),
        _choose(found, place, "baseline") + _choose(found, place, "candidate"),
    ]
    return row(cells, CLASSES, f' data-do="run:{place}"{chosen}')


def marks(found: Sequence[Mark]) -> str:
    """Marks with their signs, one a line."""
    lines = (f'<div class="ss-mark ss-is-{m.tone}"><b>{SIGNS[m.tone]}</b>{html_text(m.words)}</div>' for m in found)
    return "".join(lines)


def _numbers(run: RunSummary) -> list[str]:
    outcome = run.outcome
    if outcome is None:
        return ["–"] * len(NUMBERS)
    mean = outcome.accepted_length
    shown = ["–", "–"] if mean is None else [f"{mean:.3f}", f"{mean + 1:.3f}"]
    return [f"{outcome.num_turns:,}", f"{outcome.num_steps:,}", *shown]


def _choose(found: RunList, place: int, side: str) -> str:
    is_on = found.runs[place].run.name == getattr(found, side)
    said, sign = ("true", "✓ ") if is_on else ("false", "")
    return f'<button type="button" data-do="{side}:{place}" aria-pressed="{said}">{sign}{side}</button>'


def _unread(found: RunList) -> str:
    if found.seconds_to_index is None:
        return ""
    num_left = sum(run.outcome is None for run in found.runs)
    title = f"{num_left:,} {'trace is' if num_left == 1 else 'traces are'} not indexed yet"
    lines = ["Turns, steps and lengths are known once the file was read. Picking a run reads it, too."]
    button = _button("index:all", f"Read now, {about_seconds(found.seconds_to_index)}")
    return f'<div class="ss-unread">{note("info", title, lines)}{button}</div>'


def _no_traces(found: Sequence[NoTrace]) -> str:
    if not found:
        return ""
    title = f"{len(found):,} {'file here is' if len(found) == 1 else 'files here are'} no readable trace"
    listed = rows((one.run.name, one.reason) for one in found)
    return box(folded(title, listed, kind="ss-no-traces"))
