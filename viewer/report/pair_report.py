"""The report of two runs: the verdict, what was compared, and both trees where they diverge. Reads pair by pair."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from specscope.schemas.verdict import Root, Side, Verdict
from specscope.tracer.compare.diff import Comparison, DiffOptions, compare_traces
from specscope.tracer.compare.marks import PairMark, TurnMarks
from specscope.tracer.files.notes import read_notes
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import counted
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.report import OracleReport
from specscope.tracer.oracle.step import context_at
from specscope.tracer.report.card import (
    SIDES,
    Card,
    card_of,
    field_text,
    headline,
    leading_root,
    one_line,
    root_line,
    roots_text,
    where_text,
)
from specscope.tracer.report.causes import Cause, causes_of, one_of_each_cause
from specscope.tracer.report.report import Report
from specscope.tracer.report.sentences import root_sentence
from specscope.tracer.report.values import SideTexts, value_names, value_text
from specscope.viewer.drawing.board import card, columns
from specscope.viewer.drawing.fragments import commands, note, quiet, rows
from specscope.viewer.drawing.frames import box, classes_of, row, scrolled, table
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.pair.board import PairLook
from specscope.viewer.drawing.svg.strip import draw_strip, strip_key
from specscope.viewer.drawing.tables.verdict_card import proof, root_rows, verdict_card
from specscope.viewer.pairs.failed import failed_spot
from specscope.viewer.pairs.looks import PairRun, look_at, pair_of
from specscope.viewer.pairs.pairs import first_pair, marks_of, of_prompt, pair_at, turn_named
from specscope.viewer.pairs.states import Partner, RunStates, Spot
from specscope.viewer.report.choice import AROUND
from specscope.viewer.report.noted_part import notes_card
from specscope.viewer.report.page import Group, Part, Written, link, report_page
from specscope.viewer.report.pair_part import plain_pair, whole_pair
from specscope.viewer.report.run_words import both_runs
from specscope.viewer.report.step_part import step_id, violations
from specscope.viewer.runs.judge import judge

LISTED_ROOTS = 200
ROOTS_IN_REPORT = 3  # that are drawn, unless somebody says how many
ROOT_COLUMNS = ("root", "at", "prompt", "phase", "field", "kind", "inherited")
ROOT_NUMBERS = ("inherited",)
#: Notes of the card that are not part of the proof that the two may be compared.
ALSO = ("also violated", "tie")
MAX_HEADLINE = 400  # characters
MAX_NAME = 100  # characters of a file name
IN_PROMPT = "It begins in the prompt's own forward, before the first step of the turn"


class PairTexts(NamedTuple):
    """Token texts for each run, and for what is about both: texts of one trace must not name the other's tokens."""

    a: TokenTexts
    b: TokenTexts
    both: TokenTexts

    @classmethod
    def load(cls, tokenizer: Path | None, *traces: Path) -> PairTexts:
        """By the tokenizer in a folder, which must fit both traces; without one, by what they recorded themselves.

        Raises:
            UsageError: where it cannot be read, or is not theirs.
        """
        return cls(TokenTexts.load_for(tokenizer, *traces), TokenTexts.load(tokenizer), TokenTexts.load(tokenizer))

    @property
    def sides(self) -> SideTexts:
        """Those of the two runs, for words that name a value of each."""
        return SideTexts(self.a, self.b)


def pair_report(baseline: Path, candidate: Path, options: DiffOptions, *, most_roots: int, texts: PairTexts) -> Written:
    """The report of the traces at ``baseline`` (a) and ``candidate`` (b).

    Raises:
        TraceError: where one of them cannot be read.
        UsageError: where the run to measure noise on does not fit this pair.
    """
    begun = time.monotonic()
    comparison = compare_traces(baseline, candidate, options)
    with TraceReader(baseline) as a, TraceReader(candidate) as b:
        drawing = _Drawing(a, b, comparison, texts)
        parts = drawing.parts(most_roots)
        whole = card_of(Report(comparison.verdict, texts.both, time.monotonic() - begun))
        head = [
            _verdict(comparison.verdict, whole, texts.sides),
            _next(comparison.verdict),
            _roots(comparison.verdict, drawing.ids),
            _compared(a, b, comparison),
            *(_notes(reader) for reader in (a, b)),
        ]
    title = f"SpecScope report: {baseline.name} and {candidate.name}"
    groups = [Group("", "", NOTHING, parts)]
    return Written(report_page(title, joined(head), groups), _headline(comparison.verdict, texts.sides))


def _headline(verdict: Verdict, texts: SideTexts) -> str:
    root = leading_root(verdict)
    where = f" at {where_text(root.place, root.difference.field)}" if root is not None else ""
    return one_line(headline(verdict, texts) + where, MAX_HEADLINE)


def _verdict(verdict: Verdict, whole: Card, texts: SideTexts) -> Markup:
    """The card of the viewer, and what else of ``whole`` is not part of the proof that the two may be compared."""
    also = [row for row in whole.notes if row.name in ALSO]
    return verdict_card(verdict, leading_root(verdict), texts, below=rows(also) if also else NOTHING)


def _compared(a: TraceReader, b: TraceReader, comparison: Comparison) -> Markup:
    """What to do next, and what the two runs are."""
    verdict = comparison.verdict
    both = columns(
        [card("compared", "What was compared", "", proof(verdict, a.manifest))],
        [card("runs", "The runs", "≠ differs", both_runs(a, b))],
        kind="halves",
    )
    lines = ["Record both runs alike, or allow a field: specscope report A B --allow FIELD"]
    not_drawn = note("warn", "Nothing was compared, so no trees are drawn", lines)
    return joined([both, not_drawn if verdict.incomparable else NOTHING])


def _notes(reader: TraceReader) -> Markup:
    notes = read_notes(reader.path, reader.manifest.run_id)
    return notes_card(notes, lambda turn, step: NOTHING, of=one_line(reader.path.name, MAX_NAME))


def _next(verdict: Verdict) -> Markup:
    return card("next", "Next", "commands to run", commands(verdict.next)) if verdict.next else NOTHING


def _roots(verdict: Verdict, ids: dict[int, str]) -> Markup:
    """All roots, those that are drawn as links, below their causes."""
    if len(verdict.roots) < 2:
        return NOTHING
    causes = rows((cause.name, _cause_words(cause, verdict)) for cause in causes_of(verdict.roots)[:LISTED_ROOTS])
    lines = []
    for number, root in enumerate(verdict.roots[:LISTED_ROOTS]):
        line = root_line(number + 1, root)
        first = link(ids[number], str(line.number)) if number in ids else html_text(str(line.number))
        cells = [first, *(html_text(str(cell)) for cell in line[1:])]
        lines.append(row(cells, classes_of(ROOT_COLUMNS, ROOT_NUMBERS)))
    more = len(verdict.roots) - len(lines)
    rest = quiet(f"and {more} more; specscope diff --format json lists them") if more else NOTHING
    listed = table(ROOT_COLUMNS, lines, numbers=ROOT_NUMBERS)
    aside = f"{counted(len(causes_of(verdict.roots)), 'cause')}; {roots_text(verdict)}"
    return card("roots", "Roots", aside, joined([causes, listed, rest]))


def _cause_words(cause: Cause, verdict: Verdict) -> str:
    root = verdict.roots[cause.roots[0]]
    first = where_text(root.place, root.difference.field)
    follow = f"; {counted(cause.inherited, 'later step')} affected" if cause.inherited else ""
    return one_line(f"{counted(len(cause.roots), 'place')}, first in {first}{follow}")


@dataclass
class _Drawing:
    """The parts of a page, and what is on it already: a pair is drawn once."""

    a: TraceReader
    b: TraceReader
    comparison: Comparison
    texts: PairTexts

    def __post_init__(self) -> None:
        self.ids: dict[int, str] = {}  # by index of the root
        self._shown: set[Spot] = set()
        self._at_steps: set[Spot] = set()  # steps of roots, but for those in a prompt
        sides = {blame.side for blame in self.comparison.verdict.violations}
        self._violating: dict[Side, OracleReport] = {
            side: check_trace(reader.path) for side, reader in (("a", self.a), ("b", self.b)) if side in sides
        }
        partner = Partner(self.comparison, "a", self.b.turns, self._violating.get("b"))
        self._states = RunStates(self.a.turns, self._violating.get("a"), partner)
        self._runs: dict[Side, PairRun] = {
            "a": PairRun(self.a, self.texts.a, one_line(self.a.path.name, MAX_NAME)),
            "b": PairRun(self.b, self.texts.b, one_line(self.b.path.name, MAX_NAME)),
        }

    def parts(self, most_roots: int) -> list[Part]:
        """A part for each of the first roots; where none leads, one for what a person should look at first."""
        every = self.comparison.verdict.roots
        drawn = [(number, every[number]) for number in one_of_each_cause(every, most_roots)]
        self._shown = {_spot(root) for _, root in drawn}
        self._at_steps = {_spot(root) for _, root in drawn if not of_prompt(root)}
        parts = [] if leading_root(self.comparison.verdict) is not None else self._first()
        return parts + [self._root(number, root) for number, root in drawn]

    def _root(self, number: int, root: Root) -> Part:
        spot = _spot(root)
        is_used = of_prompt(root) or step_id(*spot) in self.ids.values()
        self.ids[number] = f"root{number + 1}" if is_used else step_id(*spot)
        drawn = self._drawn_root(root)
        words = box(_root_words(root, self.texts))  # last, when the texts of its tokens are known
        difference = root.difference
        return Part(
            id=self.ids[number],
            title=f"Root {number + 1}: {difference.phase}: {one_line(difference.field, 100)}",
            aside=one_line(where_text(root.place, difference.field)),
            body=joined([words, *drawn]),
            sign="≠" if difference.kind == "real" else "",
        )

    def _drawn_root(self, root: Root) -> list[Markup]:
        spot = _spot(root)
        turn = marks_of(self.comparison, root.place.turn)
        mark = None if turn is None else pair_at(turn, root.place.step_a)
        parts = [note("info", IN_PROMPT)] if of_prompt(root) else []
        if of_prompt(root) and spot in self._at_steps:  # another root is drawn there
            parts.append(_elsewhere(root.place.step_a))
        elif turn is not None and mark is not None:
            parts += [self._strip(spot), self._whole(turn, mark), self._around(turn, mark)]
        return parts

    def _first(self) -> list[Part]:
        """The first violated pair, else the first pair of all; nothing where none is aligned."""
        failed = failed_spot(self.a, self.b, self.comparison)
        if failed is not None:
            return [self._failed(failed)]
        first = self._first_violated() or first_pair(self.comparison)
        if first is None:
            return []
        turn, mark = first
        spot = Spot(turn.turn_a, mark.step_a)
        if spot in self._shown:
            return []
        self._shown.add(spot)
        parts = [
            self._strip(spot),
            self._violated("a", turn, mark),
            self._violated("b", turn, mark),
            self._whole(turn, mark),
            self._around(turn, mark),
        ]
        title = f"Turn {turn.turn_a}, step {mark.step_a}: where to look first"
        return [Part(step_id(*spot), title, f"position {mark.position}", joined(parts))]

    def _failed(self, spot: Spot) -> Part:
        """The step in which the candidate failed, beside the baseline's."""
        self._shown.add(spot)
        look = look_at(self._runs["a"], self._runs["b"], self.comparison, spot).look
        title = f"Turn {spot.turn}, step {spot.step}: where the candidate stopped"
        return Part(step_id(*spot), title, "", joined([self._strip(spot), whole_pair(look)]), sign="✗")

    def _first_violated(self) -> tuple[TurnMarks, PairMark] | None:
        for side, report in self._violating.items():
            for place in report.by_step:
                pair = pair_of(self.comparison, side, Spot(*place))
                if pair is not None:
                    return pair
        return None

    def _strip(self, spot: Spot) -> Markup:
        aside = "accepted length of each step of the baseline; the line is the candidate's"
        steps = self._states.of_turn(spot.turn)
        strip = scrolled(draw_strip(steps, current=spot.step))
        return card("strip", f"Turn {spot.turn}", aside, joined([strip, strip_key(steps)]))

    def _whole(self, turn: TurnMarks, mark: PairMark) -> Markup:
        return whole_pair(self._look(turn, mark))

    def _violated(self, side: Side, turn: TurnMarks, mark: PairMark) -> Markup:
        """The invariants that the step of one side violates."""
        number, at = (turn.turn_a, mark.step_a) if side == "a" else (turn.turn_b, mark.step_b)
        run = self._runs[side]
        entry = turn_named(run.reader, number)
        if entry is None or at >= len(entry.steps):
            return NOTHING
        violated = violations(judge(context_at(run.reader, entry, at)))
        return card("violated", f"{SIDES[side].capitalize()} violates", run.name, violated) if violated else NOTHING

    def _around(self, turn: TurnMarks, mark: PairMark) -> Markup:
        at = turn.pairs.index(mark)
        near = [*turn.pairs[max(0, at - AROUND) : at], *turn.pairs[at + 1 : at + 1 + AROUND]]
        parts = [self._near(turn, other, is_open=number == 0) for number, other in enumerate(near)]
        if not parts:
            return NOTHING
        lead = quiet("The pairs of steps before and after it:")
        return markup('<div class="ss-near">{parts}</div>', parts=joined([lead, *parts]))

    def _near(self, turn: TurnMarks, mark: PairMark, *, is_open: bool) -> Markup:
        spot = Spot(turn.turn_a, mark.step_a)
        if spot in self._shown:
            return _elsewhere(mark.step_a)
        self._shown.add(spot)
        return plain_pair(self._look(turn, mark), is_open=is_open)

    def _look(self, turn: TurnMarks, mark: PairMark) -> PairLook:
        entry = turn_named(self.a, turn.turn_a)
        assert entry is not None, "a turn that was compared is there"
        look = look_at(self._runs["a"], self._runs["b"], self.comparison, Spot(entry.turn, mark.step_a)).look
        for side in (look.b, look.a):  # where both have a text for a token, the baseline's is used
            if side is not None:
                self.texts.both.learn(side.step)
        return look


def _elsewhere(step: int) -> Markup:
    return box(quiet(f"Step {step} is drawn elsewhere on this page."))


def _spot(root: Root) -> Spot:
    """The baseline's step of a root; of one in a prompt, the first of its turn."""
    return Spot(root.place.turn, root.place.step_a)


def _root_words(root: Root, texts: PairTexts) -> Markup:
    """One root in words."""
    names = value_names(root)
    values = [
        ("what", root_sentence(root, texts.sides)),
        ("phase", field_text(root, texts.both)),
        (names.a, value_text(root.difference, "a", texts.sides)),
        (names.b, value_text(root.difference, "b", texts.sides)),
    ]
    return rows((name, one_line(value)) for name, value in [*values, *root_rows(root, texts.sides)])
