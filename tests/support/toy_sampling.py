"""Acceptance of the toy decoder, in plain numbers: greedy, sampling with point masses or draws, typical."""

from __future__ import annotations

import math

from specscope.schemas import AcceptSection, BonusDraw, Trial, Visit
from specscope.tracer.oracle.invariants.walk import greedy_walk


def softmax(logits: list[float], temperature: float = 1.0, top_k: int | None = None) -> list[float]:
    """Probabilities; with ``top_k`` those of the best tokens alone."""
    least = sorted(logits, reverse=True)[(top_k or len(logits)) - 1]
    weights = [math.exp((x - max(logits)) / temperature) if x >= least else 0.0 for x in logits]
    return [weight / sum(weights) for weight in weights]


def draw(weights: list[float], coin: float) -> tuple[int, BonusDraw]:
    """The token whose share of ``weights``, cumulated in order of ids, holds the coin."""
    total, low = sum(weights), 0.0
    for token, weight in enumerate(weights):
        high = min(1.0, low + weight / total)
        if coin < high or (weight and not any(weights[token + 1 :])):
            return token, BonusDraw(coin=coin, low=low, high=high)
        low = high
    raise AssertionError("the weights are all zero")


def accept_greedy(tokens: list[int], parents: list[int], logits: list[list[float]]) -> AcceptSection:
    """The walk along the best tokens."""
    walk = greedy_walk(tokens, parents, [row.index(max(row)) for row in logits])
    visited = [Visit(slot=node.slot, wanted=node.wanted, child=node.child) for node in walk.visited]
    last = walk.path[-1] if walk.path else 0
    return _outcome("greedy", visited, walk.path, logits[last].index(max(logits[last])), None)


def accept_sampling(
    tokens: list[int],
    parents: list[int],
    probs: list[list[float]],
    drawn_from: dict[int, list[float]] | None,
    coins: list[float],
    bonus_coin: float,
) -> AcceptSection:
    """Children in turn: threshold min(1, p / q), residual max(0, p - q). A point mass is a q of 1 at the token."""
    visited: list[Visit] = []
    path: list[int] = []
    at: int | None = 0
    left: list[float] = []
    while at is not None:
        left, child, trials = list(probs[at]), None, list[Trial]()
        q = None if drawn_from is None else list(drawn_from.get(at, [1.0] * len(left)))
        for slot in (slot for slot in range(1, len(tokens)) if parents[slot] == at):
            token = tokens[slot]
            threshold = min(1.0, left[token] / (1.0 if q is None else q[token]))
            trials.append(
                Trial(
                    slot=slot,
                    target_prob=probs[at][token],
                    draft_prob=1.0 if drawn_from is None else drawn_from[at][token],
                    threshold=threshold,
                    coin=coins[slot],
                    accepted=coins[slot] < threshold,
                )
            )
            if coins[slot] < threshold:
                child = slot
                break
            left = [0.0 if i == token else p for i, p in enumerate(left)] if q is None else _residual(left, q)
            left = [p / sum(left) for p in left]
            if q is not None:
                q = [0.0 if i == token else p for i, p in enumerate(q)]
                q = [p / sum(q) for p in q]
        visited.append(Visit(slot=at, child=child, trials=trials))
        path += [] if child is None else [child]
        at = child
    return _outcome("sampling", visited, path, *draw(left, bonus_coin))


def _residual(p: list[float], q: list[float]) -> list[float]:
    return [max(0.0, x - y) for x, y in zip(p, q, strict=True)]


def accept_typical(
    tokens: list[int], parents: list[int], probs: list[list[float]], bonus_coin: float, epsilon: float, delta: float
) -> AcceptSection:
    """To the likeliest child whose probability exceeds min(epsilon, delta exp(-entropy)); the bonus from the whole."""
    visited: list[Visit] = []
    path: list[int] = []
    at: int | None = 0
    while at is not None:
        entropy = -sum(p * math.log(p) for p in probs[at] if p)
        limit = min(epsilon, delta * math.exp(-entropy))
        children = [slot for slot in range(1, len(tokens)) if parents[slot] == at]
        weighed = {slot: probs[at][tokens[slot]] for slot in children}
        trials = [
            Trial(slot=s, target_prob=p, draft_prob=1.0, threshold=limit, accepted=p > limit)
            for s, p in weighed.items()
        ]
        fitting = [slot for slot in children if weighed[slot] > limit]
        child = max(fitting, key=lambda slot: (weighed[slot], -slot)) if fitting else None
        visited.append(Visit(slot=at, child=child, trials=trials))
        path += [] if child is None else [child]
        at = child
    return _outcome("typical", visited, path, *draw(probs[path[-1] if path else 0], bonus_coin))


def _outcome(rule: str, visited: list[Visit], path: list[int], bonus: int, drawn: BonusDraw | None) -> AcceptSection:
    return AcceptSection(
        rule=rule,  # type: ignore[arg-type]
        visited=visited,
        path=path,
        accepted_length=len(path),
        bonus_token=bonus,
        bonus_slot=path[-1] if path else 0,
        bonus_draw=drawn,
    )
