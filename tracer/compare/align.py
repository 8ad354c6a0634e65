"""Which steps of two runs belong together: by turn and committed position, not by step number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from specscope.schemas import Step, TurnStart
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import StepLine, TraceReader
from specscope.tracer.files.skim import equal_but_for_timing, skim_step
from specscope.tracer.naming.places import turn_name


class TurnPair(NamedTuple):
    """The same turn of the same prompt in both runs."""

    a: TurnEntry
    b: TurnEntry


class TurnAlignment(NamedTuple):
    """All pairs, and the turns that have no partner, named ``prompt turn n``."""

    pairs: list[TurnPair]
    only_a: list[str]
    only_b: list[str]
    num_renamed: int = 0  # pairs of turns whose prompts have other names, but the same tokens


def align_turns(a: TraceReader, b: TraceReader) -> TurnAlignment:
    """Pairs turns by prompt id and turn within the prompt, and where no name is in both runs by equal prompts; the
    turns of a prompt stand together, in their order, even where a batch decoded those of others between them."""
    others = {(t.prompt_id, t.prompt_turn): t for t in b.turns}
    named = any((turn.prompt_id, turn.prompt_turn) in others for turn in a.turns)
    renamed = {} if named else _partners_by_prompt(a, b)
    pairs, only_a = [], []
    for turn in a.turns:
        partner = others.pop(renamed.get(turn.turn, (turn.prompt_id, turn.prompt_turn)), None)
        if partner is None:
            only_a.append(turn_name(turn.turn, turn.prompt_id))
        else:
            pairs.append(TurnPair(turn, partner))
    first = {pair.a.prompt_id: number for number, pair in reversed(list(enumerate(pairs)))}
    pairs.sort(key=lambda pair: (first[pair.a.prompt_id], pair.a.prompt_turn))
    return TurnAlignment(pairs, only_a, [turn_name(t.turn, t.prompt_id) for t in others.values()], len(renamed))


def _partners_by_prompt(a: TraceReader, b: TraceReader) -> dict[int, tuple[str, int]]:
    """By turn of ``a``, prompt id and turn of the one of ``b`` with the same tokens before it; equal prompts in the
    order in which they began."""
    waiting: dict[tuple[int, ...], list[TurnEntry]] = {}
    for turn in b.turns:
        start = b.turn_start(turn)
        if not start.without_ids:
            waiting.setdefault(tuple(start.prompt_ids), []).append(turn)
    partners = {}
    for turn in a.turns:
        start = a.turn_start(turn)
        same = None if start.without_ids else waiting.get(tuple(start.prompt_ids))
        if same:
            partner = same.pop(0)
            partners[turn.turn] = (partner.prompt_id, partner.prompt_turn)
    return partners


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """Two steps that begin at the same position, and whether the tokens before them are equal. Their records are
    decoded where they are asked for."""

    line_a: StepLine
    line_b: StepLine
    before_a: StepLine | None
    before_b: StepLine | None
    step_a: int  # their places in the two turns
    step_b: int
    position: int
    same_context: bool
    regrouped: int  # steps that were passed over since the last pair, because they had no partner
    equal: bool  # certain that the two, and the pair before, differ in numbers and timing alone; False says nothing

    @property
    def is_first(self) -> bool:
        """Whether both are the first of their turns."""
        return self.before_a is None and self.before_b is None

    @property
    def a(self) -> Step:
        """The baseline's step."""
        return self.line_a.record

    @property
    def b(self) -> Step:
        """The candidate's step."""
        return self.line_b.record

    @property
    def previous_a(self) -> Step | None:
        """The step before it in its turn."""
        return None if self.before_a is None else self.before_a.record

    @property
    def previous_b(self) -> Step | None:
        """The step before it in its turn."""
        return None if self.before_b is None else self.before_b.record


class _Side:
    """One run's steps of a turn with the tokens emitted so far."""

    def __init__(self, start: TurnStart, steps: Iterator[StepLine]) -> None:
        self._steps = steps
        self.base = len(start.prompt_ids)
        self.output = start.first_output
        self.previous: StepLine | None = None
        self.current: StepLine | None = None
        self._emissions_known = True
        self.step = 0  # place of the current step in its turn
        self.advance()

    def advance(self) -> None:
        if self.current is not None:
            self.step += 1
            self.previous = self.current
            emitted = _emitted(self.current)
            if emitted is not None:
                self.output += emitted
            else:
                self._emissions_known = False
        self.current = next(self._steps, None)

    @property
    def position(self) -> int | None:
        """Committed length before the current step: what was emitted so far, less the pending token. Where an earlier
        step did not record what it emitted, what this one says; None where it does not either."""
        if self.current is None:
            return None
        if self._emissions_known:
            return self.base + len(self.output) - 1
        return self.current.record.committed_length


def records_place(step: StepLine) -> bool:
    """Whether a step says where it stands: by its record where that is at hand, else by a skim of its line where it is
    certain."""
    skimmed = None if step.is_decoded else skim_step(step.line)
    if skimmed is not None and not (skimmed.emitted is None and skimmed.committed_before is None):
        return True
    record = step.record
    return not (record.stop is None and record.commit is None and record.tensors is None)


def _emitted(step: StepLine) -> list[int] | None:
    """The tokens that a step kept, read in the same way; None where they were not recorded."""
    skimmed = None if step.is_decoded else skim_step(step.line)
    if skimmed is not None and skimmed.emitted is not None:
        return skimmed.emitted[: skimmed.kept]
    stop = step.record.stop
    return None if stop is None else stop.emitted[: stop.kept]


def align_steps(a: TraceReader, b: TraceReader, pair: TurnPair) -> Iterator[Aligned]:
    """Pairs of steps in order. A run that accepted more in one step waits until the other has caught up."""
    side_a = _Side(a.turn_start(pair.a), a.step_lines(pair.a))
    side_b = _Side(b.turn_start(pair.b), b.step_lines(pair.b))
    regrouped = 0
    common = 0  # leading output tokens that are equal
    lines_equal = True  # of the pair before
    while side_a.current is not None and side_b.current is not None:
        pa, pb = side_a.position, side_b.position
        if pa is None or pb is None:
            return
        if pa != pb:
            (side_a if pa < pb else side_b).advance()
            regrouped += 1
            continue
        common = _extend_common(side_a.output, side_b.output, common)
        same = side_a.base == side_b.base and common > pa - side_a.base
        before = lines_equal and regrouped == 0
        lines_equal = equal_but_for_timing(side_a.current.line, side_b.current.line)
        yield Aligned(
            line_a=side_a.current,
            line_b=side_b.current,
            before_a=side_a.previous,
            before_b=side_b.previous,
            step_a=side_a.step,
            step_b=side_b.step,
            position=pa,
            same_context=same,
            regrouped=regrouped,
            equal=same and before and lines_equal,
        )
        regrouped = 0
        side_a.advance()
        side_b.advance()


def _extend_common(a: list[int], b: list[int], common: int) -> int:
    """How many leading tokens are equal, given that ``common`` are."""
    while common < min(len(a), len(b)) and a[common] == b[common]:
        common += 1
    return common
