"""The slots of a step as a table, one row per slot. Knows records, no pages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from specscope.schemas import Step
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import attribute, kind_attribute, row, table
from specscope.viewer.drawing.labels.nodes import Choice, draft_probability, teacher_choices, teacher_probability
from specscope.viewer.drawing.labels.tokens import label_text
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.step_view import StepView

#: Columns whose values are numbers, and how each is written.
NUMBERS = {
    "slot": "d",
    "id": "d",
    "parent": "d",
    "depth": "d",
    "position": "d",
    "draft p": ".3f",
    "teacher p": ".3f",
    "logit": ".3f",
    "its logit": ".3f",
    "target p": ".3f",
    "threshold": ".3f",
    "coin": ".3f",
}
MOST_LISTED = 1024
#: What slots can be filtered by.
STATES = ("accepted", "rejected", "differs", "violated")
#: Beside a slot that a violated invariant names.
VIOLATED = markup('<b class="ss-first">✗</b> ')
LONGEST_TEXT = 200
TEXTS = ("token", "teacher's top", "second")


def slot_columns(view: StepView) -> dict[str, list[Any]]:
    """Columns by name, one entry per real slot; None where something was not recorded."""
    step, texts = view.step, view.texts
    tree = step.tree
    if tree is None:
        return {}
    slots = range(len(tree.tokens))
    path = set(step.accept.path) if step.accept is not None else set()
    choices = [teacher_choices(step, slot) for slot in slots]
    best = [_at(of_slot, 0) for of_slot in choices]
    second = [_at(of_slot, 1) for of_slot in choices]
    positions = step.tensors.positions if step.tensors is not None else []
    columns: dict[str, list[Any]] = {
        "slot": list(slots),
        "token": [label_text(texts.shown(token), LONGEST_TEXT) for token in tree.tokens],
        "id": list(tree.tokens),
        "parent": [_at(tree.parents, slot) for slot in slots],
        "depth": [_at(tree.depths, slot) for slot in slots],
        "position": [_at(positions, slot) for slot in slots],
        "draft p": [draft_probability(step, slot) for slot in slots],
        **_known("teacher p", [teacher_probability(step, slot) for slot in slots]),
        "accepted": [_accepted(step, slot, path) for slot in slots],
        **_trials(step, len(tree.tokens)),
        "teacher's top": [_shown(texts, choice) for choice in best],
        "logit": [_logit(choice) for choice in best],
        "second": [_shown(texts, choice) for choice in second],
        "its logit": [_logit(choice) for choice in second],
    }
    return columns


def _known(name: str, values: list[Any]) -> dict[str, list[Any]]:
    """The column, where it holds anything."""
    return {name: values} if any(value is not None for value in values) else {}


def _trials(step: Step, size: int) -> dict[str, list[Any]]:
    """What was weighed at each slot, where acceptance draws; nothing where it does not."""
    visits = (step.accept.visited or []) if step.accept is not None else []
    trials = {trial.slot: trial for visit in visits for trial in visit.trials or []}
    if not trials:
        return {}
    by_slot = [trials.get(slot) for slot in range(size)]
    return {
        "target p": [None if trial is None else trial.target_prob for trial in by_slot],
        "threshold": [None if trial is None else trial.threshold for trial in by_slot],
        "coin": [None if trial is None else trial.coin for trial in by_slot],
    }


def slot_table(view: StepView) -> Markup:
    """The table."""
    columns = slot_columns(view)
    if not columns:
        return note("info", "This step records no slots")
    classes = ["num" if name in NUMBERS else "ss-mono" if name in TEXTS else "" for name in columns]
    classes[list(columns).index("token")] += " ss-token"
    size = len(view.tokens)
    listed = _listed(view, size)
    lines = []
    for slot in listed:
        cells = [_cell(name, column[slot]) for name, column in columns.items()]
        if slot in view.marks.violated:
            cells[0] = joined([VIOLATED, cells[0]])
        lines.append(row(cells, classes, _attributes(view, slot)))
    rest = f"The first {MOST_LISTED:,} of {size:,} slots are listed, and those that are accepted or differ."
    return joined([table(list(columns), lines, numbers=NUMBERS), quiet(rest) if len(listed) < size else NOTHING])


def _states(view: StepView, slot: int) -> list[str]:
    """What a slot can be filtered by."""
    accept = view.step.accept
    outcomes = [] if accept is None or slot == 0 else ["accepted" if slot in accept.path else "rejected"]
    outcomes += ["differs"] if slot in view.marks.divergent else []
    return outcomes + (["violated"] if slot in view.marks.violated else [])


def slot_filter(view: StepView) -> Markup:
    """Fields by which a page's script leaves slots out of the table; nothing where there is no table."""
    if view.step.tree is None:
        return NOTHING
    listed = _listed(view, len(view.tokens))
    states = {name: sum(name in _states(view, slot) for slot in listed) for name in STATES}
    options = joined(
        markup('<option value="{name}">{name}, {count}</option>', name=html_text(name), count=count)
        for name, count in states.items()
        if count
    )
    return markup(
        '<div class="ss-filter">'
        '<label>Token <input type="search" aria-label="Token of slots" placeholder="a part of its text"/></label>'
        '<label>Outcome <select aria-label="Outcome of slots"><option value="">all</option>{options}</select></label>'
        '<span role="status"></span></div>',
        options=options,
    )


def _attributes(view: StepView, slot: int) -> Markup:
    kinds = ["differs"] if slot in view.marks.divergent else []
    kinds += ["violated"] if slot in view.marks.violated else []
    state = attribute("data-state", " ".join(_states(view, slot)))
    return joined([attribute("data-node", view.name(slot)), state, kind_attribute(" ".join(kinds))])


def _listed(view: StepView, size: int) -> list[int]:
    """The slots that are listed: all, where a browser can bear them."""
    path = view.step.accept.path if view.step.accept is not None else []
    marked = sorted(view.marks.divergent | view.marks.violated)
    further = (slot for slot in [*path, *marked] if 0 <= slot < size)
    return sorted({*range(min(size, MOST_LISTED)), *islice(further, MOST_LISTED)})


def _cell(name: str, value: Any) -> Markup:
    if value is None:
        return NOTHING
    return html_text(f"{value:{NUMBERS[name]}}" if name in NUMBERS else value)


def _accepted(step: Step, slot: int, path: set[int]) -> str:
    if step.accept is None:
        return "?"
    return "root" if slot == 0 else "✓ yes" if slot in path else "–"


def _at(values: Sequence[Any], at: int) -> Any:
    return values[at] if at < len(values) else None


def _logit(choice: Choice | None) -> float | None:
    return None if choice is None else choice.logit


def _shown(texts: TokenTexts, choice: Choice | None) -> str | None:
    return None if choice is None else label_text(texts.shown(choice.token), LONGEST_TEXT)
