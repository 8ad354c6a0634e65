"""Two steps that belong together, what differs between them, and which slots to mark. Knows records, no pages.

The pages and the report look at pairs through a ``Comparison``, which holds which steps are aligned, and what became of
each pair.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from specscope.schemas import Step
from specscope.schemas.verdict import Difference, NoiseFloor, Root
from specscope.tracer.compare.diff import Comparison
from specscope.tracer.compare.drafts import reused_more
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.marks import PairMark, TurnMarks
from specscope.tracer.compare.nodes import PathKey, StepNodes, key_tokens
from specscope.tracer.compare.phases import compare_steps
from specscope.tracer.compare.prefill import is_of_prefill
from specscope.tracer.compare.roots import origin_of, with_violation
from specscope.tracer.compare.steps import RecordedSteps, StepPair
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.oracle.report import MISSHAPEN
from specscope.tracer.oracle.step import step_violations
from specscope.viewer.drawing.marks import NodeMarks


@dataclass(frozen=True, kw_only=True)
class AlignedSteps:
    """A step of the baseline (a) and its partner in the candidate (b), each with the step before it."""

    turn_a: TurnEntry
    turn_b: TurnEntry
    mark: PairMark
    a: Step
    b: Step
    previous_a: Step | None
    previous_b: Step | None
    regrouped: bool  # the steps before were not the same blocks


@dataclass(frozen=True, kw_only=True)
class PairDifferences:
    """What differs between two aligned steps."""

    differences: list[Difference]
    origin: Difference | None  # where the divergence begins; None where it began at an earlier step
    marks_a: NodeMarks  # for the drawings of the baseline's step
    marks_b: NodeMarks
    comparable: bool  # False where the tokens before them differ, or their lists do not fit: then nothing is marked


def turn_named(reader: TraceReader, number: int) -> TurnEntry | None:
    """The turn of that number."""
    return next((turn for turn in reader.turns if turn.turn == number), None)


def marks_of(comparison: Comparison, turn_a: int) -> TurnMarks | None:
    """The pairs of the baseline's turn of that number; None where it has no partner or was not compared."""
    return next((marks for marks in comparison.turns if marks.turn_a == turn_a), None)


def first_pair(comparison: Comparison) -> tuple[TurnMarks, PairMark] | None:
    """Where to look first: the first root, else the first tie, else the first pair of steps; None where no steps are
    aligned."""
    pairs = [(turn, pair) for turn in comparison.turns for pair in turn.pairs]
    roots = [(turn, pair) for turn, pair in pairs if pair.state == "root"]
    ties = [(turn, pair) for turn, pair in pairs if pair.state == "tie"]
    return next(iter([*roots, *ties, *pairs]), None)


def pair_at(turn: TurnMarks, step_a: int) -> PairMark | None:
    """The pair of the baseline's step ``step_a``; None where it has no partner."""
    at = bisect_left(turn.pairs, step_a, key=lambda pair: pair.step_a)
    return turn.pairs[at] if at < len(turn.pairs) and turn.pairs[at].step_a == step_a else None


def pair_before(turn: TurnMarks, step_b: int) -> PairMark | None:
    """The last pair at or before the candidate's step ``step_b``; None where all come after it."""
    at = bisect_right(turn.pairs, step_b, key=lambda pair: pair.step_b)
    return turn.pairs[at - 1] if at else None


def of_prompt(root: Root) -> bool:
    """Whether a root lies in a prompt's own forward, before the first step of its turn."""
    return is_of_prefill(root.difference.field)


def covering_step(turn: TurnMarks, turn_a: TurnEntry, turn_b: TurnEntry, step_a: int) -> int | None:
    """For a step of the baseline without a partner, the candidate's step that covers its position, counted from the
    pair before it by accepted lengths; None where the candidate has none there."""
    at = bisect_left(turn.pairs, step_a, key=lambda pair: pair.step_a)
    before = turn.pairs[at - 1] if at else None
    from_a, from_b = (before.step_a, before.step_b) if before is not None else (0, 0)
    wanted = sum(length + 1 for length in turn_a.accepted_lengths[from_a:step_a])
    ends = list(accumulate(length + 1 for length in turn_b.accepted_lengths[from_b:]))
    num_before = bisect_right(ends, wanted)
    return from_b + num_before if num_before < len(ends) else None


def steps_at(a: TraceReader, b: TraceReader, turn: TurnMarks, pair: PairMark) -> AlignedSteps | None:
    """The two steps of ``pair``; None where the files no longer hold them."""
    turn_a, turn_b = turn_named(a, turn.turn_a), turn_named(b, turn.turn_b)
    if turn_a is None or turn_b is None:
        return None
    if pair.step_a >= len(turn_a.steps) or pair.step_b >= len(turn_b.steps):
        return None
    return AlignedSteps(
        turn_a=turn_a,
        turn_b=turn_b,
        mark=pair,
        a=a.step(turn_a, pair.step_a),
        b=b.step(turn_b, pair.step_b),
        previous_a=a.step(turn_a, pair.step_a - 1) if pair.step_a else None,
        previous_b=b.step(turn_b, pair.step_b - 1) if pair.step_b else None,
        regrouped=_is_regrouped(turn, pair),
    )


def _is_regrouped(turn: TurnMarks, pair: PairMark) -> bool:
    """Whether steps were passed over since the pair before, as ``align_steps`` counts them."""
    at = bisect_left(turn.pairs, pair.step_a, key=lambda other: other.step_a)
    before = turn.pairs[at - 1] if at else None
    if before is None:
        return bool(pair.step_a or pair.step_b)
    return (before.step_a, before.step_b) != (pair.step_a - 1, pair.step_b - 1)


def compare_pair(
    a: TraceReader, b: TraceReader, steps: AlignedSteps, floors: Sequence[NoiseFloor], *, root: Root | None = None
) -> PairDifferences:
    """Every difference of the two steps, and the marks of their nodes. Both trees' marks give the same name to a node
    that is in both.

    Args:
        a: the baseline.
        b: the candidate.
        steps: two steps of theirs.
        floors: of the comparison.
        root: the root that begins at this pair, where one does.
    """
    if not (_has_paths(steps.a) and _has_paths(steps.b)):
        return _not_compared(names_of(steps.a, steps.b))
    nodes_a, nodes_b = StepNodes(steps.a), StepNodes(steps.b)
    names = _shared_names(nodes_a, nodes_b)
    unjudged = steps.mark.state == "unjudged" or not steps.mark.same_context or not floors
    if unjudged or _is_misshapen(a, b, steps):
        return _not_compared(names)
    pair = _step_pair(a, b, steps, floors)
    differences = with_violation(compare_steps(pair), root.blame if root is not None else [])
    begins = steps.mark.state in ("root", "tie")
    origin = root.difference if root is not None else origin_of(differences) if begins else None
    keys = _differing(pair, differences)
    node = origin.node if origin is not None else None
    inherited = _inherited(pair, keys, node)

    def marks(nodes: StepNodes, names: Sequence[str] | None) -> NodeMarks:
        return NodeMarks(
            divergent=_slots(nodes, keys),
            origin=_slot_of(nodes, node),
            names=names,
            inherited=_slots(nodes, inherited),
        )

    return PairDifferences(
        differences=differences,
        origin=origin,
        marks_a=marks(nodes_a, names.a.names),
        marks_b=marks(nodes_b, names.b.names),
        comparable=True,
    )


class BothMarks(NamedTuple):
    """Marks of two steps."""

    a: NodeMarks
    b: NodeMarks


def _not_compared(names: BothMarks) -> PairDifferences:
    return PairDifferences(differences=[], origin=None, marks_a=names.a, marks_b=names.b, comparable=False)


def _step_pair(a: TraceReader, b: TraceReader, steps: AlignedSteps, floors: Sequence[NoiseFloor]) -> StepPair:
    """What ``compare_steps`` takes."""
    is_first = steps.previous_a is None and steps.previous_b is None
    recorded = RecordedSteps(
        steps.a,
        steps.b,
        steps.previous_a,
        steps.previous_b,
        regrouped=steps.regrouped,
        reused_more=reused_more(a.turn_start(steps.turn_a), b.turn_start(steps.turn_b)) if is_first else 0,
    )
    return StepPair.of(recorded, a.manifest, b.manifest, judge=FloatJudge.of(floors, a.manifest))


def _differing(pair: StepPair, differences: list[Difference]) -> set[PathKey]:
    """The nodes to mark: those with other values, those that ``differences`` name, and those of only one tree."""
    a, b = pair.a, pair.b
    keys = {key for key in pair.common if _node_values(a, key) != _node_values(b, key)}
    if pair.trees_compared:
        keys |= set(a.keys) ^ set(b.keys)
    named = {tuple(difference.node) for difference in differences if difference.node is not None}
    return keys | {key for key in {*a.keys, *b.keys} if tuple(key_tokens(key)) in named}


def _inherited(pair: StepPair, keys: set[PathKey], origin: list[int] | None) -> set[PathKey]:
    """Of the nodes that differ, those that were fed alike where others were not: what is computed of them follows from
    those. Empty where all were fed alike, for then nothing tells one from another."""
    a, b = pair.a, pair.b
    fed_apart = {key for key in pair.common if _fed(a, key) != _fed(b, key)}
    if not fed_apart:
        return set()
    return {key for key in keys & set(pair.common) - fed_apart if key_tokens(key) != origin}


def names_of(a: Step, b: Step) -> BothMarks:
    """Marks of two steps that mark nothing, each node with its own name: no node of one is the other's."""
    size_a, size_b = (len(step.tree.tokens) if step.tree is not None else 0 for step in (a, b))
    return BothMarks(
        NodeMarks(names=tuple(f"a{slot}" for slot in range(size_a))),
        NodeMarks(names=tuple(f"b{slot}" for slot in range(size_b))),
    )


def _has_paths(step: Step) -> bool:
    """Whether every node of the tree says its parent, without which it has no path key."""
    return step.tree is None or len(step.tree.parents) >= len(step.tree.tokens)


def _is_misshapen(a: TraceReader, b: TraceReader, steps: AlignedSteps) -> bool:
    """Whether the lists of one of the two do not fit together, which two equal records may have in common."""
    contexts = (
        Context(manifest=a.manifest, turn=a.turn_start(steps.turn_a), previous=steps.previous_a, step=steps.a),
        Context(manifest=b.manifest, turn=b.turn_start(steps.turn_b), previous=steps.previous_b, step=steps.b),
    )
    return any(violation.invariant in MISSHAPEN for context in contexts for violation in step_violations(context))


def _shared_names(a: StepNodes, b: StepNodes) -> BothMarks:
    """Names of the nodes of two trees: ``a5`` for slot 5 of the baseline, and for its partner too; ``b7`` for a node
    that only the candidate has."""
    return BothMarks(
        NodeMarks(names=tuple(f"a{slot}" for slot in range(len(a.keys)))),
        NodeMarks(names=tuple(f"a{a.slots[key]}" if key in a.slots else f"b{slot}" for slot, key in enumerate(b.keys))),
    )


def _slot_of(nodes: StepNodes, tokens: list[int] | None) -> int | None:
    if tokens is None:
        return None
    return next((slot for slot, key in enumerate(nodes.keys) if key_tokens(key) == tokens), None)


def _slots(nodes: StepNodes, keys: set[PathKey]) -> frozenset[int]:
    return frozenset(slot for slot, key in enumerate(nodes.keys) if key in keys)


def _node_values(nodes: StepNodes, key: PathKey) -> list[Any]:
    """What is discrete about one node: how it was fed, and what the teacher and the walk made of it."""
    slot, step = nodes.slots[key], nodes.step
    values = _fed(nodes, key)
    if step.verify is not None:
        values.append(_at(step.verify.argmax, slot))
    if step.accept is not None:
        values.append(slot in step.accept.path)
    return values


def _fed(nodes: StepNodes, key: PathKey) -> list[Any]:
    """How one node was fed to the teacher."""
    slot, tensors = nodes.slots[key], nodes.step.tensors
    values: list[Any] = [nodes.visible.get(key)]
    if tensors is not None:
        values += [_at(row, slot) for row in (tensors.positions, tensors.token_ids, tensors.prefix_visible)]
    return values


def _at(values: list[int], slot: int) -> int | None:
    return values[slot] if slot < len(values) else None
