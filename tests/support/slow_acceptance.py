"""Random trees with distributions and coins, as batches, and slow, exact readings of the acceptance rules on each."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch

from specscope.engine.settings import SamplingRule
from specscope.engine.tree.grow import DraftTree
from specscope.engine.tree.tensors import TreeTensors, tensorize

VOCAB = 7


class Case(NamedTuple):
    """One row: a tree and all that the rules are told about it."""

    tokens: list[int]
    parents: list[int]
    target: torch.Tensor  # (N, V) float32
    draft: torch.Tensor  # (N, V) float32
    coins: torch.Tensor  # (N,)
    bonus_coin: torch.Tensor  # ()


@dataclass(frozen=True)
class Batch:
    """Cases as the tensors that the rules take."""

    tree: TreeTensors
    target: torch.Tensor  # (B, P, V)
    draft: torch.Tensor  # (B, P, V)
    coins: torch.Tensor  # (B, P)
    bonus_coins: torch.Tensor  # (B,)


def random_case(rng: random.Random, distinct: bool = True) -> Case:
    """A tree of up to 14 slots under sparse distributions; siblings may repeat a token unless ``distinct``."""
    parents, tokens = [0], [rng.randrange(VOCAB)]
    children: dict[int, list[int]] = {}
    for slot in range(1, rng.randint(1, 14)):
        parent = rng.choice([p for p in range(slot) if len(children.get(p, [])) < 4])
        free = [t for t in range(VOCAB) if not distinct or t not in children.get(parent, [])]
        tokens.append(rng.choice(free))
        parents.append(parent)
        children.setdefault(parent, []).append(tokens[-1])
    target, draft = [
        torch.tensor([_sparse(rng, children.get(slot, []), drawn) for slot in range(len(parents))])
        for drawn in (False, True)
    ]
    coins = torch.tensor([rng.random() for _ in parents], dtype=torch.float64)
    return Case(tokens, parents, target, draft, coins, torch.tensor(rng.random(), dtype=torch.float64))


def _sparse(rng: random.Random, drawn_tokens: list[int], drawn: bool) -> list[float]:
    """Weights of very different size, some 0; where ``drawn``, not those of the tokens that were."""
    weights = [rng.random() ** 4 * (rng.random() < 0.7) for _ in range(VOCAB)]
    for token in drawn_tokens if drawn else [rng.randrange(VOCAB)]:
        weights[token] = rng.uniform(0.1, 1)
    weights[rng.randrange(VOCAB)] += 0.05
    total = sum(weights)
    return [weight / total for weight in weights]


def batch_of(cases: list[Case], pad_to: int = 0) -> Batch:
    """Ragged rows, padded behind their own slots with the root's token, tensors then to ``pad_to``."""
    longest = max(len(case.tokens) for case in cases)
    padded = max(longest, pad_to)
    depths = [_depths(case.parents) for case in cases]

    def ids(rows: list[list[int]], fill: list[int]) -> torch.Tensor:
        return torch.tensor([row + [f] * (longest - len(row)) for row, f in zip(rows, fill, strict=True)])

    def full(rows: list[torch.Tensor], fill: float) -> torch.Tensor:
        out = torch.full((len(rows), padded, *rows[0].shape[1:]), fill, dtype=rows[0].dtype)
        for b, row in enumerate(rows):
            out[b, : len(row)] = row
        return out

    zeros = torch.zeros(len(cases), longest)
    tree = DraftTree(
        tokens=ids([case.tokens for case in cases], [case.tokens[0] for case in cases]),
        parents=ids([case.parents for case in cases], [0] * len(cases)),
        depths=ids(depths, [0] * len(cases)),
        logprobs=zeros,
        scores=zeros,
        num_slots=[len(case.tokens) for case in cases],
    )
    tensors = tensorize(tree, list(range(5, 5 + len(cases))), 14, pad_to)
    return Batch(
        tensors,
        full([case.target for case in cases], 1 / VOCAB),
        full([case.draft for case in cases], 1 / VOCAB),
        full([case.coins for case in cases], 0.0),
        torch.stack([case.bonus_coin for case in cases]),
    )


def _depths(parents: list[int]) -> list[int]:
    depths = [0]
    for slot, parent in enumerate(parents[1:], 1):
        assert parent < slot
        depths.append(depths[parent] + 1)
    return depths


class Slow(NamedTuple):
    """What a rule does with one case, worked out with exact fractions."""

    path: list[int]
    bonus_token: int
    bonus_low: Fraction
    bonus_high: Fraction
    residual: list[Fraction]
    thresholds: list[Fraction]


def exact(row: torch.Tensor) -> list[Fraction]:
    return normalised([Fraction(x) for x in row.tolist()])


def normalised(weights: list[Fraction]) -> list[Fraction]:
    total = sum(weights, Fraction(0))
    return [weight / total for weight in weights] if total else weights


def slow_sampling(case: Case, drawn: bool) -> Slow:
    """Node by node, sibling by sibling, as the papers write it."""
    thresholds = [Fraction(0)] * len(case.tokens)
    residuals: list[list[Fraction]] = []
    for node in range(len(case.tokens)):
        p, q = exact(case.target[node]), exact(case.draft[node])
        for child in children_of(case, node):
            token = case.tokens[child]
            if drawn and q[token] == 0:
                continue
            thresholds[child] = min(Fraction(1), p[token] / (q[token] if drawn else 1))
            mass = q if drawn else [Fraction(t == token) for t in range(VOCAB)]
            left = [max(Fraction(0), a - b) for a, b in zip(p, mass, strict=True)]
            p = normalised(left) if any(left) or not drawn else p
            q = normalised([Fraction(0) if t == token else b for t, b in enumerate(q)])
        residuals.append(p)
    path, coins = [0], case.coins.tolist()
    while chosen := [c for c in children_of(case, path[-1]) if Fraction(coins[c]) < thresholds[c]]:
        path.append(chosen[0])
    return Slow(path[1:], *slow_bonus(residuals[path[-1]], case), thresholds)


def slow_typical(case: Case, rule: SamplingRule) -> Slow:
    thresholds, path = [Fraction(0)] * len(case.tokens), [0]
    for slot in range(1, len(case.tokens)):
        entropy = -sum(float(p) * math.log(p) for p in exact(case.target[case.parents[slot]]) if p)
        thresholds[slot] = Fraction(min(rule.epsilon, rule.delta * math.exp(-entropy)))
    while True:
        p = exact(case.target[path[-1]])
        chosen = [c for c in children_of(case, path[-1]) if p[case.tokens[c]] > thresholds[c]]
        if not chosen:
            return Slow(path[1:], *slow_bonus(p, case), thresholds)
        path.append(max(chosen, key=lambda c: (p[case.tokens[c]], -c)))


def slow_bonus(weights: list[Fraction], case: Case) -> tuple[int, Fraction, Fraction, list[Fraction]]:
    residual, low = normalised(weights), Fraction(0)
    for token, prob in enumerate(residual):
        if low <= Fraction(float(case.bonus_coin)) < low + prob:
            return token, low, low + prob, residual
        low += prob
    raise AssertionError("the shares cover all coins")


def children_of(case: Case, node: int) -> list[int]:
    return [slot for slot in range(1, len(case.tokens)) if case.parents[slot] == node]
