"""The Diff page: the verdict's card first, then both trees at the root's step."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from specscope.schemas import Step
from specscope.schemas.verdict import Root, Verdict
from specscope.tracer.reader import TraceReader
from specscope.tracer.text import shorten, visible
from specscope.tracer.tokens import TokenTexts
from specscope.viewer import step_parts
from specscope.viewer.fragments import heading, note, quiet
from specscope.viewer.session import Arguments, View, clamp, token_texts, verdict_of
from specscope.viewer.step_pairs import AlignedSteps, StepComparison, compare_pair, first_common_step, steps_at
from specscope.viewer.verdict_card import next_commands, node_text, surroundings, value_text, verdict_card

STACKED_FROM_DEPTH = 7  # deeper trees are drawn one above the other, so that they can be read


def show_diff_page(arguments: Arguments, view: View) -> None:
    """The whole page."""
    _choose_files(arguments, view)
    first, second = arguments.files[view.baseline], arguments.files[view.candidate]
    with TraceReader(first) as a, TraceReader(second) as b:
        verdict = verdict_of(a, b)
        view.root = clamp(view.root, len(verdict.roots))
        root = verdict.roots[view.root] if verdict.roots else None
        steps = steps_at(a, b, root.place) if root is not None else None
        if root is None and verdict.verdict != "incomparable":
            steps = first_common_step(a, b)
        texts_a, texts_b = token_texts(arguments.tokenizer, first), token_texts(arguments.tokenizer, second)
        if steps is not None:
            texts_a.learn(steps.a)
            texts_b.learn(steps.b)
        _show_verdict(verdict, root, texts_b, view)
        if steps is not None:
            found = compare_pair(a, b, steps, verdict.floors)
            _show_pair(_Pair(arguments, view, steps, found, (texts_a, texts_b)), root)


def _choose_files(arguments: Arguments, view: View) -> None:
    names = [visible(path.name) for path in arguments.files]

    def chooser(label: str, key: str, chosen: Callable[[int], None]) -> None:
        def changed() -> None:
            chosen(int(st.session_state[key]))
            view.root = 0

        st.selectbox(label, range(len(names)), format_func=lambda i: names[i], key=key, on_change=changed)

    def set_baseline(index: int) -> None:
        view.baseline = index

    def set_candidate(index: int) -> None:
        view.candidate = index

    st.session_state["baseline"], st.session_state["candidate"] = view.baseline, view.candidate
    with st.container(key="controls"):
        left, right = st.columns(2, gap="medium")
        with left:
            chooser("Baseline", "baseline", set_baseline)
        with right:
            chooser("Candidate", "candidate", set_candidate)


def _show_verdict(verdict: Verdict, root: Root | None, texts: TokenTexts, view: View) -> None:
    left, right = st.columns([7, 5])
    with left:
        with st.container(border=True, key="card-verdict"):
            if len(verdict.roots) > 1:
                _choose_root(verdict, view)
            st.html(verdict_card(verdict, root, texts))
        with st.container(border=True, key="card-next"):
            st.html(heading("Next", "in a terminal"))
            st.html(next_commands(verdict, root))
    with right, st.container(border=True, key="card-proof"):
        st.html(heading("What was compared", "the proof that these two belong together"))
        st.html(surroundings(verdict))
        _show_drift(verdict)


def _choose_root(verdict: Verdict, view: View) -> None:
    def chosen() -> None:
        view.root = int(st.session_state["root"])

    st.session_state["root"] = view.root
    names = [
        f"root {n} of {len(verdict.roots)}: {r.difference.phase} {r.difference.field}, "
        f"{shorten(visible(r.place.prompt_id), 30)} turn {r.place.prompt_turn + 1} step {r.place.step_b}"
        for n, r in enumerate(verdict.roots, start=1)
    ]
    st.selectbox("Root", range(len(names)), format_func=lambda i: names[i], key="root", on_change=chosen)


def _show_drift(verdict: Verdict) -> None:
    if not verdict.drift:
        st.html(quiet("No float differs at all."))
        return
    columns = {
        "drift within the noise floor": [drift.field for drift in verdict.drift],
        "values": [drift.count for drift in verdict.drift],
        "largest": [f"{drift.largest:.3g}" for drift in verdict.drift],
    }
    st.dataframe(columns, hide_index=True, row_height=28, height=28 * len(verdict.drift) + 38)


class _Pair:
    """Two aligned steps with all that is needed to show them."""

    def __init__(
        self,
        arguments: Arguments,
        view: View,
        steps: AlignedSteps,
        found: StepComparison,
        texts: tuple[TokenTexts, TokenTexts],
    ) -> None:
        self.arguments, self.view, self.steps, self.found, self.texts = arguments, view, steps, found, texts

    @property
    def stacked(self) -> bool:
        """Whether the trees are too wide to stand side by side."""
        depths = [max(s.tree.depths, default=0) for s in (self.steps.a, self.steps.b) if s.tree is not None]
        return max(depths, default=0) >= STACKED_FROM_DEPTH


def _show_pair(pair: _Pair, root: Root | None) -> None:
    if root is None:
        st.html(note("info", "The first step that both runs have", ["No root difference; this is what agrees."]))
    sides = [st.container(), st.container()] if pair.stacked else st.columns(2)
    for number, (side, step) in enumerate(zip(sides, (pair.steps.a, pair.steps.b), strict=True)):
        with side:
            _show_side(pair, number, step)
    if pair.found.differences:
        with st.container(border=True, key="card-differences"):
            st.html(heading("Every difference of this step", "in the order of the phases"))
            _show_differences(pair)


def _show_side(pair: _Pair, number: int, step: Step) -> None:
    name = ("baseline", "candidate")[number]
    marked = (pair.found.slots_a, pair.found.slots_b)[number]
    origin = (pair.found.origin_a, pair.found.origin_b)[number]
    texts = pair.texts[number]
    with st.container(border=True, key=f"card-tree-{name}"):
        nodes = "no node differs" if not marked else f"{len(marked)} nodes differ, marked ≠"
        title, button = st.columns([5, 2], vertical_alignment="center")
        with title:
            st.html(heading(f"{name.capitalize()}, step {step.step}", nodes))
        with button:
            _open_button(pair, number, step)
        width = 1180 if pair.stacked else 560
        key = f"tree-{name}"
        step_parts.show_tree(step, texts, key=key, divergent=marked, origin=origin, target_width=width)
        step_parts.show_facts(step, texts)
    with st.container(border=True, key=f"card-mask-{name}"):
        st.html(heading(f"Mask of the {name}"))
        step_parts.show_mask(step, texts, key=f"mask-{name}", height=280)


def _open_button(pair: _Pair, number: int, step: Step) -> None:
    view, steps = pair.view, pair.steps

    def opened() -> None:
        view.page = "step"
        view.trace = (view.baseline, view.candidate)[number]
        view.turn = (steps.turn_a, steps.turn_b)[number]
        view.step = step.step

    st.button("Open step", key=f"open-{number}", on_click=opened, width="stretch")


def _show_differences(pair: _Pair) -> None:
    found, texts = pair.found.differences, pair.texts[1]
    columns = {
        "phase": [d.phase for d in found],
        "field": [d.field for d in found],
        "node": ["" if d.node is None else node_text(d.node, texts) for d in found],
        "baseline": [visible(value_text(d.field, d.a, texts)) for d in found],
        "candidate": [visible(value_text(d.field, d.b, texts)) for d in found],
        "kind": [d.kind for d in found],
        "inputs": ["equal" if d.inputs_equal else "differ" for d in found],
    }
    st.dataframe(columns, hide_index=True, row_height=28, height=min(28 * len(found) + 38, 340))
