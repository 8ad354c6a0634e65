"""One step of a run as a part of the report: with everything, or the tree and a line where many are drawn. Pure."""

from __future__ import annotations

from dataclasses import replace

from specscope.schemas import Step
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.report.card import one_line
from specscope.tracer.words.text import counted, shorten
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.drawing.board import card, columns
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import box, folded
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.step import parts as step_parts
from specscope.viewer.drawing.svg.mask import step_mask
from specscope.viewer.drawing.svg.tree import draw_tree
from specscope.viewer.drawing.svg.tree_picture import TreePicture, picture_of
from specscope.viewer.drawing.tables.slots import slot_table
from specscope.viewer.pairs.states import Spot
from specscope.viewer.report.page import Part

TREE_WIDTH = 860.0
#: Masks and slot tables of more slots are left out.
MOST_SLOTS = 300
SHOWN_VIOLATIONS = 3
MAX_TITLE = 100  # characters of a node's name


def step_id(turn: int, step: int) -> str:
    """What links call a step."""
    return f"t{turn}s{step}"


def step_part(context: Context, spot: Spot, texts: TokenTexts, *, plainly: bool) -> Part:
    """The step of ``context``.

    Args:
        context: the step, and what its invariants are judged by.
        spot: its place in the file, whatever its record says.
        texts: of its tokens.
        plainly: the tree and a line on the commit alone.
    """
    step, found = context.step, step_parts.judge(context)
    parts = [step_parts.step_facts(step, texts), violations(found)]
    parts += _plain(step, texts, found) if plainly else _whole(step, texts, found)
    sign = "!" if found.violated else ""
    return Part(step_id(*spot), f"Step {spot.step}", step_words(step), "".join(parts), sign)


def step_words(step: Step) -> str:
    """Where the step begins, and what it came to."""
    words = [] if step.commit is None else [f"position {step.commit.committed_before}"]
    if step.accept is not None:
        words.append(f"accepted length {step.accept.accepted_length}")
    return ", ".join(words)


def violations(found: step_parts.Judgement) -> str:
    """The first violated invariants, each with its witness."""
    shown = [note("bad", f"violated: {name}", [witness]) for name, witness in found.violated[:SHOWN_VIOLATIONS]]
    more = len(found.violated) - len(shown)
    return "".join([*shown, quiet(f"and {counted(more, 'other invariant')} violated here") if more else ""])


def num_slots(step: Step) -> int:
    """Rows of its mask, or nodes of its tree where they are more: what the size of drawings depends on."""
    rows = 0 if step.tensors is None else len(step.tensors.mask_rows)
    return max(rows, 0 if step.tree is None else len(step.tree.tokens))


def _mask(step: Step, texts: TokenTexts, marks: NodeMarks) -> str:
    """The mask, where it is not too large for a page."""
    size = num_slots(step)
    if size > MOST_SLOTS:
        return note("info", f"A mask of {size} slots is not drawn here", ["specscope view shows it."])
    return step_mask(step, texts, marks)


def _whole(step: Step, texts: TokenTexts, found: step_parts.Judgement) -> list[str]:
    marks = NodeMarks(violated=step_parts.violated_slots(found, step))
    drawn = step_parts.step_tree(step, texts, marks, target_width=TREE_WIDTH, folding=step_parts.NO_FOLDING)
    tree = card("tree", "Draft tree", "left to right", drawn)
    aside = "the root and the path are kept, the rest is dropped"
    commit = card("commit", "Cache commit", aside, step_parts.step_commit(step, texts, marks))
    mask = card("mask", "Tree mask", "as it was used", _mask(step, texts, marks))
    checks = card("invariants", "Invariants", "recomputed from the record", step_parts.invariant_list(found))
    few = step.tree is not None and num_slots(step) <= MOST_SLOTS
    slots = box(folded("Slots", slot_table(step, texts, marks))) if few else ""
    return [columns([tree, commit], [mask, checks], kind="wide-narrow"), slots]


def _plain(step: Step, texts: TokenTexts, found: step_parts.Judgement) -> list[str]:
    return [
        box(plain_tree(step, texts, NodeMarks(violated=step_parts.violated_slots(found, step)))),
        quiet(_commit_words(step)),
        quiet(_checked(found)),
    ]


def plain_tree(step: Step, texts: TokenTexts, marks: NodeMarks) -> str:
    """The draft tree, whose tooltips name the node alone."""
    picture = picture_of(step, texts, marks)
    if picture is None:
        return note("info", "This step records no tree", ["Its writer does not supply the tree section."])
    title = f"draft tree of step {step.step}, {len(picture.nodes) - 1} drafted nodes"
    folds = f"{picture.num_folded} unlikely nodes are folded; +n beside a node counts those below it."
    return draw_tree(_named(picture), title=title, target_width=TREE_WIDTH) + (
        quiet(folds) if picture.num_folded else ""
    )


def _named(picture: TreePicture) -> TreePicture:
    nodes = [
        replace(node, tooltip=tuple(shorten(line, MAX_TITLE) for line in node.tooltip[:1])) for node in picture.nodes
    ]
    return replace(picture, nodes=nodes)


def _commit_words(step: Step) -> str:
    commit = step.commit
    if commit is None:
        return "This step records no commit."
    rows = f"slots {one_line(str(commit.source_slots), 200)} to rows {one_line(str(commit.destination_rows), 200)}"
    fallback = f"; fallback: {shorten(commit.fallback, 200)}" if commit.fallback else ""
    return f"Committed {commit.committed_before} → {commit.committed_after}: {rows}, {commit.strategy}{fallback}."


def _checked(found: step_parts.Judgement) -> str:
    if found.violated:
        return ""
    skipped = f", {len(found.skipped)} skipped: too little was recorded to judge them" if found.skipped else ""
    return f"{counted(len(found.passed), 'invariant')} hold at this step{skipped}."
