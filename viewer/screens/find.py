"""The Find page: all turns of a run, and the steps that fit what is looked for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from specscope.schemas import Step
from specscope.schemas.verdict import Root, Side
from specscope.tracer.errors import SpecScopeError, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import visible
from specscope.viewer.drawing.fragments import note
from specscope.viewer.drawing.labels.nodes import teacher_choices
from specscope.viewer.drawing.svg.strip import MEANINGS
from specscope.viewer.drawing.tables.turns import FoundStep, TurnRow, turns_board
from specscope.viewer.metrics.numbers import step_positions
from specscope.viewer.pairs.states import RunStates, Spot
from specscope.viewer.runs.finding import HOW, StepFacts, parse_query
from specscope.viewer.runs.readable import readable_steps
from specscope.viewer.screens.controls import choose_run, show_warnings
from specscope.viewer.screens.inspector import show_one_board
from specscope.viewer.screens.session import (
    HASHED,
    Arguments,
    OpenPair,
    open_pair,
    open_run,
    oracle_report_of,
    states_of,
    token_texts,
)
from specscope.viewer.screens.view import LONGEST_FIND, ORDERS, TurnOrder, View

_PLACE = re.compile(r"go:(\d{1,9})\.(\d{1,9})", re.ASCII)
#: In the session's state: what stands in the field.
WORDS = "find-words"
ORDER_WORDS: dict[TurnOrder, str] = {
    "recorded": "as recorded",
    "wrong": "most wrong steps first",
    "least": "least accepted first",
}
#: Steps whose texts and margins are read; those of the turns after them are found by the rest.
MOST_READ = 4_000


def show_find_page(arguments: Arguments, view: View) -> None:
    """The whole page."""
    try:
        with open_run(arguments, view.run) as reader, open_pair(arguments, view, reader) as pair:
            _show(arguments, view, reader, pair)
    except SpecScopeError as error:
        st.html(note("bad", "This cannot be shown", [str(error)]))


def _show(arguments: Arguments, view: View, reader: TraceReader, pair: OpenPair | None) -> None:
    with st.container(key="controls", horizontal=True, vertical_alignment="bottom"):
        choose_run(arguments, view)
        words = _asked_for(view)
        _choose_order(view)
    show_warnings(reader)
    states = states_of(reader, pair)
    hits, error = None, None
    try:
        query = parse_query(words)
        if not query.is_empty:
            hits = [_found(step) for step in query.find(_facts(arguments, reader, states, pair))]
    except UsageError as problem:
        error = str(problem)

    def asked(request: str) -> None:
        place = _PLACE.fullmatch(request)
        if place is not None:
            view.page = "step"
            view.look_at(view.run, int(place[1]), int(place[2]))

    rows = [TurnRow(turn.turn, visible(turn.prompt_id), states.of_turn(turn.turn)) for turn in reader.turns]
    board = turns_board(in_order(rows, view.order), hits, error)
    show_one_board(board, key="find", title=view.title, on_request=asked)


def in_order(rows: Sequence[TurnRow], order: TurnOrder) -> list[TurnRow]:
    """The turns in that order; equal ones as they were recorded."""
    if order == "wrong":
        return sorted(rows, key=lambda turn: -turn.num_wrong)
    if order == "least":
        lengths = {turn.turn: turn.accepted_length for turn in rows}
        return sorted(rows, key=lambda turn: math.inf if (length := lengths[turn.turn]) is None else length)
    return list(rows)


def _choose_order(view: View) -> None:
    """How the turns follow each other."""

    def chosen() -> None:
        view.order = st.session_state["order"]

    st.session_state["order"] = view.order
    st.selectbox("Turns", ORDERS, format_func=ORDER_WORDS.__getitem__, key="order", on_change=chosen, width=200)


def _asked_for(view: View) -> str:
    """What is looked for: as it is typed, or as the link says."""

    def typed() -> None:
        view.find = st.session_state[WORDS] or ""

    if (st.session_state.get(WORDS) or "") != view.find:
        st.session_state[WORDS] = view.find
    st.text_input(
        "Find",
        key=WORDS,
        on_change=typed,
        placeholder="accepted:0, is:violated, a token",
        help=HOW,
        width=480,
        live=True,
        max_chars=LONGEST_FIND,
    )
    return view.find


def _found(step: StepFacts) -> FoundStep:
    what = ", ".join(filter(None, [MEANINGS[step.state], *step.violated]))
    return FoundStep(step.turn, step.step, step.prompt, accepted=step.accepted, what=what, text=step.text)


class _Read(NamedTuple):
    """What only the step itself tells."""

    text: str
    margin: float | None


def _facts(arguments: Arguments, reader: TraceReader, states: RunStates, pair: OpenPair | None) -> list[StepFacts]:
    """What is known of every step."""
    report = oracle_report_of(reader)
    violated = report.by_step if report is not None else {}
    kinds = _kinds(pair.comparison.verdict.roots, pair.side) if pair is not None else {}
    read = _read(reader.path, reader.index.stamp, arguments.tokenizer, _reader=reader)
    facts = []
    for turn in reader.turns:
        positions = step_positions(reader, turn)
        for at, strip in enumerate(states.of_turn(turn.turn)):
            spot = Spot(turn.turn, at)
            known = read.get(spot, _Read("", None))
            names = tuple(violation.invariant for violation in violated.get(spot, ()))
            facts.append(
                StepFacts(
                    turn=turn.turn,
                    step=at,
                    prompt=visible(turn.prompt_id),
                    accepted=strip.accepted,
                    state=strip.state,
                    violated=names,
                    kind=kinds.get(spot, ""),
                    text=known.text,
                    margin=known.margin,
                    committed=int(positions[at]) if positions is not None and at < len(positions) else None,
                )
            )
    return facts


def _kinds(roots: Sequence[Root], side: Side) -> dict[Spot, str]:
    """By step of this side, the kinds of the roots that begin there."""
    kinds: dict[Spot, str] = {}
    for root in roots:
        place = root.place
        spot = Spot(place.turn, place.step_a) if side == "a" else Spot(place.turn_b, place.step_b)
        kinds[spot] = f"{kinds.get(spot, '')} {root.difference.kind} {root.difference.phase}".strip()
    return kinds


@st.cache_resource(show_spinner="Reading the steps", max_entries=4, hash_funcs=HASHED)
def _read(trace: Path, stamp: str, tokenizer: Path | None, *, _reader: TraceReader) -> dict[Spot, _Read]:
    """Texts and margins of the first steps; kept by the trace and its stamp."""
    texts = token_texts(tokenizer, _reader)
    read: dict[Spot, _Read] = {}
    for turn in _reader.turns:
        if len(read) >= MOST_READ:
            break
        for number, step in readable_steps(_reader, turn):
            texts.learn(step)
            emitted = step.stop.emitted[: step.stop.kept] if step.stop is not None else []
            read[Spot(turn.turn, number)] = _Read(texts.joined(emitted), _margin(step))
    return read


def _margin(step: Step) -> float | None:
    """The smallest gap between the teacher's two best logits where the walk stood; None where none was recorded."""
    places = [0, *step.accept.path] if step.accept is not None else []
    gaps = []
    for slot in places:
        logits = [choice.logit for choice in teacher_choices(step, slot) if choice.logit is not None]
        if len(logits) == 2 and math.isfinite(logits[0] - logits[1]):
            gaps.append(abs(logits[0] - logits[1]))
    return min(gaps, default=None)
