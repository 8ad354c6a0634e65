"""Draws the attention mask that a step used, and outlines the bits that are not the tree's. Knows records, no pages.

One path holds all cells of a kind, so that 256 x 256 cells take about 20 kB. What is pointed at is worked out from the
attributes ``data-cells``, ``data-labels`` and ``data-names``. Of a very large mask only the wrong cells are drawn, as
far as a browser can bear them, and ``data-cells`` is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from specscope.schemas import Step, TensorsSection
from specscope.tracer.oracle.invariants.structure import expected_rows
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import attribute, kind_attribute
from specscope.viewer.drawing.labels.tokens import label_text
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.step_view import StepView

HIDDEN, VISIBLE, EXTRA, MISSING = 0, 1, 2, 3
CLASSES = {VISIBLE: "visible", EXTRA: "extra", MISSING: "missing"}
MEANINGS = ("does not see", "sees", "sees, though not an ancestor,", "does not see, though an ancestor,")
#: Up to this many slots, lines separate the cells.
LINED_SLOTS = 48
#: Wrong bits beyond this many are coloured, and not outlined.
MOST_OUTLINES = 400
#: Of masks with more slots, or more stretches of equal cells, the sound cells are not drawn, and of the wrong ones only
#: so many stretches.
MOST_DRAWN_SLOTS, MOST_STRETCHES = 1024, 30_000
_WRONG = re.compile(f"[{EXTRA}{MISSING}]")
_RUNS = re.compile(f"{VISIBLE}+|{EXTRA}+|{MISSING}+")
_WRONG_RUNS = re.compile(f"{EXTRA}+|{MISSING}+")
MAX_PIXELS, CELL_PIXELS = 420, 26  # of the whole drawing, and of one cell at most
#: Pixels of a whole drawing: some 11 where a card makes it smaller; the wider one, with labels, is made so by more.
FONT, LABEL_FONT = 16.5, 19.0
#: Rows have their tokens beside them up to so many slots: a token of so many characters, a letter of so many ems.
LABELLED_SLOTS, LABEL_LIMIT, LETTER = 20, 8, 0.56


class Cell(NamedTuple):
    """Row ``row`` looks at column ``column``."""

    row: int
    column: int


def mask_cells(step: Step) -> list[str] | None:
    """Rows of cells, one character per cell: the digit of HIDDEN, VISIBLE, EXTRA or MISSING; None where no mask was
    recorded."""
    tree, tensors = step.tree, step.tensors
    if tensors is None or not tensors.mask_rows:
        return None
    size = len(tensors.mask_rows)
    parents = tree.parents if tree is not None else []
    expected = expected_rows(parents, min(len(parents), size), size) if parents else []
    rows = []
    for number, text in enumerate(tensors.mask_rows):
        seen = _bits(int.from_bytes(bytes.fromhex(text), "little"), size)
        wanted = _bits(expected[number], size) if number < len(expected) else seen
        rows.append(seen if seen == wanted else "".join(map(_kind, seen, wanted)))
    return rows


def _bits(row: int, size: int) -> str:
    """The lowest ``size`` bits, the lowest first."""
    return f"{row & (1 << size) - 1:0{size}b}"[::-1]


def _kind(seen: str, wanted: str) -> str:
    return seen if seen == wanted else str(EXTRA if seen == "1" else MISSING)


def wrong_cells(cells: list[str]) -> Iterator[Cell]:
    """The bits that are not the tree's, row by row."""
    return (Cell(row, match.start()) for row, line in enumerate(cells) for match in _WRONG.finditer(line))


def is_drawn_whole(cells: list[str]) -> bool:
    """Whether a browser can bear the sound cells as well."""
    if len(cells) > MOST_DRAWN_SLOTS:
        return False
    return sum(len(_RUNS.findall(line)) for line in cells) <= MOST_STRETCHES


def step_mask(view: StepView) -> Markup:
    """The mask with a sentence on what is wrong in it."""
    cells = mask_cells(view.step)
    if cells is None or view.step.tensors is None:
        return note("info", "This step records no mask")
    if cells == [str(VISIBLE)]:  # nothing was drafted: a drawing of the one cell says nothing
        return joined([quiet("One slot, which sees itself."), _prefix_note(view.step.tensors, 1)])
    parts = [pointed_at_mask(view, cells)]
    extra, missing = (sum(line.count(str(kind)) for line in cells) for kind in (EXTRA, MISSING))
    if extra or missing:
        words = [f"Cells that see a slot that is not an ancestor: {extra}."] if extra else []
        words += [f"Cells that miss an ancestor: {missing}."] if missing else []
        parts.append(note("bad", "The mask does not fit the tree: see the outlined bits", words))
    return joined([*parts, left_out_note(cells), _prefix_note(view.step.tensors, len(cells))])


def pointed_at_mask(view: StepView, cells: list[str], *, apart: Sequence[Cell] = ()) -> Markup:
    """The drawing, and below it room for what the cell means that is pointed at."""
    return markup(
        '<div>{mask}<div class="ss-quiet ss-cell">&#160;</div></div>', mask=draw_mask(view, cells, apart=apart)
    )


def left_out_note(cells: list[str]) -> Markup:
    """What of the mask is not drawn; nothing where all of it is."""
    if is_drawn_whole(cells):
        return NOTHING
    title = f"A mask of {len(cells):,} slots is too large to be drawn as a whole"
    return note("info", title, ["Only wrong cells are drawn, if there are any: an empty drawing is a sound mask."])


def _prefix_note(tensors: TensorsSection, size: int) -> Markup:
    """Whether the rows of the mask, ``size`` of them, see what was committed before the step."""
    seen = tensors.prefix_visible[:size]
    wanted = tensors.committed_length
    partial = [row for row, count in enumerate(seen) if count != wanted]
    if partial:
        return note("bad", f"Rows {partial[:6]} do not see all {wanted} committed rows")
    axes = "Row = slot that looks, column = slot seen."
    if not seen:
        return quiet(f"{axes} Whether the rows see the {wanted} committed rows was not recorded.")
    if len(seen) < size:
        rest = f"for the other {size - len(seen)} rows it was not recorded"
        return quiet(f"{axes} The first {len(seen)} rows also see all {wanted} committed rows; {rest}.")
    return quiet(f"{axes} Every row also sees all {wanted} committed rows.")


def draw_mask(view: StepView, cells: list[str], *, apart: Sequence[Cell] = ()) -> Markup:
    """The drawing, the root at the top left; ``apart`` are cells in which another mask differs from this one."""
    size = len(cells)
    pixels = min(MAX_PIXELS, size * CELL_PIXELS)
    unit = size / pixels  # of a pixel, in cells
    edge = 20 * unit
    labels = _row_labels(view, size)
    beside = max([1.5 * edge, *(len(label) * LETTER * LABEL_FONT * unit for label in labels)])
    parts = [
        *_kinds(cells, _RUNS if is_drawn_whole(cells) else _WRONG_RUNS),
        _lines(size) if size <= LINED_SLOTS else NOTHING,
        _crosshair(size),
        *(_outline(cell, "outline") for cell in islice(wrong_cells(cells), MOST_OUTLINES)),
        *(_outline(cell, "apart") for cell in apart[:MOST_OUTLINES]),
        *_ticks(size, unit, labels),
    ]
    return markup(
        '<svg class="ss-mask" xmlns="http://www.w3.org/2000/svg" '
        'viewBox="{left:.3f} {top:.3f} {width:.3f} {height:.3f}" role="img" aria-label="tree mask of {size} slots" '
        'style="max-width:{most:.0f}px"{data}>'
        '<rect class="cells" x="0" y="0" width="{size}" height="{size}"/>{parts}</svg>',
        left=-beside,
        top=-edge,
        width=size + beside + 0.1 * edge,
        height=size + 1.1 * edge,
        size=size,
        most=(size + beside) / unit,
        data=_data(view, cells),
        parts=joined(parts),
    )


def _data(view: StepView, cells: list[str]) -> Markup:
    """The attributes from which the page works out what is pointed at."""
    size = len(cells)
    tokens = view.tokens
    real = min(len(tokens), size)
    labels = [f"slot {slot} {view.shown(tokens[slot])}" if slot < real else f"padding {slot}" for slot in range(size)]
    lines = markup("&#10;")
    return joined(
        [
            attribute("data-size", str(size)),
            attribute("data-names", " ".join(view.name(slot) for slot in range(real))),
            markup(' data-labels="{labels}"', labels=joined(map(html_text, labels), lines)),
            markup(' data-meanings="{meanings}"', meanings=joined(map(html_text, MEANINGS), lines)),
            attribute("data-cells", " ".join(cells)) if is_drawn_whole(cells) else NOTHING,
        ]
    )


def _kinds(cells: list[str], stretches: re.Pattern[str]) -> list[Markup]:
    """One path per kind: cells side by side, a match of ``stretches``, are one rectangle."""
    drawn: dict[int, list[Markup]] = {kind: [] for kind in CLASSES}
    matches = ((row, match) for row, line in enumerate(cells) for match in stretches.finditer(line))
    for row, match in islice(matches, MOST_STRETCHES):
        first, end = match.span()
        rectangle = markup("M{first} {row}h{width}v1H{first}z", first=first, row=row, width=end - first)
        drawn[int(match[0][0])].append(rectangle)
    return [
        markup('<path{kind} d="{parts}"/>', kind=kind_attribute(CLASSES[kind]), parts=joined(parts))
        for kind, parts in drawn.items()
        if parts
    ]


def _lines(size: int) -> Markup:
    both = joined(markup("M{n} 0V{size}M0 {n}H{size}", n=n, size=size) for n in range(1, size))
    return markup('<path class="lines" d="{both}"/>', both=both)


def _crosshair(size: int) -> Markup:
    return markup(
        '<rect class="row" x="0" y="0" width="{size}" height="1" visibility="hidden"/>'
        '<rect class="column" x="0" y="0" width="1" height="{size}" visibility="hidden"/>',
        size=size,
    )


def _outline(cell: Cell, kind: str) -> Markup:
    return markup(
        '<rect{kind} x="{x}" y="{y}" width="1.2" height="1.2"/>',
        kind=kind_attribute(kind),
        x=cell.column - 0.1,
        y=cell.row - 0.1,
    )


def _row_labels(view: StepView, size: int) -> list[str]:
    """The token and slot of every row; nothing where there are too many to be read."""
    tokens = view.tokens
    if size > LABELLED_SLOTS or len(tokens) < size:
        return []
    return [f"{label_text(view.shown(token), LABEL_LIMIT)} {slot}" for slot, token in enumerate(tokens[:size])]


def _ticks(size: int, unit: float, labels: Sequence[str]) -> list[Markup]:
    """The numbers of columns, and beside the rows their ``labels``, or numbers where they have none."""
    every = next((n for n in (1, 5, 10, 20, 50, 100) if size / n <= 14), 500)
    font = (LABEL_FONT if labels else FONT) * unit
    numbered = [(slot, str(slot)) for slot in range(0, size, every)]
    columns = (
        markup(
            '<text style="font-size:{font:.3f}px" x="{middle}" y="{above:.3f}" text-anchor="middle">{slot}</text>',
            font=font,
            middle=slot + 0.5,
            above=-5 * unit,
            slot=slot,
        )
        for slot, _ in numbered
    )
    rows = (
        markup(
            '<text style="font-size:{font:.3f}px" x="{left:.3f}" y="{base:.3f}" text-anchor="end">{words}</text>',
            font=font,
            left=-5 * unit,
            base=slot + 0.5 + 5 * unit,
            words=html_text(words),
        )
        for slot, words in (enumerate(labels) if labels else numbered)
    )
    return [*columns, *rows]
