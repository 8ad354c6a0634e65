"""The timeline of a turn as a board: numbers, the whole turn, a stretch of it, and the life of a token. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from specscope.tracer.naming.text import counted
from specscope.viewer.drawing.board import Board, board_of, card, columns, panel
from specscope.viewer.drawing.fragments import bars, facts, quiet, rows
from specscope.viewer.drawing.frames import attribute, box, row, scrolled, table
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.timeline.flow import FlowItem, Piece, TurnFlow
from specscope.viewer.drawing.timeline.numbers import FlowNumbers, flow_facts, idle_shares, numbers_of
from specscope.viewer.drawing.timeline.picture import (
    MEANINGS,
    MOST_PIECES,
    SIGNS,
    SMALL_LANE,
    TimelinePicture,
    draw_timeline,
)
from specscope.viewer.drawing.timeline.window import Window, whole

LEGEND = markup(
    '<div class="ss-legend"><span><i class="ss-key ss-key-on"></i>accepted draft</span>'
    '<span><i class="ss-key ss-key-refill"></i>↻ refill after a refuted draft</span>'
    '<span><i class="ss-key ss-key-dropped"></i>✗ dropped</span>'
    '<span><i class="ss-key ss-key-plain"></i>prompt, or no draft before it</span>'
    "<span>low box: the exit head drafts; line: on its way to the next stage; bands: epochs</span></div>"
)
CONTROLS = (
    ("zoom:in", "+", "Zoom in: +"),
    ("zoom:out", "−", "Zoom out: -"),
    ("zoom:whole", "whole turn", "The whole turn: 0"),
    ("pan:left", "◀", "Earlier: ,"),
    ("pan:right", "▶", "Later: ."),
    ("token:previous", "← token", "The token before: ←"),
    ("token:next", "token →", "The next token: →"),
    ("refill:previous", "↻ previous", "The refuted draft before: P"),
    ("refill:next", "↻ next", "The next refuted draft: N"),
)
KEYS_LINE = (
    "Ctrl+wheel, or + and -: zoom. Drag, or , and .: move. ← →: from token to token. P N: refuted drafts. "
    "0: whole turn. Enter: the selected token's step. [ ]: turns."
)


class Looked(NamedTuple):
    """What is looked at."""

    window: Window
    item: FlowItem | None  # the token that is selected


def timeline_board(flow: TurnFlow, looked: Looked, shown: Callable[[int], str]) -> Board:
    """The board of one turn."""
    numbers = numbers_of(flow)
    picture = TimelinePicture(flow=flow, window=looked.window, shown=shown)
    body = board_of(
        box(facts(flow_facts(flow, numbers))),
        _whole_turn(picture),
        card("flow", "Stages over time", KEYS_LINE, joined([_controls(), scrolled(draw_timeline(picture)), LEGEND])),
        columns([_life_card(picture, looked.item)], [_pointed_at(), shares_card(flow, numbers)], kind="wide-narrow"),
    )
    return Board(body, _notes(picture))


def _whole_turn(picture: TimelinePicture) -> Markup:
    """Nothing where the whole turn is what is looked at."""
    if picture.window == whole(picture.flow):
        return NOTHING
    return card("flow-whole", "The turn", "click to look there", overview(picture))


def overview(picture: TimelinePicture) -> Markup:
    """The whole turn in little, with the window marked."""
    drawn = replace(picture, window=whole(picture.flow), lane=SMALL_LANE, marked=picture.window)
    return markup('<div class="ss-flow-whole">{drawing}</div>', drawing=draw_timeline(drawn))


def _controls() -> Markup:
    return markup(
        '<p class="ss-flow-controls">{buttons}</p>',
        buttons=joined(
            markup(
                '<button type="button"{request}{title}>{name}</button>',
                request=attribute("data-do", request),
                title=attribute("title", title),
                name=html_text(name),
            )
            for request, name, title in CONTROLS
        ),
    )


def _pointed_at() -> Markup:
    return card("pointed-at", "Pointed at", "", panel("Point at a token, or click it to see its life."))


def shares_card(flow: TurnFlow, numbers: FlowNumbers) -> Markup:
    """How busy each stage was while decoding."""
    if not numbers.stages:
        return card("shares", "Idle share", "", quiet("Nothing was decoded."))
    wasted = ", ".join(f"{shares.wasted:.1%}" for shares in numbers.stages)
    words = f"of {counted(len(flow.stages), 'stage')} while decoding"
    return card(
        "shares", "Idle share", words, joined([bars(idle_shares(numbers)), quiet(f"on dropped tokens: {wasted}")])
    )


def _life_card(picture: TimelinePicture, item: FlowItem | None) -> Markup:
    if item is None:
        return card("life", "Life of a token", "", quiet("None is selected."))
    aside = "the prompt" if item.fate == "prompt" else f"position {item.position}, epoch {item.epoch}"
    step = NOTHING
    if item.step is not None:
        step = markup(
            '<button type="button"{request}>Step {step}</button>',
            request=attribute("data-do", f"open:{item.step}"),
            step=item.step,
        )
    return card(
        "life",
        f"Life of {_name(picture, item)}",
        aside,
        joined([rows(life_rows(picture, item)), life_table(picture, item), step]),
    )


def _name(picture: TimelinePicture, item: FlowItem) -> str:
    if item.fate == "prompt":
        return "the prompt"
    return f"the token at {item.position}" if item.token is None else picture.shown(item.token)


def life_rows(picture: TimelinePicture, item: FlowItem) -> list[tuple[str, str]]:
    """What became of a token, in words."""
    lines = [("entered as", f"{SIGNS[item.fate]} {MEANINGS[item.fate]}".strip())]
    if item.dropped_by is not None:
        lines.append(("dropped by", f"stage {item.dropped_by}: {item.drop_reason}"))
    draft = item.draft
    if draft is not None:
        probability = "" if draft.prob is None else f", probability {draft.prob:.3g}"
        outcome = "held" if draft.held else "was refuted"
        lines.append(("draft after it", f"{picture.shown(draft.token)}{probability}: {outcome}"))
    done = item.done(picture.num_stages - 1)
    if done is not None:
        lines.append(("through all stages", f"{(done - item.start) / 1e6:,.2f} ms"))
    return lines


def life_table(picture: TimelinePicture, item: FlowItem) -> Markup:
    """Every piece of work on a token, with how long it had waited."""
    lines, before = [], item.start
    for piece in item.pieces:
        waited = max(0, piece.start - before)
        cells = [
            f"stage {piece.stage}",
            piece.activity,
            *(f"{time / 1e6:,.3f}" for time in (piece.start - picture.flow.start, piece.end - piece.start, waited)),
        ]
        lines.append(row([html_text(cell) for cell in cells], ["", "", "num", "num", "num"]))
        before = max(before, piece.end)
    names = ("where", "what", "begins, ms", "takes, ms", "waited, ms")
    return table(names, lines, numbers=names[2:])


def _notes(picture: TimelinePicture) -> dict[str, Markup]:
    """By token: what is said of it."""
    pieces = picture.pieces()
    if len(pieces) > MOST_PIECES:
        return {}
    first: dict[int, Piece] = {}
    for piece in pieces:
        if piece.activity != "hop":
            first.setdefault(piece.item, piece)
    return {str(number): _note(picture, number) for number in first}


def _note(picture: TimelinePicture, number: int) -> Markup:
    item = picture.flow.items[number]
    return markup(
        '<div xmlns="http://www.w3.org/1999/xhtml" class="ss-node"><p><b>{name}</b><span>{aside}</span></p>'
        "{rows}</div>",
        name=html_text(_name(picture, item)),
        aside=html_text("" if item.fate == "prompt" else f"position {item.position}, epoch {item.epoch}"),
        rows=rows(life_rows(picture, item)),
    )
