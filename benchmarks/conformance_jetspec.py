"""JetSpec's tree layer beside ours, on random candidate sets: which nodes are taken, the mask, greedy acceptance.

    python -m benchmarks.conformance_jetspec --jetspec JETSPEC

``JETSPEC`` is a checkout of github.com/hao-ai-lab/JetSpec, whose package ``jetspec.tree`` needs torch and numpy alone.
Prints a table, and ends with 1 where anything differs that noise cannot explain.

Their builder (``accum_logp``) takes the best node that is left and adds its k best children, until the budget is spent.
Ours takes the best nodes of all that were proposed. So the nodes that theirs *expands* are those that ours *takes*, of
one level less: 1 + k (M + 1) nodes of theirs against M of ours. Theirs adds up log-probabilities in float64 and ours in
float32, which is a tie where nothing but that tells two nodes apart. And ours feeds at most top-k nodes of a level to
its drafter, as EAGLE does, so that it takes no node below another one: of such a set both take fewer, the best before
the first such node.

Letters: D depth, V vocabulary, N slots, P padded slots, T committed length.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, cast

import torch

from specscope.engine.accept.greedy import accept_greedy
from specscope.engine.tree.grow import DraftTree, Frontier, grow, select_tree
from specscope.engine.tree.policy import TreePolicy
from specscope.engine.tree.tensors import TreeTensors, additive_mask, tensorize

#: Two sums of log-probabilities no further apart than this are a tie between float32 and float64.
TIED = 1e-5
CPU = torch.device("cpu")

#: Tokens from below the root to a node.
Path = tuple[int, ...]


class TreeLayer(Protocol):
    """What is called of ``jetspec.tree``; ``Any`` stands for its own tree, with ``token_ids``, ``parent_indices`` (-1
    above the root), ``depth`` and ``cum_logprob``, each (N,)."""

    def get_algorithm(self, name: str) -> Any:
        """A builder of trees."""

    @property
    def DraftTree(self) -> Callable[..., Any]:  # noqa: N802  (a class there)
        """A tree of given nodes."""

    def build_ancestor_matrix(self, tree: Any) -> torch.Tensor:
        """(N, N) bool: which slot sees which."""

    def tree_accept(self, tree: Any, target_logits: torch.Tensor) -> Any:
        """Accepted slots with the root, how many without it, and the token after them."""

    def gpu_tree_accept(
        self, tokens: torch.Tensor, targets: torch.Tensor, parents: torch.Tensor, depths: torch.Tensor
    ) -> Any:
        """The same, computed for all slots at once."""


@dataclass(frozen=True, kw_only=True)
class CandidateSet:
    """What a drafter says, and how much of it is taken."""

    logits: torch.Tensor  # (D, V) of each depth, whatever the path that leads there
    root: int
    top_k: int
    budget: int  # nodes that ours takes


class Nodes(NamedTuple):
    """A tree as it can be compared: its nodes below the root by their paths, with their sums of log-probabilities."""

    scores: dict[Path, float]


@dataclass
class Outcome:
    """How often each thing was compared, and differed."""

    compared: Counter[str] = field(default_factory=Counter)
    differing: Counter[str] = field(default_factory=Counter)
    num_tied: int = 0  # sets of which the two took other nodes, no two of which differ by more than rounding
    num_lessened: int = 0  # sets of which fewer nodes were taken, for theirs goes on below one that ours does not feed
    num_nodes: int = 0
    num_accepted: int = 0

    def judge(self, what: str, *, same: bool) -> None:
        """Counts one comparison."""
        self.compared[what] += 1
        self.differing[what] += not same


def draw_set(generator: torch.Generator) -> CandidateSet:
    """A random one: 2 to 6 levels, 2 to 8 candidates at each node, and as many nodes as those levels can have, 48 at
    most."""
    depth, top_k, vocab = _draw(2, 6, generator), _draw(2, 8, generator), _draw(8, 64, generator)
    most = min(48, top_k + (depth - 2) * top_k**2)
    sharpness = 0.5 + 4 * float(torch.rand((), generator=generator))
    logits = sharpness * torch.randn(depth, vocab, generator=generator)
    root, budget = _draw(0, vocab - 1, generator), _draw(1, most, generator)
    return CandidateSet(logits=logits, root=root, top_k=top_k, budget=budget)


def _draw(least: int, most: int, generator: torch.Generator) -> int:
    return int(torch.randint(least, most + 1, (), generator=generator))


def our_tree(given: CandidateSet) -> DraftTree:
    """The tree that this engine grows and selects."""
    depth = len(given.logits) - 1
    policy = TreePolicy("dynamic", depth=depth, top_k=given.top_k, budget=given.budget)

    def expand(frontier: Frontier) -> torch.Tensor:
        return given.logits[frontier.positions]  # positions count levels from the root, whose children are level 0's

    root_logits, at_root = given.logits[None, :1], torch.zeros(1, 1, dtype=torch.int64)
    levels = grow(policy, root_logits, at_root, expand, to_teacher=lambda tokens: tokens)
    return select_tree(levels, torch.tensor([given.root]), policy)


def their_tree(layer: TreeLayer, given: CandidateSet) -> Any:
    """The tree that theirs builds where it expands the root and as many nodes as ours takes."""
    return layer.get_algorithm("accum_logp").build(
        root_token=given.root,
        draft_logits=given.logits[None],
        block_size=len(given.logits) + 1,
        tree_width=given.top_k,
        budget=1 + given.top_k * (given.budget + 1),
        device=CPU,
    )


def our_nodes(tree: DraftTree) -> Nodes:
    """All of ours."""
    paths = paths_of(tree.tokens[0].tolist(), tree.parents[0].tolist())
    return Nodes(dict(zip(paths[1:], tree.scores[0].tolist()[1:], strict=True)))


def expanded_nodes(tree: Any) -> Nodes:
    """Those of theirs that have children."""
    parents = tree.parent_indices.tolist()
    paths = paths_of(tree.token_ids.tolist(), parents)
    scores, inner = tree.cum_logprob.tolist(), set(parents) - {-1, 0}
    return Nodes({paths[slot]: scores[slot] for slot in sorted(inner)})


def paths_of(tokens: list[int], parents: list[int]) -> list[Path]:
    """By slot; parents stand before their children."""
    paths: list[Path] = [()]
    for token, parent in zip(tokens[1:], parents[1:], strict=True):
        paths.append((*paths[parent], token))
    return paths


def num_within_reach(theirs: Nodes, top_k: int) -> int:
    """How many of them, best first, stand before the first whose parent is not among the best ``top_k`` of its level,
    which ours feeds."""
    fed: set[Path] = {()}
    in_level: Counter[int] = Counter()
    for number, path in enumerate(sorted(theirs.scores, key=lambda path: (-theirs.scores[path], len(path)))):
        if path[:-1] not in fed:
            return number
        if in_level[len(path)] < top_k:
            fed.add(path)
        in_level[len(path)] += 1
    return len(theirs.scores)


def is_tied(ours: Nodes, theirs: Nodes) -> bool:
    """Whether the nodes that only one side has cannot be told apart by their sums."""
    only = [ours.scores[path] for path in ours.scores.keys() - theirs.scores.keys()]
    only += [theirs.scores[path] for path in theirs.scores.keys() - ours.scores.keys()]
    return len(ours.scores) == len(theirs.scores) and max(only) - min(only) <= TIED * max(1.0, -min(only))


def compare_builders(ours: Nodes, theirs: Nodes, outcome: Outcome) -> None:
    """Which nodes were taken, and the sums by which they were."""
    same = ours.scores.keys() == theirs.scores.keys()
    if not same and is_tied(ours, theirs):
        outcome.num_tied += 1
        return
    outcome.judge("nodes taken", same=same)
    shared = ours.scores.keys() & theirs.scores.keys()
    gaps = [abs(ours.scores[path] - theirs.scores[path]) / max(1.0, -ours.scores[path]) for path in shared]
    outcome.judge("sums of log-probabilities", same=max(gaps, default=0.0) <= TIED)


class Slots(NamedTuple):
    """A tree in slots."""

    tokens: list[int]
    parents: list[int]  # the root's own is 0
    depths: list[int]


def compare_in_slots(layer: TreeLayer, slots: Slots, vocab: int, generator: torch.Generator, outcome: Outcome) -> None:
    """The mask, the positions and the acceptance of one tree."""
    count = len(slots.tokens)
    theirs = layer.DraftTree(
        token_ids=torch.tensor(slots.tokens),
        parent_indices=torch.tensor([-1, *slots.parents[1:]]),
        depth=torch.tensor(slots.depths),
        num_nodes=count,
    )
    tensors = our_tensors(slots, committed=_draw(1, 40, generator), padding=_draw(0, 5, generator))
    compare_masks(layer, theirs, tensors, outcome)
    compare_acceptance(layer, theirs, tensors, draw_targets(slots, vocab, generator), outcome)
    outcome.num_nodes += count - 1


def our_tensors(slots: Slots, *, committed: int, padding: int) -> TreeTensors:
    """What our verify forward is given for the tree."""
    count = len(slots.tokens)
    tree = DraftTree(
        tokens=torch.tensor([slots.tokens]),
        parents=torch.tensor([slots.parents]),
        depths=torch.tensor([slots.depths]),
        logprobs=torch.zeros(1, count),
        scores=torch.zeros(1, count),
        num_slots=[count],
    )
    return tensorize(tree, [committed], max_depth=max(slots.depths), pad_to=count + padding)


def compare_masks(layer: TreeLayer, theirs: Any, tensors: TreeTensors, outcome: Outcome) -> None:
    """Which columns each slot sees, and the position that follows from how many."""
    count, committed = theirs.num_nodes, tensors.committed_lengths[0]
    seen = additive_mask(tensors, torch.float32)[0, 0, :count] == 0  # (N, T + P)
    wanted = torch.zeros_like(seen)
    wanted[:, :committed] = True
    wanted[:, committed : committed + count] = layer.build_ancestor_matrix(theirs)
    outcome.judge("mask", same=torch.equal(seen, wanted))
    behind = wanted.sum(dim=1) - 1  # (N,) a slot stands behind all that theirs lets it see
    outcome.judge("positions", same=torch.equal(tensors.position_ids[0, :count], behind))


def compare_acceptance(
    layer: TreeLayer, theirs: Any, tensors: TreeTensors, targets: torch.Tensor, outcome: Outcome
) -> None:
    """The greedy walk along ``targets`` (N,), what the teacher wants after each slot, and the token after it."""
    padded = torch.nn.functional.pad(targets, (0, tensors.padded_slots - len(targets)))
    accepted = accept_greedy(tensors, padded[None])
    length = int(accepted.lengths[0])
    ours = ([0, *accepted.paths[0, :length].tolist()], length, int(accepted.bonus_tokens[0]))
    path, num_accepted, token = layer.tree_accept(theirs, torch.nn.functional.one_hot(targets)[None])
    outcome.judge("acceptance", same=ours == (list(path), num_accepted, token))
    found = layer.gpu_tree_accept(theirs.token_ids, targets, theirs.parent_indices, theirs.depth)
    outcome.judge("acceptance, all slots at once", same=ours == (found[0].tolist(), found[1], int(found[2])))
    outcome.num_accepted += length


def draw_targets(slots: Slots, vocab: int, generator: torch.Generator) -> torch.Tensor:
    """(N,) what the teacher wants after each slot: four times in five one of its children, where it has any."""
    children: dict[int, list[int]] = {}
    for slot in range(1, len(slots.tokens)):
        children.setdefault(slots.parents[slot], []).append(slots.tokens[slot])
    wanted = [_draw(0, vocab - 1, generator) for _ in slots.tokens]
    for slot, tokens in children.items():
        if _draw(1, 5, generator) > 1:
            wanted[slot] = tokens[_draw(0, len(tokens) - 1, generator)]
    return torch.tensor(wanted)


def compare_layers(layer: TreeLayer, num_sets: int, seed: int) -> Outcome:
    """Everything, on so many random sets."""
    generator, outcome = torch.Generator().manual_seed(seed), Outcome()
    for _ in range(num_sets):
        given = draw_set(generator)
        theirs = their_tree(layer, given)
        within = num_within_reach(expanded_nodes(theirs), given.top_k)
        if within < given.budget:
            outcome.num_lessened += 1
            given = replace(given, budget=within)
            theirs = their_tree(layer, given)
        ours = our_tree(given)
        compare_builders(our_nodes(ours), expanded_nodes(theirs), outcome)
        vocab = given.logits.shape[1]
        of_ours = Slots(ours.tokens[0].tolist(), ours.parents[0].tolist(), ours.depths[0].tolist())
        parents = [0, *theirs.parent_indices.tolist()[1:]]
        of_theirs = Slots(theirs.token_ids.tolist(), parents, theirs.depth.tolist())
        for slots in (of_ours, of_theirs):
            compare_in_slots(layer, slots, vocab, generator, outcome)
    return outcome


def table(outcome: Outcome) -> list[str]:
    """Lines of Markdown: what was compared, how often, and how often it differed."""
    lines = ["| compared | times | differences |", "| --- | --- | --- |"]
    lines += [f"| {what} | {times:,} | {outcome.differing[what]:,} |" for what, times in outcome.compared.items()]
    trees = outcome.compared["mask"]
    lines += [
        "",
        f"{trees:,} trees of {outcome.num_nodes / trees:.1f} drafted nodes and {outcome.num_accepted / trees:.2f} "
        f"accepted ones on average. Ties, of which the nodes are not compared: {outcome.num_tied:,}. Of "
        f"{outcome.num_lessened:,} sets fewer nodes were taken: theirs goes on below one that ours does not feed.",
    ]
    return lines


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jetspec", required=True, help="Checkout of JetSpec.")
    parser.add_argument("--sets", type=int, default=10_000, help="Random candidate sets. Default: 10000.")
    parser.add_argument("--seed", type=int, default=0, help="Of the generator. Default: 0.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, given.jetspec)
    layer = cast("TreeLayer", importlib.import_module("jetspec.tree"))
    outcome = compare_layers(layer, given.sets, given.seed)
    print("\n".join(table(outcome)))
    sys.exit(1 if outcome.differing.total() else 0)


if __name__ == "__main__":
    main()
