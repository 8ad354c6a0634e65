"""Two steps that belong together as markup of the report: in full, or only both trees where many are drawn. Pure."""

from __future__ import annotations

from specscope.schemas.verdict import Difference
from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.board import card, columns
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import box, folded
from specscope.viewer.drawing.markup import NOTHING, Markup, joined
from specscope.viewer.drawing.pair.board import PairLook, pair_commits, pair_masks, pair_trees
from specscope.viewer.drawing.pair.differences import difference_table
from specscope.viewer.drawing.pair.margins import margin_picture
from specscope.viewer.drawing.pair.sides import PairSides
from specscope.viewer.report.step_part import MOST_SLOTS, num_slots, plain_tree, step_words

#: Differences of one pair; the viewer lists all.
SHOWN_DIFFERENCES = 40
NEAR_DIFFERENCES = 5  # of a pair that is drawn plainly
MAX_VALUE = 400  # characters


def whole_pair(look: PairLook) -> Markup:
    """The pair in full: trees, differences, margins, masks, commits."""
    parts = [note(look.about.tone, look.about.title, look.about.lines), pair_trees(look, medium="report")]
    sides = look.sides
    if sides is not None and look.compared:
        parts += [_compared(look, sides), _masks(sides), pair_commits(sides, look.differences)]
    return joined(parts)


def plain_pair(look: PairLook, *, is_open: bool) -> Markup:
    """The pair, folded: both trees, whose tooltips only name the nodes, and the first differences."""
    trees = [
        [quiet(f"{role}, step {side.step.step}: {step_words(side.step)}"), plain_tree(side)]
        for role, side in (("baseline", look.a), ("candidate", look.b))
        if side is not None
    ]
    parts = [columns(*trees, kind="halves")]
    if look.sides is not None and look.compared and look.differences:
        parts.append(_table(look, look.sides, NEAR_DIFFERENCES))
    where, *more = look.about.lines or [f"step {look.a.step.step}"]
    title = ". ".join([where[:1].upper() + where[1:], look.about.title, *more])
    return box(folded(shorten(title, MAX_VALUE), *parts, is_open=is_open))


def _compared(look: PairLook, sides: PairSides) -> Markup:
    """What differs, and beside it the margins where the teacher's output does."""
    table = card("differences", "What differs", "in the order of the phases", _table(look, sides, SHOWN_DIFFERENCES))
    if not any(difference.phase == "verify" for difference in look.differences):
        return table
    margins = card("margins", "Margins", "against the noise floor", margin_picture(sides, look.floor))
    return columns([table], [margins], kind="beside-on-paper")


def _table(look: PairLook, sides: PairSides, most: int) -> Markup:
    """The first differences, their values cut where they are long."""
    first = look.differences[:most]
    short = [_shortened(difference) for difference in first]
    begins = next((at for at, difference in enumerate(first) if difference == look.origin), None)
    more = len(look.differences) - len(short)
    rest = quiet(f"and {more} more; specscope view lists them") if more else NOTHING
    return joined([difference_table(sides, short, None if begins is None else short[begins]), rest])


def _shortened(difference: Difference) -> Difference:
    values = {"a": shorten(difference.a, MAX_VALUE), "b": shorten(difference.b, MAX_VALUE)}
    return difference.model_copy(update=values)


def _masks(sides: PairSides) -> Markup:
    size = max(num_slots(sides.a.step), num_slots(sides.b.step))
    if size > MOST_SLOTS:
        return note("info", f"Masks of {size} slots are not drawn here", ["specscope view shows them."])
    return pair_masks(sides)
