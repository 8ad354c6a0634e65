"""One step of one run as a board. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from specscope.tracer.naming.text import shorten
from specscope.viewer.drawing.board import Board, board_of, card, columns, panel, raw_record
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import box, scrolled
from specscope.viewer.drawing.labels.nodes import node_notes
from specscope.viewer.drawing.labels.stopped import stop_slot, why_stopped
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.step import parts as step_parts
from specscope.viewer.drawing.step.judgement import JudgedStep, Judgement
from specscope.viewer.drawing.step.noted import RAW, NoteField, note_card
from specscope.viewer.drawing.step.phases import SHOW_PHASES, PhaseWindow, phases_card
from specscope.viewer.drawing.step.raw import raw_text
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.history import CommittedStep, draw_history
from specscope.viewer.drawing.svg.mask import step_mask
from specscope.viewer.drawing.svg.tree_picture import Branches
from specscope.viewer.drawing.tables.slots import slot_filter, slot_table

TREE_WIDTH = 860.0
#: What a commit does, beside its title.
COMMIT_ASIDE = "the root and the accepted path are kept, the rest is dropped"


class Further(NamedTuple):
    """What a page offers besides the step itself."""

    note: NoteField | None = None
    history: Sequence[CommittedStep] | None = None  # of the steps up to this one; empty: it can be asked for
    phases: PhaseWindow | None = None  # of the steps around this one, once that was asked for
    offers_phases: bool = False


def step_board(
    judged: JudgedStep,
    *,
    strip: Markup,
    branches: Branches = Branches(),  # noqa: B008
    further: Further = Further(),  # noqa: B008
) -> Board:
    """The step with all that is known of it.

    Args:
        judged: the step, and what became of its invariants.
        strip: the overview above it.
        branches: what to show of a large tree.
        further: what the page offers besides.
    """
    view, judgement = judged
    raw = {"step": raw_text(view.step)}
    if further.note is not None:
        raw[RAW] = further.note.text
    return Board(
        board_of(
            step_parts.step_facts(view),
            _stopped(view),
            _violated(judgement),
            columns(_drawings(view, branches, further), _details(view, judgement, further), kind="wide-narrow"),
            box(raw_record("step", "Raw record")),
        ),
        notes=node_notes(view),
        raw=raw,
        strip=strip,
    )


def unreadable_board(problem: str) -> Board:
    """What stands where a step's record cannot be read, for the reason that ``problem`` gives."""
    return Board(
        board_of(
            note("bad", "This step cannot be read", [shorten(problem, 400), "The steps before and after it are shown."])
        )
    )


#: What asks for the cache over several steps, and what takes it away again.
SHOW_HISTORY = markup('<button type="button" data-do="history:show">Show the cache over the last steps</button>')
HIDE_HISTORY = markup('<button type="button" data-do="history:hide">Hide it</button>')
HISTORY_WORDS = (
    "A line for each step, a column for each row of the cache. Blue: written by that step; grey: there before. "
    "Dashed, and ✗: written wrongly, in every line in which it is still there. A click goes to the step."
)


def history_card(steps: Sequence[CommittedStep]) -> Markup:
    """Which rows held what over ``steps``, at least one."""
    aside = f"steps {steps[0].step} to {steps[-1].step}"
    return card("history", "Cache over steps", aside, joined([scrolled(draw_history(steps)), quiet(HISTORY_WORDS)]))


def _commit(view: StepView, further: Further) -> list[Markup]:
    commit = step_parts.step_commit(view)
    if further.history is None or view.step.commit is None:
        return [card("commit", "Cache commit", COMMIT_ASIDE, commit)]
    button = HIDE_HISTORY if further.history else SHOW_HISTORY
    shown = [history_card(further.history)] if further.history else []
    return [card("commit", "Cache commit", COMMIT_ASIDE, joined([commit, button])), *shown]


def _drawings(view: StepView, branches: Branches, further: Further) -> list[Markup]:
    tree = step_parts.step_tree(view, target_width=TREE_WIDTH, medium="page", branches=branches)
    slots = joined([slot_filter(view), slot_table(view)])
    return [
        card("tree", "Draft tree", "left to right; point at a node, click to select it", tree),
        *_commit(view, further),
        *_phases(view, further),
        card("slots", "Slots", "slot k's logits predict the children of k", slots),
    ]


def _phases(view: StepView, further: Further) -> list[Markup]:
    if further.phases is None:
        return []
    return [phases_card(further.phases, current=view.step.step, buttons=True)]


def _times(view: StepView, further: Further) -> Markup:
    is_offered = further.offers_phases and further.phases is None and view.step.timing is not None
    return box(step_parts.timing_bars(view.step), SHOW_PHASES if is_offered else NOTHING)


def _details(view: StepView, judgement: Judgement, further: Further) -> list[Markup]:
    return [
        _node_card(view),
        card("mask", "Tree mask", "as it was used", step_mask(view)),
        card("invariants", "Invariants", "recomputed from the record", step_parts.invariant_list(judgement)),
        _times(view, further),
        *([note_card(further.note)] if further.note is not None else []),
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
