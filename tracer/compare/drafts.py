"""Phase draft and its tree, of two aligned steps: what the drafter was fed, what it proposed, what was selected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from specscope.schemas import DraftInputs, DraftSection, TreeSection, TurnStart
from specscope.schemas.phases import Phase
from specscope.schemas.verdict import TIES, Difference, DifferenceKind
from specscope.tracer.compare.at_a_glance import level_lists
from specscope.tracer.compare.contenders import swapped_nodes
from specscope.tracer.compare.nodes import ROOT, PathKey, Proposal, StepNodes, key_tokens, numbered_alike
from specscope.tracer.compare.roundings import spacing
from specscope.tracer.compare.scored_trees import ScoredTrees
from specscope.tracer.compare.selection import is_sound, with_margins
from specscope.tracer.compare.sizing import depth_is_tied, size_is_tied
from specscope.tracer.compare.steps import StepPair, difference, slot_keys


def compare_shapes(pair: StepPair) -> Iterator[Difference]:
    """Another shape, chosen from the same table at the same load after the same shape. At another load, as in a batch
    of other rows, another shape may well be right."""
    a, b = pair.a.step.shape, pair.b.step.shape
    if a is None or b is None or not pair.same_table:
        return
    if (a.rows, a.context, a.before) == (b.rows, b.context, b.before) and a.name != b.name:
        yield difference("draft", "shape", a.name, b.name, kind="structural", inputs_equal=True)


def compare_drafts(pair: StepPair) -> Iterator[Difference]:
    """Every difference of what the drafter was fed and proposed."""
    if pair.a.step.draft is None or pair.b.step.draft is None:
        return
    a, b = _as_reused_alike(pair.a.step.draft, pair.b.step.draft, pair.reused_more)
    inputs_equal = True
    lengths = (("kv_before", a.kv_before, b.kv_before), ("kv_after", a.kv_after, b.kv_after))
    discrete = (*_inputs(pair, a.inputs, b.inputs), *lengths) if not pair.regrouped else lengths[1:]
    for field, va, vb in discrete:
        if None not in (va, vb) and va != vb:
            yield difference("draft", field, va, vb, kind="structural", inputs_equal=True)
            inputs_equal = False
    norms_a, norms_b = ([] if draft.inputs is None else draft.inputs.hidden_norms or [] for draft in (a, b))
    for number, (na, nb) in enumerate(zip(norms_a, norms_b, strict=False) if not pair.regrouped else ()):
        if not pair.judge.same("hidden-norms", "draft.inputs.hidden_norms", na, nb):
            floor = pair.floor("hidden-norms")
            yield difference(
                "draft", f"inputs.hidden_norms[{number}]", na, nb, kind="real", inputs_equal=inputs_equal, floor=floor
            )
            inputs_equal = False
            break
    lists = level_lists(pair.a, pair.b)
    if lists is None or not pair.judge.same_in_all("draft", lists):
        yield from _levels(pair, inputs_equal)


def reused_more(a: TurnStart, b: TurnStart) -> int:
    """Tokens that the turn of ``b`` reused beyond that of ``a``."""
    return b.reused_length - a.reused_length


class _Drafts(NamedTuple):
    """Of the two sides."""

    a: DraftSection
    b: DraftSection


def _as_reused_alike(a: DraftSection, b: DraftSection, more: int) -> _Drafts:
    """The drafts as if both turns had reused as much, where that of ``b`` reused ``more`` tokens beyond that of ``a``
    and its drafter was fed so many pairs fewer. How much a turn reuses follows from where the one before it ended."""
    if more == 0 or a.inputs is None or b.inputs is None or len(a.inputs.tokens) - len(b.inputs.tokens) != more:
        return _Drafts(a, b)
    return _Drafts(_without_first(a, a.inputs, more), b) if more > 0 else _Drafts(a, _without_first(b, b.inputs, -more))


def _without_first(draft: DraftSection, inputs: DraftInputs, count: int) -> DraftSection:
    """The draft as if the drafter had held its first ``count`` pairs already."""
    rest = {
        "tokens": inputs.tokens[count:],
        "positions": inputs.positions[count:],
        "source_rows": [row - count for row in inputs.source_rows[count:]],
        "hidden_norms": None if inputs.hidden_norms is None else inputs.hidden_norms[count:],
    }
    before = None if draft.kv_before is None else draft.kv_before + count
    return draft.model_copy(update={"inputs": inputs.model_copy(update=rest), "kv_before": before})


def shares_draft(pair: StepPair) -> bool:
    """Whether both sides record anything of their drafts that is compared."""
    a, b = pair.a.step.draft, pair.b.step.draft
    names = ("inputs", "kv_before", "kv_after", "levels")
    return any(getattr(a, name, None) is not None and getattr(b, name, None) is not None for name in names)


def _inputs(pair: StepPair, a: DraftInputs | None, b: DraftInputs | None) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """The lists of what the drafters were fed, by their field, where both runs record it."""
    if a is None or b is None:
        return
    yield "inputs.tokens", a.tokens, b.tokens
    yield "inputs.source_rows", *_sources(pair.previous_a, pair.previous_b, a.source_rows, b.source_rows)
    yield "inputs.positions", a.positions, b.positions


def _sources(
    previous_a: StepNodes | None, previous_b: StepNodes | None, rows_a: list[int], rows_b: list[int]
) -> tuple[list[Any], list[Any]]:
    """Both sides' rows as path keys; none where the tree of the step before, whose slots they are, is not recorded."""
    before = [nodes for nodes in (previous_a, previous_b) if nodes is not None]
    if any(nodes.step.tree is None for nodes in before):
        return [], []
    if len(before) == 2 and rows_a == rows_b and numbered_alike(*before):
        return [], []  # the same nodes, whichever they are
    return _source_keys(previous_a, rows_a), _source_keys(previous_b, rows_b)


def _sources_alike(
    previous_a: StepNodes | None, previous_b: StepNodes | None, rows_a: list[int], rows_b: list[int]
) -> bool:
    ours, theirs = _sources(previous_a, previous_b, rows_a, rows_b)
    return ours == theirs


def fed_alike(a: StepNodes, b: StepNodes, previous_a: StepNodes | None, previous_b: StepNodes | None) -> bool:
    """Whether the drafters of two steps were fed the same, from the same places, at the same positions: what they say
    can then be compared. What one of them does not record is no difference."""
    draft_a, draft_b = a.step.draft, b.step.draft
    if draft_a is None or draft_b is None:
        return False
    if None not in (draft_a.kv_before, draft_b.kv_before) and draft_a.kv_before != draft_b.kv_before:
        return False
    ours, theirs = draft_a.inputs, draft_b.inputs
    if ours is not None and theirs is not None:
        if (ours.tokens, ours.positions) != (theirs.tokens, theirs.positions):
            return False
        if not _sources_alike(previous_a, previous_b, ours.source_rows, theirs.source_rows):
            return False
    levels = zip(draft_a.levels or (), draft_b.levels or (), strict=False)
    return all(set(x.positions) == set(y.positions) and x.finite == y.finite for x, y in levels)


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
            yield difference(
                "draft", f"{place}.positions", la.positions, lb.positions, kind="structural", inputs_equal=inputs_equal
            )
            inputs_equal = False
        if la.finite != lb.finite:
            yield difference(
                "draft", f"{place}.finite", la.finite, lb.finite, kind="structural", inputs_equal=inputs_equal
            )
            inputs_equal = False
        fa, fb = pair.a.frontiers[number - 1], pair.b.frontiers[number - 1]
        if pair.same_policy:
            differing = _frontier(pair, fa, fb, place, inputs_equal=inputs_equal)
            if differing is not None:
                yield differing
                inputs_equal = False
        for row in (key for key in fa if key in set(fb)):
            differing = _row(pair, row, place, inputs_equal)
            if differing is not None:
                yield differing
                inputs_equal = False
    if len(a.levels) != len(b.levels) and pair.same_policy:
        kind: DifferenceKind = "near-tie" if depth_is_tied(pair) else "structural"
        yield difference("draft", "levels", len(a.levels), len(b.levels), kind=kind, inputs_equal=inputs_equal)


def _frontier(
    pair: StepPair, fa: list[PathKey], fb: list[PathKey], place: str, *, inputs_equal: bool
) -> Difference | None:
    """The candidates that were fed: which, and where it matters in what order."""
    if set(fa) != set(fb):
        tie = _boundary_tie(pair, set(fa), set(fb))
        kind: DifferenceKind = "near-tie" if tie else "structural"
        differing = _only_in("draft", f"{place}.frontier", set(fa), set(fb), kind=kind, inputs_equal=inputs_equal)
        return _with_contenders(differing, pair, set(fa), set(fb))
    if fa != fb and pair.order_matters:
        kind = "near-tie" if _order_tie(pair, fa, fb) else "structural"
        return _in_order(pair, f"{place}.frontier", fa, fb, kind=kind, inputs_equal=inputs_equal)
    return None


def _row(pair: StepPair, row: PathKey, place: str, inputs_equal: bool) -> Difference | None:
    """The proposals of one row: the same tokens, where it matters in the same order, with the same scores."""
    if _is_alike(pair, row):
        return None
    ours, theirs = pair.a.proposed_below.get(row, {}), pair.b.proposed_below.get(row, {})
    if ours.keys() != theirs.keys() and pair.same_policy:
        tie = _boundary_tie(pair, set(ours), set(theirs))
        kind: DifferenceKind = "near-tie" if tie else "real"
        differing = _only_in("draft", f"{place}.tokens", set(ours), set(theirs), kind=kind, inputs_equal=inputs_equal)
        return _with_contenders(differing, pair, set(ours), set(theirs))
    for key, proposal in ours.items():
        other = theirs.get(key)
        if other is None:
            continue
        size = max(proposal.size, other.size)
        if not pair.judge.same("draft-scores", "draft.scores", proposal.logprob, other.logprob, size=size):
            floor = pair.floor("draft-scores")
            return difference(
                "draft",
                f"{place}.logprobs",
                proposal.logprob,
                other.logprob,
                kind="real",
                inputs_equal=inputs_equal,
                node=key,
                floor=floor,
            )
    if list(ours) != list(theirs) and pair.order_matters and pair.same_policy:
        kind = "near-tie" if _order_tie(pair, list(ours), list(theirs)) else "real"
        return _in_order(pair, f"{place}.tokens", list(ours), list(theirs), kind=kind, inputs_equal=inputs_equal)
    return None


def _is_alike(pair: StepPair, row: PathKey) -> bool:
    """Whether a row proposed the same tokens in the same order, with scores that differ by little even for the smallest
    logits: then nothing that ``_row`` looks for is there, and the proposals need not be built."""
    ours, theirs = pair.a.row_lists.get(row), pair.b.row_lists.get(row)
    if ours is None or theirs is None or ours.tokens != theirs.tokens:
        return False
    size = max(nodes.least_logit_size(lists) for nodes, lists in ((pair.a, ours), (pair.b, theirs)))
    return pair.judge.same_throughout("draft-scores", "draft.scores", ours.logprobs, theirs.logprobs, size=size)


def _boundary_tie(pair: StepPair, a: set[PathKey], b: set[PathKey]) -> bool:
    """Whether the sides swapped candidates one for one, each tied with the last one that the other side took.

    What follows from a swap further up does not count as one. A candidate that one side never proposed lies behind its
    last one there, and stands as the other side has it: where tokens are drawn, both drew with the same noise.
    """
    only_a, only_b = _topmost(a - b), _topmost(b - a)
    if len(only_a) != len(only_b):
        return False
    for only, theirs, nodes, others in ((only_a, b, pair.a, pair.b), (only_b, a, pair.b, pair.a)):
        known = {key: others.proposals[key] for key in theirs if key in others.proposals}
        last = min(known, key=lambda key: known[key].ranked, default=None)
        for key in only:
            proposal = others.proposals.get(key) or nodes.proposals.get(key)
            if (
                proposal is None
                or last is None
                or not _tied(pair, _Candidate(key, proposal), _Candidate(last, known[last]))
            ):
                return False
    return True


def _topmost(keys: set[PathKey]) -> set[PathKey]:
    """Those that lie below none of the others."""
    return {key for key in keys if not any(key[:depth] in keys for depth in range(1, len(key)))}


class _Candidate(NamedTuple):
    key: PathKey
    proposal: Proposal


def _tied(pair: StepPair, first: _Candidate, second: _Candidate) -> bool:
    """Whether noise may have ranked either of two candidates of one side first. Siblings are ranked by themselves, as
    they were drawn; others by their sums."""
    proposal, other = first.proposal, second.proposal
    if first.key[:-1] == second.key[:-1]:
        return pair.judge.tied("draft-scores", proposal.ranked - other.ranked, spacing(max(proposal.size, other.size)))
    return pair.judge.tied("draft-scores", proposal.score - other.score, max(proposal.grain, other.grain))


def _order_tie(pair: StepPair, ours: list[PathKey], theirs: list[PathKey]) -> bool:
    """Whether every two that stand in other order on the two sides are tied on both."""
    place = {key: at for at, key in enumerate(theirs)}
    swapped = [(a, b) for at, a in enumerate(ours) for b in ours[at + 1 :] if place[a] > place[b]]
    return all(
        _tied(pair, _Candidate(a, nodes.proposals[a]), _Candidate(b, nodes.proposals[b]))
        for nodes in (pair.a, pair.b)
        for a, b in swapped
    )


def _in_order(
    pair: StepPair, field: str, a: list[PathKey], b: list[PathKey], *, kind: DifferenceKind, inputs_equal: bool
) -> Difference:
    at = next(n for n, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    ours, theirs = ([key_tokens(key) for key in side[at : at + 4]] for side in (a, b))
    field = f"{field} in order"
    differing = difference("draft", field, ours, theirs, kind=kind, inputs_equal=inputs_equal, node=a[at])
    return _with_contenders(differing, pair, {a[at]}, {b[at]})


def _with_contenders(differing: Difference, pair: StepPair, a: set[PathKey], b: set[PathKey]) -> Difference:
    """A tie with the first candidates that only one side took, and their scores."""
    only_a, only_b = sorted(a - b), sorted(b - a)
    if differing.kind not in TIES or not only_a or not only_b:
        return differing
    return differing.model_copy(update={"contenders": swapped_nodes(pair, only_a[0], only_b[0])})


def _only_in(
    phase: Phase, field: str, a: set[PathKey], b: set[PathKey], *, kind: DifferenceKind, inputs_equal: bool
) -> Difference:
    only_a, only_b = sorted(a - b), sorted(b - a)
    node = (only_a or only_b)[0]
    return difference(
        phase,
        field,
        [key_tokens(k) for k in only_a],
        [key_tokens(k) for k in only_b],
        kind=kind,
        inputs_equal=inputs_equal,
        node=node,
    )


def compare_trees(pair: StepPair, drafts_equal: bool) -> Iterator[Difference]:
    """Every difference of the trees that were selected; ``drafts_equal`` where the drafts before them are."""
    if pair.a.step.tree is None or pair.b.step.tree is None:
        return
    if _same_lists(pair.a.step.tree, pair.b.step.tree):
        return
    root_a, root_b = pair.a.step.tree.tokens[:1], pair.b.step.tree.tokens[:1]
    if root_a != root_b:
        yield difference("tree", "tokens[0]", root_a, root_b, kind="structural", inputs_equal=True, node=ROOT)
    keys_a, keys_b = set(pair.a.keys), set(pair.b.keys)
    if keys_a != keys_b and pair.same_policy:
        # A side whose selection does not follow from its own candidates is wrong whatever the drafts were.
        known = bool(pair.a.candidates and pair.b.candidates) and not pair.fixed_shape
        same_size = len(keys_a) == len(keys_b) or size_is_tied(pair)
        sound = same_size and is_sound(pair.a, pair) and is_sound(pair.b, pair)
        scored = ScoredTrees.of(pair) if same_size else None  # None where both sides' proposals decide
        is_tie = sound if known else scored is not None and scored.are_tied
        kind: DifferenceKind = "near-tie" if is_tie else "structural"
        inputs_equal = drafts_equal or (known and not sound)
        differing = _only_in("tree", "nodes", keys_a, keys_b, kind=kind, inputs_equal=inputs_equal)
        if is_tie and scored is not None:
            yield scored.described(differing)
        else:
            differing = with_margins(differing, pair) if is_tie else differing
            yield _with_contenders(differing, pair, keys_a, keys_b)
    for field in ("parents", "depths"):
        for key in pair.common:
            va = _shape(pair.a, field, key)
            vb = _shape(pair.b, field, key)
            if va != vb:
                yield difference("tree", field, va, vb, kind="structural", inputs_equal=drafts_equal, node=key)
                return
    yield from _proposers(pair, drafts_equal)


def _proposers(pair: StepPair, drafts_equal: bool) -> Iterator[Difference]:
    """The first node that the two sides say was proposed by different drafters, where both say it."""
    names_a, names_b = (side.step.tree.proposed_by if side.step.tree else None for side in (pair.a, pair.b))
    if names_a is None or names_b is None or not pair.same_policy:
        return
    if (len(names_a), len(names_b)) != (len(pair.a.keys), len(pair.b.keys)):
        return  # the oracle says what is wrong with them
    for key in pair.common:
        va, vb = (names[side.slots[key]] for names, side in ((names_a, pair.a), (names_b, pair.b)))
        if va != vb:
            yield difference("tree", "proposed_by", va, vb, kind="structural", inputs_equal=drafts_equal, node=key)
            return


def _same_lists(a: TreeSection, b: TreeSection) -> bool:
    """Whether two trees are the same, slot by slot, and where both say so by the same proposers."""
    same_proposers = a.proposed_by == b.proposed_by or a.proposed_by is None or b.proposed_by is None
    return same_proposers and a.tokens == b.tokens and a.parents == b.parents and a.depths == b.depths


def _shape(nodes: StepNodes, field: str, key: PathKey) -> Any:
    tree = nodes.step.tree
    assert tree is not None
    value = getattr(tree, field)[nodes.slots[key]]
    if field == "parents":
        parent = nodes.key_of(value)
        return value if parent is None else key_tokens(parent)
    return value
