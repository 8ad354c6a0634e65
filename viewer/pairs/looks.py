"""What there is to look at for one step of the baseline: its pair, or why it has none, in words. Knows traces and their
comparison, no pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from specscope.schemas import Step
from specscope.schemas.verdict import Root, Side
from specscope.tracer.compare.diff import Comparison
from specscope.tracer.compare.marks import PairMark, TurnMarks
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.report import OracleReport
from specscope.tracer.report.card import leading_root
from specscope.tracer.words.tokens import TokenTexts
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.pair.board import About, PairLook
from specscope.viewer.drawing.pair.sides import PairSide
from specscope.viewer.pairs.pairs import (
    compare_pair,
    covering_step,
    first_pair,
    marks_of,
    names_of,
    of_prompt,
    pair_at,
    pair_before,
    steps_at,
    turn_named,
)
from specscope.viewer.pairs.states import Spot


class PairRun(NamedTuple):
    """One of the two runs."""

    reader: TraceReader
    texts: TokenTexts
    name: str  # for people

    def side(self, step: Step, marks: NodeMarks) -> PairSide:
        """A step of this run, its texts learned."""
        self.texts.learn(step)
        return PairSide(step, self.texts, marks, self.name)

    def learn(self, at: Spot) -> None:
        """Takes in the texts of a step's tokens, which words elsewhere name."""
        entry = turn_named(self.reader, at.turn)
        if entry is not None and at.step < len(entry.steps):
            self.texts.learn(self.reader.step(entry, at.step))


class Found(NamedTuple):
    """What stands at a step of the baseline."""

    look: PairLook
    root: int | None  # of the verdict's roots: the one that stands here, or that this follows from
    beside: Spot | None  # the candidate's turn and step; None where none stands there


def look_at(a: PairRun, b: PairRun, comparison: Comparison, entry: TurnEntry, step_a: int) -> Found:
    """What stands at step ``step_a`` of the baseline's turn ``entry``.

    Args:
        a: the baseline.
        b: the candidate.
        comparison: of the two.
        entry: a turn of the baseline.
        step_a: one of its steps.

    Raises:
        TraceError: where a record cannot be read.
    """
    marks = marks_of(comparison, entry.turn)
    pair = pair_at(marks, step_a) if marks is not None else None
    steps = steps_at(a.reader, b.reader, marks, pair) if marks is not None and pair is not None else None
    if marks is None or pair is None or steps is None:
        return _without_partner(a, b, marks, entry, step_a)
    roots = comparison.verdict.roots
    number = pair.root
    if number is None and pair.step_a == 0:
        number = _root_in_prompt(roots, marks.turn_a)
    here = _root_here(roots, pair, number)
    found = compare_pair(a.reader, b.reader, steps, comparison.verdict.floors, here)
    look = PairLook(
        a.side(steps.a, found.marks_a),
        b.side(steps.b, found.marks_b),
        _about(pair, number, roots, comparable=found.comparable),
        found.differences,
        found.origin,
        found.comparable,
        next((floor.floor for floor in comparison.verdict.floors if floor.quantity == "logits"), None),
    )
    return Found(look, number, Spot(marks.turn_b, pair.step_b))


def _without_partner(a: PairRun, b: PairRun, marks: TurnMarks | None, entry: TurnEntry, step_a: int) -> Found:
    """The baseline's step, beside the candidate's that covers its position where there is one."""
    step = a.reader.step(entry, step_a)
    turn_b = turn_named(b.reader, marks.turn_b) if marks is not None else None
    covering = None
    if marks is not None and turn_b is not None and marks.same_prompt:
        covering = covering_step(marks, entry, turn_b, step_a)
    other = b.reader.step(turn_b, covering) if turn_b is not None and covering is not None else None
    marks_a, marks_b = names_of(step, other if other is not None else step)
    look = PairLook(
        a.side(step, marks_a),
        b.side(other, marks_b) if other is not None else None,
        _about_unpaired(marks, step_a, covering),
        compared=False,
    )
    return Found(look, None, Spot(turn_b.turn, covering) if turn_b is not None and covering is not None else None)


def _about_unpaired(marks: TurnMarks | None, step_a: int, covering: int | None) -> About:
    if marks is None:
        return About("info", "This turn was not compared", ["The candidate has no turn of that prompt."])
    if not marks.same_prompt:
        words = "An earlier turn's outputs differ, so the two went on from different texts."
        return About("info", "The steps of this turn are not compared", [words])
    title = f"Step {step_a} of the baseline has no partner"
    words = "The candidate grouped these tokens into other steps; beside it stands the one that covers its position."
    if covering is None:
        words = "The candidate grouped these tokens into other steps, or has none there."
    return About("info", title, [words])


def _about(pair: PairMark, root: int | None, roots: Sequence[Root], *, comparable: bool) -> About:
    """What became of the pair, in words; not ``comparable`` where its nodes could not be matched."""
    steps = f"step {pair.step_a}" if pair.step_a == pair.step_b else f"steps {pair.step_a} and {pair.step_b}"
    where = f"{steps}, position {pair.position}"
    name = "" if root is None else f"root {root + 1} of {len(roots)}" if len(roots) > 1 else "the only root"
    if pair.state == "root":
        return About("parted", f"The divergence begins here: {name or 'a root'}", [where])
    if pair.state == "tie":
        return About("warn", f"A tie within the noise floor: {name or 'a root'}", [where])
    if pair.state == "inherited":
        return _about_inherited(pair, root, roots, where)
    if pair.state == "unjudged":
        return About("warn", "Not judged: the lists of one of these steps do not fit together", [where])
    before = root is not None and of_prompt(roots[root])
    words = [where, "The prompt's own forward, before this step, differs."] if before else [where]
    if not comparable:  # equal byte by byte
        return About("warn", "These two steps are equal, and their lists do not fit together", words)
    return About("good", "These two steps are equal", words)


def _about_inherited(pair: PairMark, root: int | None, roots: Sequence[Root], where: str) -> About:
    lines = [where]
    if not pair.same_context:
        lines.append("The tokens before them differ already, so nothing in them is compared.")
    if root is None:
        return About("info", "Follows from what differed before", lines)
    place, of = roots[root].place, roots[root]
    begins = f"step {place.step_a} of turn {place.turn}" if not of_prompt(of) else f"the prefill of turn {place.turn}"
    here = of_prompt(of) and pair.step_a == 0
    return About("info", f"Follows from root {root + 1}, which lies in {begins}", lines, None if here else root)


def first_spot(comparison: Comparison, reports: Sequence[OracleReport | None]) -> Spot | None:
    """Where in the baseline to look first: where the two part, which is a turn's first step where its prompt's own
    forward differs; where they do not part, or in ties alone, at the first step that violates an invariant.

    Args:
        comparison: of the two.
        reports: what the oracle found in the baseline and in the candidate, where it was asked.
    """
    if leading_root(comparison.verdict) is None:
        for side, report in enumerate(reports):
            for turn, step in report.by_step if report is not None else {}:
                spot = Spot(turn, step) if side == 0 else beside_candidate(comparison, Spot(turn, step))
                if spot is not None:
                    return spot
    first_root = next(iter(comparison.verdict.roots), None)
    if first_root is not None and of_prompt(first_root):
        return Spot(first_root.place.turn, 0)
    first = first_pair(comparison)
    return Spot(first[0].turn_a, first[1].step_a) if first is not None else None


def beside_candidate(comparison: Comparison, at: Spot) -> Spot | None:
    """The baseline's step of the last pair up to the candidate's step ``at``; None where its turn has no partner."""
    turn = next((marks for marks in comparison.turns if marks.turn_b == at.turn), None)
    if turn is None:
        return None
    pair = pair_before(turn, at.step)
    return Spot(turn.turn_a, pair.step_a if pair is not None else 0)


def pair_of(comparison: Comparison, side: Side, at: Spot) -> tuple[TurnMarks, PairMark] | None:
    """The pair that one run's step ``at`` stands in; None where it has no partner."""
    for turn in comparison.turns:
        if (turn.turn_a if side == "a" else turn.turn_b) == at.turn:
            pair = pair_at(turn, at.step) if side == "a" else pair_before(turn, at.step)
            found = pair is not None and (pair.step_a if side == "a" else pair.step_b) == at.step
            return (turn, pair) if pair is not None and found else None
    return None


def marks_beside(a: TraceReader, b: TraceReader, comparison: Comparison, side: Side, at: Spot) -> NodeMarks:
    """Marks for one run's step alone: the nodes that differ from its partner in the other run.

    Args:
        a: the baseline.
        b: the candidate.
        comparison: of the two.
        side: the run whose step it is.
        at: that step.
    """
    pair = pair_of(comparison, side, at)
    steps = steps_at(a, b, *pair) if pair is not None else None
    if steps is None or steps.mark.state == "equal":
        return NodeMarks()
    root = _root_here(comparison.verdict.roots, steps.mark, steps.mark.root)
    found = compare_pair(a, b, steps, comparison.verdict.floors, root)
    marks = found.marks_a if side == "a" else found.marks_b
    return NodeMarks(marks.divergent, marks.origin)


def _root_here(roots: Sequence[Root], pair: PairMark, number: int | None) -> Root | None:
    """The root of that number where it stands at this pair, which else follows from it."""
    return roots[number] if number is not None and pair.state in ("root", "tie") else None


def beside_baseline(comparison: Comparison, at: Spot) -> Spot | None:
    """The candidate's step of the last pair up to the baseline's step ``at``; None where its turn has no partner."""
    turn = marks_of(comparison, at.turn)
    if turn is None:
        return None
    before = [pair for pair in turn.pairs if pair.step_a <= at.step]
    return Spot(turn.turn_b, before[-1].step_b if before else 0)


def _root_in_prompt(roots: Sequence[Root], turn_a: int) -> int | None:
    """The root in the forward of this turn's own prompt, which stands at no step, where there is one."""
    return next((at for at, root in enumerate(roots) if of_prompt(root) and root.place.turn == turn_a), None)
