"""Two steps that belong together, what differs between them, and which slots to mark. Knows records, no pages.

The pages and the report look at pairs through a ``Comparison``: which steps are aligned, and what became of each, was
found there once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from specscope.schemas import Step
from specscope.schemas.verdict import TIES, Difference, NoiseFloor, Root
from specscope.tracer.compare.diff import Comparison
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.marks import PairMark, TurnMarks
from specscope.tracer.compare.nodes import PathKey, StepNodes, key_tokens
from specscope.tracer.compare.phases import compare_steps
from specscope.tracer.compare.roots import with_violation
from specscope.tracer.compare.steps import RecordedSteps, StepPair
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.oracle.report import MISSHAPEN
from specscope.tracer.oracle.step import step_violations
from specscope.viewer.drawing.marks import NodeMarks


@dataclass(frozen=True)
class AlignedSteps:
    """A step of the baseline (a) and its partner in the candidate (b), with what is before them."""

    turn_a: TurnEntry
    turn_b: TurnEntry
    mark: PairMark
    a: Step
    b: Step
    previous_a: Step | None
    previous_b: Step | None
    regrouped: bool  # the steps before were not the same blocks


@dataclass(frozen=True)
class PairDifferences:
    """What differs between two aligned steps."""

    differences: list[Difference]
    origin: Difference | None  # where the divergence begins; None where it began at a step before
    marks_a: NodeMarks  # for the drawings of the baseline's step
    marks_b: NodeMarks
    comparable: bool  # off where the tokens before them differ, or their lists do not fit: then nothing is marked


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
    roots = [found for found in pairs if found[1].state == "root"]
    ties = [found for found in pairs if found[1].state == "tie"]
    return next(iter([*roots, *ties, *pairs]), None)


def pair_at(turn: TurnMarks, step_a: int) -> PairMark | None:
    """The pair that the baseline's step ``step_a`` stands in; None where it has no partner."""
    at = bisect_left(turn.pairs, step_a, key=lambda pair: pair.step_a)
    return turn.pairs[at] if at < len(turn.pairs) and turn.pairs[at].step_a == step_a else None


def pair_before(turn: TurnMarks, step_b: int) -> PairMark | None:
    """The last pair at or before the candidate's step ``step_b``; None where all are behind it."""
    at = bisect_right(turn.pairs, step_b, key=lambda pair: pair.step_b)
    return turn.pairs[at - 1] if at else None


def of_prompt(root: Root) -> bool:
    """Whether a root lies in a prompt's own forward, before the first step of its turn."""
    return root.difference.field.startswith("prefill.")


def covering_step(turn: TurnMarks, turn_a: TurnEntry, turn_b: TurnEntry, step_a: int) -> int | None:
    """For a step of the baseline without a partner, the candidate's step that covers its position, counted from the
    pair before it by accepted lengths; None where the candidate has none there."""
    at = bisect_left(turn.pairs, step_a, key=lambda pair: pair.step_a)
    before = turn.pairs[at - 1] if at else None
    from_a, from_b = (before.step_a, before.step_b) if before is not None else (0, 0)
    wanted = sum(length + 1 for length in turn_a.accepted_lengths[from_a:step_a])
    ends = list(accumulate(length + 1 for length in turn_b.accepted_lengths[from_b:]))
    found = bisect_right(ends, wanted)
    return from_b + found if found < len(ends) else None


def steps_at(a: TraceReader, b: TraceReader, turn: TurnMarks, pair: PairMark) -> AlignedSteps | None:
    """The two steps of ``pair``; None where the files no longer hold them."""
    turn_a, turn_b = turn_named(a, turn.turn_a), turn_named(b, turn.turn_b)
    if turn_a is None or turn_b is None:
        return None
    if pair.step_a >= len(turn_a.steps) or pair.step_b >= len(turn_b.steps):
        return None
    return AlignedSteps(
        turn_a,
        turn_b,
        pair,
        a.step(turn_a, pair.step_a),
        b.step(turn_b, pair.step_b),
        a.step(turn_a, pair.step_a - 1) if pair.step_a else None,
        b.step(turn_b, pair.step_b - 1) if pair.step_b else None,
        _is_regrouped(turn, pair),
    )


def _is_regrouped(turn: TurnMarks, pair: PairMark) -> bool:
    """Whether steps were passed over since the pair before, as ``align_steps`` counts them."""
    at = bisect_left(turn.pairs, pair.step_a, key=lambda other: other.step_a)
    before = turn.pairs[at - 1] if at else None
    if before is None:
        return bool(pair.step_a or pair.step_b)
    return (before.step_a, before.step_b) != (pair.step_a - 1, pair.step_b - 1)


def compare_pair(
    a: TraceReader, b: TraceReader, steps: AlignedSteps, floors: Sequence[NoiseFloor], root: Root | None = None
) -> PairDifferences:
    """Every difference of the two steps, and the marks of their nodes. Both trees' marks give one name to a node that
    stands in both.

    Args:
        a: the baseline.
        b: the candidate.
        steps: two steps of theirs.
        floors: of the comparison.
        root: the root that stands at this pair, where one does.
    """
    if not (_has_paths(steps.a) and _has_paths(steps.b)):
        return PairDifferences([], None, *names_of(steps.a, steps.b), comparable=False)
    nodes_a, nodes_b = StepNodes(steps.a), StepNodes(steps.b)
    names_a, names_b = _shared_names(nodes_a, nodes_b)
    unjudged = steps.mark.state == "unjudged" or not steps.mark.same_context or not floors
    if unjudged or _is_misshapen(a, b, steps):
        return PairDifferences([], None, NodeMarks(names=names_a), NodeMarks(names=names_b), comparable=False)
    recorded = RecordedSteps(steps.a, steps.b, steps.previous_a, steps.previous_b, regrouped=steps.regrouped)
    pair = StepPair.of(recorded, a.manifest, b.manifest, judge=FloatJudge.of(floors, a.manifest))
    nodes_a, nodes_b = pair.a, pair.b
    differences = with_violation(compare_steps(pair), root.blame if root is not None else [])
    begins = steps.mark.state in ("root", "tie")
    origin = root.difference if root is not None else _first(differences) if begins else None
    keys = _differing(pair, differences)
    node = origin.node if origin is not None else None
    return PairDifferences(
        differences,
        origin,
        NodeMarks(_slots(nodes_a, keys), _slot_of(nodes_a, node), names_a),
        NodeMarks(_slots(nodes_b, keys), _slot_of(nodes_b, node), names_b),
        comparable=True,
    )


def _differing(pair: StepPair, differences: list[Difference]) -> set[PathKey]:
    """The nodes to mark: those with other values, those that ``differences`` name, and those of one tree alone."""
    a, b = pair.a, pair.b
    keys = {key for key in pair.common if _node_values(a, key) != _node_values(b, key)}
    if pair.trees_compared:
        keys |= set(a.keys) ^ set(b.keys)
    named = {tuple(found.node) for found in differences if found.node is not None}
    return keys | {key for key in {*a.keys, *b.keys} if tuple(key_tokens(key)) in named}


def names_of(a: Step, b: Step) -> tuple[NodeMarks, NodeMarks]:
    """Marks of two steps that mark nothing, each node by its own name: nothing in one is the other's."""
    sizes = (len(step.tree.tokens) if step.tree is not None else 0 for step in (a, b))
    own = (NodeMarks(names=tuple(f"{side}{n}" for n in range(size))) for side, size in zip("ab", sizes, strict=True))
    return next(own), next(own)


def _has_paths(step: Step) -> bool:
    """Whether every node of the tree says its parent, without which it has no path key."""
    return step.tree is None or len(step.tree.parents) >= len(step.tree.tokens)


def _is_misshapen(a: TraceReader, b: TraceReader, steps: AlignedSteps) -> bool:
    """Whether the lists of one of the two do not fit together, which two equal records may have in common."""
    contexts = (
        Context(manifest=a.manifest, turn=a.turn_start(steps.turn_a), previous=steps.previous_a, step=steps.a),
        Context(manifest=b.manifest, turn=b.turn_start(steps.turn_b), previous=steps.previous_b, step=steps.b),
    )
    return any(found.invariant in MISSHAPEN for context in contexts for found in step_violations(context))


def _first(found: list[Difference]) -> Difference | None:
    """The difference that the step's others follow from; None where all inputs differ already."""
    origins = [difference for difference in found if difference.inputs_equal]
    return next((one for one in origins if one.kind not in TIES), next(iter(origins), None))


def _shared_names(a: StepNodes, b: StepNodes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the nodes of two trees: ``a5`` for slot 5 of the baseline, and for its partner too; ``b7`` for a node
    that the candidate alone has."""
    names_a = tuple(f"a{slot}" for slot in range(len(a.keys)))
    return names_a, tuple(f"a{a.slots[key]}" if key in a.slots else f"b{slot}" for slot, key in enumerate(b.keys))


def _slot_of(nodes: StepNodes, tokens: list[int] | None) -> int | None:
    if tokens is None:
        return None
    return next((slot for slot, key in enumerate(nodes.keys) if key_tokens(key) == tokens), None)


def _slots(nodes: StepNodes, keys: set[PathKey]) -> frozenset[int]:
    return frozenset(slot for slot, key in enumerate(nodes.keys) if key in keys)


def _node_values(nodes: StepNodes, key: PathKey) -> list[Any]:
    """What is discrete about one node: how it was fed, and what the teacher and the walk made of it."""
    slot, step = nodes.slots[key], nodes.step
    values: list[Any] = [nodes.visible.get(key)]
    if step.tensors is not None:
        tensors = step.tensors
        values += [_at(row, slot) for row in (tensors.positions, tensors.token_ids, tensors.prefix_visible)]
    if step.verify is not None:
        values.append(_at(step.verify.argmax, slot))
    if step.accept is not None:
        values.append(slot in step.accept.path)
    return values


def _at(values: list[int], slot: int) -> int | None:
    return values[slot] if slot < len(values) else None
