"""One step of a run as a part of the report: in full, or only the tree and a line where many are drawn. Pure."""

from __future__ import annotations

from specscope.schemas import Step
from specscope.tracer.naming.text import counted, shorten
from specscope.tracer.report.card import one_line
from specscope.viewer.drawing.board import card, columns
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import box, folded, scrolled
from specscope.viewer.drawing.labels.tokens import label_text
from specscope.viewer.drawing.markup import NOTHING, Markup, joined
from specscope.viewer.drawing.step import parts as step_parts
from specscope.viewer.drawing.step.board import COMMIT_ASIDE
from specscope.viewer.drawing.step.judgement import JudgedStep, Judgement
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.mask import step_mask
from specscope.viewer.drawing.svg.tree import draw_tree
from specscope.viewer.drawing.svg.tree_picture import picture_of
from specscope.viewer.drawing.tables.slots import slot_table
from specscope.viewer.pairs.states import Spot
from specscope.viewer.report.page import Part

TREE_WIDTH = 860.0
#: Masks and slot tables of more slots are left out.
MOST_SLOTS = 300
SHOWN_VIOLATIONS = 3
MAX_TITLE = 100  # characters of a node's name
GIST = 24  # characters of what a step emitted, in the contents


def step_id(turn: int, step: int) -> str:
    """What links call a step."""
    return f"t{turn}s{step}"


def step_part(judged: JudgedStep, spot: Spot, *, plainly: bool) -> Part:
    """A step and what became of its invariants.

    Args:
        judged: the step.
        spot: its place in the file, whatever its record says.
        plainly: only the tree, and a line on the commit.
    """
    view, judgement = judged
    parts = [step_parts.step_facts(view), violations(judgement)]
    parts += _plain(view, judgement) if plainly else _whole(view, judgement)
    return Part(
        id=step_id(*spot),
        title=f"Step {spot.step}",
        aside=step_words(view.step),
        body=joined(parts),
        sign="!" if judgement.violated else "",
        gist=_gist(view),
    )


def _gist(view: StepView) -> str:
    """What came of the step, in a few letters."""
    accept, stop = view.step.accept, view.step.stop
    count = [f"{accept.accepted_length} accepted"] if accept is not None else []
    emitted = [label_text(view.texts.joined(stop.emitted[: stop.kept]), GIST)] if stop is not None else []
    return ": ".join([*count, *emitted])


def step_words(step: Step) -> str:
    """Where the step begins, and with which result it ended."""
    words = [] if step.commit is None else [f"position {step.commit.committed_before}"]
    if step.accept is not None:
        length = step.accept.accepted_length
        words += [f"accepted length {length}", f"tokens per step {length + 1}"]
    return ", ".join(words)


def violations(judgement: Judgement) -> Markup:
    """The first violated invariants, each with its witness."""
    shown = [note("bad", f"violated: {name}", [witness]) for name, witness in judgement.violated[:SHOWN_VIOLATIONS]]
    more = len(judgement.violated) - len(shown)
    rest = quiet(f"and {counted(more, 'other invariant')} violated here") if more else NOTHING
    return joined([*shown, rest])


def num_slots(step: Step) -> int:
    """Rows of its mask, or nodes of its tree where they are more: what the size of drawings depends on."""
    rows = 0 if step.tensors is None else len(step.tensors.mask_rows)
    return max(rows, 0 if step.tree is None else len(step.tree.tokens))


def _mask(view: StepView) -> Markup:
    """The mask, where it is not too large for a page."""
    size = num_slots(view.step)
    if size > MOST_SLOTS:
        return note("info", f"A mask of {size} slots is not drawn here", ["specscope view shows it."])
    return step_mask(view)


def _whole(view: StepView, judgement: Judgement) -> list[Markup]:
    drawn = step_parts.step_tree(view, target_width=TREE_WIDTH, medium="report")
    tree = card("tree", "Draft tree", "left to right", drawn)
    commit = card("commit", "Cache commit", COMMIT_ASIDE, step_parts.step_commit(view))
    mask = card("mask", "Tree mask", "as it was used", _mask(view))
    checks = card("invariants", "Invariants", "recomputed from the record", step_parts.invariant_list(judgement))
    few = view.step.tree is not None and num_slots(view.step) <= MOST_SLOTS
    slots = box(folded("Slots", slot_table(view))) if few else NOTHING
    return [columns([tree, commit], [mask, checks], kind="wide-narrow"), slots]


def _plain(view: StepView, judgement: Judgement) -> list[Markup]:
    return [box(plain_tree(view)), quiet(_commit_words(view.step)), quiet(_checked(judgement))]


def plain_tree(view: StepView) -> Markup:
    """The draft tree, whose tooltips only name the node."""
    picture = picture_of(view, medium="small report")
    if picture is None:
        return step_parts.no_tree_note()
    drawn = draw_tree(picture, title=step_parts.tree_title(view.step, picture), target_width=TREE_WIDTH)
    return joined([scrolled(drawn), step_parts.folded_note(picture)])


def _commit_words(step: Step) -> str:
    commit = step.commit
    if commit is None:
        return "This step records no commit."
    rows = f"slots {one_line(str(commit.source_slots), 200)} to rows {one_line(str(commit.destination_rows), 200)}"
    fallback = f"; fallback: {shorten(commit.fallback, 200)}" if commit.fallback else ""
    return f"Committed {commit.committed_before} → {commit.committed_after}: {rows}, {commit.strategy}{fallback}."


def _checked(judgement: Judgement) -> str:
    if judgement.violated:
        return ""
    skipped = f", {len(judgement.skipped)} skipped: too little was recorded to judge them" if judgement.skipped else ""
    return f"{step_parts.held_words(judgement)}{skipped}."
