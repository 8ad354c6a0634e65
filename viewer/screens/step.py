"""The Step page: one step of one turn of one run, and the way from step to step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from specscope.schemas import Step
from specscope.tracer.errors import SpecScopeError, TraceError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.notes import Note, NotedStep
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.requests import row_lines
from specscope.tracer.naming.rules import is_lossy, rule_text
from specscope.tracer.oracle.step import context_of
from specscope.viewer.drawing.board import Board
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.labels.failed import FailedStep, failed_after, failed_step_note
from specscope.viewer.drawing.labels.manifest import created_text
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.markup import NOTHING, Markup
from specscope.viewer.drawing.step.board import Further, step_board, unreadable_board
from specscope.viewer.drawing.step.noted import NoteField
from specscope.viewer.drawing.step.phases import PhaseWindow
from specscope.viewer.drawing.step.raw import raw_text
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.history import CommittedStep, committed_step
from specscope.viewer.drawing.svg.phases import TimedStep
from specscope.viewer.drawing.svg.strip import StripStep, draw_strip
from specscope.viewer.drawing.tables.health import LOSSY_LINE, no_steps_note
from specscope.viewer.pairs.looks import beside_baseline, beside_candidate, marks_beside
from specscope.viewer.pairs.pairs import turn_named
from specscope.viewer.pairs.states import RunStates, Spot
from specscope.viewer.runs.judge import judged_step
from specscope.viewer.runs.timings import steps_around, timed_step, timed_steps
from specscope.viewer.screens.controls import (
    branches_of,
    choose_run,
    choose_turn,
    follow,
    go,
    go_to_turn_or_place,
    show_moves,
    show_place_note,
    show_warnings,
    toggle_branches,
    what_is_unfolded,
)
from specscope.viewer.screens.inspector import Noted, Walk, show_board
from specscope.viewer.screens.noted import keep_note, notes_of, notes_stamp, show_note_problem
from specscope.viewer.screens.session import (
    HASHED,
    Arguments,
    OpenPair,
    as_typed,
    open_pair,
    open_run,
    remember_view,
    states_of,
    token_texts,
)
from specscope.viewer.screens.view import View, clamp

#: In the session's state: whether the cache over the last steps is drawn; and of how many steps.
SHOW_HISTORY, HISTORY_STEPS = "show_history", 20
#: The same of phases over time: of how many steps, by the place in the list of what can be asked for.
SHOW_PHASES, PHASE_STEPS, FIRST_PHASES = "show_phases", (1, 5, 20, 80), 2


@st.fragment
def show_step_page(arguments: Arguments, view: View) -> None:
    """The whole page. A fragment: from step to step, nothing else of the app runs again."""
    if view.page != "step":  # steps are looked for
        st.rerun(scope="app")
    try:
        with open_run(arguments, view.run) as reader, open_pair(arguments, view, reader) as pair:
            _show(arguments, view, reader, pair)
    except SpecScopeError as error:
        st.html(note("bad", "This cannot be shown", [str(error)]))
    remember_view(view)


class _Turn(NamedTuple):
    """The turn that is shown."""

    entry: TurnEntry
    failed: FailedStep | None  # after its last step; None where none failed, or it cannot be drawn

    @property
    def num_steps(self) -> int:
        """Of the steps that can be shown."""
        return len(self.entry.steps) + (self.failed is not None)

    def step(self, reader: TraceReader, number: int) -> Step:
        """A step that can be shown; that which failed is the last."""
        if self.failed is not None and number == len(self.entry.steps):
            return self.failed.step
        return reader.step(self.entry, number)

    def steps(self, reader: TraceReader, numbers: Iterable[int]) -> Iterator[Step]:
        """Those of these steps that can be read."""
        for number in numbers:
            with contextlib.suppress(TraceError):
                yield self.step(reader, number)

    def strip(self, states: RunStates, notes: Mapping[NotedStep, Note]) -> Markup:
        """The overview of the turn."""
        failed = [StripStep(0, "failed")] if self.failed is not None else []
        steps = [*states.of_turn(self.entry.turn), *failed]
        return draw_strip([replace(step, noted=(self.entry.turn, at) in notes) for at, step in enumerate(steps)])


def _show(arguments: Arguments, view: View, reader: TraceReader, pair: OpenPair | None) -> None:
    was_placed = view.placed_in is not None
    _arrive(view, pair)
    asked_for = Spot(view.turn, view.step) if was_placed else None
    states = states_of(reader, pair)
    turn = _choose(arguments, view, reader, states)
    show_warnings(reader)
    if turn is None:
        return
    show_place_note(asked_for, Spot(view.turn, view.step))
    _show_rule(reader)
    _show_row(reader, turn.entry)
    if turn.failed is not None and view.step == len(turn.entry.steps):
        st.html(failed_step_note(turn.failed, as_typed(reader.path)))

    notes = notes_of(reader)
    show_note_problem()

    def drawn(step: int) -> Board:
        try:
            marks = _marks(pair, Spot(view.turn, step))
            further = _further(arguments, reader, turn, step=step, notes=notes)
            return _board(arguments, view, reader, turn, step=step, marks=marks, further=further)
        except TraceError as error:  # it takes nothing from the steps around it, which are drawn ahead of it too
            return unreadable_board(str(error))

    clicks = _Clicks(view, reader, turn)
    show_board(
        lambda: replace(drawn(view.step), strip=turn.strip(states, notes)),
        key="inspector",
        title=view.title,
        now=view.step,
        picked=view.node,
        on_pick=clicks.picked,
        on_request=clicks.asked,
        walk=Walk(repr((view.run, view.turn)), _scene(view, reader, pair), turn.num_steps, drawn),
        on_note=clicks.noted,
    )


class _Clicks(NamedTuple):
    """Does what clicks on the board ask for; what they may not ask for is ignored."""

    view: View
    reader: TraceReader
    turn: _Turn

    def picked(self, name: str | None) -> None:
        self.view.node = name

    def asked(self, request: str) -> None:
        what, _, where = request.partition(":")
        if what == "step" and where.isdecimal():
            go(self.view, Spot(self.view.turn, clamp(int(where), self.turn.num_steps)))
        elif request == "find":
            self.view.page = "find"
        elif what in ("turn", "place"):
            go_to_turn_or_place(self.view, self.reader.turns, request)
        elif what == "history":
            st.session_state[SHOW_HISTORY] = where == "show"
        elif what == "phases":
            _ask_phases(where)
        else:
            toggle_branches(self.view, request)

    def noted(self, note: Noted) -> None:
        if note.step < self.turn.num_steps:
            keep_note(self.reader, NotedStep(self.turn.entry.turn, note.step), note.text)


def _scene(view: View, reader: TraceReader, pair: OpenPair | None) -> str:
    """Whatever a board depends on besides its step."""
    beside = () if pair is None else (pair.side, pair.partner.index.stamp, pair.comparison.verdict.axis)
    return repr(
        (view.run, reader.index.stamp, view.turn, beside, what_is_unfolded(), _shown_besides(), notes_stamp(reader))
    )


def _is_history_shown() -> bool:
    return bool(st.session_state.get(SHOW_HISTORY))


def _shown_besides() -> tuple[bool, int | None]:
    return _is_history_shown(), _phases_shown()


def _phases_shown() -> int | None:
    """The place in ``PHASE_STEPS``; None where no phases are drawn."""
    shown: int | None = st.session_state.get(SHOW_PHASES)
    return shown


def _ask_phases(how: str) -> None:
    now = FIRST_PHASES if (shown := _phases_shown()) is None else shown
    places = {"show": FIRST_PHASES, "fewer": now - 1, "more": now + 1}
    st.session_state[SHOW_PHASES] = clamp(places[how], len(PHASE_STEPS)) if how in places else None


def _phases(reader: TraceReader, turn: _Turn, step: int) -> PhaseWindow | None:
    """The recorded times of the steps around ``step``, where they were asked for."""
    shown, num_steps = _phases_shown(), len(turn.entry.steps)
    if shown is None or step >= num_steps:
        return None
    steps = steps_around(step, num_steps, PHASE_STEPS[shown])
    timed = timed_steps(reader, turn.entry, steps, lambda number: _timed(reader, turn.entry, number))
    has_more = shown + 1 < len(PHASE_STEPS) and len(steps) < num_steps
    return PhaseWindow(timed, has_fewer=shown > 0, has_more=has_more)


def _timed(reader: TraceReader, turn: TurnEntry, step: int) -> TimedStep:
    return _kept_times(reader.path, (reader.index.stamp, turn.turn, step), _source=(reader, turn))


@st.cache_resource(show_spinner=False, max_entries=4096, hash_funcs=HASHED)
def _kept_times(trace: Path, key: tuple[str, int, int], *, _source: tuple[TraceReader, TurnEntry]) -> TimedStep:
    """Kept by the trace, its stamp, the turn's number and the step's: from step to step most of them stay in sight."""
    return timed_step(*_source, key[-1])


def _further(
    arguments: Arguments, reader: TraceReader, turn: _Turn, *, step: int, notes: dict[NotedStep, Note]
) -> Further:
    """What is offered besides the step: its note, and what was asked for: the cache over the last steps, phases."""
    place = NotedStep(turn.entry.turn, step)
    note = notes.get(place)
    field = NoteField(
        step=step,
        text="" if note is None else note.text,
        written="" if note is None else created_text(note.written),
        place=f"{reader.manifest.run_id} {place.turn} {place.step}",
    )
    history: list[CommittedStep] = []
    if _is_history_shown():
        texts = token_texts(arguments.tokenizer, reader)
        for record in turn.steps(reader, range(max(0, step - HISTORY_STEPS + 1), step + 1)):
            texts.learn(record)
            history += filter(None, [committed_step(StepView(record, texts))])
    return Further(field, history, _phases(reader, turn, step), offers_phases=True)


def _board(
    arguments: Arguments,
    view: View,
    reader: TraceReader,
    turn: _Turn,
    *,
    step: int,
    marks: NodeMarks,
    further: Further,
) -> Board:
    texts = token_texts(arguments.tokenizer, reader)
    record = turn.step(reader, step)
    texts.learn(record)
    judged = judged_step(context_of(reader, turn.entry, step, record), texts, marks)
    board = step_board(judged, strip=NOTHING, branches=branches_of(view, step), further=further)
    if turn.failed is not None and record is turn.failed.step:
        return replace(board, raw={**board.raw, "step": raw_text(turn.failed.failure)})
    return board


def _show_rule(reader: TraceReader) -> None:
    """What to know about the acceptance rule, where it is not greedy."""
    sampling = reader.manifest.sampling
    if is_lossy(sampling):
        st.html(note("warn", rule_text(sampling), [LOSSY_LINE]))
    elif sampling.rule != "greedy":
        st.html(quiet(f"{rule_text(sampling)}: tokens are drawn, so the teacher's top token may not be emitted"))


def _show_row(reader: TraceReader, entry: TurnEntry) -> None:
    """Which row of a batch the turn was, where rows were decoded side by side, and when its request came and went."""
    for line in row_lines(reader.manifest, reader.turn_start(entry), reader.turn_end(entry)):
        st.html(quiet(line))


def _arrive(view: View, pair: OpenPair | None) -> None:
    """Where to look when coming from another run: at the partner of its step, else at the beginning."""
    if view.placed_in in (view.run, None):
        view.placed_in = view.run
        return
    spot = None
    if pair is not None and view.placed_in in (view.baseline, view.candidate):
        beside = beside_baseline if pair.side == "b" else beside_candidate
        spot = beside(pair.comparison, Spot(view.turn, view.step))
    view.look_at(view.run, *(spot or Spot(0, 0)))


def _marks(pair: OpenPair | None, at: Spot) -> NodeMarks:
    """The nodes of a step that differ from the other run of a pair."""
    if pair is None:
        return NodeMarks()
    return marks_beside(pair.baseline, pair.candidate, pair.comparison, side=pair.side, at=at)


def _turn(view: View, reader: TraceReader) -> _Turn | None:
    """The turn of ``view``, else the first; None where there is none."""
    entry = turn_named(reader, view.turn) or next(iter(reader.turns), None)
    if entry is None:
        return None
    return _Turn(entry, failed_after(entry, reader.failures(), reader.manifest.sampling))


def _choose(arguments: Arguments, view: View, reader: TraceReader, states: RunStates) -> _Turn | None:
    """The controls; the turn chosen, with ``view`` in its range, or None where it has no step to show."""
    with st.container(key="controls", horizontal=True, vertical_alignment="bottom"):
        choose_run(arguments, view)
        follow(view, reader)
        turn = _turn(view, reader)
        if turn is not None:
            view.turn = turn.entry.turn
            view.step = clamp(view.step, turn.num_steps)
            choose_turn(view, reader.turns)
            show_moves(view, turn.num_steps, states)
    if turn is None:
        st.html(note("info", "This trace holds no turns yet", ["Decode a prompt with tracing on, then reload."]))
    elif not turn.num_steps:
        st.html(no_steps_note(reader, turn.entry))
    return turn if turn is not None and turn.num_steps else None
