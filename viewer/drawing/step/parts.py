"""The parts of one step as markup: facts, tree, mask, commit, invariants, timings. Pure; shared by pages and report.

Each function draws one part, or says in words that it was not recorded.
"""

from __future__ import annotations

from typing import NamedTuple

from specscope.schemas import CommitSection, Step
from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.naming.text import counted, shorten
from specscope.viewer.drawing.fragments import Fact, Share, bars, facts, heading, legend, note, quiet, rows
from specscope.viewer.drawing.frames import folded
from specscope.viewer.drawing.labels.numbers import NOT_RECORDED
from specscope.viewer.drawing.markup import NOTHING, Markup, joined, markup
from specscope.viewer.drawing.step.judgement import Judgement
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.ribbon import draw_ribbon
from specscope.viewer.drawing.svg.tree import draw_tree
from specscope.viewer.drawing.svg.tree_picture import FOLD_ABOVE, TreePicture, picture_of

MAX_VALUE = 600  # characters of a fact
#: In the order of a step; a branch only where the strategy copies the cache.
#: More than a hundred years: a hostile record's time may be a number of any size.
LONGEST_NS = 1 << 62
#: At most this many nodes are drawn where all are asked for.
MOST_UNFOLDED = 1024


def step_facts(view: StepView) -> Markup:
    """The step in one line: lengths, counts, what was emitted."""
    step = view.step
    entries = []
    if step.commit is not None:
        entries.append(Fact("committed", f"{step.commit.committed_before} → {step.commit.committed_after}", "tokens"))
    if step.tree is not None:
        entries.append(Fact("drafted", str(len(step.tree.tokens) - 1), "nodes"))
    entries += _accepted_facts(view)
    if step.stop is not None:
        kept = step.stop.emitted[: step.stop.kept]
        reason = f"stopped: {step.stop.reason}" if step.stop.reason else ""
        entries.append(Fact("emitted", shorten(view.texts.joined(kept), MAX_VALUE), reason, is_text=True))
    return facts(entries)


def _accepted_facts(view: StepView) -> list[Fact]:
    accept = view.step.accept
    if accept is None:
        return []
    bonus = shorten(view.shown(accept.bonus_token), MAX_VALUE)
    return [
        Fact("accepted", str(accept.accepted_length), "nodes"),
        Fact("tokens per step", str(accept.accepted_length + 1), "accepted + bonus"),
        Fact("bonus", bonus, f"slot {accept.bonus_slot}", is_text=True),
    ]


class FoldButtons(NamedTuple):
    """What offers to unfold a large tree, and to fold it again."""

    unfold: Markup
    fold: Markup


#: For a page, which hears clicks on ``data-do``.
LIVE_FOLDING = FoldButtons(
    unfold=markup('<button type="button" data-do="unfold">Show every node</button>'),
    fold=markup('<button type="button" data-do="fold">Fold the unlikely nodes</button>'),
)
#: For a report, where nothing hears a click.
NO_FOLDING = FoldButtons(unfold=NOTHING, fold=NOTHING)


def step_tree(view: StepView, *, target_width: float, folding: FoldButtons, show_all: bool = False) -> Markup:
    """The draft tree with its legend; large ones folded unless asked otherwise, which ``folding`` offers to change.

    Of a tree that a browser could not bear, the unlikely nodes stay folded even then.
    """
    picture = picture_of(view, fold_above=MOST_UNFOLDED if show_all else FOLD_ABOVE)
    if picture is None:
        return no_tree_note()
    marks = view.marks
    parts = [
        draw_tree(picture, title=tree_title(view.step, picture), target_width=target_width),
        legend(divergent=bool(marks.divergent), origin=marks.origin is not None, violated=bool(marks.violated)),
        folded_note(picture),
    ]
    if show_all and len(view.tokens) - 1 > FOLD_ABOVE:
        parts.append(folding.fold)
    elif picture.num_folded:
        parts.append(folding.unfold)
    return joined(parts)


def no_tree_note() -> Markup:
    """In place of a tree that was not recorded."""
    return note("info", "This step records no tree", ["Its writer does not supply the tree section."])


def tree_title(step: Step, picture: TreePicture) -> str:
    """What a tree is called, for those who cannot see it."""
    return f"draft tree of step {step.step}, {len(picture.nodes) - 1} drafted nodes"


def folded_note(picture: TreePicture) -> Markup:
    """How many nodes are folded; nothing where none are."""
    if not picture.num_folded:
        return NOTHING
    return quiet(f"{picture.num_folded} unlikely nodes are folded; +n beside a node counts those below it.")


def step_commit(view: StepView) -> Markup:
    """What was written where, and whether its content arrived."""
    commit = view.step.commit
    if commit is None:
        return note("info", "This step records no commit")
    pairs = f"{_number(commit.drafter_before)} → {_number(commit.drafter_after)}"
    entries = [
        ("strategy", commit.strategy + (f"; fallback: {commit.fallback}" if commit.fallback else "")),
        ("committed length", f"{commit.committed_before} → {commit.committed_after}"),
        ("rows written", _content_text(commit)),
        ("committed prefix", _prefix_text(commit)),
        ("drafter's pairs", pairs),
    ]
    return joined([draw_ribbon(view, commit), rows(entries)])


def _content_text(commit: CommitSection) -> str:
    before, after = commit.source_checksums or [], commit.written_checksums or []
    if not before and not after:
        return NOT_RECORDED
    same = sum(a == b for a, b in zip(before, after, strict=False))
    return f"{same} of {max(len(before), len(after))} layers equal their sources"


def _prefix_text(commit: CommitSection) -> str:
    if commit.prefix_before is None:
        return NOT_RECORDED
    state = "unchanged" if commit.prefix_before == commit.prefix_after else "CHANGED"
    return f"{state} (layer {commit.prefix_layer})"


def _number(value: int | None) -> str:
    return NOT_RECORDED if value is None else str(value)


def invariant_list(judgement: Judgement) -> Markup:
    """Violations with their witness, then what was skipped and what passed."""
    parts = [note("bad", f"violated: {name}", [witness]) for name, witness in judgement.violated]
    if not judgement.violated:
        parts.append(note("good", f"{counted(len(judgement.passed), 'invariant')} hold at this step"))
    if judgement.skipped:
        title = f"{len(judgement.skipped)} skipped: too little was recorded to judge them"
        parts.append(folded(title, rows(judgement.skipped)))
    parts.append(folded(f"{len(judgement.passed)} passed", rows(judgement.passed)))
    return joined(parts)


def timing_bars(step: Step) -> Markup:
    """Time by phase."""
    if step.timing is None:
        return note("info", "This step records no timings")
    recorded = ((name, getattr(step.timing, f"{name}_ns")) for name in TIMED_PHASES)
    amounts = [(name, ns) for name, ns in recorded if ns is not None]
    total = sum(ns for _, ns in amounts)
    return joined(
        [
            heading("Time by phase", f"{_milliseconds(total)} in all"),
            bars([Share(name, ns, _milliseconds(ns)) for name, ns in amounts]),
            NOTHING if step.timing.synchronised else quiet(UNSYNCHRONISED),
        ]
    )


UNSYNCHRONISED = "The device was not synchronised: these are the times of the calls, not of the work."


def _milliseconds(ns: int) -> str:
    return f"{ns / 1e6:.2f} ms" if ns < LONGEST_NS else "more than a hundred years"
