"""The report of two runs: the verdict, what was compared, and both trees where they part. Reads steps one by one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from specscope.schemas.verdict import Root, Side, Verdict
from specscope.tracer.compare.diff import Comparison, DiffOptions, compare_traces
from specscope.tracer.compare.marks import PairMark, TurnMarks
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.oracle.report import OracleReport
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
from specscope.tracer.report.report import Report
from specscope.tracer.report.sentences import root_sentence
from specscope.tracer.report.values import SideTexts, value_text
from specscope.tracer.words.text import html_text
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.drawing.board import card, columns
from specscope.viewer.drawing.fragments import commands, note, quiet, rows
from specscope.viewer.drawing.frames import box, classes_of, row, table
from specscope.viewer.drawing.pair.board import PairLook
from specscope.viewer.drawing.step.parts import judge
from specscope.viewer.drawing.svg.strip import draw_strip
from specscope.viewer.drawing.tables.verdict_card import proof, root_rows
from specscope.viewer.pairs.looks import PairRun, look_at, pair_of
from specscope.viewer.pairs.pairs import first_pair, marks_of, of_prompt, pair_at, turn_named
from specscope.viewer.pairs.states import RunStates, Spot
from specscope.viewer.report.choice import AROUND
from specscope.viewer.report.page import Group, Part, Written, link, report_page
from specscope.viewer.report.pair_part import plain_pair, whole_pair
from specscope.viewer.report.run_words import both_runs
from specscope.viewer.report.step_part import step_id, violations

LISTED_ROOTS = 50
ROOT_COLUMNS = ("root", "at", "prompt", "phase", "field", "kind", "inherited")
ROOT_NUMBERS = ("inherited",)
#: Of what surrounds the card's verdict, what is no part of the proof that the two may be compared.
ALSO = ("also violated", "tie")
MAX_HEADLINE = 400  # characters
MAX_NAME = 100  # characters of a file's name


class PairTexts(NamedTuple):
    """Token texts for each run, and for what is about both: texts of one trace must not name the other's tokens."""

    a: TokenTexts
    b: TokenTexts
    both: TokenTexts

    @property
    def sides(self) -> SideTexts:
        """Those of the two runs, for words that name a value of each."""
        return SideTexts(self.a, self.b)


def pair_report(baseline: Path, candidate: Path, options: DiffOptions, most_roots: int, texts: PairTexts) -> Written:
    """The report of the traces at ``baseline`` (a) and ``candidate`` (b).

    Raises:
        TraceError: where one of them cannot be read.
        UsageError: where the run to measure noise on cannot tell the noise of this pair.
    """
    begun = time.monotonic()
    comparison = compare_traces(baseline, candidate, options)
    with TraceReader(baseline) as a, TraceReader(candidate) as b:
        drawn = _Drawing(a, b, comparison, texts)
        parts = drawn.parts(most_roots)
        found = card_of(Report(comparison.verdict, texts.both, time.monotonic() - begun))
        head = _head(a, b, comparison.verdict, found, drawn.ids)
    title = f"SpecScope report: {baseline.name} and {candidate.name}"
    return Written(report_page(title, head, [Group("", "", "", parts)]), _headline(comparison.verdict, texts.sides))


def _headline(verdict: Verdict, texts: SideTexts) -> str:
    root = leading_root(verdict)
    where = f" at {where_text(root.place)}" if root is not None else ""
    return one_line(headline(verdict, texts) + where, MAX_HEADLINE)


def _head(a: TraceReader, b: TraceReader, verdict: Verdict, found: Card, ids: dict[int, str]) -> str:
    calm = " ss-calm" if found.tone == "good" else ""
    lines = rows([*found.rows, *(row for row in found.notes if row.name in ALSO)])
    parts = [
        box(f'<div class="ss-card{calm}"><h2>{html_text(found.title)}</h2>{lines}</div>'),
        card("next", "Next", "commands to run", commands(verdict.next)) if verdict.next else "",
        _roots(verdict, ids),
        columns(
            [card("compared", "What was compared", "", proof(verdict, a.manifest))],
            [card("runs", "The runs", "≠ differs", both_runs(a, b))],
            kind="halves",
        ),
    ]
    if verdict.incomparable:
        words = ["Record both runs alike, or allow a field: specscope report A B --allow FIELD"]
        parts.append(note("warn", "Nothing was compared, so no trees are drawn", words))
    return "".join(parts)


def _roots(verdict: Verdict, ids: dict[int, str]) -> str:
    """All roots, those that are drawn as links."""
    if len(verdict.roots) < 2:
        return ""
    lines = []
    for number, root in enumerate(verdict.roots[:LISTED_ROOTS]):
        line = root_line(number + 1, root)
        first = link(ids[number], str(line.number)) if number in ids else str(line.number)
        cells = [first, *(html_text(str(cell)) for cell in line[1:])]
        lines.append(row(cells, classes_of(ROOT_COLUMNS, ROOT_NUMBERS)))
    more = len(verdict.roots) - len(lines)
    rest = quiet(f"and {more} more; specscope diff --format json lists them") if more else ""
    return card("roots", "Roots", roots_text(verdict), table(ROOT_COLUMNS, lines, numbers=ROOT_NUMBERS), rest)


@dataclass
class _Drawing:
    """The parts of a page, and what is on it already: a pair is drawn once."""

    a: TraceReader
    b: TraceReader
    comparison: Comparison
    texts: PairTexts
    ids: dict[int, str] = field(default_factory=dict)  # by index of the root

    def __post_init__(self) -> None:
        self._shown: set[Spot] = set()
        self._at_steps: set[Spot] = set()  # where a root stands that lies in no prompt
        sides = {blame.side for blame in self.comparison.verdict.violations}
        self._broken: dict[Side, OracleReport] = {
            side: check_trace(reader.path) for side, reader in (("a", self.a), ("b", self.b)) if side in sides
        }
        self._states = RunStates(
            self.a.turns, self._broken.get("a"), self.comparison, "a", self.b.turns, self._broken.get("b")
        )
        self._runs: dict[Side, PairRun] = {
            "a": PairRun(self.a, self.texts.a, one_line(self.a.path.name, MAX_NAME)),
            "b": PairRun(self.b, self.texts.b, one_line(self.b.path.name, MAX_NAME)),
        }

    def parts(self, most_roots: int) -> list[Part]:
        """A part for each of the first roots; where none leads, one for what a person should look at first."""
        roots = self.comparison.verdict.roots[:most_roots]
        self._shown = {_spot(root) for root in roots}
        self._at_steps = {_spot(root) for root in roots if not of_prompt(root)}
        parts = [] if leading_root(self.comparison.verdict) is not None else self._first()
        return parts + [self._root(number, root) for number, root in enumerate(roots)]

    def _root(self, number: int, root: Root) -> Part:
        place, found, spot = root.place, root.difference, _spot(root)
        used = of_prompt(root) or step_id(*spot) in self.ids.values()
        self.ids[number] = f"root{number + 1}" if used else step_id(*spot)
        turn = marks_of(self.comparison, place.turn)
        mark = None if turn is None else pair_at(turn, place.step_a)
        body = ""
        if of_prompt(root):
            body = note("info", "It begins in the prompt's own forward, before the first step of the turn")
        if of_prompt(root) and spot in self._at_steps:  # another root stands at that step
            body += box(quiet(f"Step {place.step_a} is drawn elsewhere on this page."))
        elif turn is not None and mark is not None:
            body += self._strip(spot) + self._whole(turn, mark) + self._around(turn, mark)
        body = box(_root_words(root, self.texts)) + body  # last, when the texts of its tokens are known
        title = f"Root {number + 1}: {found.phase}: {one_line(found.field, 100)}"
        return Part(self.ids[number], title, one_line(where_text(place)), body, "≠" if found.kind == "real" else "")

    def _first(self) -> list[Part]:
        """The first violated pair, else the first pair of all; nothing where none is aligned."""
        found = self._first_violated() or first_pair(self.comparison)
        if found is None:
            return []
        turn, mark = found
        spot = Spot(turn.turn_a, mark.step_a)
        if spot in self._shown:
            return []
        self._shown.add(spot)
        broken = self._violated("a", turn, mark) + self._violated("b", turn, mark)
        body = self._strip(spot) + broken + self._whole(turn, mark) + self._around(turn, mark)
        title = f"Turn {turn.turn_a}, step {mark.step_a}: where to look first"
        return [Part(step_id(*spot), title, f"position {mark.position}", body)]

    def _first_violated(self) -> tuple[TurnMarks, PairMark] | None:
        for side, report in self._broken.items():
            for place in report.by_step:
                found = pair_of(self.comparison, side, Spot(*place))
                if found is not None:
                    return found
        return None

    def _strip(self, spot: Spot) -> str:
        aside = "accepted length of each step of the baseline; the line is the candidate's"
        drawn = draw_strip(self._states.of_turn(spot.turn), current=spot.step)
        return card("strip", f"Turn {spot.turn}", aside, drawn)

    def _whole(self, turn: TurnMarks, mark: PairMark) -> str:
        return whole_pair(self._look(turn, mark))

    def _violated(self, side: Side, turn: TurnMarks, mark: PairMark) -> str:
        """The invariants that the step of one side violates."""
        number, at = (turn.turn_a, mark.step_a) if side == "a" else (turn.turn_b, mark.step_b)
        run = self._runs[side]
        entry = turn_named(run.reader, number)
        if entry is None or at >= len(entry.steps):
            return ""
        step, before = run.reader.step(entry, at), run.reader.step(entry, at - 1) if at else None
        broken = violations(
            judge(Context(manifest=run.reader.manifest, turn=run.reader.turn_start(entry), previous=before, step=step))
        )
        return card("violated", f"At this step {SIDES[side]} breaks", run.name, broken) if broken else ""

    def _around(self, turn: TurnMarks, mark: PairMark) -> str:
        at = turn.pairs.index(mark)
        near = [*turn.pairs[max(0, at - AROUND) : at], *turn.pairs[at + 1 : at + 1 + AROUND]]
        parts = [self._near(turn, other, is_open=number == 0) for number, other in enumerate(near)]
        return quiet("The pairs of steps before and after it:") + "".join(parts) if parts else ""

    def _near(self, turn: TurnMarks, mark: PairMark, *, is_open: bool) -> str:
        spot = Spot(turn.turn_a, mark.step_a)
        if spot in self._shown:
            return box(quiet(f"Step {mark.step_a} is drawn elsewhere on this page."))
        self._shown.add(spot)
        return plain_pair(self._look(turn, mark), is_open=is_open)

    def _look(self, turn: TurnMarks, mark: PairMark) -> PairLook:
        entry = turn_named(self.a, turn.turn_a)
        assert entry is not None, "a turn that was compared is there"
        look = look_at(self._runs["a"], self._runs["b"], self.comparison, entry, mark.step_a).look
        for side in (look.b, look.a):  # where both have a text for a token, the baseline's stands
            if side is not None:
                self.texts.both.learn(side.step)
        return look


def _spot(root: Root) -> Spot:
    """The baseline's step that a root stands at; of one in a prompt, the first of its turn."""
    return Spot(root.place.turn, root.place.step_a)


def _root_words(root: Root, texts: PairTexts) -> str:
    """One root in words."""
    found = root.difference
    values = [
        ("what", root_sentence(root, texts.sides)),
        ("phase", field_text(root, texts.both)),
        ("baseline", value_text(found, "a", texts.sides)),
        ("candidate", value_text(found, "b", texts.sides)),
    ]
    return rows((name, one_line(value)) for name, value in [*values, *root_rows(root)])
