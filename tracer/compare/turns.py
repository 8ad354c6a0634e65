"""The walk over the turns that two runs share: step by step, what differs, and which root it is or follows from."""

from __future__ import annotations

from dataclasses import dataclass, field

from specscope.schemas import Prefill
from specscope.schemas.verdict import Difference, Place, Root
from specscope.tracer.compare.align import Aligned, TurnPair, align_steps, records_place
from specscope.tracer.compare.allowed import NOTHING_FOLLOWS, Consequences
from specscope.tracer.compare.capped import shared_depth
from specscope.tracer.compare.coverage import Coverage
from specscope.tracer.compare.drafts import reused_more
from specscope.tracer.compare.excess import UniformDrift
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.impact import Tokens, steps_within
from specscope.tracer.compare.manifests import both_draft
from specscope.tracer.compare.marks import PairMark, TurnMarks
from specscope.tracer.compare.outputs import CANCELLED, Output, output_of, outputs_differ, shared_tokens
from specscope.tracer.compare.phases import compare_steps, compared_phases, trees_may_differ
from specscope.tracer.compare.prefill import compare_prefill_logits, compare_prefills, with_first_token
from specscope.tracer.compare.roots import Filed, Findings
from specscope.tracer.compare.sides import Sides
from specscope.tracer.compare.steps import RecordedSteps, StepPair
from specscope.tracer.compare.tokens import first_other_token, source_of, token_difference
from specscope.tracer.naming.places import turn_name, turns_name
from specscope.tracer.naming.text import counted

SIDES = ("the baseline", "the candidate")


@dataclass(kw_only=True)
class Walk:
    """What is known so far of two runs."""

    judge: FloatJudge
    findings: Findings
    drift: UniformDrift | None = None
    marks: list[TurnMarks] | None = None  # kept where they are asked for: they grow with the trace
    num_steps: int = 0
    num_regrouped: int = 0
    uncovered: list[str] = field(default_factory=list)
    tokens: Tokens = field(default_factory=Tokens)
    coverage: Coverage = field(default_factory=Coverage)
    expected: Consequences = NOTHING_FOLLOWS
    num_beyond: int = 0
    num_capped: int = 0  # pairs of steps of which one side had to draft less deep than the other did
    unjudged: list[str] = field(default_factory=list)
    parted: set[str] = field(default_factory=set)  # prompts whose turns came to other tokens, as they may


def compare_turn(sides: Sides, turns: TurnPair, walk: Walk) -> None:
    """Compares a turn, and says where its outputs differ and no root explains it."""
    before = len(walk.findings.roots)
    last = _compare_steps_of(sides, turns, walk)
    outputs = output_of(sides.a, turns.a), output_of(sides.b, turns.b)
    shared = shared_tokens(*outputs, walk.expected.ends)
    cut = [side for side, output in zip(SIDES, outputs, strict=True) if not output.is_whole]
    if shared is not None:
        walk.parted |= set() if cut else {turns.a.prompt_id}
        beyond = [len(turn.steps) - steps_within(turn.accepted_lengths, shared) for turn in turns]
        walk.num_beyond += sum(beyond)
        walk.num_regrouped = max(0, walk.num_regrouped - sum(beyond))
    allowed = _context_may_differ(sides, turns, walk)  # then so may what was made of it
    explained = allowed or len(walk.findings.roots) > before or walk.findings.is_open
    if outputs_differ(*outputs, walk.expected.ends) and not explained:
        _note_outputs(sides, turns, walk, last)
    elif cut and not explained and not _interrupted_alike(turns, outputs):
        _note_cut(turns, walk, outputs, cut)
    walk.tokens.add(turns.a.turn, *outputs, walk.expected.ends)


def _context_may_differ(sides: Sides, turns: TurnPair, walk: Walk) -> bool:
    """Whether the contexts of a turn differ, and that follows from what was allowed to differ."""
    if turns.a.prompt_id not in walk.parted or walk.findings.is_open:
        return False
    return sides.a.turn_start(turns.a).prompt_ids != sides.b.turn_start(turns.b).prompt_ids


def _interrupted_alike(turns: TurnPair, outputs: tuple[Output, Output]) -> bool:
    """Whether somebody ended both after the same steps: then neither has anything that the other lacks. What failed
    was not to end there."""
    a, b = outputs
    is_asked = a.reason == b.reason == "interrupted"
    return is_asked and len(a.token_ids) == len(b.token_ids) and bool(turns.a.steps and turns.b.steps)


def _note_cut(turns: TurnPair, walk: Walk, outputs: tuple[Output, Output], cut: list[str]) -> None:
    """A turn of which a side recorded only the beginning, and no token of that differs. Where its request was
    cancelled, that is all that the side was asked for."""
    num_tokens = min(len(output.token_ids) for output in outputs)
    equal = f"the outputs are equal as far as both were recorded, for {counted(num_tokens, 'token')}"
    ends = f"{cut[0]} ends there" if len(cut) == 1 else "neither came to its end"
    if all(output.is_whole or output.reason == CANCELLED for output in outputs):
        walk.unjudged.append(f"{name_of(turns)}: cancelled in {' and in '.join(cut)}; {equal}")
        return
    walk.uncovered.append(f"{name_of(turns)}: {equal}; {ends}")


def _note_outputs(sides: Sides, turns: TurnPair, walk: Walk, last: Place | None) -> None:
    """Outputs that no root explains: allowed, or the work of the side whose turn breaks an invariant, or not judged."""
    name = name_of(turns)
    if walk.expected.outputs_may_differ:
        walk.parted.add(turns.a.prompt_id)
        walk.unjudged.append(f"{name}: the outputs differ, which follows from what was allowed to differ")
        return
    if _file_token(sides, turns, walk):
        return
    blame = sides.blame_turn(turns, prefill=False)
    if last is None or len({violation.side for violation in blame}) != 1:
        walk.uncovered.append(f"{name}: the outputs differ{_why_unexplained(sides)}")
    else:
        walk.findings.file(last, [], blame)


def _file_token(sides: Sides, turns: TurnPair, walk: Walk) -> bool:
    """Files the first token that differs as a root, where a pipeline's steps stand beside others; whether it did."""
    manifests = (sides.a.manifest, sides.b.manifest)
    if all(manifest.pipeline is None for manifest in manifests) or manifests[0].sampling.rule != "greedy":
        return False
    index = first_other_token(output_of(sides.a, turns.a), output_of(sides.b, turns.b))
    if index is None:
        return False
    a, b = source_of(sides.a.steps(turns.a), index), source_of(sides.b.steps(turns.b), index)
    differing = token_difference(a, b, walk.judge) if a is not None and b is not None else None
    if a is None or b is None or differing is None:
        return False
    position = len(sides.a.turn_start(turns.a).prompt_ids) + index - 1
    place = place_in(turns, position, a.step.step, b.step.step)
    walk.findings.file(place, [differing], sides.blame(a.step, b.step))
    return True


def _compare_steps_of(sides: Sides, turns: TurnPair, walk: Walk) -> Place | None:
    """Compares the prefills and the aligned steps of a turn, and gives the place of the last pair."""
    start_a, start_b = sides.a.turn_start(turns.a), sides.b.turn_start(turns.b)
    walk.tokens.reused_a += start_a.reused_length
    walk.tokens.reused_b += start_b.reused_length
    if turns.a.prompt_turn == 0:
        walk.findings.close()
    if start_a.prompt_ids != start_b.prompt_ids:
        _pass_over(turns, walk)
        return None
    if turns.a.prompt_turn > 0 and not walk.findings.real_is_open:
        walk.findings.close()
    place = place_in(turns, len(start_a.prompt_ids), 0, 0)
    if walk.drift is not None and walk.drift.begins_at(turns.a.turn, None):
        _begin_drift(walk, walk.drift, place)
    prefill_a, prefill_b = start_a.prefill, start_b.prefill
    if (prefill_a.pending_token is None) != (prefill_b.pending_token is None):
        prefill_a = with_first_token(prefill_a, next(sides.a.steps(turns.a), None))
        prefill_b = with_first_token(prefill_b, next(sides.b.steps(turns.b), None))
    difference = _compare_prefills_of(prefill_a, prefill_b, walk)
    if difference is not None:
        walk.findings.file_prefill(place, difference, sides.blame_turn(turns, prefill=True))
    return _compare_aligned(sides, turns, walk, place)


def _compare_aligned(sides: Sides, turns: TurnPair, walk: Walk, place: Place) -> Place | None:
    """Compares the aligned steps of a turn whose prefills are at ``place``, and gives the place of the last pair; None
    where no steps are aligned."""
    marks = TurnMarks(turns.a.turn, turns.b.turn, [])
    if walk.marks is not None:
        walk.marks.append(marks)
    num_pairs, are_placed = 0, True
    for pair in align_steps(sides.a, sides.b, turns):
        num_pairs += 1
        place = _place_of(turns, pair) if not pair.equal else place
        filed = _compare_pair(sides, turns, pair, walk)
        if walk.marks is not None:
            marks.pairs.append(
                PairMark(
                    step_a=pair.step_a,
                    step_b=pair.step_b,
                    position=pair.position,
                    state=filed.state,
                    root=filed.root,
                    same_context=pair.same_context,
                )
            )
        are_placed = are_placed and records_place(pair.line_a) and records_place(pair.line_b)
    walk.num_steps += num_pairs
    walk.num_regrouped += len(turns.a.steps) + len(turns.b.steps) - 2 * num_pairs
    if not (are_placed and num_pairs == len(turns.a.steps) == len(turns.b.steps)):
        _note_unaligned(walk, turns, sides)
    return place if num_pairs else None


def _compare_prefills_of(a: Prefill, b: Prefill, walk: Walk) -> Difference | None:
    walk.coverage.add_prefill(a, b)
    if "verify" in walk.expected.phases:
        return None
    if walk.expected.outputs_may_differ:
        return compare_prefill_logits(walk.judge, a, b)
    return compare_prefills(walk.judge, a, b)


def _pass_over(turns: TurnPair, walk: Walk) -> None:
    """A turn whose contexts differ, of which nothing is compared."""
    name = name_of(turns)
    if walk.findings.is_open or turns.a.prompt_id not in walk.parted:
        if not walk.findings.is_open:
            walk.uncovered.append(f"{name}: the contexts differ")
        for _ in range(max(len(turns.a.steps), len(turns.b.steps))):
            walk.findings.inherit()
    else:
        walk.unjudged.append(f"{name}: its context holds what was allowed to differ, so it is not compared")
    if walk.marks is not None:
        walk.marks.append(TurnMarks(turns.a.turn, turns.b.turn, [], same_prompt=False))


def _compare_pair(sides: Sides, turns: TurnPair, pair: Aligned, walk: Walk) -> Filed:
    findings = walk.findings
    if not pair.same_context:
        apart = walk.expected.outputs_may_differ and not findings.is_open
        return Filed("unjudged") if apart else findings.inherit()
    if walk.drift is not None and walk.drift.begins_at(turns.a.turn, pair.step_a):
        _begin_drift(walk, walk.drift, _place_of(turns, pair))
    if pair.equal:
        walk.coverage.add_equal(pair.line_b.line)
        findings.close()
        return Filed("equal")
    if sides.is_misshapen(pair.a, pair.b):
        name = turn_name(turns.b.turn, turns.b.prompt_id)
        walk.uncovered.append(f"{name}, step {pair.b.step} of the candidate: its lists do not fit together")
        return Filed("unjudged")
    recorded = RecordedSteps(
        pair.a,
        pair.b,
        pair.previous_a,
        pair.previous_b,
        regrouped=pair.regrouped > 0,
        reused_more=reused_more(sides.a.turn_start(turns.a), sides.b.turn_start(turns.b)) if pair.is_first else 0,
    )
    steps = StepPair.of(recorded, sides.a.manifest, sides.b.manifest, judge=walk.judge, expected=walk.expected)
    differences = compare_steps(steps)
    walk.coverage.add(pair.a, pair.b, compared_phases(steps))
    walk.coverage.other_trees += trees_may_differ(steps)
    walk.num_capped += shared_depth(pair.a, pair.b) is not None
    blame = sides.blame(pair.a, pair.b)
    if differences and differences[0].phase == "stop":  # how a turn ends is a matter of the whole turn
        blame += sides.blame_turn(turns, prefill=False)
    return findings.file(_place_of(turns, pair), differences, blame)


def _begin_drift(walk: Walk, drift: UniformDrift, place: Place) -> None:
    """Files the drift of all numbers as a root."""
    root = Root(
        place=place,
        difference=drift.difference,
        also=drift.also,
        inherited=0,
        blame=[],
        wrong="neither",
        drift=drift.finding,
    )
    walk.findings.begin_drift(root, drift.explains)


def _place_of(turns: TurnPair, pair: Aligned) -> Place:
    return place_in(turns, pair.position, pair.a.step, pair.b.step)


def name_of(turns: TurnPair) -> str:
    """What the two turns are called."""
    return turns_name(turns.a.turn, turns.b.turn, turns.a.prompt_id)


def place_in(turns: TurnPair, position: int | None, step_a: int, step_b: int) -> Place:
    """The place of a pair of steps; ``position`` None where it is not known."""
    return Place(
        turn=turns.a.turn,
        turn_b=turns.b.turn,
        prompt_id=turns.a.prompt_id,
        prompt_turn=turns.a.prompt_turn,
        position=position,
        step_a=step_a,
        step_b=step_b,
    )


def _note_unaligned(walk: Walk, turns: TurnPair, sides: Sides) -> None:
    """Says where a step's place was not recorded, so that what follows it could not be aligned."""
    for name, reader, turn in (("baseline", sides.a, turns.a), ("candidate", sides.b, turns.b)):
        if {"stop", "commit", "tensors"} & set(reader.manifest.capabilities):
            for line in reader.step_lines(turn):
                if not records_place(line):
                    where = f"{turn_name(turn.turn, turn.prompt_id)}, step {line.record.step}"
                    walk.uncovered.append(f"{where} of the {name} records no place")
                    return


def _why_unexplained(sides: Sides) -> str:
    """Why no root explains that outputs differ."""
    if not both_draft(sides.a.manifest, sides.b.manifest) and sides.a.manifest.sampling.rule != "greedy":
        return "; a run that drafts nothing draws other coins"
    return ", and nothing that was recorded says where"
