"""The parts of one step as markup: facts, tree, mask, commit, invariants, timings. Pure; shared by pages and report.

Each function draws one part, or says in words that it was not recorded.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from specscope.schemas import Step
from specscope.schemas.phases import TIMED_PHASES
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.oracle.step import SKIPPED, judge_step
from specscope.tracer.words.text import counted, shorten
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.drawing.fragments import Fact, Share, bars, facts, heading, legend, note, quiet, rows
from specscope.viewer.drawing.frames import folded
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.svg.ribbon import draw_ribbon
from specscope.viewer.drawing.svg.tree import draw_tree
from specscope.viewer.drawing.svg.tree_picture import FOLD_ABOVE, picture_of

MAX_VALUE = 600  # characters of a fact
#: In the order of a step; a branch only where the strategy copies the cache.
#: More than a hundred years: a hostile record's time may be a number of any size.
LONGEST_NS = 1 << 62
#: So many nodes are drawn where all are asked for.
MOST_UNFOLDED = 1024
LONGEST_PLACE = 80  # characters of a witness in which it says where
LONGEST_FIELD = 100_000  # characters of a field of a raw record that are shown


def step_facts(step: Step, texts: TokenTexts) -> str:
    """The step in one line: lengths, counts, what was emitted."""
    found = []
    if step.commit is not None:
        found.append(Fact("committed", f"{step.commit.committed_before} → {step.commit.committed_after}", "tokens"))
    if step.tree is not None:
        found.append(Fact("drafted", str(len(step.tree.tokens) - 1), "nodes"))
    if step.accept is not None:
        length = step.accept.accepted_length
        found.append(Fact("accepted", str(length), "nodes"))
        found.append(Fact("tokens per step", str(length + 1), "accepted + bonus"))
        found.append(
            Fact(
                "bonus",
                shorten(texts.shown(step.accept.bonus_token), MAX_VALUE),
                f"slot {step.accept.bonus_slot}",
                True,
            )
        )
    if step.stop is not None:
        kept = step.stop.emitted[: step.stop.kept]
        cut = f"stopped: {step.stop.reason}" if step.stop.reason else ""
        found.append(Fact("emitted", shorten(texts.joined(kept), MAX_VALUE), cut, True))
    return facts(found)


class FoldButtons(NamedTuple):
    """What offers to unfold a large tree, and to fold it again, as markup."""

    unfold: str
    fold: str


#: Of a page, which hears of clicks on ``data-do``.
LIVE_FOLDING = FoldButtons(
    unfold='<button type="button" data-do="unfold">Show every node</button>',
    fold='<button type="button" data-do="fold">Fold the unlikely nodes</button>',
)
#: Of a report, where nobody hears a click.
NO_FOLDING = FoldButtons(unfold="", fold="")


def step_tree(
    step: Step,
    texts: TokenTexts,
    marks: NodeMarks,
    *,
    target_width: float,
    folding: FoldButtons,
    show_all: bool = False,
) -> str:
    """The draft tree with its legend; large ones folded unless asked otherwise, which ``folding`` offers to change.

    Of a tree that a browser could not bear, the unlikely nodes stay folded even then.
    """
    picture = picture_of(step, texts, marks, fold_above=MOST_UNFOLDED if show_all else FOLD_ABOVE)
    if picture is None:
        return note("info", "This step records no tree", ["Its writer does not supply the tree section."])
    title = f"draft tree of step {step.step}, {len(picture.nodes) - 1} drafted nodes"
    parts = [draw_tree(picture, title=title, target_width=target_width)]
    parts.append(
        legend(divergent=bool(marks.divergent), origin=marks.origin is not None, violated=bool(marks.violated))
    )
    if picture.num_folded:
        folds = f"{picture.num_folded} unlikely nodes are folded; +n beside a node counts those below it."
        parts.append(quiet(folds))
    if show_all and step.tree is not None and len(step.tree.tokens) - 1 > FOLD_ABOVE:
        parts.append(folding.fold)
    elif picture.num_folded:
        parts.append(folding.unfold)
    return "".join(parts)


def step_commit(step: Step, texts: TokenTexts, marks: NodeMarks) -> str:
    """What was written where, and whether its content arrived."""
    commit = step.commit
    if commit is None:
        return note("info", "This step records no commit")
    before, after = commit.source_checksums or [], commit.written_checksums or []
    same = sum(a == b for a, b in zip(before, after, strict=False))
    content = (
        f"{same} of {max(len(before), len(after))} layers equal their sources" if before or after else "not recorded"
    )
    prefix = "not recorded"
    if commit.prefix_before is not None:
        held = "unchanged" if commit.prefix_before == commit.prefix_after else "CHANGED"
        prefix = f"{held} (layer {commit.prefix_layer})"
    return draw_ribbon(step, commit, texts, marks) + rows(
        [
            ("strategy", commit.strategy + (f"; fallback: {commit.fallback}" if commit.fallback else "")),
            ("committed length", f"{commit.committed_before} → {commit.committed_after}"),
            ("rows written", content),
            ("committed prefix", prefix),
            ("drafter's pairs", f"{_number(commit.drafter_before)} → {_number(commit.drafter_after)}"),
        ]
    )


def _number(value: int | None) -> str:
    return "not recorded" if value is None else str(value)


class Judgement(NamedTuple):
    """The invariants of one step, by what became of them."""

    passed: list[tuple[str, str]]  # id, what holds
    violated: list[tuple[str, str]]  # id, witness
    skipped: list[tuple[str, str]]  # id, what would hold


def judge(context: Context) -> Judgement:
    """Recomputes every invariant of the step."""
    found = Judgement([], [], [])
    for invariant, witness in judge_step(context):
        if witness is None:
            found.passed.append((invariant.id, invariant.statement))
        elif witness is SKIPPED:
            found.skipped.append((invariant.id, invariant.statement))
        else:
            found.violated.append((invariant.id, witness))
    return found


#: Of a witness, where it names slots; a row of the mask is a slot, a row of the cache is none.
_SLOTS = re.compile(r"\bslot (\d+)")
_MASK_ROW = re.compile(r"\brow (\d+)")


def violated_slots(found: Judgement, step: Step) -> frozenset[int]:
    """The slots of ``step`` that the witnesses of its violated invariants begin with."""
    size = len(step.tree.tokens) if step.tree is not None else 0
    named = set()
    for name, witness in found.violated:
        start = witness[:LONGEST_PLACE]
        place = _SLOTS.search(start) or (_MASK_ROW.search(start) if name.startswith("tensors.") else None)
        if place is not None and len(place.group(1)) < 10:
            named.add(int(place.group(1)))
    return frozenset(slot for slot in named if slot < size)


def invariant_list(found: Judgement) -> str:
    """Violations with their witness, then what was skipped and what passed."""
    parts = [note("bad", f"violated: {name}", [witness]) for name, witness in found.violated]
    if not found.violated:
        parts.append(note("good", f"{counted(len(found.passed), 'invariant')} hold at this step"))
    if found.skipped:
        parts.append(
            folded(f"{len(found.skipped)} skipped: too little was recorded to judge them", rows(found.skipped))
        )
    parts.append(folded(f"{len(found.passed)} passed", rows(found.passed)))
    return "".join(parts)


def timing_bars(step: Step) -> str:
    """Time by phase."""
    if step.timing is None:
        return note("info", "This step records no timings")
    recorded = ((name, getattr(step.timing, f"{name}_ns")) for name in TIMED_PHASES)
    amounts = [(name, ns) for name, ns in recorded if ns is not None]
    total = sum(ns for _, ns in amounts)
    shares = bars([Share(name, ns, _milliseconds(ns)) for name, ns in amounts])
    unsure = quiet("The device was not synchronised: times are those of the calls, not of the work.")
    aside = "" if step.timing.synchronised else unsure
    return heading("Time by phase", f"{_milliseconds(total)} in all") + shares + aside


def _milliseconds(ns: int) -> str:
    return f"{ns / 1e6:.2f} ms" if ns < LONGEST_NS else "more than a hundred years"


def raw_text(step: Step) -> str:
    """The record as it stands in the file, one field a line, every hidden character escaped.

    A field that would choke a browser is cut, and says so.
    """
    record = step.model_dump(mode="json", by_alias=True, exclude_none=True)
    return _object({name: _inner(value) for name, value in record.items()}, "")


def _inner(value: Any) -> str:
    return _object({name: _line(one) for name, one in value.items()}, " ") if isinstance(value, dict) else _line(value)


def _line(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    if len(text) <= LONGEST_FIELD:
        return text
    return f"{text[:LONGEST_FIELD]} ... cut here: the file holds {len(text):,} characters of it"


def _object(fields: dict[str, str], indent: str) -> str:
    lines = ",\n".join(f"{indent} {_line(name)}: {text}" for name, text in fields.items())
    return f"{{\n{lines}\n{indent}}}" if fields else "{}"
