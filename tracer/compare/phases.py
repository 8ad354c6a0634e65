"""Two aligned steps, phase by phase, inputs before outputs, node by node.

Each function yields the differences of one phase. ``inputs_equal`` says whether everything the value was computed from
is equal on both sides; only then can the difference be a root.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from specscope.schemas.verdict import Difference
from specscope.tracer.compare.acceptance import compare_accept
from specscope.tracer.compare.drafts import compare_drafts, compare_trees
from specscope.tracer.compare.nodes import PathKey, key_tokens
from specscope.tracer.compare.steps import StepPair, choice, difference, path_tokens, slot_keys
from specscope.tracer.compare.token_values import MOST_KEPT


def compare_steps(pair: StepPair) -> list[Difference]:
    """Every difference of the pair, in the order of the phases."""
    if not pair.trees_compared:
        return list(_verify(pair))
    found = list(compare_drafts(pair))
    found += compare_trees(pair, drafts_equal=not found)
    found += _tensors(pair)
    found += _verify(pair)
    if not pair.same_policy and set(pair.a.keys) != set(pair.b.keys):
        return found  # another tree may well accept another path
    found += compare_accept(pair)
    found += _commit(pair)
    found += _stop(pair)
    return found


def _tensors(pair: StepPair) -> Iterator[Difference]:
    """Mask, positions and ids of every common node; a node's path is the input of all of them."""
    a, b = pair.a.step.tensors, pair.b.step.tensors
    if a is None or b is None:
        return
    if a.committed_length != b.committed_length:
        yield difference("tensors", "committed_length", a.committed_length, b.committed_length, "structural", True)
    for field in ("token_ids", "positions", "prefix_visible"):
        values_a, values_b = getattr(a, field), getattr(b, field)
        for key in pair.common:
            va, vb = _at(values_a, pair.a.slots[key]), _at(values_b, pair.b.slots[key])
            if va != vb:
                yield difference("tensors", field, va, vb, "structural", True, key)
                break
    same_nodes = len(pair.common) == len(pair.a.keys) == len(pair.b.keys)
    for key in pair.common:
        seen_a, seen_b = pair.a.visible.get(key, frozenset()), pair.b.visible.get(key, frozenset())
        if not same_nodes:  # a node outside the other tree cannot be seen there
            seen_a, seen_b = _within(seen_a, pair.common), _within(seen_b, pair.common)
        if seen_a != seen_b:
            yield _mask_difference(key, _listed(seen_a - seen_b), _listed(seen_b - seen_a))
            break


def _mask_difference(key: PathKey, extra_a: list[int | list[int]], extra_b: list[int | list[int]]) -> Difference:
    """A row of the mask, by what each side sees and the other does not."""
    a, b = (f"also sees {extra}" if extra else "sees nothing else" for extra in (extra_a, extra_b))
    found = difference("tensors", "mask", a, b, "structural", True, key)
    return found.model_copy(update={"tokens_a": extra_a[:MOST_KEPT], "tokens_b": extra_b[:MOST_KEPT]})


def _listed(seen: frozenset[PathKey | int]) -> list[int | list[int]]:
    """Nodes by path, then padding columns by number, in an order that does not hang on hashes."""
    nodes = sorted(key for key in seen if isinstance(key, tuple))
    return [*map(key_tokens, nodes), *sorted(column for column in seen if isinstance(column, int))]


def _within(seen: frozenset[PathKey | int], common: list[PathKey]) -> frozenset[PathKey | int]:
    return seen & frozenset(common)


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else "absent"


def _fed_equal(pair: StepPair, key: PathKey) -> bool:
    """Whether the teacher was fed the same for this node and all its ancestors: position, id, visible columns."""
    a, b = pair.a.step.tensors, pair.b.step.tensors
    if a is None or b is None:
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
    """The teacher's choice and its two best logits at every common node."""
    a, b = pair.a.step.verify, pair.b.step.verify
    if a is None or b is None:
        return
    for key in pair.common if pair.trees_compared else pair.common[:1]:
        sa, sb = pair.a.slots[key], pair.b.slots[key]
        if sa >= len(a.argmax) or sb >= len(b.argmax):
            continue
        equal = not pair.trees_compared or _fed_equal(pair, key)
        finite = [None if v.nonfinite_slots is None else s not in v.nonfinite_slots for v, s in ((a, sa), (b, sb))]
        if None not in finite and finite[0] != finite[1]:
            yield difference("verify", "finite", finite[0], finite[1], "real", equal, key)
        elif a.argmax[sa] != b.argmax[sb]:
            yield _choice(pair, key, sa, sb, equal)
        else:
            for rank, (la, lb) in enumerate(zip(a.best_logits(sa), b.best_logits(sb), strict=False)):
                if not pair.judge.same("logits", "verify.top_logits", la, lb):
                    yield difference("verify", f"top_logits[{rank}]", la, lb, "real", equal, key, pair.floor("logits"))
                    break


def _choice(pair: StepPair, key: PathKey, sa: int, sb: int, inputs_equal: bool) -> Difference:
    """Two different choices: a tie where each is the other's second best within the floor, else real."""
    a, b = pair.a.step.verify, pair.b.step.verify
    assert a is not None
    assert b is not None
    mutual = a.argmax[sa] in b.best_tokens(sb) and b.argmax[sb] in a.best_tokens(sa)
    best = (a.argmax[sa], b.argmax[sb])
    return choice(pair.judge, "argmax", best, (a.best_logits(sa), b.best_logits(sb)), mutual, inputs_equal, key)


def _commit(pair: StepPair) -> Iterator[Difference]:
    a, b = pair.a.step.commit, pair.b.step.commit
    if a is None or b is None:
        return
    accepted = pair.a.step.accept is not None and pair.b.step.accept is not None
    equal = accepted and path_tokens(pair.a) == path_tokens(pair.b)
    fields: tuple[tuple[str, Any, Any], ...] = (
        ("committed_before", a.committed_before, b.committed_before),
        ("committed_after", a.committed_after, b.committed_after),
        ("source_slots", slot_keys(pair.a, a.source_slots), slot_keys(pair.b, b.source_slots)),
        ("destination_rows", a.destination_rows, b.destination_rows),
        ("drafter_after", a.drafter_after, b.drafter_after),
    )
    for field, va, vb in fields:
        if va != vb:
            yield difference("commit", field, va, vb, "structural", equal)
            return


def _stop(pair: StepPair) -> Iterator[Difference]:
    a, b = pair.a.step.stop, pair.b.step.stop
    if a is None or b is None:
        return
    equal = a.emitted == b.emitted
    for field in ("emitted", "kept", "reason"):
        va, vb = getattr(a, field), getattr(b, field)
        if va != vb:
            accepted_equal = field != "emitted" or (
                pair.a.step.accept is not None
                and pair.b.step.accept is not None
                and path_tokens(pair.a) == path_tokens(pair.b)
                and pair.a.step.accept.bonus_token == pair.b.step.accept.bonus_token
            )
            yield difference("stop", field, va, vb, "structural", equal if field != "emitted" else accepted_equal)
            return
