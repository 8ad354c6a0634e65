"""The n-gram drafter: looks up what followed the last tokens where they stood before, and drafts it. No weights.

Every row keeps its tokens on the host, and for each n-gram of them the places where it ends. A step looks the longest
suffix up first, then shorter ones. What followed each match goes into a trie, longer matches weighing more; the trie is
the tree. A lookup has no distribution to draw from, and no levels: whole paths are proposed at once.

Saxena 2023, prompt lookup decoding, proposes one such path; REST (He et al. 2023) proposes a trie of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.rows import RowList
from specscope.engine.drafters.base import Draft, DraftPairs
from specscope.engine.host import sent
from specscope.engine.tree.grow import DraftTree
from specscope.engine.tree.policy import Choice, TreePolicy
from specscope.schemas import Drafter as DrafterManifest
from specscope.tracer.errors import UsageError

MAX_MATCHES = 64  # of a step; the trie's size depends on it
REST_WEIGHT = 4.0  # of all that no match proposes, among siblings: a match of two tokens


@dataclass(frozen=True)
class NgramSettings:
    """How long a suffix must be to count as a match, and up to what length matches are distinguished."""

    min_ngram: int = 1
    max_ngram: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.min_ngram <= self.max_ngram <= 64:
            raise UsageError(
                f"got n-grams of {self.min_ngram} to {self.max_ngram} tokens, wanted 1 <= MIN <= MAX <= 64"
            )


def parse_ngram_settings(text: str) -> NgramSettings:
    """The settings that follow ``ngram:``: MIN-MAX, or nothing.

    Raises:
        UsageError: where they are neither, or out of range.
    """
    if not text:
        return NgramSettings()
    match = re.fullmatch(r"(\d{1,4})-(\d{1,4})", text)
    if match is None:
        raise UsageError(
            f"got drafter ngram:{text}, wanted ngram, or ngram:MIN-MAX such as ngram:2-8 (tokens to match)"
        )
    return NgramSettings(int(match[1]), int(match[2]))


class Match(NamedTuple):
    """An earlier place whose last tokens are those of the text."""

    end: int  # place of its last token
    length: int  # tokens that are equal, as far as matches are distinguished

    @property
    def weight(self) -> float:
        """What its continuation counts: twice as much for every token more."""
        return 2.0**self.length


class NgramIndex:
    """The tokens of one row and where their n-grams end; grows and shrinks at the end."""

    def __init__(self, settings: NgramSettings) -> None:
        self.tokens: list[int] = []
        self._settings = settings
        self._ends: dict[tuple[int, ...], list[int]] = {}  # ascending

    def _grams(self, end: int) -> Iterable[tuple[int, ...]]:
        """The n-grams that end at place ``end``."""
        longest = min(self._settings.max_ngram, end + 1)
        return (
            tuple(self.tokens[end + 1 - length : end + 1]) for length in range(self._settings.min_ngram, longest + 1)
        )

    def extend(self, tokens: Sequence[int]) -> None:
        """Takes in ``tokens``."""
        for token in tokens:
            self.tokens.append(token)
            end = len(self.tokens) - 1
            for gram in self._grams(end):
                self._ends.setdefault(gram, []).append(end)

    def truncate(self, length: int) -> None:
        """Forgets all tokens after the first ``length``."""
        while len(self.tokens) > length:
            for gram in self._grams(len(self.tokens) - 1):
                ends = self._ends[gram]
                ends.pop()
                if not ends:
                    del self._ends[gram]
            self.tokens.pop()

    def matches(self) -> list[Match]:
        """Earlier places that end like the text: the longest first, of equal ones the latest; ``MAX_MATCHES`` at most.
        Each is there once, with its longest match."""
        last = len(self.tokens) - 1
        matches: dict[int, Match] = {}
        for length in range(min(self._settings.max_ngram, last), self._settings.min_ngram - 1, -1):
            for end in reversed(self._ends[tuple(self.tokens[-length:])]):
                if end != last and end not in matches:
                    matches[end] = Match(end, length)
                    if len(matches) == MAX_MATCHES:
                        return list(matches.values())
        return list(matches.values())

    def continuation(self, match: Match, length: int) -> list[int]:
        """What follows ``match``: ``length`` tokens, or as many as there are."""
        return self.tokens[match.end + 1 : match.end + 1 + length]


@dataclass
class _Node:
    """A node of the trie; ``children`` in the order in which they were first proposed."""

    weight: float = 0.0
    children: dict[int, _Node] = field(default_factory=dict)


class Looked(NamedTuple):
    """One drafted node."""

    token: int
    parent: int  # slot; 0 is the root
    depth: int
    logprob: float  # of its share among its siblings and the rest, below 0
    score: float  # sum from the root
    ranks: Choice  # child ranks from the root


class Lookup(NamedTuple):
    """What one row's text proposes."""

    nodes: list[Looked]  # in slot order, from slot 1 on
    num_candidates: int  # nodes of the whole trie


def look_up(index: NgramIndex, policy: TreePolicy) -> Lookup:
    """The tree that continues the text of ``index``: its trie's best ``budget`` nodes, or those that a fixed tree has.

    Children are ranked by weight, then by the match that proposed them first; only the best ``top_k`` of each node
    count. A child's score lies below its parent's, so that the best nodes are closed under parents.
    """
    root, size = _Node(), 0
    for match in index.matches():
        node = root
        for token in index.continuation(match, policy.depth):
            if token not in node.children:
                node.children[token] = _Node()
                size += 1
            node = node.children[token]
            node.weight += match.weight
    ranked = _ranked(root, policy)
    if policy.is_fixed:
        choices = frozenset(policy.choices)
        chosen = [number for number, node in enumerate(ranked) if node.ranks in choices]
    else:
        chosen = sorted(sorted(range(len(ranked)), key=lambda n: (-ranked[n].score, n))[: policy.budget])
    slots = {number: slot for slot, number in enumerate(chosen, 1)}
    nodes = [ranked[number] for number in chosen]
    return Lookup([node._replace(parent=slots[node.parent - 1] if node.parent else 0) for node in nodes], size)


def _ranked(root: _Node, policy: TreePolicy) -> list[Looked]:
    """The trie's nodes level by level, siblings by rank; a node's ``parent`` is its number here + 1, or 0."""
    ranked: list[Looked] = []
    level: list[tuple[_Node, int]] = [(root, 0)]
    above: dict[int, Looked] = {0: Looked(token=0, parent=0, depth=0, logprob=0.0, score=0.0, ranks=())}
    while level:
        below: list[tuple[_Node, int]] = []
        for node, number in level:
            parent = above[number]
            total = REST_WEIGHT + sum(child.weight for child in node.children.values())
            best = sorted(node.children.items(), key=lambda item: -item[1].weight)[: policy.top_k]
            for rank, (token, child) in enumerate(best):
                logprob = math.log(child.weight / total)
                looked = Looked(
                    token=token,
                    parent=number,
                    depth=parent.depth + 1,
                    logprob=logprob,
                    score=parent.score + logprob,
                    ranks=(*parent.ranks, rank),
                )
                ranked.append(looked)
                above[len(ranked)] = looked
                below.append((child, len(ranked)))
        level = below
    return ranked


class NgramDrafter:
    """Proposes trees from the text itself.

    Args:
        policy: how large trees are; a fixed one keeps the nodes whose ranks it names, as far as they are found.
        settings: how long a suffix is looked up.
    """

    feature_layers: tuple[int, ...] = ()
    module = None  # it has no weights

    def __init__(self, policy: TreePolicy, settings: NgramSettings) -> None:
        self.policy = policy
        self._settings = settings
        self._rows: RowList[NgramIndex] = RowList()

    @property
    def num_pairs(self) -> list[int]:
        """Pairs taken in by each row: its tokens but the first."""
        return [max(0, len(row.tokens) - 1) for row in self._rows]

    def kept(self, row: int) -> torch.Tensor | None:
        """None: there is no cache."""
        return None

    def begin_session(self, cache: TreeCache) -> None:
        """Every row starts without a token."""
        self._rows = RowList(NgramIndex(self._settings) for _ in range(cache.num_rows))

    def begin_turn(self, row: int, context_ids: list[int], num_pairs: int) -> None:
        """Keeps the tokens of the first ``num_pairs`` pairs, and the one before them, which no pair brings."""
        known, index = context_ids[: num_pairs + 1], self._rows[row]
        index.truncate(len(known) if index.tokens[: len(known)] == known else 0)
        index.extend(known[len(index.tokens) :])

    def add_rows(self, count: int) -> None:
        """Adds ``count`` rows without a token behind the others."""
        self._rows += [NgramIndex(self._settings) for _ in range(count)]

    def drop_row(self, row: int) -> None:
        """The last row takes the number of ``row``."""
        self._rows.drop_row(row)

    def parts(self) -> dict[str, nn.Module]:
        """It runs no module."""
        return {}

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """Takes in each row's tokens and looks the last of them up. All on the host.

        Raises:
            ValueError: with ``generators``: there is no distribution to draw from.
        """
        if generators is not None:
            raise ValueError("got generators, wanted none: a lookup draws nothing")
        before = self.num_pairs
        lookups = self.take_in(pairs)
        tree = self.tree_of(lookups, pairs[0].tokens.device)
        return Draft(
            tree=tree,
            pairs=pairs,
            levels=None,
            num_candidates=[lookup.num_candidates for lookup in lookups],
            kv_before=before,
            kv_after=self.num_pairs,
        )

    def take_in(self, pairs: list[DraftPairs]) -> list[Lookup]:
        """Takes in each row's tokens, and looks the last of them up."""
        for index, fed in zip(self._rows, pairs, strict=True):
            index.extend(fed.token_list)
        return [look_up(index, self.policy) for index in self._rows]

    def tree_of(self, lookups: list[Lookup], device: torch.device) -> DraftTree:
        """What was looked up for each row, under the last token that it took in."""
        roots = [index.tokens[-1] for index in self._rows]
        return tree_of_rows([lookup.nodes for lookup in lookups], roots, device)

    def manifest(self) -> DrafterManifest:
        """Kind ngram, with its settings."""
        return DrafterManifest(
            kind="ngram", settings={"max_ngram": self._settings.max_ngram, "min_ngram": self._settings.min_ngram}
        )


def tree_of_rows(rows: list[list[Looked]], roots: list[int], device: torch.device) -> DraftTree:
    """The trees in slots, padded to the longest with the root's token."""
    longest = max(map(len, rows))

    def ids(root: int, padding: int, values: list[int]) -> list[int]:
        return [root, *values, *[padding] * (longest - len(values))]

    def reals(values: list[float]) -> list[float]:
        return [0.0, *values, *[0.0] * (longest - len(values))]

    def tensor(values: list[list[int]]) -> torch.Tensor:
        return sent(values, device, torch.int64)

    def floats(values: list[list[float]]) -> torch.Tensor:
        return sent(values, device, torch.float32)

    return DraftTree(
        tokens=tensor([ids(root, root, [n.token for n in nodes]) for root, nodes in zip(roots, rows, strict=True)]),
        parents=tensor([ids(0, 0, [n.parent for n in nodes]) for nodes in rows]),
        depths=tensor([ids(0, 0, [n.depth for n in nodes]) for nodes in rows]),
        logprobs=floats([reals([n.logprob for n in nodes]) for nodes in rows]),
        scores=floats([reals([n.score for n in nodes]) for nodes in rows]),
        num_slots=[len(nodes) + 1 for nodes in rows],
    )
