"""Two aligned steps, phase by phase, inputs before outputs, node by node.

Each function yields the differences of one phase. ``inputs_equal`` says whether everything the value was computed from
is equal on both sides; only then can the difference be a root.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from specscope.schemas import StopSection, TensorsSection, VerifySection
from specscope.schemas.phases import COMPARED_PHASES, Phase
from specscope.schemas.verdict import Difference, DifferenceKind
from specscope.tracer.compare.acceptance import compare_accept
from specscope.tracer.compare.at_a_glance import verify_lists
from specscope.tracer.compare.drafts import compare_drafts, compare_shapes, compare_trees, shares_draft
from specscope.tracer.compare.guided import compare_advance, compare_masks
from specscope.tracer.compare.nodes import PathKey, key_tokens
from specscope.tracer.compare.said import Said, paired_numbers, said_at
from specscope.tracer.compare.steps import StepPair, choice, difference, same_path, slot_keys
from specscope.tracer.compare.token_values import MOST_KEPT

#: Index tensors of which the oracle knows what they must be.
HELD_TO_THE_TREE = {"parents", "ancestors"}


def compare_steps(pair: StepPair) -> list[Difference]:
    """Every difference of the pair, in the order of the phases."""
    if not pair.trees_compared:
        return [*compare_masks(pair), *_verify(pair)]
    skipped = pair.expected.phases
    differences = [] if "draft" in skipped else [*compare_shapes(pair), *compare_drafts(pair)]
    if pair.a.step.tree is None or pair.b.step.tree is None:
        return [*differences, *_stop(pair)]  # slots say nothing without the tree that they number
    differences += compare_trees(pair, drafts_equal=not differences)
    differences += _exit_drafts(pair) if pair.same_exit_head else ()
    differences += _tensors(pair)
    differences += [] if "verify" in skipped else [*compare_masks(pair), *_verify(pair)]
    if "accept" in skipped or trees_may_differ(pair):
        return differences  # another tree, or another rule, may well accept another path
    differences += compare_accept(pair)
    differences += _commit(pair)
    differences += _stop(pair)
    differences += compare_advance(pair)
    return differences


def compared_phases(pair: StepPair) -> list[Phase]:
    """The phases of which ``compare_steps`` compares all that both sides record, or of trees that were meant to differ
    their common nodes."""
    a, b = pair.a.step, pair.b.step
    both: list[Phase] = [phase for phase in COMPARED_PHASES if None not in (getattr(a, phase), getattr(b, phase))]
    if "draft" in both and not shares_draft(pair):
        both.remove("draft")
    if not pair.trees_compared:
        return [phase for phase in both if phase == "verify"]
    if "tree" not in both:
        return [phase for phase in both if phase in ("draft", "stop")]
    skipped = set(pair.expected.phases)
    if trees_may_differ(pair):
        skipped |= {"tree", "accept", "commit", "stop"}
    return [phase for phase in both if phase not in skipped]


def trees_may_differ(pair: StepPair) -> bool:
    """Whether two steps have other trees, as what they were grown by allows."""
    return not pair.same_policy and set(pair.a.keys) != set(pair.b.keys)


def _exit_drafts(pair: StepPair) -> Iterator[Difference]:
    """What the exit heads of two pipelines drafted after the same tokens, where both drafted."""
    a, b = pair.a.step.pipeline, pair.b.step.pipeline
    if a is None or b is None or a.draft_token is None or b.draft_token is None:
        return
    ours, theirs = a.draft_prob, b.draft_prob
    known = ours is not None and theirs is not None
    close = ours is not None and theirs is not None and pair.judge.same_probability("draft.exit_prob", ours, theirs)
    if a.draft_token != b.draft_token:
        # Of two tokens that noise may have swapped, neither can have much more than half.
        room = (
            ours is not None and theirs is not None and (ours + theirs <= 1 or pair.judge.near_probability(ours, 0.5))
        )
        kind: DifferenceKind = "near-tie" if close and room else "real"
        yield difference("draft", "exit_token", a.draft_token, b.draft_token, kind=kind, inputs_equal=True)
    elif known and not close:
        yield difference("draft", "exit_prob", ours, theirs, kind="real", inputs_equal=True)


def _tensors(pair: StepPair) -> Iterator[Difference]:
    """Mask, positions and ids of every common node; a node's path is the input of all of them."""
    a, b = pair.a.step.tensors, pair.b.step.tensors
    if a is None or b is None:
        return
    if a.committed_length != b.committed_length:
        yield difference(
            "tensors", "committed_length", a.committed_length, b.committed_length, kind="structural", inputs_equal=True
        )
    yield from _gathers(pair, a, b)
    if pair.in_same_slots:
        return
    for field in ("token_ids", "positions", "prefix_visible"):
        values_a, values_b = getattr(a, field), getattr(b, field)
        for key in pair.common:
            va, vb = _at(values_a, pair.a.slots[key]), _at(values_b, pair.b.slots[key])
            if va != vb:
                yield difference("tensors", field, va, vb, kind="structural", inputs_equal=True, node=key)
                break
    same_nodes = len(pair.common) == len(pair.a.keys) == len(pair.b.keys)
    for key in pair.common:
        seen_a, seen_b = pair.a.visible.get(key, frozenset()), pair.b.visible.get(key, frozenset())
        if not same_nodes:  # a node outside the other tree cannot be seen there
            seen_a, seen_b = _within(seen_a, pair.common), _within(seen_b, pair.common)
        if seen_a != seen_b:
            yield _mask_difference(key, _listed(seen_a - seen_b), _listed(seen_b - seen_a))
            break


def _gathers(pair: StepPair, a: TensorsSection, b: TensorsSection) -> Iterator[Difference]:
    """Index tensors of one engine, name and size, where slots are numbered alike: else their entries are about other
    slots. Those that the oracle holds to the tree are left to it."""
    if not (pair.same_engine and pair.same_policy and pair.numbered_alike):
        return
    for name in sorted((set(a.index_tensors) & set(b.index_tensors)) - HELD_TO_THE_TREE):
        ours, theirs = a.index_tensors[name], b.index_tensors[name]
        if len(ours) == len(theirs) and ours != theirs:
            at = next(at for at, (x, y) in enumerate(zip(ours, theirs, strict=True)) if x != y)
            field, va, vb = f"index_tensors.{name}[{at}]", ours[at], theirs[at]
            yield difference("tensors", field, va, vb, kind="structural", inputs_equal=True)


def _mask_difference(key: PathKey, extra_a: list[int | list[int]], extra_b: list[int | list[int]]) -> Difference:
    """A row of the mask, by what each side sees and the other does not."""
    a, b = (f"also sees {extra}" if extra else "sees nothing else" for extra in (extra_a, extra_b))
    differing = difference("tensors", "mask", a, b, kind="structural", inputs_equal=True, node=key)
    return differing.model_copy(update={"tokens_a": extra_a[:MOST_KEPT], "tokens_b": extra_b[:MOST_KEPT]})


def _listed(seen: frozenset[PathKey | int]) -> list[int | list[int]]:
    """Nodes by path, then padding columns by number, in an order that does not depend on hashes."""
    nodes = sorted(key for key in seen if isinstance(key, tuple))
    return [*map(key_tokens, nodes), *sorted(column for column in seen if isinstance(column, int))]


def _within(seen: frozenset[PathKey | int], common: list[PathKey]) -> frozenset[PathKey | int]:
    return seen & frozenset(common)


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else "absent"


def _fed_equal(pair: StepPair, key: PathKey) -> bool:
    """Whether the teacher was fed the same for this node and all its ancestors: position, id, visible columns. Where
    trees are not compared, nobody asks what they were."""
    a, b = pair.a.step.tensors, pair.b.step.tensors
    if a is None or b is None or not pair.trees_compared:
        return True
    for depth in range(len(key) + 1):
        above = key[:depth]
        if above not in pair.a.slots or above not in pair.b.slots:
            return False
        sa, sb = pair.a.slots[above], pair.b.slots[above]
        if _at(a.positions, sa) != _at(b.positions, sb) or _at(a.token_ids, sa) != _at(b.token_ids, sb):
            return False
        if _at(a.prefix_visible, sa) != _at(b.prefix_visible, sb):
            return False
        if pair.a.visible.get(above) != pair.b.visible.get(above):
            return False
    return True


def _verify(pair: StepPair) -> Iterator[Difference]:
    """The teacher's choice and its numbers at every common node."""
    a, b = pair.a.step.verify, pair.b.step.verify
    if a is None or b is None:
        return
    lists = verify_lists(pair.a, pair.b) if pair.trees_compared else None
    if lists is not None and pair.judge.same_in_all("verify", lists):
        return
    for key in pair.common if pair.trees_compared else pair.common[:1]:
        sa, sb = pair.a.slots[key], pair.b.slots[key]
        ours, theirs = said_at(a, sa), said_at(b, sb)
        if ours is None or theirs is None:
            continue
        seen_a, seen_b = _seen_in_windows(a, sa), _seen_in_windows(b, sb)
        if None not in (seen_a, seen_b) and seen_a != seen_b:
            equal = _fed_equal(pair, key)
            yield difference("verify", "windows", seen_a, seen_b, kind="structural", inputs_equal=equal, node=key)
            return
        finite = [None if v.nonfinite_slots is None else s not in v.nonfinite_slots for v, s in ((a, sa), (b, sb))]
        if None not in finite and finite[0] != finite[1]:
            equal = _fed_equal(pair, key)
            yield difference("verify", "finite", finite[0], finite[1], kind="real", inputs_equal=equal, node=key)
        elif ours.best != theirs.best:
            yield choice(pair.judge, "argmax", ours, theirs, inputs_equal=_fed_equal(pair, key), node=key)
        else:
            yield from _numbers(pair, key, ours, theirs)


def _seen_in_windows(verify: VerifySection, slot: int) -> str | None:
    """What a slot saw in layers with a sliding window, in words; None where that was not recorded."""
    if verify.windows is None:
        return None
    return ", ".join(f"{window.num_seen[slot]} from {window.first_positions[slot]} on" for window in verify.windows)


def _numbers(pair: StepPair, key: PathKey, ours: Said, theirs: Said) -> Iterator[Difference]:
    """The first number of a node that is out of bounds by itself."""
    first = None
    for number in paired_numbers(ours, theirs):
        name = "verify." + number.field.partition("[")[0]
        same = pair.judge.same(number.quantity, name, number.a, number.b, size=number.size)
        first = number if first is None and not same else first
    if first is not None:
        floor, equal = pair.floor(first.quantity), _fed_equal(pair, key)
        yield difference(
            "verify", first.field, first.a, first.b, kind="real", inputs_equal=equal, node=key, floor=floor
        )


def _commit(pair: StepPair) -> Iterator[Difference]:
    a, b = pair.a.step.commit, pair.b.step.commit
    if a is None or b is None:
        return
    accepted = pair.a.step.accept is not None and pair.b.step.accept is not None
    equal = accepted and same_path(pair)
    fields: tuple[tuple[str, Any, Any], ...] = (
        ("committed_before", a.committed_before, b.committed_before),
        ("committed_after", a.committed_after, b.committed_after),
        ("source_slots", *_sources(pair, a.source_slots, b.source_slots)),
        ("destination_rows", a.destination_rows, b.destination_rows),
        ("drafter_after", a.drafter_after, b.drafter_after),
    )
    for field, va, vb in fields:
        if va != vb and None not in (va, vb):  # absent is not recorded
            yield difference("commit", field, va, vb, kind="structural", inputs_equal=equal)
            return


def _sources(pair: StepPair, a: list[int], b: list[int]) -> tuple[list[Any], list[Any]]:
    """Both sides' slots as path keys; as they are where they stand for the same nodes anyway."""
    if a == b and pair.numbered_alike:
        return a, b
    return slot_keys(pair.a, a), slot_keys(pair.b, b)


def _stop(pair: StepPair) -> Iterator[Difference]:
    """The first difference of what was emitted, and of how much of it was kept and why."""
    a, b = pair.a.step.stop, pair.b.step.stop
    if a is None or b is None:
        return
    if a.emitted != b.emitted:
        yield difference("stop", "emitted", a.emitted, b.emitted, kind="structural", inputs_equal=_accepted_alike(pair))
        return
    if _ends_by(a, b) in pair.expected.ends:
        return  # what one side had to cut, the other did not
    if a.kept != b.kept:
        yield difference("stop", "kept", a.kept, b.kept, kind="structural", inputs_equal=True)
    elif a.reason != b.reason and not (None in (a.reason, b.reason) and "stop" in pair.in_part):
        yield difference("stop", "reason", a.reason, b.reason, kind="structural", inputs_equal=True)


def _accepted_alike(pair: StepPair) -> bool:
    a, b = pair.a.step, pair.b.step
    if a.accept is None or b.accept is None or a.tree is None or b.tree is None:
        return False
    return same_path(pair) and a.accept.bonus_token == b.accept.bonus_token


def _ends_by(a: StopSection, b: StopSection) -> str | None:
    """Why one of two steps that emitted the same ended its turn before the other; None where both go on, or end by the
    same."""
    if a.kept != b.kept:
        return a.reason if a.kept < b.kept else b.reason
    return None if a.reason == b.reason else a.reason or b.reason
