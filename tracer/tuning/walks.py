"""How the walks of a run went: accepted lengths, which child was right, whether the drafter's probabilities hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from specscope.schemas import Step
from specscope.tracer.files.candidates import Candidate, recorded_candidates

NUM_BINS = 10  # of the drafter's probability
#: No tree is so deep; a hostile record's length may be a number of any size.
LONGEST = 1 << 20
MOST_DEPTHS = 256
MOST_RANKS = 16  # children by rank; those beyond count as the last


class Bin(NamedTuple):
    """Children whose draft probability lies in one tenth."""

    mean_probability: float
    accepted: int  # those that were the teacher's choice
    num_children: int


@dataclass(kw_only=True)
class Walks:
    """Counts over steps. The walk of a step stands at the root first, then at each node that it accepts."""

    num_steps: int = 0
    lengths: dict[int, int] = field(default_factory=dict)  # accepted length -> steps
    ranks: dict[int, int] = field(default_factory=dict)  # rank of the right child, from 1 -> places
    not_in_tree: int = 0  # places where no child was right, though the drafter may have proposed it
    cut: int | None = 0  # of those, where it was proposed, and not chosen for the tree; None: not recorded of all
    leaves: int = 0  # places without children: there was nothing to be right
    num_drafted: int = 0  # nodes, without roots
    probabilities: list[float] = field(default_factory=lambda: [0.0] * NUM_BINS)
    accepted: list[int] = field(default_factory=lambda: [0] * NUM_BINS)
    counts: list[int] = field(default_factory=lambda: [0] * NUM_BINS)

    @property
    def bins(self) -> list[Bin]:
        """Calibration, by tenths of the draft probability; empty tenths are left out."""
        rows = zip(self.probabilities, self.accepted, self.counts, strict=True)
        return [Bin(total / count, accepted, count) for total, accepted, count in rows if count]

    @property
    def num_accepted(self) -> int:
        """Nodes that were accepted."""
        return sum(length * count for length, count in self.lengths.items())

    @property
    def by_depth(self) -> list[int]:
        """Entry d: steps that accepted d nodes or more; entry 0 is all of them."""
        deepest = min(MOST_DEPTHS, max(self.lengths, default=0))
        return [sum(n for length, n in self.lengths.items() if length >= depth) for depth in range(deepest + 1)]

    def add(self, step: Step) -> None:
        """Counts one step; one without acceptance is left out."""
        length = step.accepted_length
        if length is None or length < 0:
            return
        self.num_steps += 1
        length = min(length, LONGEST)
        self.lengths[length] = self.lengths.get(length, 0) + 1
        if step.accept is None:
            self.num_drafted += min(step.num_drafted or 0, LONGEST)
        elif step.tree is not None and len(step.tree.parents) >= len(step.tree.tokens):
            self.num_drafted += max(0, len(step.tree.tokens) - 1)
            self._add_places(step)

    def _add_places(self, step: Step) -> None:
        """Counts, at every node where the walk stood, which child was right."""
        tree, accept = step.tree, step.accept
        assert tree is not None
        assert accept is not None
        children: dict[int, list[int]] = {}
        for slot in range(1, len(tree.tokens)):
            children.setdefault(tree.parents[slot], []).append(slot)
        places = [0, *accept.path]
        wanted = [*(tree.tokens[slot] for slot in accept.path if slot < len(tree.tokens)), accept.bonus_token]
        for place, token in zip(places, wanted, strict=False):
            self._add_place(step, children.get(place, []), token)
            if not any(tree.tokens[slot] == token for slot in children.get(place, [])) and place in children:
                proposed = _was_proposed(step, place, token)
                self.cut = None if proposed is None or self.cut is None else self.cut + proposed

    def _add_place(self, step: Step, children: list[int], token: int) -> None:
        tree = step.tree
        assert tree is not None
        if not children:
            self.leaves += 1
            return
        logprobs = tree.logprobs or []
        known = all(slot < len(logprobs) and math.isfinite(logprobs[slot]) for slot in children)
        ranked = sorted(children, key=lambda slot: (-logprobs[slot] if known else 0.0, slot))
        right = next((at for at, slot in enumerate(ranked, start=1) if tree.tokens[slot] == token), None)
        if right is None:
            self.not_in_tree += 1
        else:
            self.ranks[min(right, MOST_RANKS)] = self.ranks.get(min(right, MOST_RANKS), 0) + 1
        for at, slot in enumerate(ranked, start=1) if known else ():
            probability = math.exp(min(0.0, logprobs[slot]))
            number = min(NUM_BINS - 1, int(probability * NUM_BINS))
            self.probabilities[number] += probability
            self.counts[number] += 1
            self.accepted[number] += at == right


def _was_proposed(step: Step, place: int, token: int) -> bool | None:
    """Whether the drafter proposed ``token`` at the node ``place``, and the tree left it out; None where its proposals
    were not recorded."""
    candidates, tree = recorded_candidates(step), step.tree
    if candidates is None or tree is None:
        return None
    path: list[int] = []
    while place:
        path.append(tree.tokens[place])
        place = tree.parents[place] if tree.parents[place] < place else 0
    wanted = [*reversed(path), token]
    return any(candidate.token == token and _path(candidate.parent) == wanted[:-1] for candidate in candidates)


def _path(candidate: Candidate | None) -> list[int]:
    """Tokens from below the root to ``candidate``."""
    tokens: list[int] = []
    while candidate is not None:
        tokens.append(candidate.token)
        candidate = candidate.parent
    return tokens[::-1]


def walks_of(steps: Sequence[Step]) -> Walks:
    """Counts over ``steps``."""
    walks = Walks()
    for step in steps:
        walks.add(step)
    return walks
