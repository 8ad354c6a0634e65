"""Draws the attention mask that a step used, and outlines the bits that are not the tree's. Knows records, no pages.

One path holds all cells of a kind, so that 256 x 256 cells weigh some 20 kB. What is pointed at is worked out from the
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
from specscope.tracer.words.text import html_text
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.marks import NodeMarks

HIDDEN, VISIBLE, EXTRA, MISSING = 0, 1, 2, 3
CLASSES = {VISIBLE: "visible", EXTRA: "extra", MISSING: "missing"}
MEANINGS = ("does not see", "sees", "sees, though it is no ancestor,", "does not see, though it is an ancestor,")
#: Up to this many slots, lines part the cells.
LINED_SLOTS = 48
#: Wrong bits beyond this many are coloured, and not outlined.
MOST_OUTLINES = 400
#: Of masks with more slots, or more stretches of equal cells, the sound cells are not drawn; and so many stretches of
#: wrong ones are.
MOST_DRAWN_SLOTS, MOST_STRETCHES = 1024, 30_000
_WRONG = re.compile(f"[{EXTRA}{MISSING}]")
_RUNS = re.compile(f"{VISIBLE}+|{EXTRA}+|{MISSING}+")
_WRONG_RUNS = re.compile(f"{EXTRA}+|{MISSING}+")
MAX_PIXELS, CELL_PIXELS = 420, 26  # of the whole drawing, and of one cell at most


class Cell(NamedTuple):
    """Row ``row`` looks at column ``column``."""

    row: int
    column: int


def mask_cells(step: Step) -> list[str] | None:
    """Rows of cells, a character each: the digit of HIDDEN, VISIBLE, EXTRA or MISSING; None where no mask was
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
    return (Cell(row, found.start()) for row, line in enumerate(cells) for found in _WRONG.finditer(line))


def is_drawn_whole(cells: list[str]) -> bool:
    """Whether a browser can bear the sound cells, too."""
    if len(cells) > MOST_DRAWN_SLOTS:
        return False
    stretches = (found for line in cells for found in _RUNS.finditer(line))
    return next(islice(stretches, MOST_STRETCHES, None), None) is None


def step_mask(step: Step, texts: TokenTexts, marks: NodeMarks) -> str:
    """The mask with a sentence on what is wrong in it."""
    cells = mask_cells(step)
    if cells is None or step.tensors is None:
        return note("info", "This step records no mask")
    parts = [f"<div>{draw_mask(step, cells, texts, marks)}{quiet_cell()}</div>"]
    extra, missing = (sum(line.count(str(kind)) for line in cells) for kind in (EXTRA, MISSING))
    if extra or missing:
        words = [f"Cells that see a slot that is no ancestor: {extra}."] if extra else []
        words += [f"Cells that miss an ancestor: {missing}."] if missing else []
        parts.append(note("bad", "The mask is not the tree's: see the outlined bits", words))
    return "".join([*parts, left_out_note(cells), _prefix(step.tensors, len(cells))])


def left_out_note(cells: list[str]) -> str:
    """What of the mask is not drawn; nothing where all of it is."""
    if is_drawn_whole(cells):
        return ""
    title = f"A mask of {len(cells):,} slots is too large to be drawn whole"
    return note("info", title, ["Only wrong cells are drawn, if there are any: an empty drawing is a sound mask."])


def _prefix(tensors: TensorsSection, size: int) -> str:
    """Whether the rows of the mask, ``size`` of them, see what was committed before the step."""
    seen, wanted = tensors.prefix_visible[:size], tensors.committed_length
    partial = [row for row, count in enumerate(seen) if count != wanted]
    if partial:
        return note("bad", f"Rows {partial[:6]} do not see all {wanted} committed rows")
    said = "Row = slot that looks, column = slot seen."
    if not seen:
        return quiet(f"{said} Whether the rows see the {wanted} committed rows was not recorded.")
    if len(seen) < size:
        left = f"of the other {size - len(seen)} rows it was not recorded"
        return quiet(f"{said} The first {len(seen)} rows also see all {wanted} committed rows; {left}.")
    return quiet(f"{said} Every row also sees all {wanted} committed rows.")


def quiet_cell() -> str:
    """Room for what the cell means that is pointed at."""
    return '<div class="ss-quiet ss-cell">&#160;</div>'


def draw_mask(step: Step, cells: list[str], texts: TokenTexts, marks: NodeMarks, *, apart: Sequence[Cell] = ()) -> str:
    """The drawing, the root at the top left; ``apart`` are cells in which another mask differs from this one."""
    size = len(cells)
    pixels = min(MAX_PIXELS, size * CELL_PIXELS)
    unit = size / pixels  # of a pixel, in cells
    tokens = step.tree.tokens if step.tree is not None else []
    real = min(len(tokens), size)
    labels = [f"slot {slot} {texts.shown(tokens[slot])}" if slot < real else f"padding {slot}" for slot in range(size)]
    attributes = {
        "data-size": str(size),
        "data-names": " ".join(html_text(marks.name(slot)) for slot in range(real)),
        "data-labels": "&#10;".join(html_text(label) for label in labels),
        "data-meanings": "&#10;".join(html_text(meaning) for meaning in MEANINGS),
    }
    is_whole = is_drawn_whole(cells)
    if is_whole:
        attributes["data-cells"] = " ".join(cells)
    shown = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    edge = 20 * unit
    box = f"{-1.3 * edge:.3f} {-edge:.3f} {size + 1.4 * edge:.3f} {size + 1.1 * edge:.3f}"
    parts = [
        f'<rect class="cells" x="0" y="0" width="{size}" height="{size}"/>',
        *_kinds(cells, _RUNS if is_whole else _WRONG_RUNS),
    ]
    parts += [_lines(size)] if size <= LINED_SLOTS else []
    parts += [f'<rect class="row" x="0" y="0" width="{size}" height="1" visibility="hidden"/>']
    parts += [f'<rect class="column" x="0" y="0" width="1" height="{size}" visibility="hidden"/>']
    parts += [_outline(cell, "outline") for cell in islice(wrong_cells(cells), MOST_OUTLINES)]
    parts += [_outline(cell, "apart") for cell in apart[:MOST_OUTLINES]]
    parts += _ticks(size, unit)
    return (
        f'<svg class="ss-mask" xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img" aria-label="tree mask of '
        f'{size} slots" style="max-width:{pixels + 30}px" {shown}>{"".join(parts)}</svg>'
    )


def _kinds(cells: list[str], stretches: re.Pattern[str]) -> list[str]:
    """A path a kind: cells side by side, a match of ``stretches``, are one rectangle."""
    drawn: dict[int, list[str]] = {kind: [] for kind in CLASSES}
    found = ((row, line, one.span()) for row, line in enumerate(cells) for one in stretches.finditer(line))
    for row, line, (first, end) in islice(found, MOST_STRETCHES):
        drawn[int(line[first])].append(f"M{first} {row}h{end - first}v1H{first}z")
    return [f'<path class="{CLASSES[kind]}" d="{"".join(parts)}"/>' for kind, parts in drawn.items() if parts]


def _lines(size: int) -> str:
    both = (f"M{n} 0V{size}M0 {n}H{size}" for n in range(1, size))
    return f'<path class="lines" d="{"".join(both)}"/>'


def _outline(cell: Cell, kind: str) -> str:
    return f'<rect class="{kind}" x="{cell.column - 0.1}" y="{cell.row - 0.1}" width="1.2" height="1.2"/>'


def _ticks(size: int, unit: float) -> list[str]:
    every = next((n for n in (1, 5, 10, 20, 50, 100) if size / n <= 14), 500)
    font = f'style="font-size:{11 * unit:.3f}px"'
    ticks = []
    for slot in range(0, size, every):
        ticks.append(f'<text {font} x="{slot + 0.5}" y="{-5 * unit:.3f}" text-anchor="middle">{slot}</text>')
        ticks.append(
            f'<text {font} x="{-5 * unit:.3f}" y="{slot + 0.5 + 4 * unit:.3f}" text-anchor="end">{slot}</text>'
        )
    return ticks
