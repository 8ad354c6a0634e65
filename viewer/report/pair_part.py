"""Two steps that belong together as markup of the report: with everything, or both trees where many are drawn. Pure."""

from __future__ import annotations

from specscope.tracer.words.text import shorten
from specscope.viewer.drawing.board import card, columns
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import box, folded
from specscope.viewer.drawing.pair.board import PairLook, pair_commits, pair_masks, pair_trees
from specscope.viewer.drawing.pair.differences import difference_table
from specscope.viewer.drawing.pair.margins import margin_picture
from specscope.viewer.drawing.pair.sides import PairSides
from specscope.viewer.report.step_part import MOST_SLOTS, num_slots, plain_tree, step_words

#: Differences of one pair; the viewer lists all.
SHOWN_DIFFERENCES = 40
NEAR_DIFFERENCES = 5  # of a pair drawn plainly
MAX_VALUE = 400  # characters


def whole_pair(look: PairLook) -> str:
    """The pair with everything: trees, differences, margins, masks, commits."""
    parts = [note(look.about.tone, look.about.title, look.about.lines), pair_trees(look, buttons=False)]
    sides = look.sides
    if sides is not None and look.compared:
        parts += [_compared(look, sides), _masks(sides), pair_commits(sides, look.differences)]
    return "".join(parts)


def plain_pair(look: PairLook, *, is_open: bool) -> str:
    """The pair, folded: both trees, whose tooltips name the nodes alone, and the first differences."""
    trees = [
        [
            quiet(f"{role}, step {side.step.step}: {step_words(side.step)}"),
            plain_tree(side.step, side.texts, side.marks),
        ]
        for role, side in (("baseline", look.a), ("candidate", look.b))
        if side is not None
    ]
    body = columns(*trees, kind="halves")
    if look.sides is not None and look.compared and look.differences:
        body += _table(look, look.sides, NEAR_DIFFERENCES)
    where, *more = look.about.lines or [f"step {look.a.step.step}"]
    title = ". ".join([where[:1].upper() + where[1:], look.about.title, *more])
    return box(folded(shorten(title, MAX_VALUE), body, is_open=is_open))


def _compared(look: PairLook, sides: PairSides) -> str:
    """What differs, and beside it the margins where the teacher's words do."""
    found = card("differences", "What differs", "in the order of the phases", _table(look, sides, SHOWN_DIFFERENCES))
    if not any(difference.phase == "verify" for difference in look.differences):
        return found
    margins = card("margins", "Margins", "against the noise floor", margin_picture(sides, look.floor))
    return columns([found], [margins], kind="wide-narrow")


def _table(look: PairLook, sides: PairSides, most: int) -> str:
    """The first differences, their values cut where they are long."""
    short = [
        found.model_copy(update={"a": shorten(found.a, MAX_VALUE), "b": shorten(found.b, MAX_VALUE)})
        for found in look.differences[:most]
    ]
    begins = next((at for at, found in enumerate(look.differences[:most]) if found == look.origin), None)
    more = len(look.differences) - len(short)
    rest = quiet(f"and {more} more; specscope view lists them") if more else ""
    return difference_table(sides, short, None if begins is None else short[begins]) + rest


def _masks(sides: PairSides) -> str:
    size = max(num_slots(sides.a.step), num_slots(sides.b.step))
    if size > MOST_SLOTS:
        return note("info", f"Masks of {size} slots are not drawn here", ["specscope view shows them."])
    return pair_masks(sides)
