"""Two aligned steps, phase by phase, inputs before outputs, node by node.

Each function yields the differences of one phase. ``inputs_equal`` says whether everything the value was computed from
is equal on both sides; only then can the difference be a root.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from specscope.schemas.verdict import Difference, DifferenceKind, Phase
from specscope.tracer.compare.acceptance import compare_accept
from specscope.tracer.compare.nodes import ROOT, PathKey, StepNodes, key_tokens
from specscope.tracer.compare.steps import StepPair, difference, path_tokens


def compare_steps(pair: StepPair) -> list[Difference]:
    """Every difference of the pair, in the order of the phases."""
    if not pair.trees_compared:
        return list(_verify(pair))
    found = list(_draft(pair))
    found += _tree(pair, drafts_equal=not found)
    found += _tensors(pair)
    found += _verify(pair)
    found += compare_accept(pair)
    found += _commit(pair)
    found += _stop(pair)
    return found


def _draft(pair: StepPair) -> Iterator[Difference]:
    a, b = pair.a.step.draft, pair.b.step.draft
    if a is None or b is None:
        return
    inputs_equal = True
    discrete = (
        ("inputs.tokens", a.inputs.tokens, b.inputs.tokens),
        ("inputs.source_rows", _source_keys(pair.previous_a, a.inputs.source_rows),
         _source_keys(pair.previous_b, b.inputs.source_rows)),
        ("inputs.positions", a.inputs.positions, b.inputs.positions),
        ("kv_before", a.kv_before, b.kv_before),
        ("kv_after", a.kv_after, b.kv_after),
    )  # fmt: skip
    for field, va, vb in discrete if not pair.regrouped else discrete[-1:]:
        if va != vb:
            yield difference("draft", field, va, vb, "structural", True)
            inputs_equal = False
    norms_a, norms_b = a.inputs.hidden_norms or [], b.inputs.hidden_norms or []
    for number, (na, nb) in enumerate(zip(norms_a, norms_b, strict=False) if not pair.regrouped else ()):
        if not pair.judge.same("draft.inputs.hidden_norms", na, nb):
            yield difference("draft", f"inputs.hidden_norms[{number}]", na, nb, "real", inputs_equal)
            inputs_equal = False
            break
    yield from _levels(pair, inputs_equal)


def _source_keys(previous: StepNodes | None, rows: list[int]) -> list[Any]:
    """Rows as path keys of the step before; a prefill's rows as they are."""
    if previous is None:
        return list(rows)
    return _slot_keys(previous, rows)


def _levels(pair: StepPair, inputs_equal: bool) -> Iterator[Difference]:
    a, b = pair.a.step.draft, pair.b.step.draft
    assert a is not None
    assert b is not None
    if a.levels is None or b.levels is None:
        return  # a lookup: its trees are what it proposed
    for number, (la, lb) in enumerate(zip(a.levels, b.levels, strict=False), start=1):
        place = f"levels[{number}]"
        if set(la.positions) != set(lb.positions):
            yield difference("draft", f"{place}.positions", la.positions, lb.positions, "structural", inputs_equal)
            inputs_equal = False
        if la.finite != lb.finite:
            yield difference("draft", f"{place}.finite", la.finite, lb.finite, "structural", inputs_equal)
            inputs_equal = False
        fa, fb = pair.a.frontiers[number - 1], pair.b.frontiers[number - 1]
        if set(fa) != set(fb):
            tie = _boundary_tie(pair, set(fa), set(fb))
            kind: DifferenceKind = "near-tie" if tie else "structural"
            yield _only_in("draft", f"{place}.frontier", set(fa), set(fb), kind, inputs_equal)
            inputs_equal = False
        for row in (key for key in fa if key in set(fb)):
            found = _row(pair, row, place, inputs_equal)
            if found is not None:
                yield found
                inputs_equal = False
    if len(a.levels) != len(b.levels):
        yield difference("draft", "levels", len(a.levels), len(b.levels), "structural", inputs_equal)


def _row(pair: StepPair, row: PathKey, place: str, inputs_equal: bool) -> Difference | None:
    """The proposals of one row: the same tokens with the same scores."""
    children_a, children_b = _children(pair.a, row), _children(pair.b, row)
    if children_a.keys() != children_b.keys():
        tie = _boundary_tie(pair, set(children_a), set(children_b))
        kind: DifferenceKind = "near-tie" if tie else "real"
        return _only_in("draft", f"{place}.tokens", set(children_a), set(children_b), kind, inputs_equal)
    for key, score in children_a.items():
        if not pair.judge.same("draft.scores", score, children_b[key], num_terms=len(key)):
            return difference("draft", f"{place}.logprobs", score, children_b[key], "real", inputs_equal, key)
    return None


def _children(nodes: StepNodes, row: PathKey) -> dict[PathKey, float]:
    return {key: score for key, score in nodes.candidates.items() if key[:-1] == row}


def _boundary_tie(pair: StepPair, a: set[PathKey], b: set[PathKey]) -> bool:
    """Whether the sides swapped candidates one for one, each within the tolerance of the other side's last."""
    if len(a - b) != len(b - a):
        return False
    for ours, theirs, nodes, others in ((a, b, pair.a, pair.b), (b, a, pair.b, pair.a)):
        last = min((others.candidates.get(key, float("-inf")) for key in theirs), default=float("-inf"))
        for key in ours - theirs:
            score = others.candidates.get(key, nodes.candidates.get(key))
            if score is None or not abs(score - last) <= pair.judge.tolerance * 4:
                return False
    return True


def _only_in(
    phase: Phase, field: str, a: set[PathKey], b: set[PathKey], kind: DifferenceKind, inputs_equal: bool
) -> Difference:
    only_a, only_b = sorted(a - b), sorted(b - a)
    node = (only_a or only_b)[0]
    return difference(
        phase, field, [key_tokens(k) for k in only_a], [key_tokens(k) for k in only_b], kind, inputs_equal, node
    )


def _tree(pair: StepPair, drafts_equal: bool) -> Iterator[Difference]:
    keys_a, keys_b = set(pair.a.keys), set(pair.b.keys)
    if pair.a.step.tree is None or pair.b.step.tree is None:
        return
    root_a, root_b = pair.a.step.tree.tokens[:1], pair.b.step.tree.tokens[:1]
    if root_a != root_b:
        yield difference("tree", "tokens[0]", root_a, root_b, "structural", True, ROOT)
    if keys_a != keys_b:
        # A side whose selection does not follow from its own candidates is wrong whatever the drafts were.
        known = bool(pair.a.candidates and pair.b.candidates)
        sound = len(keys_a) == len(keys_b) and _selection_sound(pair.a, pair) and _selection_sound(pair.b, pair)
        kind: DifferenceKind = "near-tie" if known and sound else "structural"
        yield _only_in("tree", "nodes", keys_a, keys_b, kind, drafts_equal or (known and not sound))
    for field in ("parents", "depths"):
        for key in pair.common:
            va = _shape(pair.a, field, key)
            vb = _shape(pair.b, field, key)
            if va != vb:
                yield difference("tree", field, va, vb, "structural", drafts_equal, key)
                return


def _selection_sound(nodes: StepNodes, pair: StepPair) -> bool:
    """Whether every node is a candidate, and no candidate left out is clearly better than the worst one kept."""
    kept = set(nodes.keys) - {ROOT}
    if not kept <= nodes.candidates.keys():
        return False
    worst = min((nodes.candidates[key] for key in kept), default=float("-inf"))
    left_out = (score for key, score in nodes.candidates.items() if key not in kept)
    return max(left_out, default=float("-inf")) <= worst + pair.judge.tolerance * 4


def _shape(nodes: StepNodes, field: str, key: PathKey) -> Any:
    tree = nodes.step.tree
    assert tree is not None
    value = getattr(tree, field)[nodes.slots[key]]
    if field == "parents":
        parent = nodes.key_of(value)
        return value if parent is None else key_tokens(parent)
    return value


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
            extra_a = [key_tokens(k) if isinstance(k, tuple) else k for k in seen_a - seen_b]
            extra_b = [key_tokens(k) if isinstance(k, tuple) else k for k in seen_b - seen_a]
            yield difference("tensors", "mask", f"also sees {extra_a}", f"also sees {extra_b}", "structural", True, key)
            break


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
    for key in pair.common if pair.trees_compared else [ROOT]:
        sa, sb = pair.a.slots[key], pair.b.slots[key]
        if sa >= len(a.argmax) or sb >= len(b.argmax):
            continue
        equal = not pair.trees_compared or _fed_equal(pair, key)
        if (sa in a.nonfinite_slots) != (sb in b.nonfinite_slots):
            yield difference(
                "verify", "finite", sa not in a.nonfinite_slots, sb not in b.nonfinite_slots, "real", equal, key
            )
        elif a.argmax[sa] != b.argmax[sb]:
            yield _choice(pair, key, sa, sb, equal)
        else:
            for rank, (la, lb) in enumerate(zip(a.top_logits[sa], b.top_logits[sb], strict=False)):
                if not pair.judge.same("verify.top_logits", la, lb):
                    yield difference("verify", f"top_logits[{rank}]", la, lb, "real", equal, key)
                    break


def _choice(pair: StepPair, key: PathKey, sa: int, sb: int, inputs_equal: bool) -> Difference:
    """Two different choices: a tie where each is the other's second best within the tolerance, else real."""
    a, b = pair.a.step.verify, pair.b.step.verify
    assert a is not None
    assert b is not None
    margin_a = a.top_logits[sa][0] - a.top_logits[sa][-1]
    margin_b = b.top_logits[sb][0] - b.top_logits[sb][-1]
    mutual = a.argmax[sa] in b.top_tokens[sb] and b.argmax[sb] in a.top_tokens[sa]
    tolerance = pair.judge.tolerance
    kind: DifferenceKind = "real"
    if mutual and margin_a == 0 and margin_b == 0:
        kind = "exact-tie"
    elif mutual and margin_a <= 2 * tolerance and margin_b <= 2 * tolerance:
        kind = "near-tie"
    found = difference("verify", "argmax", a.argmax[sa], b.argmax[sb], kind, inputs_equal, key)
    return found.model_copy(update={"margin_a": margin_a, "margin_b": margin_b})


def _commit(pair: StepPair) -> Iterator[Difference]:
    a, b = pair.a.step.commit, pair.b.step.commit
    if a is None or b is None:
        return
    accepted = pair.a.step.accept is not None and pair.b.step.accept is not None
    equal = accepted and path_tokens(pair.a) == path_tokens(pair.b)
    fields: tuple[tuple[str, Any, Any], ...] = (
        ("committed_before", a.committed_before, b.committed_before),
        ("committed_after", a.committed_after, b.committed_after),
        ("source_slots", _slot_keys(pair.a, a.source_slots), _slot_keys(pair.b, b.source_slots)),
        ("destination_rows", a.destination_rows, b.destination_rows),
        ("drafter_after", a.drafter_after, b.drafter_after),
    )
    for field, va, vb in fields:
        if va != vb:
            yield difference("commit", field, va, vb, "structural", equal)
            return


def _slot_keys(nodes: StepNodes, slots: list[int]) -> list[Any]:
    """Slots as path keys; a slot that is none stands as its number."""
    keys = ((slot, nodes.key_of(slot)) for slot in slots)
    return [slot if key is None else key_tokens(key) for slot, key in keys]


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
