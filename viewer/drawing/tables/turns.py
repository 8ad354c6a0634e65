"""All turns of a run as a table, a cell for every step, and the steps that were found. Pure.

Its clicks ask for ``go:TURN.STEP``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from specscope.tracer.naming.text import counted, shorten
from specscope.viewer.drawing.board import Board, board_of, card
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import attribute, kind_attribute, row, table
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.svg.strip import MEANINGS, SIGNS, StripStep
from specscope.viewer.drawing.tables.invariants import MOST

#: Turns and found steps that are listed, and cells of one turn; beyond them nothing can be read.
MOST_TURNS, MOST_FOUND, MOST_CELLS = 200, 200, 160
CELL, CELL_HEIGHT = 9, 18
HEAD = ("turn", "prompt", "steps", "accepted length", "nothing accepted", "wrong", "accepted length, step by step")
NUMBERS = ("turn", "steps", "accepted length", "nothing accepted", "wrong")
FOUND_HEAD = ("turn", "step", "prompt", "accepted", "what", "emitted")


class TurnRow(NamedTuple):
    """One turn."""

    turn: int
    prompt: str
    steps: Sequence[StripStep]

    @property
    def accepted_length(self) -> float | None:
        """In the mean; None where that says nothing."""
        lengths = [step.accepted for step in self.steps]
        return sum(lengths) / len(lengths) if lengths and max(lengths) < MOST else None

    @property
    def num_wrong(self) -> int:
        """Steps at which something is wrong."""
        return sum(step.state in SIGNS for step in self.steps)


class FoundStep(NamedTuple):
    """A step that fits the query."""

    turn: int
    step: int
    prompt: str
    accepted: int
    what: str  # what is wrong there; empty for nothing
    text: str  # what it emitted


def turns_board(rows: Sequence[TurnRow], hits: Sequence[FoundStep] | None, error: str | None = None) -> Board:
    """The board: what was found, where something is looked for, then the turns: those that hold it, or all.

    Args:
        rows: the turns, in the order in which they are listed.
        hits: the steps that fit the query; None where none is asked for.
        error: why the query cannot be understood.
    """
    parts = [note("warn", "This cannot be looked for", [error])] if error is not None else []
    if hits is not None:
        parts.append(_found(hits))
    return Board(board_of(*parts, _turns(rows, hits or ())))


def _found(hits: Sequence[FoundStep]) -> Markup:
    if not hits:
        return note("info", "No step fits")
    lines = [_found_line(step) for step in hits[:MOST_FOUND]]
    more = len(hits) - len(lines)
    rest = quiet(f"and {more:,} more") if more else NOTHING
    listed = joined([table(FOUND_HEAD, lines, numbers=("turn", "step", "accepted")), rest])
    return card("found", counted(len(hits), "step") + (" fits" if len(hits) == 1 else " fit"), "", listed)


def _found_line(step: FoundStep) -> Markup:
    cells = [
        html_text(str(step.turn)),
        _button(step.turn, step.step, str(step.step)),
        html_text(shorten(step.prompt, 60)),
        html_text(str(step.accepted)),
        html_text(shorten(step.what, 120)),
        html_text(shorten(step.text, 80)),
    ]
    return row(cells, ("num", "num", "", "num", "", "ss-mono"))


def _button(turn: int, step: int, label: str) -> Markup:
    if not (0 <= turn < MOST and 0 <= step < MOST):
        return html_text(label)
    return markup(
        '<button type="button"{request} aria-label="turn {turn}, step {step}">{label}</button>',
        request=attribute("data-do", f"go:{turn}.{step}"),
        turn=turn,
        step=step,
        label=html_text(label),
    )


def _turns(rows: Sequence[TurnRow], hits: Sequence[FoundStep]) -> Markup:
    marked = {(step.turn, step.step) for step in hits}
    tallest = max((step.accepted for turn in rows for step in turn.steps), default=0)
    held = {step.turn for step in hits} or {turn.turn for turn in rows}
    holding = [turn for turn in rows if turn.turn in held]
    lines = [_turn(turn, tallest, marked) for turn in holding[:MOST_TURNS]]
    more = len(holding) - len(lines)
    words = f"and {more:,} more turns: look for a part of the prompt's name, or choose another order"
    listed = joined([table(HEAD, lines, numbers=NUMBERS, kind="ss-turns"), quiet(words) if more > 0 else NOTHING])
    aside = "darker: more accepted; a click opens the step" + ("; framed: it fits" if hits else "")
    of_all = counted(len(rows), "turn")
    return card("turns", f"{len(holding):,} of {of_all}" if len(holding) < len(rows) else of_all, aside, listed)


def _turn(turn: TurnRow, tallest: int, marked: set[tuple[int, int]]) -> Markup:
    lengths = [step.accepted for step in turn.steps]
    mean = "–" if turn.accepted_length is None else f"{turn.accepted_length:.2f}"
    cells = [
        _button(turn.turn, 0, str(turn.turn)) if turn.steps else html_text(str(turn.turn)),
        html_text(shorten(turn.prompt, 60)),
        html_text(f"{len(lengths):,}"),
        html_text(mean),
        html_text(f"{sum(not length for length in lengths):,}"),
        html_text(f"{turn.num_wrong:,}"),
        _cells(turn, tallest, marked),
    ]
    return row(cells, ("num", "", "num", "num", "num", "num", ""))


def _cells(turn: TurnRow, tallest: int, marked: set[tuple[int, int]]) -> Markup:
    shown = turn.steps[:MOST_CELLS]
    drawn = joined(
        _cell(turn.turn, at, step, tallest, is_found=(turn.turn, at) in marked) for at, step in enumerate(shown)
    )
    more = len(turn.steps) - len(shown)
    rest = quiet(f"and {more:,} more steps") if more else NOTHING
    return markup(
        '<svg class="ss-cells" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" '
        'aria-label="accepted length of every step of turn {turn}">{cells}</svg>{rest}',
        width=max(1, len(shown)) * CELL,
        height=CELL_HEIGHT,
        turn=html_text(str(turn.turn)),
        cells=drawn,
        rest=rest,
    )


def _cell(turn: int, at: int, step: StripStep, tallest: int, *, is_found: bool) -> Markup:
    wrong = step.state in SIGNS
    words = f"step {at}: {step.accepted} accepted" + (f"; {MEANINGS[step.state]}" if step.state != "plain" else "")
    request = attribute("data-do", f"go:{turn}.{at}") if 0 <= turn < MOST else NOTHING
    return markup(
        '<g{request}{kind}><title>{words}</title><rect x="{x}" y="1" width="8" height="{height}" '
        'fill-opacity="{share:.2f}"/>{sign}</g>',
        request=request,
        kind=kind_attribute(" ".join(filter(None, ["wrong" if wrong else "", "found" if is_found else ""]))),
        words=html_text(words),
        x=at * CELL,
        height=CELL_HEIGHT - 2,
        share=1.0 if wrong else 0.08 + 0.92 * min(1.0, step.accepted / max(1, tallest)),
        sign=_sign(step, at) if wrong else NOTHING,
    )


def _sign(step: StripStep, at: int) -> Markup:
    return markup(
        '<text x="{x}" y="13" text-anchor="middle">{sign}</text>', x=at * CELL + 4, sign=html_text(SIGNS[step.state])
    )
