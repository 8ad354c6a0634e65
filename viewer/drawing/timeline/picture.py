"""Draws a stretch of a pipelined turn: stages as lanes, tokens coloured by what became of them. Pure.

What is a token in sight is a box with its position; where there are too many, each lane is a graph of how busy the
stage was, and with what. Both are drawn beyond the window, so that it can be moved before it is drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, get_args

from specscope.tracer.naming.text import counted, shorten
from specscope.viewer.drawing.frames import attribute, kind_attribute
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.timeline.flow import Fate, FlowItem, Piece, TurnFlow
from specscope.viewer.drawing.timeline.window import Window, whole

WIDTH, LEFT = 1200.0, 112.0
ROOM = WIDTH - LEFT - 8
EPOCHS, LANE, AXIS = 18.0, 34.0, 20.0
SMALL_LANE = 15.0  # of an overview
GAP = 0.35  # between two lanes, as a share of one
#: Pieces of work in sight; more are drawn as graphs.
MOST_PIECES = 700
MOST_EPOCHS = 160
#: Columns of a graph, and how many of them a click zooms to at a time.
COLUMNS, PER_ZOOM = 480, 12
#: Beyond each end of the window, as a share of it.
MARGIN = 0.5
#: Before the position: colour is not the only sign.
SIGNS: dict[Fate, str] = {"prompt": "", "accepted": "", "refill": "↻", "plain": "", "dropped": "✗"}
MEANINGS: dict[Fate, str] = {
    "prompt": "the prompt",
    "accepted": "a draft that held",
    "refill": "refill: the true token after a refuted draft",
    "plain": "no draft preceded it",
    "dropped": "dropped: it was in flight behind a refuted draft, or a stop",
}
CHARACTER = 6.8  # width of one in a box


@dataclass(frozen=True, kw_only=True)
class TimelinePicture:
    """What is drawn."""

    flow: TurnFlow
    window: Window
    shown: Callable[[int], str]  # text of a token
    lane: float = LANE  # height of one
    marked: Window | None = None  # the stretch that is marked, as an overview does

    def x(self, time: int) -> float:
        """Where a time lies."""
        return (time - self.window.start) / self.window.length * ROOM

    @property
    def num_stages(self) -> int:
        """Lanes."""
        return len(self.flow.stages)

    @property
    def height(self) -> float:
        """Without the axis."""
        return self.top(self.num_stages)

    def top(self, stage: int) -> float:
        """Of the lane of a stage."""
        return EPOCHS + self.lane * (GAP / 2 + stage * (1 + GAP))

    @property
    def reach(self) -> Window:
        """What is drawn: the window and what lies beside it."""
        beside, window = round(MARGIN * self.window.length), self.window
        return Window(max(self.flow.start, window.start - beside), min(self.flow.end, window.end + beside))

    def pieces(self) -> Sequence[Piece]:
        """What was going on there, in the order in which it began."""
        return self.flow.between(*self.reach)


def draw_timeline(picture: TimelinePicture) -> Markup:
    """The drawing."""
    pieces = picture.pieces()
    is_dense = len(pieces) > MOST_PIECES
    content = _graphs(picture) if is_dense else _boxes(picture, pieces)
    window = picture.window
    return markup(
        '<svg class="ss-flow" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        '{label}{whole}{window}><g class="lanes">{lanes}</g>'
        '<svg class="plot" x="{left}" y="0" width="{room}" height="{plot}" viewBox="0 0 {room} {plot}" '
        'preserveAspectRatio="none">{epochs}{content}{marked}</svg><g class="axis">{ticks}</g></svg>',
        width=WIDTH,
        height=picture.height + AXIS,
        label=attribute("aria-label", f"{counted(picture.num_stages, 'stage')} over {window.length / 1e6:.2f} ms"),
        whole=attribute("data-whole", whole(picture.flow).words(picture.flow)),
        window=attribute("data-window", window.words(picture.flow)),
        lanes=joined(_lane(picture, stage) for stage in range(picture.num_stages)),
        left=LEFT,
        room=ROOM,
        plot=picture.height,
        epochs=joined(_epochs(picture)),
        content=content,
        marked=NOTHING if picture.marked is None else _mark(picture, picture.marked),
        ticks=joined(_ticks(picture)),
    )


def _mark(picture: TimelinePicture, window: Window) -> Markup:
    x = picture.x(window.start)
    return markup(
        '<rect class="here" x="{x:.1f}" y="1" width="{width:.1f}" height="{height}"/>',
        x=x,
        width=max(picture.x(window.end) - x, 2),
        height=picture.height - 2,
    )


def _lane(picture: TimelinePicture, stage: int) -> Markup:
    return markup(
        '<rect class="lane" x="{left}" y="{top}" width="{room}" height="{lane}"/>'
        '<text x="{x}" y="{name}" text-anchor="end">stage {stage}</text>'
        "{layers}",
        left=LEFT,
        top=picture.top(stage),
        room=ROOM,
        lane=picture.lane,
        x=LEFT - 8,
        name=picture.top(stage) + min(14, picture.lane - 3),
        stage=stage,
        layers=_layers(picture, stage) if picture.lane >= LANE else NOTHING,
    )


def _layers(picture: TimelinePicture, stage: int) -> Markup:
    facts = picture.flow.stages[stage]
    return markup(
        '<text class="aside" x="{x}" y="{y}" text-anchor="end">layers {first}-{last}</text>',
        x=LEFT - 8,
        y=picture.top(stage) + 28,
        first=facts.first_layer,
        last=facts.last_layer,
    )


class _Epoch(NamedTuple):
    number: int
    start: int


def _epochs(picture: TimelinePicture) -> Iterator[Markup]:
    """A band per epoch, from where the first stage begins it to where it begins the next."""
    first: dict[int, int] = {}
    for item in picture.flow.items:
        first.setdefault(item.epoch, item.start)
    epochs = [*(_Epoch(*entry) for entry in first.items()), _Epoch(-1, picture.flow.end)]
    reach = picture.reach
    seen = [(a, b.start) for a, b in pairwise(epochs) if b.start > reach.start and a.start < reach.end]
    if len(seen) > MOST_EPOCHS:
        yield markup('<text class="epoch" x="4" y="13">{count}</text>', count=html_text(f"{len(seen):,} epochs"))
        return
    for epoch, end in seen:
        x, width = picture.x(epoch.start), picture.x(end) - picture.x(epoch.start)
        room = min(x + width, ROOM) - max(x, 0.0)
        name = f"epoch {epoch.number}" if room > 64 else str(epoch.number) if room > 22 else ""
        yield markup(
            '<rect{kind} x="{x:.1f}" y="0" width="{width:.1f}" height="{height}"><title>epoch {number}</title></rect>'
            '<text class="epoch" x="{text:.1f}" y="13">{name}</text>',
            kind=kind_attribute("band odd" if epoch.number % 2 else "band"),
            x=x,
            width=width,
            height=picture.height,
            number=epoch.number,
            text=max(x, 0.0) + 4,
            name=html_text(name),
        )


def _boxes(picture: TimelinePicture, pieces: Sequence[Piece]) -> Markup:
    hops = [piece for piece in pieces if piece.activity == "hop"]
    work = [piece for piece in pieces if piece.activity != "hop"]
    return joined([*(_hop(picture, piece) for piece in hops), *(_box(picture, piece) for piece in work)])


def _box(picture: TimelinePicture, piece: Piece) -> Markup:
    item = picture.flow.items[piece.item]
    is_draft = piece.activity == "draft"
    x, width = picture.x(piece.start), picture.x(piece.end) - picture.x(piece.start)
    top = picture.top(piece.stage)
    return markup(
        '<g{kind}{node}><title>{title}</title><rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        "{text}</g>",
        kind=kind_attribute(f"piece {item.fate}{' draft' if is_draft else ''}"),
        node=attribute("data-node", str(item.number)),
        title=html_text(piece_words(picture, piece)),
        x=x,
        y=top + (picture.lane / 4 if is_draft else 0),
        width=max(width, 0.8),
        height=picture.lane / 2 if is_draft else picture.lane,
        text=NOTHING if is_draft else _label(picture, item, x, width=width, top=top),
    )


def _label(picture: TimelinePicture, item: FlowItem, x: float, *, width: float, top: float) -> Markup:
    """As much of sign, position and token as fits."""
    room = int((width - 6) / CHARACTER)
    name = "prompt" if item.fate == "prompt" else f"{SIGNS[item.fate]}{item.position}"
    if len(name) > room:
        return NOTHING
    longer = name if item.token is None else f"{name} {picture.shown(item.token)}"
    return markup(
        '<text x="{x:.1f}" y="{y:.1f}">{name}</text>',
        x=x + 4,
        y=top + picture.lane / 2 + 4,
        name=html_text(shorten(longer, room) if room >= len(name) + 3 else name),
    )


def piece_words(picture: TimelinePicture, piece: Piece) -> str:
    """What a piece of work is, in one line."""
    item = picture.flow.items[piece.item]
    start, duration = (piece.start - picture.flow.start) / 1e6, (piece.end - piece.start) / 1e6
    what = "prompt" if item.fate == "prompt" else f"position {item.position}, epoch {item.epoch}"
    if item.token is not None:
        what = f"{picture.shown(item.token)}, {what}"
    return f"{what}: {piece.activity} on stage {piece.stage}, {start:.2f} ms + {duration:.2f} ms; {MEANINGS[item.fate]}"


def _hop(picture: TimelinePicture, piece: Piece) -> Markup:
    """From the middle of the sender's lane to that of the receiver's."""
    sender = piece.stage - 1 if piece.stage else picture.num_stages - 1
    return markup(
        '<path class="hop"{node} d="M{x:.1f} {y:.1f}L{to:.1f} {below:.1f}"/>',
        node=attribute("data-node", str(piece.item)),
        x=picture.x(piece.start),
        y=picture.top(sender) + (picture.lane if sender < piece.stage else 0),
        to=picture.x(piece.end),
        below=picture.top(piece.stage) + (0 if sender < piece.stage else picture.lane),
    )


@lru_cache(maxsize=8)
def busy_columns(flow: TurnFlow, reach: Window, num_columns: int) -> list[list[dict[Fate, float]]]:
    """The share of each column's time that each stage spent on tokens of each fate, by stage and column."""
    width = reach.length / num_columns
    columns: list[list[dict[Fate, float]]] = [[{} for _ in range(num_columns)] for _ in flow.stages]
    for piece in flow.between(reach.start, reach.end):
        if piece.activity == "hop":
            continue
        fate = flow.items[piece.item].fate
        start, end = max(piece.start, reach.start) - reach.start, min(piece.end, reach.end) - reach.start
        for column in range(int(start / width), min(num_columns - 1, int(end / width)) + 1):
            part = min(end, (column + 1) * width) - max(start, column * width)
            shares = columns[piece.stage][column]
            shares[fate] = shares.get(fate, 0.0) + max(0.0, part) / width
    return columns


def _graphs(picture: TimelinePicture) -> Markup:
    reach = picture.reach
    columns = busy_columns(picture.flow, reach, COLUMNS)
    left, pitch = picture.x(reach.start), picture.x(reach.end) - picture.x(reach.start)
    lanes = joined(
        _graph(lane, _Place(left, pitch / COLUMNS, picture.top(stage), picture.lane))
        for stage, lane in enumerate(columns)
    )
    return joined([lanes, *_zooms(picture)])


class _Place(NamedTuple):
    """Where a graph lies."""

    left: float
    pitch: float
    top: float
    height: float


def _graph(lane: list[dict[Fate, float]], place: _Place) -> Markup:
    """One path per fate, stacked from the floor up."""
    left, pitch = place.left, place.pitch
    floor = [place.top + place.height] * len(lane)
    paths = []
    for fate in get_args(Fate):
        parts = []
        for column, shares in enumerate(lane):
            height = min(shares.get(fate, 0.0), 1.0) * place.height
            if height > 0.05:
                floor[column] -= height
                parts.append(f"M{left + column * pitch:.1f} {floor[column]:.1f}h{pitch:.2f}v{height:.1f}h-{pitch:.2f}z")
        if parts:
            paths.append(
                markup('<path{kind} d="{d}"/>', kind=kind_attribute(f"busy {fate}"), d=html_text("".join(parts)))
            )
    return joined(paths)


def _zooms(picture: TimelinePicture) -> Iterator[Markup]:
    """Over a graph, stretches that a click zooms to."""
    num_zooms = COLUMNS // PER_ZOOM
    for number in range(num_zooms):
        start = picture.window.start + number * picture.window.length // num_zooms
        end = picture.window.start + (number + 1) * picture.window.length // num_zooms
        yield markup(
            '<rect class="hit"{request} x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}"/>',
            request=attribute("data-do", f"window:{Window(start, end).words(picture.flow)}"),
            x=picture.x(start),
            y=EPOCHS,
            width=ROOM / num_zooms,
            height=picture.height - EPOCHS,
        )


def _ticks(picture: TimelinePicture) -> Iterator[Markup]:
    """Milliseconds since the turn began, at round numbers."""
    window = picture.window
    start, length = (window.start - picture.flow.start) / 1e6, window.length / 1e6
    unit = 1e-3
    while length / unit > 12:
        unit *= 2.5 if f"{unit:e}"[0] == "2" else 2
    digits = max(0, 3 if unit < 0.01 else 2 if unit < 0.1 else 1 if unit < 1 else 0)
    tick = -(-start // unit)
    while tick * unit <= start + length:
        x = LEFT + (tick * unit - start) / length * ROOM
        label = f"{tick * unit:,.{digits}f}"
        yield markup(
            '<path class="tick" d="M{x:.1f} {top}v5"/><text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{label}</text>',
            x=x,
            anchor=html_text("end" if x > WIDTH - 30 else "middle"),
            top=picture.height,
            y=picture.height + 16,
            label=html_text(label + (" ms" if x < LEFT + ROOM / 8 else "")),
        )
        tick += 1
