"""Drift: how far floats of two runs lie apart that were computed from equal inputs, in roundings.

Gathered from the steps of each turn up to the first one whose tensors, or what its drafter was fed, differ, or that
breaks an invariant: what follows a structural difference is not noise. Trees that differ in some nodes, as ties make
them, still share the others.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from specscope.schemas import Step
from specscope.schemas.verdict import Quantity
from specscope.tracer.compare.align import TurnPair, align_steps, align_turns
from specscope.tracer.compare.at_a_glance import level_lists, verify_lists
from specscope.tracer.compare.drafts import fed_alike
from specscope.tracer.compare.manifests import both_draft
from specscope.tracer.compare.nodes import ROOT, PathKey, StepNodes, fed_in_same_slots
from specscope.tracer.compare.roundings import compared_in, epsilon_of, spacing, spacings
from specscope.tracer.compare.said import EqualInputs, EqualLists, paired_numbers, said_at, said_behind
from specscope.tracer.files.reader import TraceReader

MOST_VALUES = 20_000  # of each quantity; more tell nothing new
QUANTITIES: tuple[Quantity, ...] = ("logits", "logsumexp", "entropy", "draft-scores", "hidden-norms")


class DriftPlace(NamedTuple):
    """A pair of steps; ``step`` None is the prefill."""

    turns: TurnPair
    position: int
    step_a: int | None  # their places in the two turns
    step_b: int | None


@dataclass
class Sample:
    """The drift of one quantity, value by value in order."""

    roundings: array[float] = field(default_factory=lambda: array("d"))
    places: array[int] = field(default_factory=lambda: array("L"))  # of each value, an index into the places
    levels: array[int] = field(
        default_factory=lambda: array("L")
    )  # of each value, the draft level; 0 where it has none

    def __len__(self) -> int:
        return len(self.roundings)


@dataclass
class Drift:
    """What was gathered of two runs."""

    dtype: str  # the coarser of the two
    samples: dict[Quantity, Sample] = field(default_factory=lambda: {quantity: Sample() for quantity in QUANTITIES})
    places: list[DriftPlace] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether more would tell nothing new."""
        return len(self.samples["logits"]) >= MOST_VALUES

    def leave_out(self, quantity: Quantity) -> None:
        """Forgets the values of ``quantity``, which are not of equal inputs after all."""
        self.samples[quantity] = Sample()

    def add(self, place: DriftPlace, values: Iterator[EqualInputs], lists: Iterable[EqualLists] = ()) -> None:
        """Takes in the values of one place; those that are not finite are no drift."""
        self.places.append(place)
        epsilon, number = epsilon_of(self.dtype), len(self.places) - 1
        for equal in lists:
            gathered = [value for value in _roundings(equal, epsilon) if value < math.inf]
            sample = self.samples[equal.quantity]
            sample.roundings.extend(gathered)
            sample.places.extend([number] * len(gathered))
            sample.levels.extend([equal.level] * len(gathered))
        for value in values:
            gap = abs(value.a - value.b)
            size = max(abs(value.a), abs(value.b), value.size)
            roundings = gap / (epsilon * spacing(size)) if gap else 0.0
            if roundings < math.inf:
                sample = self.samples[value.quantity]
                sample.roundings.append(roundings)
                sample.places.append(number)
                sample.levels.append(value.level)


def _roundings(values: EqualLists, epsilon: float) -> list[float]:
    """How far each value drifts."""
    triples = zip(values.a, values.b, values.sizes, strict=True)
    # What is asked first holds of nearly all.
    sizes = [s if -s <= x <= s and -s <= y <= s else max(abs(x), abs(y), s) for x, y, s in triples]
    grains = zip(values.a, values.b, spacings(sizes), strict=True)
    return [gap / (epsilon * grain) if (gap := abs(x - y)) else 0.0 for x, y, grain in grains]


def _never(_a: Step, _b: Step) -> bool:
    return False


def _rows_may_differ(_a: StepNodes, _b: StepNodes) -> bool:
    return True


def measure_drift(
    a: TraceReader,
    b: TraceReader,
    is_broken: Callable[[Step, Step], bool] = _never,
    verified_alike: Callable[[StepNodes, StepNodes], bool] = _rows_may_differ,
    *,
    dtype: str | None = None,
) -> Drift:
    """The drift between two runs.

    Args:
        a: the one.
        b: the other.
        is_broken: a turn is left at a step of which it holds.
        verified_alike: where it does not hold of a step, only what the drafter computed is gathered of that step, and
            nothing of the turn after it.
        dtype: in whose roundings it is counted; None: in those of the two.
    """
    drift = Drift(dtype or compared_in(a.manifest, b.manifest))
    trees = both_draft(a.manifest, b.manifest)
    for pair in align_turns(a, b).pairs:
        start_a, start_b = a.turn_start(pair.a), b.turn_start(pair.b)
        if start_a.prompt_ids != start_b.prompt_ids:
            continue
        prefill = DriftPlace(pair, len(start_a.prompt_ids), None, None)
        said_a, said_b = said_behind(start_a.prefill), said_behind(start_b.prefill)
        if said_a is not None and said_b is not None:
            drift.add(prefill, paired_numbers(said_a, said_b))
        drafts = True  # until one of the two drafters was fed something else: its cache keeps it
        for steps in align_steps(a, b, pair):
            if not steps.same_context or drift.is_full or is_broken(steps.a, steps.b):
                break
            nodes_a, nodes_b = StepNodes(steps.a), StepNodes(steps.b)
            if trees and not same_structure(nodes_a, nodes_b):
                break
            place = DriftPlace(pair, steps.position, steps.step_a, steps.step_b)
            before = [None if step is None else StepNodes(step) for step in (steps.previous_a, steps.previous_b)]
            drafts = drafts and not steps.regrouped and fed_alike(nodes_a, nodes_b, *before)
            alike = verified_alike(nodes_a, nodes_b)
            drift.add(place, *equal_inputs(nodes_a, nodes_b, trees=trees, drafts=drafts, verified=alike))
            if not alike:
                break
    return drift


def measure_bits(a: TraceReader, b: TraceReader) -> Drift:
    """The drift between two runs of the same kernels, which leave the same bits as long as they are given the same
    rows: with other rows beside it a row may be summed in another order."""
    return measure_drift(a, b, verified_alike=_same_rows)


def _same_rows(a: StepNodes, b: StepNodes) -> bool:
    if a.step.tensors is None and b.step.tensors is None:
        return True
    return fed_in_same_slots(a, b)


def same_structure(a: StepNodes, b: StepNodes) -> bool:
    """Whether the nodes that both steps have stand at the same positions and see the same of each other. Where neither
    records a tree, slots stand for nodes."""
    fed_a, fed_b = a.step.tensors, b.step.tensors
    if fed_a is None or fed_b is None:
        return fed_a is fed_b
    if fed_a.committed_length != fed_b.committed_length:
        return False
    if fed_in_same_slots(a, b):
        return True
    lists = (
        (fed_a.positions, fed_b.positions),
        (fed_a.token_ids, fed_b.token_ids),
        (fed_a.prefix_visible, fed_b.prefix_visible),
    )
    if not a.keys or not b.keys:
        alike = fed_a.mask_rows == fed_b.mask_rows and all(left == right for left, right in lists)
        return alike and not a.keys and not b.keys
    common = frozenset(key for key in a.keys if key in b.slots)
    places = [(a.slots[key], b.slots[key]) for key in common]
    fits = all(
        max(i for i, _ in places) < len(left) and max(j for _, j in places) < len(right) for left, right in lists
    )
    return (
        fits
        and all(left[i] == right[j] for left, right in lists for i, j in places)
        and all(_seen(a, key, common) == _seen(b, key, common) for key in common)
    )


def _seen(nodes: StepNodes, key: PathKey, common: frozenset[PathKey]) -> frozenset[PathKey | int]:
    """What a node sees, less nodes that the other tree does not have."""
    seen = nodes.visible.get(key, frozenset())
    return frozenset(node for node in seen if not isinstance(node, tuple) or node in common)


class Gathered(NamedTuple):
    """The floats of two steps of the same structure: one by one, and those whose places need not be looked at."""

    values: Iterator[EqualInputs]
    lists: list[EqualLists]


def equal_inputs(a: StepNodes, b: StepNodes, *, trees: bool, drafts: bool, verified: bool = True) -> Gathered:
    """The floats of two steps of the same structure; at the root alone where only one run drafts (``trees`` off),
    without the drafter's where ``drafts`` is off, and without the teacher's where ``verified`` is."""
    teacher = verify_lists(a, b) if trees and verified else None
    drafter = level_lists(a, b) if trees and drafts else None
    values: Iterator[EqualInputs] = iter(())
    if teacher is None and verified:
        values = _teacher_values(a, b, _common(a, b) if trees else [ROOT])
    if trees and drafts:
        values = chain(values, _norms(a, b), _draft_scores(a, b) if drafter is None else ())
    return Gathered(values, [*(teacher or ()), *(drafter or ())])


def _common(a: StepNodes, b: StepNodes) -> list[PathKey]:
    return [key for key in a.keys if key in b.slots]


def _norms(a: StepNodes, b: StepNodes) -> Iterator[EqualInputs]:
    inputs = [None if nodes.step.draft is None else nodes.step.draft.inputs for nodes in (a, b)]
    ours, theirs = ([] if fed is None else fed.hidden_norms or [] for fed in inputs)
    for n, (x, y) in enumerate(zip(ours, theirs, strict=False)):
        yield EqualInputs(quantity="hidden-norms", field=f"inputs.hidden_norms[{n}]", a=x, b=y, size=0.0)


def _draft_scores(a: StepNodes, b: StepNodes) -> Iterator[EqualInputs]:
    """The log-probabilities of candidates that both proposed, row by row."""
    if not a.row_lists or not b.row_lists:
        yield from _scores_by_key(a, b)
        return
    for key, ours in a.row_lists.items():
        theirs = b.row_lists.get(key)
        if theirs is None:
            continue
        level = len(key) + 1
        of_token = dict(zip(theirs.tokens, theirs.logprobs, strict=True))
        shared = [
            (x, of_token[token]) for token, x in zip(ours.tokens, ours.logprobs, strict=True) if token in of_token
        ]
        sizes = [max(a.logit_size(ours.logsumexp, x), b.logit_size(theirs.logsumexp, y)) for x, y in shared]
        pairs = zip(shared, sizes, strict=True)
        yield from (_draft_score(level, x, y, size=size) for (x, y), size in pairs)


def _scores_by_key(a: StepNodes, b: StepNodes) -> Iterator[EqualInputs]:
    theirs = b.proposals
    for key, proposal in a.proposals.items():
        other = theirs.get(key)
        if other is not None:
            size = max(proposal.size, other.size)
            yield _draft_score(len(key), proposal.logprob, other.logprob, size=size)


def _draft_score(level: int, a: float, b: float, *, size: float) -> EqualInputs:
    return EqualInputs("draft-scores", f"levels[{level}]", a, b, size=size, level=level)


def _teacher_values(a: StepNodes, b: StepNodes, keys: list[PathKey]) -> Iterator[EqualInputs]:
    verify_a, verify_b = a.step.verify, b.step.verify
    if verify_a is None or verify_b is None:
        return
    for key in keys:
        ours, theirs = (said_at(v, n.slots.get(key, 0)) for v, n in ((verify_a, a), (verify_b, b)))
        if ours is not None and theirs is not None:
            yield from paired_numbers(ours, theirs)
