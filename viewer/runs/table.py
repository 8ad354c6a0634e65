"""The list of runs as a board: one row per trace, with buttons that choose it. Pure.

Its clicks ask for ``run:N``, ``baseline:N`` and ``candidate:N``, N being the run's place in the list as it was given,
for ``hide:N``, of the hidden ones for ``show:N`` and ``show:all``, for ``pair:chosen`` and ``pair:suggested``, for
``index:all``, and its heads for ``order:NAME.DIRECTION``, as ``order.py`` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from specscope.tracer.naming.text import counted
from specscope.viewer.drawing.board import Board, board_of
from specscope.viewer.drawing.fragments import SIGNS, commands, note, quiet, rows
from specscope.viewer.drawing.frames import attribute, box, folded, kind_attribute, row, table_of
from specscope.viewer.drawing.labels.manifest import created_text
from specscope.viewer.drawing.labels.numbers import about_seconds, size_text
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.runs.differing import differing_card
from specscope.viewer.runs.order import NEWEST, Order, next_order, request_for
from specscope.viewer.runs.summary import Mark, NoTrace, RunSummary
from specscope.viewer.runs.sweep import sweep_card


class _Column(NamedTuple):
    """A column, and the names of the orders that its head asks for, each with its words."""

    orders: tuple[tuple[str, str], ...]
    kind: str = ""


COLUMNS = (
    _Column((("name", "Run"), ("newest", "date"), ("size", "size"))),
    _Column((("health", "Health"),)),
    _Column((("mode", "Mode"),)),
    _Column((("models", "Models and tree"),)),
    _Column((("turns", "Turns"),), "num"),
    _Column((("steps", "Steps"),), "num"),
    _Column((("accepted", "Accepted length"),), "num"),
    _Column((("speed", "Tokens per second"),), "num"),
    _Column((), "ss-choose"),
)
CLASSES = [column.kind for column in COLUMNS]
HOW_COUNTED = (
    "Accepted length: accepted nodes per step, without root and bonus token. Tokens per step: accepted length + 1, "
    "which other engines call acceptance length. Tokens per second are those of the run as it was recorded: speeds of "
    "runs that were not recorded together also differ by what else the machine did."
)
RECORD = ('specscope run --prompt "def parse(line):" --mode eager --trace runs/eager.jsonl', "specscope view runs")


@dataclass(frozen=True, kw_only=True)
class RunList:
    """What is to be listed."""

    runs: Sequence[RunSummary]  # in the order in which they are numbered
    folders: Sequence[tuple[str, Sequence[int]]]  # name of each folder, and the places of its runs, as they are shown
    hidden: Sequence[RunSummary] = ()  # what somebody has taken from the list
    no_traces: Sequence[NoTrace] = ()
    baseline: str | None = None  # the name of the run that is chosen as such
    candidate: str | None = None
    suggested: tuple[str, str] | None = None  # names of an eager and a fused run that belong together
    seconds_to_index: float | None = None  # how long reading the rest takes; None where nothing is left to read
    left_out: str = ""  # said below the table where the list is not all
    num_checking: int = 0  # files that are being checked meanwhile
    order: Order = NEWEST  # in which the runs are given


def run_board(listed: RunList) -> Board:
    """The list, with what to do above it and the files that are not traces below it."""
    if not listed.runs:
        return Board(board_of(_nothing(listed), _hidden(listed.hidden), _no_traces(listed.no_traces)))
    words = [f"Checking {counted(listed.num_checking, 'file')}."] if listed.num_checking else []
    words += [listed.left_out] if listed.left_out else []
    left_out = quiet(" ".join(words)) if words else NOTHING
    runs = box(_guide(listed), _unread(listed), _table(listed), left_out, kind="ss-card-runs")
    differing = differing_card([run.run.name for run in listed.runs], [run.fields for run in listed.runs])
    return Board(
        board_of(runs, _hidden(listed.hidden), differing, sweep_card(listed.runs), _no_traces(listed.no_traces))
    )


def empty_board(folders: Sequence[Path]) -> Board:
    """What to do where no file is given."""
    where = f"There is no *.jsonl in {', '.join(map(str, folders[:3]))}." if folders else "No file or folder was given."
    lines = [where, "Record a trace, then open its folder:"]
    return Board(board_of(box(note("info", "There are no runs here yet", lines), commands(RECORD))))


def _nothing(listed: RunList) -> Markup:
    if listed.hidden and not listed.left_out:
        return box(note("info", "All runs are hidden", ["They are named below."]))
    if listed.left_out:
        return box(note("info", "No run fits the filter", [listed.left_out]))
    lines = ["None of the files here is a trace; the reasons are below.", "Record one, then reload this page:"]
    return box(note("info", "There are no runs here yet", lines), commands(RECORD))


def _guide(listed: RunList) -> Markup:
    words = "Pick one run to step through it, or a baseline and a candidate to compare them."
    button = NOTHING
    if listed.baseline is not None and listed.candidate is not None:
        words = f"Baseline {listed.baseline}, candidate {listed.candidate}."
        button = _button("pair:chosen", "Compare them")
    elif listed.baseline is not None:
        words = f"Baseline {listed.baseline}: now pick the candidate to compare it with."
    elif listed.candidate is not None:
        words = f"Candidate {listed.candidate}: now pick the baseline to compare it with."
    elif listed.suggested is not None:
        eager, fused = listed.suggested
        button = _button("pair:suggested", f"Compare {eager} with {fused}", "the same run, eager and fused")
    return markup('<div class="ss-guide"><p>{words}</p>{button}</div>', words=html_text(words), button=button)


def _button(request: str, label: str, remark: str = "") -> Markup:
    return markup(
        '<button type="button" class="ss-lead"{request}>{label}</button>{aside}',
        request=attribute("data-do", request),
        label=html_text(label),
        aside=markup("<span>{remark}</span>", remark=html_text(remark)) if remark else NOTHING,
    )


def _table(listed: RunList) -> Markup:
    lines = []
    for folder, places in listed.folders:
        if len(listed.folders) > 1:
            lines.append(
                markup(
                    '<tr class="ss-folder"><td colspan="{width}">{folder}</td></tr>',
                    width=len(COLUMNS),
                    folder=html_text(folder),
                )
            )
        lines += [_row(listed, place) for place in places]
    head = joined(_head(column, listed.order) for column in COLUMNS)
    return joined([table_of(head, lines, kind="ss-runs"), quiet(HOW_COUNTED)])


def _head(column: _Column, order: Order) -> Markup:
    """The head of a column, whose words sort by it."""
    is_sorted = order.by in dict(column.orders)
    direction = "none" if not is_sorted else "descending" if order.falls else "ascending"
    return markup(
        "<th{kind}{sorted}>{buttons}</th>",
        kind=kind_attribute(column.kind),
        sorted=attribute("aria-sort", direction) if column.orders else NOTHING,
        buttons=joined(_sorter(by, words, order) for by, words in column.orders) or html_text("Compare"),
    )


def _sorter(by: str, words: str, order: Order) -> Markup:
    arrow = NOTHING if by != order.by else markup(" ↓") if order.falls else markup(" ↑")
    return markup(
        '<button type="button" class="ss-sorter"{request}>{words}{arrow}</button>',
        request=attribute("data-do", request_for(next_order(order, by))),
        words=html_text(words),
        arrow=arrow,
    )


def _row(listed: RunList, place: int) -> Markup:
    run = listed.runs[place]
    is_chosen = run.run.name in (listed.baseline, listed.candidate)
    request = attribute("data-do", f"run:{place}")
    name = markup(
        '<button type="button" class="ss-name-of-run"{request}>{name}</button>{made}',
        request=request,
        name=html_text(run.run.name),
        made=quiet(f"{created_text(run.created)}, {size_text(run.num_bytes)}"),
    )
    cells = [
        name,
        marks(run.health),
        joined([html_text(f"{run.mode}, {run.dtype}"), quiet(_kernel(run))]),
        joined([html_text(f"{run.teacher} · {run.drafter}"), quiet(f"{run.tree}; {run.rule}")]),
        *_numbers(run),
        joined([*(_choose(listed, place, side) for side in ("baseline", "candidate")), _hide(run, place)]),
    ]
    return row(cells, CLASSES, joined([request, kind_attribute("picked" if is_chosen else "")]))


def _kernel(run: RunSummary) -> str:
    """By which attention it ran, where its mode does not say so, and on what."""
    return run.device if run.attention == run.mode else f"{run.attention}; {run.device}"


def marks(entries: Sequence[Mark]) -> Markup:
    """Marks with their signs, each on its own line."""
    return joined(
        markup(
            '<div class="ss-mark ss-is-{tone}"><b>{sign}</b>{words}</div>',
            tone=html_text(mark.tone),
            sign=html_text(SIGNS[mark.tone]),
            words=html_text(mark.words),
        )
        for mark in entries
    )


def _numbers(run: RunSummary) -> list[Markup]:
    outcome, unknown = run.outcome, html_text("–")
    if outcome is None:
        return [unknown] * 4
    mean, speed = outcome.accepted_length, outcome.tokens_per_second
    counts = [html_text(f"{count:,}") for count in (outcome.num_turns, outcome.num_steps)]
    length = unknown if mean is None else joined([html_text(f"{mean:.3f}"), quiet(f"{mean + 1:.3f} tokens per step")])
    return [*counts, length, unknown if speed is None else html_text(f"{speed:,.1f}")]


def _choose(listed: RunList, place: int, side: str) -> Markup:
    is_on = listed.runs[place].run.name == getattr(listed, side)
    return markup(
        '<button type="button"{request} aria-pressed="{pressed}">{label}</button>',
        request=attribute("data-do", f"{side}:{place}"),
        pressed=markup("true") if is_on else markup("false"),
        label=html_text(f"✓ {side}" if is_on else side),
    )


def _hide(run: RunSummary, place: int) -> Markup:
    return markup(
        '<button type="button"{request}{label}>hide</button>',
        request=attribute("data-do", f"hide:{place}"),
        label=attribute("aria-label", f"Hide {run.run.name}"),
    )


def _hidden(runs: Sequence[RunSummary]) -> Markup:
    """The runs that are hidden, each with a button that lists it again; their files are as they were."""
    if not runs:
        return NOTHING
    shows = joined(_show_again(f"show:{at}", run.run.name) for at, run in enumerate(runs))
    all_of_them = _show_again("show:all", "all of them") if len(runs) > 1 else NOTHING
    words = markup('<div class="ss-shows">{shows}{rest}</div>', shows=shows, rest=all_of_them)
    return box(folded(counted(len(runs), "hidden run"), words, aside="their files are as they were", kind="ss-hidden"))


def _show_again(request: str, name: str) -> Markup:
    return markup(
        '<button type="button"{request}>Show {name}</button>',
        request=attribute("data-do", request),
        name=html_text(name),
    )


def _unread(listed: RunList) -> Markup:
    if listed.seconds_to_index is None:
        return NOTHING
    num_left = sum(run.outcome is None for run in listed.runs)
    title = f"{num_left:,} {'trace is' if num_left == 1 else 'traces are'} not indexed yet"
    line = "Turns, steps and lengths are known once the file has been read. Picking a run reads it as well."
    return markup(
        '<div class="ss-unread">{note}{button}</div>',
        note=note("info", title, [line]),
        button=_button("index:all", f"Read now, {about_seconds(listed.seconds_to_index)}"),
    )


def _no_traces(files: Sequence[NoTrace]) -> Markup:
    if not files:
        return NOTHING
    title = f"{len(files):,} {'file here is not a' if len(files) == 1 else 'files here are not'} readable "
    title += "trace" if len(files) == 1 else "traces"
    reasons = rows((file.run.name, file.reason) for file in files)
    return box(folded(title, reasons, kind="ss-no-traces"))
