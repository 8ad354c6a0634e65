"""Invariants of the draft, verify and stop phases, on records; with those of the accept phase in their place."""

from __future__ import annotations

import math
from collections.abc import Iterator

from specscope.schemas import TreePolicy
from specscope.tracer.files.candidates import first_of_equals
from specscope.tracer.oracle.invariants.acceptance import ACCEPTANCE
from specscope.tracer.oracle.invariants.base import (
    Context,
    Invariant,
    committed_path,
    first_mismatch,
    next_root,
    present,
    promises,
    tree_is_recorded,
)
from specscope.tracer.oracle.invariants.custody import CACHE_KEPT
from specscope.tracer.oracle.invariants.features import FEATURE_LAYERS, FEATURES_FED
from specscope.tracer.oracle.invariants.replayed import needless_replacement
from specscope.tracer.oracle.invariants.selection import SELECTION

#: Drafters that run a forward for each level, a position further on. Others may propose all levels in one.
LEVEL_BY_LEVEL = ("eagle3", "model", "early-exit")

ADAPTIVE_HINT = "a writer whose steps may draft fewer nodes says so by tree_policy.adaptive: true in the manifest"


def _scores_finite(c: Context) -> str | None:
    for number, level in enumerate(present(present(c.step.draft).levels), start=1):
        # A token that was masked out has -inf, and its writer says that nothing went wrong.
        if not level.finite or any(math.isnan(value) or value == math.inf for value in level.logprobs):
            return f"level {number}: a draft score is not finite"
    return None


def _pair_positions(c: Context) -> str | None:
    draft = present(c.step.draft)
    if draft.kv_after - draft.kv_before != len(draft.inputs.positions):
        return f"{len(draft.inputs.positions)} pairs took the cache from {draft.kv_before} to {draft.kv_after}"
    wanted = list(range(draft.kv_before, draft.kv_after))
    problem = first_mismatch(draft.inputs.positions, wanted, "pair")
    if problem is not None:
        return problem
    last = draft.kv_after - 1
    if c.manifest.drafter.kind not in LEVEL_BY_LEVEL and all(set(x.positions) <= {last} for x in draft.levels or []):
        return None  # all levels come of one forward, that of the pairs
    for number, level in enumerate(draft.levels or []):
        position = last + number
        if any(p != position for p in level.positions):
            return f"level {number + 1}: got positions {level.positions[:8]}, wanted {position}"
    return None


def _pair_tokens(c: Context) -> str | None:
    inputs = present(c.step.draft).inputs
    if c.previous is None:
        first = c.turn.reused_length
        fed = [*c.turn.prompt_ids[first + 1 :], c.turn.prefill.pending_token]
        return first_mismatch(inputs.tokens, fed, "pair")
    emitted = c.previous.stop.emitted if c.previous.stop is not None else inputs.tokens
    return first_mismatch(inputs.tokens, emitted, "pair")


def _source_rows(c: Context) -> str | None:
    rows = present(c.step.draft).inputs.source_rows
    if c.previous is None:
        return first_mismatch(rows, list(range(len(rows))), "pair")
    path = committed_path(c.previous)
    return first_mismatch(rows, [0, *(rows[1:] if path is None else path)], "pair")


def _nodes_proposed(c: Context) -> str | None:
    if tree_is_recorded(c.step):
        return needless_replacement(c)
    candidates = first_of_equals(c.candidates)
    tree = present(c.step.tree)
    numbers: list[int | None] = [None]  # per slot, of its candidate
    for slot in range(1, len(tree.tokens)):
        parent = tree.parents[slot]
        number = numbers[parent] if 0 <= parent < slot else None
        candidate = candidates.get((number, tree.tokens[slot]))
        if candidate is None:
            return f"slot {slot}: token {tree.tokens[slot]} was never proposed under slot {parent}"
        numbers.append(candidate.number)
    return None


def _own_tree(c: Context) -> bool:
    """Whether the drafter's own tree was run; a recorded one in its place says nothing of this run."""
    return not tree_is_recorded(c.step)


def _own_stop(c: Context) -> bool:
    """Whether the step was cut by its own stop rules; a replay cuts where the recording was cut."""
    return c.step.forced is None


def _shape(c: Context) -> str | None:
    policy, tree = c.manifest.tree_policy, present(c.step.tree)
    nodes, depth = len(tree.tokens) - 1, max(tree.depths, default=0)
    if policy.kind == "none":
        return None if nodes == 0 else f"{nodes} nodes, although nothing is drafted"
    if nodes > policy.budget:
        return f"{nodes} nodes, the budget is {policy.budget}"
    if depth > policy.depth:
        return f"depth {depth}, wanted at most {policy.depth}"
    wants_all = _wants_all(c)
    if policy.choices is not None and policy.kind in ("static", "chain"):
        return _fixed_shape_problem(policy, tree.parents, wants_all)
    return _chain_problem(policy, tree.parents, wants_all) if policy.kind == "chain" else None


def _wants_all(c: Context) -> bool:
    """Whether the step must draft every node of a fixed tree: by what the writer says, else by what it proposed."""
    policy = c.manifest.tree_policy
    if policy.adaptive is not None:
        return not policy.adaptive
    # A lookup drafts as much of the tree as it finds, and a drafter may stop early; all levels propose all of it.
    levels = c.step.draft.levels if c.step.draft is not None else None
    return levels is not None and len(levels) >= policy.depth


def _unless_adaptive(policy: TreePolicy) -> str:
    """How a writer that drafts fewer nodes on purpose says so, where it has not said anything of it."""
    return "" if policy.adaptive is not None else f"; {ADAPTIVE_HINT}"


def _fixed_shape_problem(policy: TreePolicy, parents: list[int], wants_all: bool) -> str | None:
    wanted, got = set(map(tuple, policy.choices or ())), set()
    for slot, path in enumerate(rank_paths(parents)):
        if slot > 0 and path not in wanted:
            return f"slot {slot}: child ranks {list(path)} are no node of the {policy.kind} tree"
        got.add(path)
    missing = sorted(wanted - got, key=lambda path: (len(path), path))
    if missing and wants_all:
        problem = f"{len(missing)} nodes of the {policy.kind} tree are missing, child ranks {list(missing[0])} first"
        return problem + _unless_adaptive(policy)
    return None


def _chain_problem(policy: TreePolicy, parents: list[int], wants_all: bool) -> str | None:
    """Of a chain whose nodes were not recorded one by one. Its depth may be any number that a file holds."""
    stray = next((slot for slot in range(1, len(parents)) if parents[slot] != slot - 1), None)
    if stray is not None:
        return f"slot {stray}: under slot {parents[stray]}, wanted slot {stray - 1}, as in a chain"
    missing = policy.depth - (len(parents) - 1)
    return f"{missing} nodes of the chain are missing{_unless_adaptive(policy)}" if missing > 0 and wants_all else None


def rank_paths(parents: list[int]) -> Iterator[tuple[int, ...]]:
    """Per slot, the child ranks that lead to it from the root; siblings rank in slot order."""
    paths: list[tuple[int, ...]] = [()]
    children: dict[int, int] = {}
    yield ()
    for parent in parents[1:]:
        rank = children[parent] = children.get(parent, -1) + 1
        paths.append((*paths[parent], rank))
        yield paths[-1]


def _scores_add_up(c: Context) -> str | None:
    tree = present(c.step.tree)
    logprobs, scores = tree.logprobs or [], tree.scores or []
    if not len(logprobs) == len(scores) == len(tree.tokens):
        return f"{len(logprobs)} log-probabilities and {len(scores)} scores for {len(tree.tokens)} slots"
    for slot in range(1, len(scores)):
        wanted = scores[tree.parents[slot]] + logprobs[slot]
        if scores[slot] == wanted:  # both may be -inf
            continue
        off = abs(scores[slot] - wanted)
        if not off <= 1e-4 and not off <= 1e-4 * abs(wanted):
            return f"slot {slot}: score {scores[slot]}, wanted {wanted:.6g}, its parent's and its own log-probability"
    return None


def _verify_sizes(c: Context) -> str | None:
    verify, slots = present(c.step.verify), len(present(c.step.tree).tokens)
    for name in ("argmax", "top_tokens", "top_logits", "logsumexp", "entropy"):
        values = getattr(verify, name)
        if values is not None and len(values) != slots:
            return f"{name}: got {len(values)} entries, wanted {slots}, the slots"
    least = min(2, c.manifest.teacher.vocab_size)
    for name, counts in (
        ("best tokens", [len(best) for best in verify.top_tokens or ()]),
        ("best logits", [len(best) for best in verify.top_logits or ()]),
    ):
        odd = next((slot for slot, count in enumerate(counts) if count < least), None)
        if odd is not None:
            return f"slot {odd}: got {counts[odd]} {name}, wanted {least} or more"
    for slot, (tokens, logits) in enumerate(zip(verify.top_tokens or [], verify.top_logits or [], strict=False)):
        if len(tokens) != len(logits):
            return f"slot {slot}: got {len(tokens)} best tokens with {len(logits)} logits"
    return None if verify.dispatch != {} else "no attention call was recorded"


def _logits_finite(c: Context) -> str | None:
    verify = present(c.step.verify)
    slots = present(verify.nonfinite_slots)
    if slots:
        return f"slots {slots[:8]} have logits that are not finite"
    best = [logits[0] for logits in verify.top_logits or () if logits]
    for name, values in (("best logit", best), ("logsumexp", verify.logsumexp), ("entropy", verify.entropy)):
        odd = [slot for slot, value in enumerate(values or ()) if not math.isfinite(value)]
        if odd:
            return f"slot {odd[0]}: {name} {(values or ())[odd[0]]}, although its logits are said to be finite"
    return None


def _argmax_is_top(c: Context) -> str | None:
    verify = present(c.step.verify)
    for slot, (choice, tokens, logits) in enumerate(
        zip(verify.argmax, present(verify.top_tokens), present(verify.top_logits), strict=False)
    ):
        best = max(logits)
        if tokens[0] == choice and logits[0] == best:
            continue  # as nearly always
        if logits[0] != best or choice not in [t for t, v in zip(tokens, logits, strict=False) if v == best]:
            return f"slot {slot}: argmax {choice}, but the best are tokens {tokens[:4]} with logits {logits[:4]}"
    return None


def _input_digest(c: Context) -> str | None:
    made, given = present(c.step.tensors).input_digest, present(c.step.verify).input_digest
    return None if made == given else f"tensorize made {made}, the forward was given {given}"


def _dispatch(c: Context) -> str | None:
    eager_asked = c.manifest.attention == "eager"
    for name, calls in present(present(c.step.verify).dispatch).items():
        if (name == "eager") != eager_asked:
            return f"{calls} calls of {name}, asked for was {c.manifest.attention}"
    return None


def _prefix_visible(c: Context) -> str | None:
    tensors = present(c.step.tensors)
    for row, count in enumerate(tensors.prefix_visible):
        if count != tensors.committed_length:
            return f"row {row} sees {count} committed columns, wanted all {tensors.committed_length}"
    return None


def _root_is_pending(c: Context) -> str | None:
    root = present(c.step.tree).tokens[0]
    if c.previous is None:
        wanted = c.turn.prefill.pending_token
    else:
        last = next_root(c.previous)
        if last is None:
            return None
        wanted = last
    return None if root == wanted else f"the root is {root}, the last bonus token {wanted}"


def _emitted(c: Context) -> str | None:
    tree, path, bonus = present(c.step.tree), present(committed_path(c.step)), present(next_root(c.step))
    wanted = [tree.tokens[s] for s in path if 0 <= s < len(tree.tokens)] + [bonus]
    return first_mismatch(present(c.step.stop).emitted, wanted, "token")


def _cut(c: Context) -> str | None:
    stop = present(c.step.stop)
    if c.previous is not None and c.previous.stop is not None and c.previous.stop.reason is not None:
        return f"a step behind the one that ended the turn ({c.previous.stop.reason})"
    if not 1 <= stop.kept <= len(stop.emitted):
        return f"kept {stop.kept} of {len(stop.emitted)} tokens"
    eos = set(c.manifest.stop_rules.eos_token_ids if c.manifest.stop_rules is not None else ())
    at = next((i for i, t in enumerate(stop.emitted[: stop.kept]) if t in eos), None)
    said = stop.reason is not None or promises(c.manifest, "stop")
    if at is not None and (stop.kept != at + 1 or (said and stop.reason != "eos")):
        return f"token {at} of the block ends the text, but {stop.kept} were kept (reason {stop.reason})"
    if said and stop.reason is None and stop.kept != len(stop.emitted):
        return f"kept {stop.kept} of {len(stop.emitted)} tokens without a reason"
    return None


DECISIONS: tuple[Invariant[Context], ...] = (
    Invariant(
        "draft.scores-finite",
        "every draft score is finite before any clean-up, or -inf where its token was masked out",
        _scores_finite,
        ("draft.levels",),
    ),
    Invariant("draft.positions", "pair positions count on from the cache; level d adds d", _pair_positions, ("draft",)),
    Invariant("draft.pair-tokens", "the pairs' tokens are those last emitted", _pair_tokens, ("draft",)),
    Invariant(
        "draft.source-rows", "the pairs' features come from the root and the accepted path", _source_rows, ("draft",)
    ),
    *CACHE_KEPT,
    *FEATURES_FED,
    Invariant(
        "tree.nodes-were-proposed",
        "every node is a candidate under its parent; a replay puts in only trees that are not its own candidates'",
        _nodes_proposed,
        ("draft.levels", "tree"),
    ),
    *SELECTION,
    Invariant("tree.shape-is-policy", "the tree has the shape that its policy allows", _shape, ("tree",), _own_tree),
    Invariant(
        "tree.scores-add-up",
        "a score is the parent's and the node's log-probability",
        _scores_add_up,
        ("tree.scores", "tree.logprobs"),
        _own_tree,
    ),
    Invariant("tensors.prefix-visible", "every row sees the whole committed prefix", _prefix_visible, ("tensors",)),
    Invariant(
        "verify.sizes",
        "verify has an entry a slot, two best tokens or more each, and calls",
        _verify_sizes,
        ("tree", "verify"),
    ),
    Invariant(
        "verify.logits-finite", "every logit is finite before any clean-up", _logits_finite, ("verify.nonfinite_slots",)
    ),
    Invariant(
        "verify.argmax-is-top",
        "the argmax has the best logit",
        _argmax_is_top,
        ("verify.top_tokens", "verify.top_logits"),
    ),
    Invariant(
        "verify.input-digest",
        "the forward was given what tensorize made",
        _input_digest,
        ("tensors.input_digest", "verify.input_digest"),
    ),
    Invariant("verify.dispatch", "the attention that ran is the one asked for", _dispatch, ("verify.dispatch",)),
    *FEATURE_LAYERS,
    *ACCEPTANCE,
    Invariant("sequence.root-is-last-bonus", "a step's root is the last bonus token", _root_is_pending, ("tree",)),
    Invariant("stop.emitted", "the step emits its path's tokens and the bonus", _emitted, ("tree", "accept", "stop")),
    Invariant("stop.cut", "a block is cut right behind its stop token", _cut, ("stop",), _own_stop),
)
