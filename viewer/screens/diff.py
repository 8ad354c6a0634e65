"""The Diff page: the verdict's card, both trees where the two runs diverge, and the way through all pairs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from specscope.tracer.compare.diff import Comparison, DiffOptions
from specscope.tracer.errors import SpecScopeError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.notes import NotedStep
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import visible
from specscope.tracer.report import json as json_report
from specscope.tracer.report.card import compared_text
from specscope.tracer.report.report import Report
from specscope.tracer.report.values import SideTexts
from specscope.viewer.drawing.board import Board, card
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import box, folded
from specscope.viewer.drawing.labels.manifest import created_text
from specscope.viewer.drawing.labels.numbers import about_seconds
from specscope.viewer.drawing.markup import NOTHING, Markup, joined
from specscope.viewer.drawing.pair.board import Front, pair_board
from specscope.viewer.drawing.step.noted import note_text
from specscope.viewer.drawing.svg.strip import draw_strip, strip_key
from specscope.viewer.drawing.tables.verdict_card import (
    allow_buttons,
    command_card,
    command_names,
    differing_fields,
    next_commands,
    proof,
    root_list,
    verdict_card,
)
from specscope.viewer.pairs.failed import failed_spot
from specscope.viewer.pairs.looks import LookedAt, PairRun, beside_candidate, first_spot, look_at
from specscope.viewer.pairs.pairs import turn_named
from specscope.viewer.pairs.states import RunStates, Spot
from specscope.viewer.report.pair_report import ROOTS_IN_REPORT, PairTexts, pair_report
from specscope.viewer.screens.controls import (
    branches_of,
    choose_turn,
    go,
    go_to_turn_or_place,
    show_moves,
    show_place_note,
    show_warnings,
    toggle_branches,
    what_is_unfolded,
)
from specscope.viewer.screens.inspector import SavedFile, Walk, show_board
from specscope.viewer.screens.noted import notes_of, notes_stamp
from specscope.viewer.screens.session import (
    Arguments,
    OpenPair,
    allow_reading,
    comparison_of,
    open_run,
    oracle_report_of,
    remember_view,
    seconds_to_read,
    states_of,
    token_texts,
)
from specscope.viewer.screens.view import View, clamp

BOARD = "pair"
#: In the session's state: which file is to be saved, ``verdict`` or ``report``.
SAVE = "save"


@st.fragment
def show_diff_page(arguments: Arguments, view: View) -> None:
    """The whole page. A fragment: from pair to pair, nothing else of the app runs again."""
    if view.page != "diff":  # a step was opened
        st.rerun(scope="app")
    controls = st.container(key="controls", horizontal=True, vertical_alignment="bottom", gap="xsmall")
    with controls:
        _choose_runs(arguments, view)
    try:
        with open_run(arguments, view.baseline) as a, open_run(arguments, view.candidate) as b:
            _show(arguments, view, BothReaders(a, b), controls)
    except SpecScopeError as error:
        st.html(note("bad", "This cannot be shown", [str(error)]))
    remember_view(view)


def _show(arguments: Arguments, view: View, pair: BothReaders, controls: DeltaGenerator) -> None:
    comparison = comparison_of(*pair, view.allow)
    if comparison is None:
        _ask_to_read(*pair)
        return
    _arrive(view, comparison, pair)
    asked_for = Spot(view.turn, view.step)
    states = states_of(pair.a, OpenPair(pair.a, pair.b, comparison, "a"))
    with controls:
        entry = _choose(view, pair.a, states, comparison)
    for reader, role in zip(pair, ("Baseline", "Candidate"), strict=True):
        show_warnings(reader, role)
    if entry is not None:
        show_place_note(asked_for, Spot(view.turn, view.step))
    a, b = _runs(arguments, view, pair)
    here = look_at(a, b, comparison, Spot(entry.turn, view.step)) if entry is not None else None

    steps = states.of_turn(entry.turn) if entry is not None else []

    def drawn(there: LookedAt | None, step: int) -> Board:
        front = replace(
            _front(comparison, there, a, b, allow=view.allow),
            notes=_notes(pair, Spot(view.turn, step), there),
            key=strip_key(steps),
        )
        look = there.look if there is not None else None
        return pair_board(front, look, strip=NOTHING, branches=branches_of(view, step))

    walk = _walk(view, entry, pair, lambda at: drawn(look_at(a, b, comparison, at), at.step))
    strip = draw_strip(steps) if steps else NOTHING
    clicks = _Clicks(view=view, comparison=comparison, turns=pair.a.turns, entry=entry, here=here)
    show_board(
        lambda: replace(drawn(here, view.step), strip=strip),
        key=BOARD,
        title=view.title,
        now=view.step,
        picked=view.node,
        on_pick=clicks.picked,
        on_request=clicks.asked,
        walk=walk,
        file=_file(arguments, view, pair, comparison),
    )


def _runs(arguments: Arguments, view: View, pair: BothReaders) -> list[PairRun]:
    """Both runs with the texts of their tokens."""
    names = zip(pair, (view.baseline, view.candidate), strict=True)
    return [PairRun(reader, token_texts(arguments.tokenizer, reader), visible(name or "")) for reader, name in names]


def _notes(pair: BothReaders, here: Spot, there: LookedAt | None) -> Markup:
    """What somebody noted on the two steps; a note is written on the page of its step."""
    spots = (here, there.beside if there is not None else None)
    parts = []
    for reader, role, spot in zip(pair, ("Baseline", "Candidate"), spots, strict=True):
        noted = notes_of(reader).get(NotedStep(*spot)) if spot is not None else None
        if noted is not None:
            parts += [quiet(f"{role}, noted {created_text(noted.written)}"), note_text(noted.text)]
    return box(*parts) if parts else NOTHING


def _file(arguments: Arguments, view: View, pair: BothReaders, comparison: Comparison) -> SavedFile | None:
    """What was asked for: what ``specscope diff --format json`` prints, or what ``specscope report`` writes."""
    asked = st.session_state.pop(SAVE, None)
    name = f"{_stem(view.baseline)}-{_stem(view.candidate)}"
    if asked == "verdict":
        return SavedFile(f"{name}.verdict.json", json_report.render(Report(comparison.verdict)))
    if asked == "report":
        options = DiffOptions(allowed=frozenset(view.allow))
        texts = PairTexts.load(arguments.tokenizer, pair.a.path, pair.b.path)
        written = pair_report(pair.a.path, pair.b.path, options, most_roots=ROOTS_IN_REPORT, texts=texts)
        return SavedFile(f"{name}.html", written.page, "text/html")
    return None


def _stem(name: str | None) -> str:
    return re.sub(r"[^\w.-]+", "-", name or "", flags=re.ASCII).removesuffix(".jsonl")[-60:]


def _walk(view: View, entry: TurnEntry | None, pair: BothReaders, draw: Callable[[Spot], Board]) -> Walk | None:
    """The steps of the turn; None where there is none to show."""
    if entry is None:
        return None
    turn = entry.turn
    place = repr((view.baseline, view.candidate, turn))
    stamps = [(reader.index.stamp, notes_stamp(reader)) for reader in pair]
    scene = repr((place, stamps, view.allow, what_is_unfolded()))
    return Walk(place, scene, len(entry.steps), lambda step: draw(Spot(turn, step)))


class BothReaders(NamedTuple):
    """The two runs of the page."""

    a: TraceReader
    b: TraceReader


class _Clicks(NamedTuple):
    """Does what clicks on the board ask for; what they may not ask for is ignored."""

    view: View
    comparison: Comparison
    turns: list[TurnEntry]  # of the baseline
    entry: TurnEntry | None
    here: LookedAt | None

    def picked(self, name: str | None) -> None:
        self.view.node = name

    def asked(self, request: str) -> None:
        what, _, which = request.partition(":")
        if toggle_branches(self.view, request):
            return
        if what == "open":
            self._open(which)
        elif request == "find":
            self.view.page, self.view.run = "find", self.view.candidate
        elif what in ("turn", "place"):
            go_to_turn_or_place(self.view, self.turns, request)
        elif request in ("save:report", "save:verdict"):
            st.session_state[SAVE] = which
        elif request in ("allow:all", "allow:none"):
            self.view.look_anew()
            self.view.allow = differing_fields(self.comparison.verdict) if which == "all" else ()
        elif request == "metrics":
            self.view.page, self.view.run = "metrics", self.view.candidate
        elif which.isascii() and which.isdecimal():
            self._go(what, int(which))

    def _go(self, what: str, number: int) -> None:
        roots = self.comparison.verdict.roots
        if what == "step" and self.entry is not None:
            go(self.view, Spot(self.view.turn, clamp(number, len(self.entry.steps))))
        elif what == "root" and number < len(roots):
            go(self.view, Spot(roots[number].place.turn, roots[number].place.step_a))

    def _open(self, side: str) -> None:
        if side == "a" and self.entry is not None:
            _open(self.view, "baseline", Spot(self.view.turn, self.view.step))
        elif side == "b" and self.here is not None and self.here.beside is not None:
            _open(self.view, "candidate", self.here.beside)


def _front(comparison: Comparison, here: LookedAt | None, a: PairRun, b: PairRun, *, allow: tuple[str, ...]) -> Front:
    """Card, proof and commands; of the root that is looked at, or that this pair follows from, else of the first."""
    verdict = comparison.verdict
    number = here.root if here is not None and here.root is not None else 0
    root = verdict.roots[number] if number < len(verdict.roots) else None
    if root is not None:  # its tokens have texts even where another step is looked at
        a.learn(Spot(root.place.turn, root.place.step_a))
        b.learn(Spot(root.place.turn_b, root.place.step_b))
    commands = next_commands(verdict, root)
    shared = proof(verdict, a.reader.manifest)
    if root is None:
        aside = card("proof", "What was compared", "why these two belong together", shared)
    else:  # the drawings in which the divergence begins come first
        counts = compared_text(verdict).partition(";")[0]
        aside = box(folded("What was compared", shared, aside=counts), kind="ss-card-proof")
    if commands:
        aside = joined([command_card(commands), aside])
    listed = joined([root_list(verdict, root) if verdict.roots else NOTHING, allow_buttons(verdict, allow)])
    shown = verdict_card(verdict, root, SideTexts(a.texts, b.texts), below=listed)
    return Front(card=shown, aside=aside, raw=command_names(commands))


def _arrive(view: View, comparison: Comparison, pair: BothReaders) -> None:
    """Where to look first: coming from a step of either run at its pair, else where the two diverge."""
    if view.placed_in == view.baseline:
        return
    spot = None
    if view.placed_in == view.candidate:
        spot = beside_candidate(comparison, Spot(view.turn, view.step))
    else:
        spot = failed_spot(*pair, comparison) if comparison.verdict.verdict == "uncovered" else None
        spot = spot or first_spot(comparison, [oracle_report_of(reader) for reader in pair])
    node = view.node if view.placed_in is None else None
    view.look_at(view.baseline, *(spot or Spot(0, 0)))
    view.node = node


def _choose(view: View, a: TraceReader, states: RunStates, comparison: Comparison) -> TurnEntry | None:
    """Turn and moves; the baseline's turn, with the view in its range, or None where there is no step to show."""
    entry = turn_named(a, view.turn) or next(iter(a.turns), None)
    if entry is None or comparison.verdict.verdict == "incomparable":
        return None
    view.turn, view.step = entry.turn, clamp(view.step, len(entry.steps))
    choose_turn(view, a.turns, width=200)
    show_moves(view, len(entry.steps), states)
    return entry if entry.steps else None


def _choose_runs(arguments: Arguments, view: View) -> None:
    names = [run.name for run in arguments.catalogue.runs()]

    def chooser(label: str, field: Literal["baseline", "candidate"]) -> None:
        def chosen() -> None:
            setattr(view, field, st.session_state[field])
            view.look_anew()

        st.session_state[field] = getattr(view, field)
        st.selectbox(label, names, format_func=visible, key=field, on_change=chosen, width=180)

    def swap() -> None:
        view.baseline, view.candidate = view.candidate, view.baseline
        view.look_anew()

    chooser("Baseline", "baseline")
    st.button("⇄", key="swap", help="Swap baseline and candidate", on_click=swap)
    chooser("Candidate", "candidate")


def _ask_to_read(a: TraceReader, b: TraceReader) -> None:
    lines = [f"Comparing them reads both as a whole, which takes {about_seconds(seconds_to_read(a, b))}."]
    st.html(note("info", "These traces are large", lines))
    if st.button("Compare them", key="compare", type="primary"):
        allow_reading(a, b)
        st.rerun()


def _open(view: View, which: Literal["baseline", "candidate"], at: Spot) -> None:
    view.page, view.run = "step", getattr(view, which)
    view.look_at(view.run, *at)
