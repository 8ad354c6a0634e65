"""How the toy decoder's trees grow: levels of three proposals a row, of which the policy takes some."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from specscope.schemas import DraftLevel

Choices = tuple[tuple[int, ...], ...]
#: Of the tokens from below the root to a node: three proposals, and the distribution that they come from.
Propose = Callable[[tuple[int, ...]], tuple[list[int], list[float]]]


class Candidate(NamedTuple):
    """A proposed token."""

    ranks: tuple[int, ...]
    tokens: tuple[int, ...]  # from below the root to it
    logprob: float
    score: float


@dataclass
class Grown:
    """A tree and how it came about."""

    nodes: list[Candidate]  # slots 1 and up
    parents: list[int]
    levels: list[DraftLevel]
    child_probs: dict[int, list[float]]  # slot -> what its children were drawn from


def grow(kind: str, choices: Choices, propose: Propose) -> Grown:
    """All levels, then the nodes that the policy takes, in the order of their proposals."""
    found: list[Candidate] = []
    levels: list[DraftLevel] = []
    drawn_from: dict[tuple[int, ...], list[float]] = {}
    inner = {choice[:-1] for choice in choices}
    rows: list[tuple[int, Candidate]] = [(-1, Candidate((), (), 0.0, 0.0))]
    for _ in range(max(map(len, choices))):
        first, proposed = len(found), list[Candidate]()
        for _, row in rows:
            tokens, probs = propose(row.tokens)
            drawn_from[row.ranks] = probs
            for rank, token in enumerate(tokens):
                logprob = math.log(probs[token])
                proposed.append(Candidate((*row.ranks, rank), (*row.tokens, token), logprob, row.score + logprob))
        levels.append(
            DraftLevel(
                frontier=[number for number, _ in rows if number >= 0],
                positions=[],  # not known here
                tokens=[candidate.tokens[-1] for candidate in proposed],
                logprobs=[candidate.logprob for candidate in proposed],
                finite=True,
            )
        )
        found += proposed
        numbered = list(enumerate(proposed, start=first))
        if kind == "dynamic":
            rows = sorted(numbered, key=lambda entry: -entry[1].score)[:3]
        else:
            rows = [(number, candidate) for number, candidate in numbered if candidate.ranks in inner]
    return _tree(_selected(kind, choices, found), levels, drawn_from)


def _selected(kind: str, choices: Choices, found: list[Candidate]) -> list[Candidate]:
    if kind != "dynamic":
        return [candidate for candidate in found if candidate.ranks in choices]
    best = sorted(range(len(found)), key=lambda number: (-found[number].score, number))[: len(choices)]
    return [found[number] for number in sorted(best)]


def _tree(nodes: list[Candidate], levels: list[DraftLevel], drawn_from: dict[tuple[int, ...], list[float]]) -> Grown:
    slots = {(): 0} | {node.ranks: slot for slot, node in enumerate(nodes, start=1)}
    parents = [0, *(slots[node.ranks[:-1]] for node in nodes)]
    probs = {slot: drawn_from[ranks] for ranks, slot in slots.items() if ranks in drawn_from}
    return Grown(nodes, parents, levels, probs)
