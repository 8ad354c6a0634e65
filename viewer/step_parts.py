"""The parts of one step on a page: tree, mask, slots, commit, invariants, timings, raw record.

Each function draws one part, or says in words that it was not recorded. Shared by both pages.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

import streamlit as st

from specscope.schemas import Step
from specscope.tracer.invariants.base import Context
from specscope.tracer.oracle import SKIPPED, judge_step
from specscope.tracer.text import shorten
from specscope.tracer.tokens import TokenTexts
from specscope.viewer.commit_svg import RibbonCell, draw_ribbon
from specscope.viewer.drawing import show_drawing
from specscope.viewer.fragments import Fact, Share, bars, facts, heading, legend, note, quiet, rows
from specscope.viewer.mask_figure import EXTRA, MISSING, mask_cells, mask_figure
from specscope.viewer.slot_table import slot_columns
from specscope.viewer.tree_picture import FOLD_ABOVE, LABEL_LIMIT, picture_of
from specscope.viewer.tree_svg import draw_tree

PHASES = ("draft", "tensorize", "check", "verify", "accept", "commit")


def show_facts(step: Step, texts: TokenTexts) -> None:
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
        found.append(Fact("bonus", texts.shown(step.accept.bonus_token), f"slot {step.accept.bonus_slot}", True))
    if step.stop is not None:
        kept = step.stop.emitted[: step.stop.kept]
        cut = f"stopped: {step.stop.reason}" if step.stop.reason else ""
        found.append(Fact("emitted", texts.joined(kept), cut, True))
    st.html(facts(found))


def show_tree(
    step: Step,
    texts: TokenTexts,
    *,
    key: str,
    divergent: Collection[int] = (),
    origin: int | None = None,
    target_width: float = 860,
) -> None:
    """The draft tree with its legend; large ones folded unless asked otherwise."""
    large = step.tree is not None and len(step.tree.tokens) - 1 > FOLD_ABOVE
    show_all = large and st.toggle("Show every node", key=f"{key}-all")
    picture = picture_of(step, texts, divergent, origin=origin, fold_above=None if show_all else FOLD_ABOVE)
    if picture is None:
        st.html(note("info", "This step records no tree", ["Its writer does not supply the tree section."]))
        return
    title = f"draft tree of step {step.step}, {len(picture.nodes) - 1} drafted nodes"
    show_drawing(draw_tree(picture, title=title, target_width=target_width), key=key)
    st.html(legend(divergent=bool(divergent), origin=origin is not None))
    if picture.num_folded:
        st.html(quiet(f"{picture.num_folded} unlikely nodes are folded; +n beside a node counts those below it."))


def show_mask(step: Step, texts: TokenTexts, *, key: str, height: int = 330) -> None:
    """The mask that was used, with a sentence on what is wrong in it."""
    figure, cells = mask_figure(step, texts, height=height), mask_cells(step)
    if figure is None or cells is None or step.tensors is None:
        st.html(note("info", "This step records no mask"))
        return
    st.plotly_chart(figure, key=key, config={"displayModeBar": False})
    extra, missing = int((cells == EXTRA).sum()), int((cells == MISSING).sum())
    if extra or missing:
        words = [f"{extra} cells see a slot that is no ancestor (vermillion)", f"{missing} miss one (orange)"]
        st.html(note("bad", "The mask is not the tree's", words))
    seen, wanted = step.tensors.prefix_visible, step.tensors.committed_length
    partial = [row for row, count in enumerate(seen) if count != wanted]
    if partial:
        st.html(note("bad", f"Rows {partial[:6]} do not see all {wanted} committed rows"))
    else:
        st.html(quiet(f"Row = slot that looks, column = slot seen. Every row also sees all {wanted} committed rows."))


def show_slots(step: Step, texts: TokenTexts) -> None:
    """The table of slots."""
    columns = slot_columns(step, texts)
    if not columns:
        st.html(note("info", "This step records no slots"))
        return
    number = st.column_config.NumberColumn
    st.dataframe(
        columns,
        hide_index=True,
        row_height=28,
        height=min(28 * len(columns["slot"]) + 39, 520),
        column_config={
            "draft p": st.column_config.ProgressColumn("draft p", format="%.3f", min_value=0, max_value=1),
            "logit": number("logit", format="%.3f"),
            "its logit": number("its logit", format="%.3f"),
            **{name: number(name, width=64) for name in ("slot", "id", "parent", "depth", "position")},
        },
    )


def show_commit(step: Step, texts: TokenTexts, *, key: str) -> None:
    """What was written where, and whether its content arrived."""
    commit, tree = step.commit, step.tree
    if commit is None:
        st.html(note("info", "This step records no commit"))
        return
    tokens = tree.tokens if tree is not None else []
    cells = [
        RibbonCell(row, slot, shorten(texts.shown(tokens[slot]) if slot < len(tokens) else f"slot {slot}", LABEL_LIMIT))
        for slot, row in zip(commit.source_slots, commit.destination_rows, strict=False)
        if slot >= 0
    ]
    bonus = shorten(texts.shown(step.accept.bonus_token), LABEL_LIMIT) if step.accept is not None else None
    show_drawing(draw_ribbon(commit.committed_before, cells, bonus), key=key)
    before, after = commit.source_checksums or [], commit.written_checksums or []
    same = sum(a == b for a, b in zip(before, after, strict=False))
    content = (
        f"{same} of {max(len(before), len(after))} layers equal their sources" if before or after else "not recorded"
    )
    prefix = "not recorded"
    if commit.prefix_before is not None:
        held = "unchanged" if commit.prefix_before == commit.prefix_after else "CHANGED"
        prefix = f"{held} (layer {commit.prefix_layer})"
    st.html(
        rows(
            [
                ("strategy", commit.strategy + (f"; fallback: {commit.fallback}" if commit.fallback else "")),
                ("committed length", f"{commit.committed_before} → {commit.committed_after}"),
                ("slots to rows", f"{commit.source_slots} → {commit.destination_rows}"),
                ("rows written", content),
                ("committed prefix", prefix),
                ("drafter's pairs", f"{_number(commit.drafter_before)} → {_number(commit.drafter_after)}"),
            ]
        )
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


def show_invariants(found: Judgement) -> None:
    """Violations with their witness, then what was skipped and what passed."""
    for name, witness in found.violated:
        st.html(note("bad", f"violated: {name}", [witness]))
    if not found.violated:
        st.html(note("good", f"{len(found.passed)} invariants hold at this step"))
    if found.skipped:
        with st.expander(f"{len(found.skipped)} skipped: too little was recorded to judge them"):
            st.html(rows(found.skipped))
    with st.expander(f"{len(found.passed)} passed"):
        st.html(rows(found.passed))


def show_timing(step: Step) -> None:
    """Time by phase."""
    if step.timing is None:
        st.html(note("info", "This step records no timings"))
        return
    amounts = [(name, getattr(step.timing, f"{name}_ns")) for name in PHASES]
    total = sum(ns for _, ns in amounts)
    st.html(heading("Time by phase", f"{total / 1e6:.2f} ms in all"))
    st.html(bars([Share(name, ns, f"{ns / 1e6:.2f} ms") for name, ns in amounts]))
    if not step.timing.synchronised:
        st.html(quiet("The device was not synchronised: times are those of the calls, not of the work."))


def show_raw(step: Step) -> None:
    """The record as it stands in the file, every hidden character escaped."""
    with st.expander("Raw record"):
        record = step.model_dump(mode="json", by_alias=True, exclude_none=True)
        st.code(json.dumps(record, indent=1, ensure_ascii=True), language="json", height=420)
