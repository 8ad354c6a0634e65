"""Draws which rows of the teacher's cache hold what over several steps: a line for each step, a column for each row.

A row that was written wrongly stays marked in all later lines, since it is still read there. Knows records, no pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from specscope.schemas import CommitSection
from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.frames import kind_attribute, step_link
from specscope.viewer.drawing.labels.tokens import label_text
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.step_view import StepView

WIDTH = 860.0
LEFT, RIGHT = 62.0, 200.0  # for the step's number, and for what it wrote
TOP, LINE, HEIGHT = 24, 19, 13  # of the first line, from line to line, of a row
MOST_UNIT, LEAST_UNIT = 13.0, 4.0  # width of a row
MOST_ROWS = 400  # of one step: a record may hold nonsense
LONGEST_TEXT = 26
MOST_NAMED = 3  # wrong rows of a line, for those who cannot see them


@dataclass(frozen=True, kw_only=True)
class WrittenRow:
    """A row that a step wrote."""

    row: int
    label: str
    problem: str  # why it is wrong; empty where it is not


@dataclass(frozen=True, kw_only=True)
class CommittedStep:
    """What one step did to the cache."""

    step: int
    before: int  # rows that were committed
    after: int
    rows: Sequence[WrittenRow]


def committed_step(view: StepView) -> CommittedStep | None:
    """What the step of ``view`` did; None where that was not recorded."""
    commit = view.step.commit
    if commit is None:
        return None
    moved = list(zip(commit.source_slots, commit.destination_rows, strict=False))[:MOST_ROWS]
    rows = [
        WrittenRow(row=row, label=_label(view, slot), problem=_problem(view, commit, at))
        for at, (slot, row) in enumerate(moved)
    ]
    return CommittedStep(step=view.step.step, before=commit.committed_before, after=commit.committed_after, rows=rows)


def _label(view: StepView, slot: int) -> str:
    return label_text(view.shown(view.tokens[slot])) if 0 <= slot < len(view.tokens) else f"slot {slot}"


def _problem(view: StepView, commit: CommitSection, at: int) -> str:
    """What is wrong with the row that was written as number ``at``."""
    accept = view.step.accept
    wanted = None if accept is None else [0, *accept.path]
    slot, row = commit.source_slots[at], commit.destination_rows[at]
    problems = []
    if wanted is not None and wanted[at : at + 1] != [slot]:
        right = f"slot {wanted[at]}" if at < len(wanted) else "none"
        problems.append(f"taken from slot {slot}, wanted {right}")
    if row != commit.committed_before + at:
        problems.append(f"written to row {row}, wanted row {commit.committed_before + at}")
    if _is_unfaithful(commit):
        problems.append("what was written does not equal its source")
    return "; ".join(problems)


def _is_unfaithful(commit: CommitSection) -> bool:
    pairs = zip(commit.source_checksums or [], commit.written_checksums or [], strict=False)
    return any(source != written for source, written in pairs)


class _Scale:
    """Where rows and lines are drawn."""

    def __init__(self, steps: Sequence[CommittedStep]) -> None:
        self.first = min(step.before for step in steps)
        last = max(max([step.after, *(row.row + 1 for row in step.rows)]) for step in steps)
        self.num_rows = min(max(1, last - self.first), MOST_ROWS)
        self.unit = max(LEAST_UNIT, min(MOST_UNIT, (WIDTH - LEFT - RIGHT) / self.num_rows))
        self.width = max(WIDTH, LEFT + self.num_rows * self.unit + RIGHT)

    def x(self, row: int) -> float:
        return LEFT + max(0, min(row - self.first, self.num_rows)) * self.unit


def draw_history(steps: Sequence[CommittedStep]) -> Markup:
    """The drawing of one step or more, the oldest at the top."""
    scale = _Scale(steps)
    held: dict[int, WrittenRow] = {}  # wrong rows that are still there
    lines = []
    for number, step in enumerate(steps):
        previous = steps[number - 1] if number else None
        lines.append(_line(scale, number, step, _Before(tuple(held.values()), previous)))
        for row in step.rows:
            held.pop(row.row, None)
            if row.problem:
                held[row.row] = row
    return markup(
        '<svg class="ss-history" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="group" '
        'aria-label="rows of the cache over {count} steps" style="max-width:{most:.0f}px;--ss-least:{width:.0f}px">'
        "{ticks}{lines}</svg>",
        width=scale.width,
        height=TOP + LINE * len(steps) + 4,
        count=len(steps),
        most=scale.width * 1.15,
        ticks=joined(_ticks(scale)),
        lines=joined(lines),
    )


@dataclass(frozen=True)
class _Before:
    """What a step found in the cache."""

    wrong: Sequence[WrittenRow]  # rows that an earlier step wrote wrongly
    previous: CommittedStep | None  # the step before it, where that is drawn


def _line(scale: _Scale, number: int, step: CommittedStep, earlier: _Before) -> Markup:
    y = TOP + LINE * number
    gap = _gap(step, earlier.previous)
    texts = "".join(row.label for row in step.rows)
    parts = [
        _rectangle("kept", scale.x(scale.first), scale.x(step.before), y),
        *(_row(scale, row, y, is_held=True) for row in earlier.wrong),
        *(_row(scale, row, y, is_held=False) for row in step.rows),
        _text("step", LEFT - 8, y, html_text(f"step {step.step}"), anchor="end"),
        _text("wrote", scale.x(_end(step)) + 8, y, html_text(shorten(texts, LONGEST_TEXT) + gap)),
    ]
    words = f"step {step.step}: {step.before} → {step.after} rows committed{gap}"
    problems = [f"still there: {_row_words(row)}" for row in earlier.wrong]
    problems += [_row_words(row) for row in step.rows if row.problem]
    return markup(
        '<g{kind}{link}><rect class="band" x="0" y="{top}" width="{width:.0f}" height="{height}"/>{parts}'
        "<title>{words}</title></g>",
        kind=kind_attribute("line gap" if gap else "line"),
        link=step_link(step.step, "; ".join([words, *problems[:MOST_NAMED]])),
        top=y - (LINE - HEIGHT) / 2,
        width=scale.width,
        height=LINE,
        parts=joined(parts),
        words=html_text(words),
    )


def _end(step: CommittedStep) -> int:
    return max([step.after, *(row.row + 1 for row in step.rows)])


def _gap(step: CommittedStep, previous: CommittedStep | None) -> str:
    """Where a step does not begin at the row at which the one before it ended."""
    if previous is None or previous.step != step.step - 1 or previous.after == step.before:
        return ""
    return f" ✗ begins at row {step.before}, the step before ended at {previous.after}"


def _row(scale: _Scale, row: WrittenRow, y: float, *, is_held: bool) -> Markup:
    words = _row_words(row)
    kind = "wrong" if row.problem else "written"
    x = scale.x(row.row)
    return joined(
        [
            _rectangle(f"{kind} held" if is_held else kind, x, x + scale.unit, y, words=words),
            _text("sign", x + scale.unit / 2, y, markup("✗"), anchor="middle")
            if row.problem and not is_held
            else NOTHING,
        ]
    )


def _row_words(row: WrittenRow) -> str:
    return f"row {row.row}: {row.label}" + (f"; ✗ {row.problem}" if row.problem else "")


def _rectangle(kind: str, start: float, end: float, y: float, *, words: str = "") -> Markup:
    if end <= start:
        return NOTHING
    return markup(
        '<rect{kind} x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}">{title}</rect>',
        kind=kind_attribute(kind),
        x=start + 0.5,
        y=y,
        width=end - start - 1,
        height=HEIGHT,
        title=markup("<title>{words}</title>", words=html_text(words)) if words else NOTHING,
    )


def _text(kind: str, x: float, y: float, words: Markup, *, anchor: str = "start") -> Markup:
    return markup(
        '<text{kind} x="{x:.1f}" y="{y}" text-anchor="{anchor}">{words}</text>',
        kind=kind_attribute(kind),
        x=x,
        y=y + HEIGHT - 2,
        anchor=html_text(anchor),
        words=words,
    )


def _ticks(scale: _Scale) -> Iterable[Markup]:
    every = next((n for n in (1, 2, 5, 10, 20, 50) if n * scale.unit >= 34), 100)
    first = -(-scale.first // every) * every
    for row in range(first, scale.first + scale.num_rows, every):
        yield markup(
            '<text class="tick" x="{x:.1f}" y="14" text-anchor="middle">{row}</text>',
            x=scale.x(row) + scale.unit / 2,
            row=row,
        )
