"""Phase draft and its tree, of two aligned steps: what the drafter was fed, what it proposed, what was selected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from specscope.schemas.verdict import Difference, DifferenceKind, Phase
from specscope.tracer.compare.nodes import ROOT, PathKey, StepNodes, key_tokens
from specscope.tracer.compare.steps import StepPair, difference, slot_keys


def compare_drafts(pair: StepPair) -> Iterator[Difference]:
    """Every difference of what the drafter was fed and proposed."""
    a, b = pair.a.step.draft, pair.b.step.draft
    if a is None or b is None:
        return
    inputs_equal = True
    discrete = (
        ("inputs.tokens", a.inputs.tokens, b.inputs.tokens),
        ("inputs.source_rows", *_sources(pair, a.inputs.source_rows, b.inputs.source_rows)),
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
        if not pair.judge.same("hidden-norms", "draft.inputs.hidden_norms", na, nb):
            floor = pair.floor("hidden-norms")
            yield difference("draft", f"inputs.hidden_norms[{number}]", na, nb, "real", inputs_equal, floor=floor)
            inputs_equal = False
            break
    yield from _levels(pair, inputs_equal)


def _sources(pair: StepPair, rows_a: list[int], rows_b: list[int]) -> tuple[list[Any], list[Any]]:
    """Both sides' rows as path keys; none where the tree of the step before, whose slots they are, is not recorded."""
    before = [nodes for nodes in (pair.previous_a, pair.previous_b) if nodes is not None]
    if any(nodes.step.tree is None for nodes in before):
        return [], []
    return _source_keys(pair.previous_a, rows_a), _source_keys(pair.previous_b, rows_b)


def _source_keys(previous: StepNodes | None, rows: list[int]) -> list[Any]:
    """Rows as path keys of the step before; a prefill's rows as they are."""
    if previous is None:
        return list(rows)
    return slot_keys(previous, rows)


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
        if set(fa) != set(fb) and pair.same_policy:
            tie = _boundary_tie(pair, set(fa), set(fb))
            kind: DifferenceKind = "near-tie" if tie else "structural"
            yield _only_in("draft", f"{place}.frontier", set(fa), set(fb), kind, inputs_equal)
            inputs_equal = False
        for row in (key for key in fa if key in set(fb)):
            found = _row(pair, row, place, inputs_equal)
            if found is not None:
                yield found
                inputs_equal = False
    if len(a.levels) != len(b.levels) and pair.same_policy:
        yield difference("draft", "levels", len(a.levels), len(b.levels), "structural", inputs_equal)


def _row(pair: StepPair, row: PathKey, place: str, inputs_equal: bool) -> Difference | None:
    """The proposals of one row: the same tokens with the same scores."""
    children_a, children_b = _children(pair.a, row), _children(pair.b, row)
    if children_a.keys() != children_b.keys() and pair.same_policy:
        tie = _boundary_tie(pair, set(children_a), set(children_b))
        kind: DifferenceKind = "near-tie" if tie else "real"
        return _only_in("draft", f"{place}.tokens", set(children_a), set(children_b), kind, inputs_equal)
    for key, score in ((key, score) for key, score in children_a.items() if key in children_b):
        if not pair.judge.same("draft-scores", "draft.scores", score, children_b[key], num_terms=len(key)):
            floor = pair.floor("draft-scores")
            return difference("draft", f"{place}.logprobs", score, children_b[key], "real", inputs_equal, key, floor)
    return None


def _children(nodes: StepNodes, row: PathKey) -> dict[PathKey, float]:
    return {key: score for key, score in nodes.candidates.items() if key[:-1] == row}


def _boundary_tie(pair: StepPair, a: set[PathKey], b: set[PathKey]) -> bool:
    """Whether the sides swapped candidates one for one, each tied with the other side's last."""
    if len(a - b) != len(b - a):
        return False
    for ours, theirs, nodes, others in ((a, b, pair.a, pair.b), (b, a, pair.b, pair.a)):
        last = min((others.candidates.get(key, float("-inf")) for key in theirs), default=float("-inf"))
        for key in ours - theirs:
            score = others.candidates.get(key, nodes.candidates.get(key))
            if score is None or not pair.judge.tied("draft-scores", score, last, len(key)):
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


def compare_trees(pair: StepPair, drafts_equal: bool) -> Iterator[Difference]:
    """Every difference of the trees that were selected; ``drafts_equal`` where the drafts before them are."""
    keys_a, keys_b = set(pair.a.keys), set(pair.b.keys)
    if pair.a.step.tree is None or pair.b.step.tree is None:
        return
    root_a, root_b = pair.a.step.tree.tokens[:1], pair.b.step.tree.tokens[:1]
    if root_a != root_b:
        yield difference("tree", "tokens[0]", root_a, root_b, "structural", True, ROOT)
    if keys_a != keys_b and pair.same_policy:
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
    left_out = [(score, len(key)) for key, score in nodes.candidates.items() if key not in kept]
    return all(score <= worst or pair.judge.tied("draft-scores", score, worst, depth) for score, depth in left_out)


def _shape(nodes: StepNodes, field: str, key: PathKey) -> Any:
    tree = nodes.step.tree
    assert tree is not None
    value = getattr(tree, field)[nodes.slots[key]]
    if field == "parents":
        parent = nodes.key_of(value)
        return value if parent is None else key_tokens(parent)
    return value
