"""What there is to look at for one step of the baseline: its pair, or why it has none, in words. Knows traces and their
comparison, no pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from specscope.schemas import Step
from specscope.schemas.verdict import NoiseFloor, Root, Side
from specscope.tracer.compare.coverage import not_compared
from specscope.tracer.compare.diff import Comparison
from specscope.tracer.compare.lengths import are_lengths
from specscope.tracer.compare.marks import PairMark, TurnMarks
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.failures import in_phase
from specscope.tracer.naming.text import shorten
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.report import OracleReport
from specscope.tracer.report.card import leading_root
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.pair.board import About, PairLook
from specscope.viewer.drawing.pair.sides import PairSide
from specscope.viewer.pairs.failed import FailedPair, failed_beside
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
        """Takes in the texts of a step's tokens, which are named elsewhere."""
        entry = turn_named(self.reader, at.turn)
        if entry is not None and at.step < len(entry.steps):
            self.texts.learn(self.reader.step(entry, at.step))


class LookedAt(NamedTuple):
    """What there is at a step of the baseline."""

    look: PairLook
    root: int | None  # of the verdict's roots: the one that begins here, or that this follows from
    beside: Spot | None  # the candidate's turn and step; None where it has none there


def look_at(a: PairRun, b: PairRun, comparison: Comparison, at: Spot) -> LookedAt:
    """What there is at a step of the baseline.

    Args:
        a: the baseline.
        b: the candidate.
        comparison: of the two.
        at: the step, which the baseline must have.

    Raises:
        TraceError: where a record cannot be read.
    """
    marks = marks_of(comparison, at.turn)
    pair = pair_at(marks, at.step) if marks is not None else None
    steps = steps_at(a.reader, b.reader, marks, pair) if marks is not None and pair is not None else None
    if marks is None or pair is None or steps is None:
        return _without_partner(a, b, comparison, at)
    roots = comparison.verdict.roots
    number = pair.root
    if number is None and pair.step_a == 0:
        number = _root_in_prompt(roots, marks.turn_a)
    floors = comparison.verdict.floors
    compared = compare_pair(a.reader, b.reader, steps, floors, root=_root_here(roots, pair, number))
    look = PairLook(
        a=a.side(steps.a, compared.marks_a),
        b=b.side(steps.b, compared.marks_b),
        about=_about(pair, number, roots, comparable=compared.comparable, is_whole=not not_compared(steps.a, steps.b)),
        differences=compared.differences,
        origin=compared.origin,
        compared=compared.comparable,
        floor=next((floor.floor for floor in floors if floor.quantity == "logits"), None),
    )
    return LookedAt(look, number, Spot(marks.turn_b, pair.step_b))


def _without_partner(a: PairRun, b: PairRun, comparison: Comparison, at: Spot) -> LookedAt:
    """The baseline's step, beside the candidate's that failed there, or covers its position, where there is one."""
    marks = marks_of(comparison, at.turn)
    entry = turn_named(a.reader, at.turn)
    assert entry is not None
    failed = failed_beside(a.reader, b.reader, marks, at)
    if failed is not None:
        return _beside_failed(a, b, failed, comparison.verdict.floors)
    step = a.reader.step(entry, at.step)
    beside = _covering(b.reader, marks, entry, at.step)
    turn_b = turn_named(b.reader, beside.turn) if beside is not None else None
    other = b.reader.step(turn_b, beside.step) if beside is not None and turn_b is not None else None
    names = names_of(step, other if other is not None else step)
    look = PairLook(
        a=a.side(step, names.a),
        b=b.side(other, names.b) if other is not None else None,
        about=ABOUT_LENGTHS
        if are_lengths(a.reader.manifest, b.reader.manifest)
        else _about_unpaired(marks, at.step, beside),
        compared=False,
    )
    return LookedAt(look, None, beside)


def _beside_failed(a: PairRun, b: PairRun, failed: FailedPair, floors: Sequence[NoiseFloor]) -> LookedAt:
    """The baseline's step beside the candidate's that failed, compared as far as that was recorded."""
    steps, failure = failed.steps, failed.failure
    compared = compare_pair(a.reader, b.reader, steps, floors)
    lines = [shorten(failure.message, 400), "What was recorded of that step is compared; the rest of it is missing."]
    look = PairLook(
        a=a.side(steps.a, compared.marks_a),
        b=b.side(steps.b, compared.marks_b),
        about=About("bad", f"The candidate failed in this step{in_phase(failure, ', ')}", lines),
        differences=compared.differences,
        origin=compared.origin,
        compared=compared.comparable,
    )
    return LookedAt(look, None, Spot(steps.turn_b.turn, steps.mark.step_b))


def _covering(b: TraceReader, marks: TurnMarks | None, entry: TurnEntry, step_a: int) -> Spot | None:
    """The candidate's step that covers the position of the baseline's step ``step_a``, where there is one."""
    turn_b = turn_named(b, marks.turn_b) if marks is not None and marks.same_prompt else None
    if marks is None or turn_b is None:
        return None
    step_b = covering_step(marks, entry, turn_b, step_a)
    return None if step_b is None else Spot(turn_b.turn, step_b)


#: Of runs that record no steps to lay beside each other.
ABOUT_LENGTHS = About("info", "Only accepted lengths are compared", ["The rest of these steps is not recorded."])


def _about_unpaired(marks: TurnMarks | None, step_a: int, beside: Spot | None) -> About:
    if marks is None:
        return About("info", "This turn was not compared", ["The candidate has no turn for that prompt."])
    if not marks.same_prompt:
        words = "The outputs of an earlier turn differ, so the two continued from different texts."
        return About("info", "The steps of this turn are not compared", [words])
    title = f"Step {step_a} of the baseline has no partner"
    words = "The candidate grouped these tokens into different steps; the one beside it covers its position."
    if beside is None:
        words = "The candidate's turn ends before it."
    return About("info", title, [words])


def _about(pair: PairMark, root: int | None, roots: Sequence[Root], *, comparable: bool, is_whole: bool) -> About:
    """What became of the pair, in words; not ``comparable`` where its nodes could not be matched, and not ``is_whole``
    where a side does not record all that is compared."""
    steps = f"step {pair.step_a}" if pair.step_a == pair.step_b else f"steps {pair.step_a} and {pair.step_b}"
    where = f"{steps}, position {pair.position}"
    if pair.state == "root":
        return About("parted", f"The divergence begins here: {_root_name(root, roots)}", [where])
    if pair.state == "tie":
        return About("warn", f"A tie within the noise floor: {_root_name(root, roots)}", [where])
    if pair.state == "inherited":
        return _about_inherited(pair, root, roots, where)
    if pair.state == "unjudged":
        return About("warn", "Not judged: the lists of one of these steps do not fit together", [where])
    lines = [where]
    if root is not None and of_prompt(roots[root]):
        lines.append("The prompt's own forward, before this step, differs.")
    if not comparable:  # equal byte by byte
        return About("warn", "These two steps are equal, but their lists do not fit together", lines)
    return About("good", f"These two steps are equal{'' if is_whole else ' in all that both record'}", lines)


def _root_name(root: int | None, roots: Sequence[Root]) -> str:
    if root is None:
        return "a root"
    return f"root {root + 1} of {len(roots)}" if len(roots) > 1 else "the only root"


def _about_inherited(pair: PairMark, root: int | None, roots: Sequence[Root], where: str) -> About:
    lines = [where]
    if not pair.same_context:
        lines.append("The tokens before them already differ, so nothing in them is compared.")
    if root is None:
        return About("info", "Follows from what differed before", lines)
    origin = roots[root]
    in_prompt = of_prompt(origin)
    turn = origin.place.turn
    begins = f"the prefill of turn {turn}" if in_prompt else f"step {origin.place.step_a} of turn {turn}"
    is_here = in_prompt and pair.step_a == 0
    return About("info", f"Follows from root {root + 1}, which is in {begins}", lines, None if is_here else root)


def first_spot(comparison: Comparison, reports: Sequence[OracleReport | None]) -> Spot | None:
    """Where in the baseline to look first: where the two diverge, which is a turn's first step where its prompt's own
    forward differs; where they do not diverge, or only in ties, at the first step that violates an invariant.

    Args:
        comparison: of the two.
        reports: what the oracle reports of the baseline and of the candidate, where it was asked.
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
    """The pair of one run's step ``at``; None where it has no partner."""
    for turn in comparison.turns:
        if (turn.turn_a if side == "a" else turn.turn_b) == at.turn:
            pair = pair_at(turn, at.step) if side == "a" else pair_before(turn, at.step)
            is_paired = pair is not None and (pair.step_a if side == "a" else pair.step_b) == at.step
            return (turn, pair) if pair is not None and is_paired else None
    return None


def marks_beside(a: TraceReader, b: TraceReader, comparison: Comparison, *, side: Side, at: Spot) -> NodeMarks:
    """Marks for the step of only one run: the nodes that differ from its partner in the other.

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
    compared = compare_pair(a, b, steps, comparison.verdict.floors, root=root)
    marks = compared.marks_a if side == "a" else compared.marks_b
    return NodeMarks(divergent=marks.divergent, origin=marks.origin, inherited=marks.inherited)


def _root_here(roots: Sequence[Root], pair: PairMark, number: int | None) -> Root | None:
    """The root of that number where it begins at this pair, which otherwise follows from it."""
    return roots[number] if number is not None and pair.state in ("root", "tie") else None


def beside_baseline(comparison: Comparison, at: Spot) -> Spot | None:
    """The candidate's step of the last pair up to the baseline's step ``at``; None where its turn has no partner."""
    turn = marks_of(comparison, at.turn)
    if turn is None:
        return None
    before = [pair for pair in turn.pairs if pair.step_a <= at.step]
    return Spot(turn.turn_b, before[-1].step_b if before else 0)


def _root_in_prompt(roots: Sequence[Root], turn_a: int) -> int | None:
    """The root in the forward of this turn's own prompt, which belongs to no step, where there is one."""
    return next((at for at, root in enumerate(roots) if of_prompt(root) and root.place.turn == turn_a), None)
