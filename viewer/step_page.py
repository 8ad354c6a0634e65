"""The Step page: one step of one turn of one trace, and the way from step to step."""

from __future__ import annotations

import streamlit as st

from specscope.schemas import Manifest, Step
from specscope.tracer.index import TurnEntry
from specscope.tracer.invariants.base import Context
from specscope.tracer.reader import TraceReader
from specscope.tracer.rules import is_lossy, rule_text
from specscope.tracer.text import shorten, visible
from specscope.tracer.tokens import TokenTexts
from specscope.viewer import step_parts
from specscope.viewer.drawing import show_pickable
from specscope.viewer.fragments import heading, note, quiet, rows
from specscope.viewer.session import Arguments, View, clamp, token_texts
from specscope.viewer.strip_svg import draw_strip


def show_step_page(arguments: Arguments, view: View) -> None:
    """The whole page."""
    view.trace = clamp(view.trace, len(arguments.files))
    path = arguments.files[view.trace]
    with TraceReader(path) as reader:
        entry = _choose(arguments, view, reader)
        show_warnings(reader)
        if entry is None:
            return
        texts = token_texts(arguments.tokenizer, path)
        step = reader.step(entry, view.step)
        texts.learn(step)
        previous = reader.step(entry, view.step - 1) if view.step > 0 else None
        found = step_parts.judge(Context(reader.manifest, reader.turn_start(entry), previous, step))
        step_parts.show_facts(step, texts)
        show_rule(reader.manifest)
        if found.violated:
            name, witness = found.violated[0]
            others = f" and {len(found.violated) - 1} more" if len(found.violated) > 1 else ""
            st.html(note("bad", f"violated at this step: {name}{others}", [witness]))
        _show_cards(step, texts, found)
        _show_run(reader)
        step_parts.show_raw(step)


def show_rule(manifest: Manifest) -> None:
    """Says so where the acceptance rule is lossy."""
    if is_lossy(manifest.sampling):
        lines = ["The output is not distributed as the teacher's own."]
        st.html(note("warn", rule_text(manifest.sampling), lines))


def _show_cards(step: Step, texts: TokenTexts, found: step_parts.Judgement) -> None:
    """The step's parts; the tree and what judges it come first."""
    left, right = st.columns([7, 3])
    with left:
        with st.container(border=True, key="card-tree"):
            st.html(heading("Draft tree", "left to right; hover a node for its scores"))
            step_parts.show_tree(step, texts, key="tree")
        with st.container(border=True, key="card-commit"):
            st.html(heading("Cache commit", "the root and the path are kept, the rest is dropped"))
            step_parts.show_commit(step, texts, key="ribbon")
    with right:
        with st.container(border=True, key="card-mask"):
            st.html(heading("Tree mask", "as it was used"))
            step_parts.show_mask(step, texts, key="mask")
        with st.container(border=True, key="card-invariants"):
            st.html(heading("Invariants", "recomputed from the record"))
            step_parts.show_invariants(found)
        with st.container(border=True, key="card-timing"):
            step_parts.show_timing(step)
    with st.container(border=True, key="card-slots"):
        st.html(heading("Slots", "slot k's logits predict the children of k"))
        step_parts.show_slots(step, texts)


def show_warnings(reader: TraceReader) -> None:
    """What is wrong with the file as a whole, in words."""
    if reader.truncated:
        lines = ["The run was cut off, or is still going on; what is shown here is whole."]
        if reader.index.torn_bytes:
            lines.append(f"Its last {reader.index.torn_bytes} bytes are a torn record and are left out.")
        st.html(note("warn", "This trace is truncated: it has no end record", lines))
    for failure in reader.failures()[:3]:
        where = f"turn {failure.turn}, step {failure.step}, phase {failure.phase}"
        st.html(note("bad", f"The engine failed: {failure.error}", [where, shorten(failure.message, 400)]))


def _choose(arguments: Arguments, view: View, reader: TraceReader) -> TurnEntry | None:
    """The controls; the turn chosen, with ``view`` in its range, or None where there is no step to show."""
    with st.container(key="controls"):
        trace, turn, back, forward, bar = st.columns([3, 3, 1.6, 1.6, 7], vertical_alignment="bottom")
        with trace:
            _choose_trace(arguments, view)
        if not reader.turns:
            st.html(note("info", "This trace holds no turns yet", ["Decode a prompt with tracing on, then reload."]))
            return None
        view.turn = clamp(view.turn, len(reader.turns))
        with turn:
            _choose_turn(view, reader)
        entry = reader.turns[view.turn]
        count = len(entry.steps)
        if not count:
            st.html(note("info", "This turn has no steps", ["It ended with the prompt's own next token."]))
            return None
        view.step = clamp(view.step, count)
        with back:
            _move_button(view, -1, "Previous", "Left", disabled=view.step == 0)
        with forward:
            _move_button(view, 1, "Next", "Right", disabled=view.step == count - 1)
        with bar:
            _choose_step(view, count)
    _show_strip(view, entry)
    return entry


def _choose_trace(arguments: Arguments, view: View) -> None:
    def chosen() -> None:
        view.trace = int(st.session_state["trace"])

    st.session_state["trace"] = view.trace
    names = [visible(path.name) for path in arguments.files]
    st.selectbox("Trace", range(len(names)), format_func=lambda i: names[i], key="trace", on_change=chosen)


def _choose_turn(view: View, reader: TraceReader) -> None:
    def chosen() -> None:
        view.turn, view.step = int(st.session_state["turn"]), 0

    st.session_state["turn"] = view.turn
    names = [f"{t.turn} · {shorten(visible(t.prompt_id), 40)} · {len(t.steps)} steps" for t in reader.turns]
    st.selectbox("Turn", range(len(names)), format_func=lambda i: names[i], key="turn", on_change=chosen)


def _move_button(view: View, by: int, label: str, shortcut: str, *, disabled: bool) -> None:
    def moved() -> None:
        view.step = max(0, view.step + by)

    st.button(label, key=label.lower(), shortcut=shortcut, on_click=moved, disabled=disabled, width="stretch")


def _choose_step(view: View, count: int) -> None:
    def chosen() -> None:
        view.step = int(st.session_state["step"])

    if count == 1:
        st.html(quiet("the turn's only step"))
        return
    st.session_state["step"] = view.step
    st.slider("Step", 0, count - 1, key="step", on_change=chosen)


def _show_strip(view: View, entry: TurnEntry) -> None:
    def picked(step: int) -> None:
        view.step = clamp(step, len(entry.steps))

    marked = {number for number, failed in enumerate(entry.failed_invariants) if failed}
    svg = draw_strip(
        entry.accepted_lengths, view.step, marked, mark="≠", meaning="the engine found a violated invariant"
    )
    show_pickable(svg, key="strip", picked=picked)


def _show_run(reader: TraceReader) -> None:
    with st.expander("About this run"):
        st.html(rows(run_rows(reader.manifest)))


def run_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """The manifest for people."""
    policy, device = manifest.tree_policy, manifest.device
    shape = f" {policy.name}" if policy.name else ""
    found = [
        ("run", f"{manifest.run_id}, {manifest.created}"),
        ("engine", manifest.engine),
        ("mode", f"{manifest.mode}, attention {manifest.attention}, {manifest.dtype}, {device.backend} {device.name}"),
        ("teacher", f"{manifest.teacher.name}, {manifest.teacher.architecture}, {manifest.teacher.num_layers} layers"),
        ("drafter", f"{manifest.drafter.kind} {manifest.drafter.name or ''}".strip()),
        ("tree", f"{policy.kind}{shape}, depth {policy.depth}, top-k {policy.top_k}, budget {policy.budget}"),
        ("acceptance rule", f"{rule_text(manifest.sampling)}, seed {manifest.seed}"),
        ("batch", f"{manifest.batch_size or 1} rows at most"),
        ("trace level", manifest.level),
    ]
    if manifest.cache_strategy:
        found.append(("cache strategy", manifest.cache_strategy))
    if manifest.fault:
        found.append(("injected fault", manifest.fault))
    return found
