"""The report of one run: its settings, its health, and the trees of the steps chosen. Reads one step at a time."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from specscope.schemas import Step
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.notes import read_notes
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.requests import row_lines
from specscope.tracer.naming.text import counted
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.oracle.report import OracleReport
from specscope.tracer.report.card import MAX_PROMPT, one_line
from specscope.viewer.drawing.board import card, columns
from specscope.viewer.drawing.fragments import commands, facts, legend, note, quiet
from specscope.viewer.drawing.frames import box, scrolled
from specscope.viewer.drawing.labels.numbers import length_facts
from specscope.viewer.drawing.markup import NOTHING, Markup, joined, markup
from specscope.viewer.drawing.step.phases import PhaseWindow, phases_card
from specscope.viewer.drawing.svg.strip import draw_strip
from specscope.viewer.drawing.tables.health import health_notes, health_of, no_steps_note
from specscope.viewer.drawing.tables.invariants import Lead, invariant_table
from specscope.viewer.pairs.states import RunStates, Spot
from specscope.viewer.report.choice import Choice, Wanted, choose_steps, turns_by_number
from specscope.viewer.report.noted_part import notes_card
from specscope.viewer.report.page import Group, Part, Written, link, report_page
from specscope.viewer.report.run_words import run_words
from specscope.viewer.report.step_part import step_id, step_part
from specscope.viewer.report.timeline_part import timeline_part
from specscope.viewer.runs.judge import judged_step
from specscope.viewer.runs.summary import mean_accepted_length
from specscope.viewer.runs.timings import steps_around, timed_steps

#: Where more nodes are drawn in all, steps that are not in focus are drawn plainly: 0.4 kB per node instead of 1 kB.
MOST_NODES = 1200
MOST_WITHOUT = 3  # turns without a step that are mentioned
PHASE_STEPS = 20  # whose phases are drawn, around the first step of a turn that is drawn


def run_report(path: Path, wanted: Wanted, texts: TokenTexts) -> Written:
    """The report of the trace at ``path``.

    Raises:
        TraceError: where it cannot be read.
        UsageError: where the turn or the step asked for is not there.
    """
    with TraceReader(path) as reader:
        report = check_trace(path)
        states = RunStates(reader.turns, report)
        choice = choose_steps(reader.turns, states.stops, wanted)
        plainly = _num_nodes(reader, choice) > MOST_NODES
        drawing = _Drawing(reader=reader, choice=choice, states=states, texts=texts, plainly=plainly)
        groups = [drawing.turn(turn) for turn in _drawn_turns(reader, choice)]
        notes = notes_card(read_notes(path, reader.manifest.run_id), _lead(choice))
        head = joined([_head(reader, report, choice, plainly=plainly), notes])
    return Written(report_page(f"SpecScope report: {path.name}", head, groups), run_headline(report))


def run_headline(report: OracleReport) -> str:
    """The oracle's verdict in one line."""
    words = []
    if report.num_violations:
        broken = sum(tally.failed > 0 for tally in report.invariants.values())
        words.append(f"VIOLATED: {counted(broken, 'invariant')}, {counted(report.num_violations, 'time')}")
    if report.failures or report.end_reason == "failed":
        words.append("FAILED RUN")
    if report.truncated or report.torn_bytes:
        words.append("TRUNCATED")
    if not words:
        passed = sum(tally.passed for tally in report.invariants.values())
        words.append(f"ok: {counted(passed, 'check')} hold" if passed else "nothing was recorded that could be checked")
    return f"{', '.join(words)}; {counted(report.num_turns, 'turn')}, {counted(report.num_steps, 'step')}"


def _lead(choice: Choice) -> Lead:
    """Links to the steps that the page draws."""

    def lead(turn: int, step: int) -> Markup:
        if step not in choice.steps.get(turn, ()):
            return NOTHING
        return markup("<div>{link}</div>", link=link(step_id(turn, step), f"Go to turn {turn}, step {step}"))

    return lead


def _head(reader: TraceReader, report: OracleReport, choice: Choice, *, plainly: bool) -> Markup:
    lead = _lead(choice)
    notes = health_notes(health_of(reader, reader.path, report), lead)
    health = joined([notes, invariant_table(report, lead)])
    num_steps = sum(len(turn.steps) for turn in reader.turns)
    following = card("next", "Next", "commands to run", commands(_next(reader.path, choice)))
    return joined(
        [
            box(facts(length_facts(len(reader.turns), num_steps, mean_accepted_length(reader)))),
            card("health", "Health", run_headline(report), health),
            columns(
                [card("run", "The run", "", run_words(reader))],
                [following, _steps_words(reader, choice, plainly=plainly)],
                kind="halves",
            ),
        ]
    )


def _steps_words(reader: TraceReader, choice: Choice, *, plainly: bool) -> Markup:
    if not reader.turns:
        line = "Decode a prompt with tracing on: specscope run --trace FILE"
        return note("info", "This trace holds no turns", [line])
    if not choice.steps:
        return joined(no_steps_note(reader, turn) for turn in reader.turns[:MOST_WITHOUT])
    plain = " They are many, so they are drawn plainly: --step N shows one with its mask and its commit."
    return box(quiet(choice.words + (plain if plainly else "")), legend())


def _next(path: Path, choice: Choice) -> list[str]:
    """What to type for more."""
    name = shlex.quote(str(path))
    spot = min(choice.focus, default=None) or next((Spot(t, s[0]) for t, s in choice.steps.items()), None)
    show = [] if spot is None else [f"specscope show {name} --turn {spot.turn} --step {spot.step}"]
    return [f"specscope check {name}", *show, f"specscope view {name}"]


def _drawn_turns(reader: TraceReader, choice: Choice) -> list[TurnEntry]:
    known = turns_by_number(reader.turns)
    return [known[turn] for turn in choice.steps]


def _num_nodes(reader: TraceReader, choice: Choice) -> int:
    known = turns_by_number(reader.turns)
    steps = (reader.step(known[turn], step) for turn, steps in choice.steps.items() for step in steps)
    return sum(len(step.tree.tokens) for step in steps if step.tree is not None)


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """What every turn of the report is drawn from."""

    reader: TraceReader
    choice: Choice
    states: RunStates
    texts: TokenTexts
    plainly: bool  # steps that are not in focus

    def turn(self, turn: TurnEntry) -> Group:
        """The strip and the chosen steps of a turn."""
        focus = {spot.step for spot in self.choice.focus if spot.turn == turn.turn}
        current = min(focus) if len(focus) == 1 else None
        strip = scrolled(draw_strip(self.states.of_turn(turn.turn), current=current))
        parts: list[Part] = []
        for number, context in _contexts(self.reader, turn, self.choice.steps[turn.turn]):
            self.texts.learn(context.step)
            plainly = self.plainly and number not in focus
            parts.append(step_part(judged_step(context, self.texts), Spot(turn.turn, number), plainly=plainly))
        aside = f"prompt {one_line(turn.prompt_id, MAX_PROMPT)}, {counted(len(turn.steps), 'step')}"
        lead = card("strip", "Steps", "accepted length of each; ✗ violates an invariant", strip)
        stages = timeline_part(self.reader, turn, self.choice.steps[turn.turn], self.texts)
        return Group(f"Turn {turn.turn}", aside, joined([self._row(turn), lead, stages, self._phases(turn)]), parts)

    def _row(self, turn: TurnEntry) -> Markup:
        """Which row of a batch it was, and when its request came and went; nothing where that is not known."""
        lines = row_lines(self.reader.manifest, self.reader.turn_start(turn), self.reader.turn_end(turn))
        return joined(map(quiet, lines))

    def _phases(self, turn: TurnEntry) -> Markup:
        """The phases around the first step that is drawn; nothing where stages say more, or no times are recorded."""
        steps = self.choice.steps[turn.turn]
        if self.reader.manifest.pipeline is not None or not steps:
            return NOTHING
        timed = timed_steps(self.reader, turn, steps_around(steps[0], len(turn.steps), PHASE_STEPS))
        if all(step.timing is None for step in timed.steps):
            return NOTHING
        return phases_card(PhaseWindow(timed), current=steps[0] if len(steps) == 1 else None, buttons=False)


def _contexts(reader: TraceReader, turn: TurnEntry, numbers: list[int]) -> Iterator[tuple[int, Context]]:
    """Each step with the one before it, read once."""
    start = reader.turn_start(turn)
    last: tuple[int, Step] | None = None
    for number in numbers:
        step = reader.step(turn, number)
        if last is None or last[0] != number - 1:
            before = reader.step(turn, number - 1) if number else None
        else:
            before = last[1]
        yield number, Context(manifest=reader.manifest, turn=start, previous=before, step=step)
        last = (number, step)
