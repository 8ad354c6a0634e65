"""The parts of one step as markup: facts, tree, mask, commit, invariants, timings. Pure; shared by pages and report.

Each function draws one part, or says in words that it was not recorded.
"""

from __future__ import annotations

from specscope.schemas import CommitSection, LengthsSection, Step
from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.naming.text import counted, shorten
from specscope.viewer.drawing.fragments import Fact, Share, bars, facts, heading, legend, note, quiet, rows
from specscope.viewer.drawing.frames import attribute, folded, scrolled
from specscope.viewer.drawing.labels.numbers import NOT_RECORDED
from specscope.viewer.drawing.labels.tokens import label_text
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.step.judgement import Judgement
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.ribbon import draw_ribbon
from specscope.viewer.drawing.svg.tree import draw_tree
from specscope.viewer.drawing.svg.tree_picture import (
    BRANCHES_FROM,
    FOLD_ABOVE,
    MOST_UNFOLDED,
    Branches,
    Medium,
    TreePicture,
    has_scores,
    picture_of,
)

MAX_VALUE = 600  # characters of a fact
#: A branch takes time only where the strategy copies the cache; else its bar would be empty.
SHORTEST_BRANCH_NS = 50_000
#: More than a hundred years: a hostile record's time may be a number of any size.
LONGEST_NS = 1 << 62
#: Two trees side by side are folded above this many nodes, to so many: what agrees is looked at in neither.
FOLD_PAIR_ABOVE, MOST_OF_PAIR = 62, 32


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
        entries.append(Fact("emitted", label_text(view.texts.joined(kept), MAX_VALUE), reason, is_text=True))
    return facts(entries)


def _accepted_facts(view: StepView) -> list[Fact]:
    accept, lengths = view.step.accept, view.step.lengths
    if accept is None:
        return [] if lengths is None else _length_facts(lengths)
    bonus = label_text(view.shown(accept.bonus_token), MAX_VALUE)
    return [
        Fact("accepted", str(accept.accepted_length), "nodes"),
        Fact("tokens per step", str(accept.accepted_length + 1), "accepted + bonus"),
        Fact("bonus", bonus, f"slot {accept.bonus_slot}", is_text=True),
    ]


def _length_facts(lengths: LengthsSection) -> list[Fact]:
    """Of a step of which nothing else is recorded."""
    return [
        Fact("drafted", _number(lengths.drafted), "nodes"),
        Fact("accepted", str(lengths.accepted), "nodes"),
        Fact("tokens per step", str(lengths.accepted + 1), "accepted + bonus"),
    ]


UNFOLD = markup('<button type="button" data-do="unfold">Show every node</button>')
FOLD = markup('<button type="button" data-do="fold">Fold the unlikely nodes</button>')
#: What enlarges a drawing of a page, and moves it.
ZOOM = markup(
    '<div class="ss-tools" role="group" aria-label="Size of the tree">'
    '<button type="button" data-zoom="out" aria-label="smaller">−</button>'
    '<button type="button" data-zoom="in" aria-label="larger">+</button>'
    '<button type="button" data-zoom="fit">Fit</button><button type="button" data-zoom="whole">100 %</button></div>'
)


def step_tree(
    view: StepView,
    *,
    target_width: float,
    medium: Medium,
    branches: Branches = Branches(),  # noqa: B008  (immutable)
    fold_above: int = FOLD_ABOVE,
) -> Markup:
    """The draft tree with its legend; large ones folded unless asked otherwise, which a page offers to change.

    Of a tree that a browser could not bear, the unlikely nodes stay folded even then.
    """
    show_all = branches.show_all
    picture = picture_of(
        view,
        fold_above=MOST_UNFOLDED if show_all else fold_above,
        most_shown=None if show_all or fold_above == FOLD_ABOVE else MOST_OF_PAIR,
        medium=medium,
        toggled=branches.toggled,
        least=None if show_all else branches.least,
    )
    if picture is None:
        return no_tree_note()
    marks = view.marks
    parts = [
        scrolled(draw_tree(picture, title=tree_title(view.step, picture), target_width=target_width)),
        legend(
            divergent=bool(marks.independent),
            origin=marks.origin is not None,
            inherited=bool(marks.inherited),
            violated=bool(marks.violated),
            rejected=any(not node.accepted for node in picture.nodes),
            drafted=any(node.probability is not None for node in picture.nodes),
            by_teacher=any(node.by_teacher is not None for node in picture.nodes),
            ghost=picture.ghost is not None,
        ),
        shades(picture) if medium == "page" else NOTHING,
        folded_note(picture),
    ]
    if medium != "page":
        return joined(parts)
    parts.append(fold_slider(view, branches))
    if show_all and len(view.tokens) - 1 > fold_above:
        parts.append(FOLD)
    elif picture.num_folded:
        parts.append(UNFOLD)
    return joined([ZOOM, *parts])


#: Path probabilities below which a slider of a page folds nodes; at its first place it leaves the choice to the page.
LEAST = (None, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)
AUTOMATIC = "as many as do not fit"


def fold_slider(view: StepView, branches: Branches) -> Markup:
    """What folds the nodes of unlikely paths; nothing where the tree is small, or no probabilities are known."""
    if len(view.tokens) <= BRANCHES_FROM or not has_scores(view):
        return NOTHING
    words = [AUTOMATIC, *(f"paths below p {least:g}" for least in LEAST[1:])]
    return markup(
        '<div class="ss-below"><label>Fold <input type="range" min="0" max="{most}" value="{at}"{words}/></label>'
        "<output></output></div>",
        most=len(LEAST) - 1,
        at=0 if branches.show_all else LEAST.index(branches.least),
        words=attribute("data-words", "|".join(words)),
    )


#: By what a page can colour nodes: the name by which its script knows it, and the words.
SHADES = (
    ("d", "draft probability"),
    ("t", "teacher's probability"),
    ("r", "teacher's share of the drafter's"),
    ("e", "teacher's entropy after it"),
)


def shades(picture: TreePicture) -> Markup:
    """The choice of what colours the nodes, of what is known of any."""
    known = {
        "d": any(node.probability is not None for node in picture.nodes),
        "t": any(node.by_teacher is not None for node in picture.nodes),
        "r": any(node.by_teacher is not None and node.probability for node in picture.nodes),
        "e": any(node.entropy is not None for node in picture.nodes),
    }
    options = joined(
        markup('<option value="{value}">{words}</option>', value=html_text(name), words=html_text(words))
        for name, words in SHADES
        if known[name]
    )
    if not options:
        return NOTHING
    return markup(
        '<div class="ss-shades"><label>Colour nodes by <select><option value="">outcome</option>{options}</select>'
        '</label><span aria-live="polite"></span></div>',
        options=options,
    )


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
        ("rows written", _content_text(commit) + _source_text(view, commit)),
        ("committed prefix", _prefix_text(commit)),
        ("drafter's pairs", pairs),
    ]
    return joined([scrolled(draw_ribbon(view, commit)), rows(entries)])


def _content_text(commit: CommitSection) -> str:
    before, after = commit.source_checksums or [], commit.written_checksums or []
    if not before and not after:
        return NOT_RECORDED
    same = sum(a == b for a, b in zip(before, after, strict=False))
    return f"{same} of {max(len(before), len(after))} layers equal their sources"


def _source_text(view: StepView, commit: CommitSection) -> str:
    """What the checksums do not tell: that what was written faithfully was the wrong row."""
    accept = view.step.accept
    if accept is None:
        return ""
    wanted = [0, *accept.path]
    wrong = [slot for slot in commit.source_slots if slot not in wanted]
    if wrong:
        return f", but from slots that were not accepted: {shorten(str(wrong), 60)}"
    return "" if commit.source_slots == wanted else f", but not all of the accepted path: wanted slots {wanted}"


def _prefix_text(commit: CommitSection) -> str:
    if commit.prefix_before is None:
        return NOT_RECORDED
    state = "unchanged" if commit.prefix_before == commit.prefix_after else "CHANGED"
    return f"{state} (layer {commit.prefix_layer})"


def _number(value: int | None) -> str:
    return NOT_RECORDED if value is None else str(value)


def held_words(judgement: Judgement) -> str:
    """How many invariants hold."""
    num_held = len(judgement.passed)
    return f"{counted(num_held, 'invariant')} {'holds' if num_held == 1 else 'hold'} at this step"


def invariant_list(judgement: Judgement) -> Markup:
    """Violations with their witness, then what was skipped and what passed."""
    parts = [note("bad", f"violated: {name}", [witness]) for name, witness in judgement.violated]
    if not judgement.violated:
        parts.append(note("good", held_words(judgement)))
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
    amounts = [(name, ns) for name, ns in recorded if ns is not None and (name != "branch" or ns >= SHORTEST_BRANCH_NS)]
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
