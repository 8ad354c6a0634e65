"""One step of one run as a board. Pure."""

from __future__ import annotations

from dataclasses import replace

from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.drawing.board import Board, board_of, card, columns, raw_record
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.step import parts as step_parts
from specscope.viewer.drawing.svg.mask import step_mask
from specscope.viewer.drawing.tables.slots import slot_table
from specscope.viewer.drawing.words.nodes import node_notes

TREE_WIDTH = 860.0


def step_board(context: Context, texts: TokenTexts, marks: NodeMarks, *, strip: str, show_all: bool) -> Board:
    """The step of ``context``.

    Args:
        context: the step, and what its invariants are judged by.
        texts: of its tokens.
        marks: nodes to be marked.
        strip: the overview above it.
        show_all: draw every node of a large tree.
    """
    step = context.step
    found = step_parts.judge(context)
    marks = replace(marks, violated=step_parts.violated_slots(found, step))
    tree = card(
        "tree",
        "Draft tree",
        "left to right; point at a node, click to keep it",
        step_parts.step_tree(
            step, texts, marks, target_width=TREE_WIDTH, folding=step_parts.LIVE_FOLDING, show_all=show_all
        ),
    )
    commit = card(
        "commit",
        "Cache commit",
        "the root and the path are kept, the rest is dropped",
        step_parts.step_commit(step, texts, marks),
    )
    slots = card("slots", "Slots", "slot k's logits predict the children of k", slot_table(step, texts, marks))
    node = card("node", "Node", "", f'<div class="ss-panel">{quiet("Point at a node in tree, mask or table.")}</div>')
    mask = card("mask", "Tree mask", "as it was used", step_mask(step, texts, marks))
    invariants = card("invariants", "Invariants", "recomputed from the record", step_parts.invariant_list(found))
    timing = f'<section class="ss-box">{step_parts.timing_bars(step)}</section>'
    raw = f'<section class="ss-box">{raw_record("step", "Raw record")}</section>'
    return Board(
        board_of(
            step_parts.step_facts(step, texts),
            _violated(found),
            columns([tree, commit, slots], [node, mask, invariants, timing], kind="wide-narrow"),
            raw,
        ),
        notes=node_notes(step, texts, marks),
        raw={"step": step_parts.raw_text(step)},
        strip=strip,
    )


def _violated(found: step_parts.Judgement) -> str:
    if not found.violated:
        return ""
    name, witness = found.violated[0]
    title = f"violated at this step: {name}"
    if len(found.violated) > 1:
        title = f"{len(found.violated)} invariants are violated at this step, {name} first"
    return note("bad", title, [witness])
