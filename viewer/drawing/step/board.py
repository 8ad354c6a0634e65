"""One step of one run as a board. Pure."""

from __future__ import annotations

from specscope.viewer.drawing.board import Board, board_of, card, columns, panel, raw_record
from specscope.viewer.drawing.fragments import note
from specscope.viewer.drawing.frames import box
from specscope.viewer.drawing.labels.nodes import node_notes
from specscope.viewer.drawing.labels.stopped import stop_slot, why_stopped
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, markup
from specscope.viewer.drawing.step import parts as step_parts
from specscope.viewer.drawing.step.judgement import JudgedStep, Judgement
from specscope.viewer.drawing.step.raw import raw_text
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.mask import step_mask
from specscope.viewer.drawing.svg.tree_picture import Branches
from specscope.viewer.drawing.tables.slots import slot_table

TREE_WIDTH = 860.0
#: What a commit does, beside its title.
COMMIT_ASIDE = "the root and the accepted path are kept, the rest is dropped"


def step_board(judged: JudgedStep, *, strip: Markup, branches: Branches = Branches()) -> Board:  # noqa: B008
    """The step with all that is known of it.

    Args:
        judged: the step, and what became of its invariants.
        strip: the overview above it.
        branches: what to show of a large tree.
    """
    view, judgement = judged
    return Board(
        board_of(
            step_parts.step_facts(view),
            _stopped(view),
            _violated(judgement),
            columns(_drawings(view, branches), _details(view, judgement), kind="wide-narrow"),
            box(raw_record("step", "Raw record")),
        ),
        notes=node_notes(view),
        raw={"step": raw_text(view.step)},
        strip=strip,
    )


def _drawings(view: StepView, branches: Branches) -> list[Markup]:
    tree = step_parts.step_tree(view, target_width=TREE_WIDTH, medium="page", branches=branches)
    return [
        card("tree", "Draft tree", "left to right; point at a node, click to select it", tree),
        card("commit", "Cache commit", COMMIT_ASIDE, step_parts.step_commit(view)),
        card("slots", "Slots", "slot k's logits predict the children of k", slot_table(view)),
    ]


def _details(view: StepView, judgement: Judgement) -> list[Markup]:
    return [
        _node_card(view),
        card("mask", "Tree mask", "as it was used", step_mask(view)),
        card("invariants", "Invariants", "recomputed from the record", step_parts.invariant_list(judgement)),
        box(step_parts.timing_bars(view.step)),
    ]


def _node_card(view: StepView) -> Markup:
    """What is known of the node that is pointed at; at first of the one after which the walk stopped."""
    last = stop_slot(view.step)
    hint = "Point at a node in the tree, the mask or the table."
    if last is None:
        return card("node", "Node", "", panel(hint))
    return card("node", "Node", "", panel(f"The walk stopped after it. {hint}", first=view.name(last)))


def _stopped(view: StepView) -> Markup:
    words = why_stopped(view)
    return NOTHING if words is None else markup('<p class="ss-begins">{words}</p>', words=html_text(words))


def _violated(judgement: Judgement) -> Markup:
    if not judgement.violated:
        return NOTHING
    name, witness = judgement.violated[0]
    title = f"violated at this step: {name}"
    if len(judgement.violated) > 1:
        title = f"{len(judgement.violated)} invariants are violated at this step, {name} first"
    return note("bad", title, [witness])
