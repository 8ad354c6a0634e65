"""Two steps that belong together, what differs between them, and which slots to mark. Knows records, no pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specscope.schemas import Step
from specscope.schemas.verdict import Difference, NoiseFloor, Place
from specscope.tracer.compare.align import align_steps, align_turns
from specscope.tracer.compare.judge import FloatJudge
from specscope.tracer.compare.manifests import is_teacher_only
from specscope.tracer.compare.nodes import PathKey, StepNodes, key_tokens
from specscope.tracer.compare.phases import compare_steps
from specscope.tracer.compare.steps import StepPair
from specscope.tracer.index import TurnEntry
from specscope.tracer.reader import TraceReader


@dataclass(frozen=True)
class AlignedSteps:
    """A step of the baseline (a) and its partner in the candidate (b), with what is before them."""

    turn_a: int  # index into the reader's turns
    turn_b: int
    a: Step
    b: Step
    previous_a: Step | None
    previous_b: Step | None


@dataclass(frozen=True)
class StepComparison:
    """What differs between two aligned steps."""

    differences: list[Difference]
    slots_a: frozenset[int]  # slots to be marked in the baseline's tree
    slots_b: frozenset[int]
    origin_a: int | None  # the slot where the divergence begins; None where it begins at no node of this side
    origin_b: int | None


def steps_at(a: TraceReader, b: TraceReader, place: Place) -> AlignedSteps | None:
    """The two steps of a root; None where the files do not hold them, as when a difference lies in the prefill of a
    turn without steps."""
    turn_a, turn_b = _turn_index(a, place), _turn_index(b, place)
    if turn_a is None or turn_b is None:
        return None
    first, second = a.turns[turn_a], b.turns[turn_b]
    if place.step_a >= len(first.steps) or place.step_b >= len(second.steps):
        return None
    return AlignedSteps(
        turn_a,
        turn_b,
        a.step(first, place.step_a),
        b.step(second, place.step_b),
        _before(a, first, place.step_a),
        _before(b, second, place.step_b),
    )


def first_common_step(a: TraceReader, b: TraceReader) -> AlignedSteps | None:
    """The first two steps that begin at the same position of the same turn."""
    for pair in align_turns(a, b).pairs:
        for found in align_steps(a, b, pair):
            return AlignedSteps(
                a.turns.index(pair.a), b.turns.index(pair.b), found.a, found.b, found.previous_a, found.previous_b
            )
    return None


def _turn_index(reader: TraceReader, place: Place) -> int | None:
    keys = [(turn.prompt_id, turn.prompt_turn) for turn in reader.turns]
    wanted = (place.prompt_id, place.prompt_turn)
    return keys.index(wanted) if wanted in keys else None


def _before(reader: TraceReader, turn: TurnEntry, step: int) -> Step | None:
    return reader.step(turn, step - 1) if step > 0 else None


def compare_pair(a: TraceReader, b: TraceReader, steps: AlignedSteps, floors: list[NoiseFloor]) -> StepComparison:
    """Every difference of the two steps, and the slots that carry one."""
    pair = StepPair(
        StepNodes(steps.a),
        StepNodes(steps.b),
        None if steps.previous_a is None else StepNodes(steps.previous_a),
        None if steps.previous_b is None else StepNodes(steps.previous_b),
        FloatJudge.of(floors, a.manifest),
        not (is_teacher_only(a.manifest) or is_teacher_only(b.manifest)),
        a.manifest.tree_policy == b.manifest.tree_policy,
    )
    differences = compare_steps(pair)
    keys = {key for key in pair.common if _node_values(pair.a, key) != _node_values(pair.b, key)}
    if pair.trees_compared:
        keys |= set(pair.a.keys) ^ set(pair.b.keys)
    nodes = [tuple(d.node) for d in differences if d.node is not None]
    first = next((d for d in differences if d.inputs_equal), None)
    origin = first.node if first is not None else None
    return StepComparison(
        differences,
        _slots(pair.a, keys, nodes),
        _slots(pair.b, keys, nodes),
        _slot_of(pair.a, origin),
        _slot_of(pair.b, origin),
    )


def _slot_of(nodes: StepNodes, tokens: list[int] | None) -> int | None:
    if tokens is None:
        return None
    return next((slot for slot, key in enumerate(nodes.keys) if key_tokens(key) == tokens), None)


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


def _slots(nodes: StepNodes, keys: set[PathKey], named: list[tuple[int, ...]]) -> frozenset[int]:
    wanted = set(named)
    return frozenset(slot for slot, key in enumerate(nodes.keys) if key in keys or tuple(key_tokens(key)) in wanted)
