"""A row that a turn takes: what it may keep of what the caches hold of it, and that nothing else stays.

A row may have been another request's before. Its keys and values, the drafter's pairs and text, and its random numbers
are not the new one's: they go when the row is taken, here and nowhere else.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.base import Drafter


class TakenRow(NamedTuple):
    """A row before a turn takes its prompt in."""

    number: int
    cache: TreeCache  # the teacher's
    drafter: Drafter
    held_ids: list[int]  # tokens that the row holds for who takes it; none where that is another request
    prompt_ids: list[int]  # the turn's whole context


class HeldByRow(NamedTuple):
    """What a row's caches hold when a turn takes its prompt in."""

    committed_length: int  # positions in the teacher's cache
    num_pairs: int  # in the drafter's


def common_length(first: list[int], second: list[int]) -> int:
    """How many leading ids are equal."""
    length = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        length += 1
    return length


def take_row(taken: TakenRow) -> int:
    """Empties both caches of the row except for what they hold of the prompt's beginning; how many tokens that is.

    The last known token is fed again: the drafter needs its features for the pair with the token that follows.
    """
    known = common_length(taken.held_ids, taken.prompt_ids[:-1])
    start = max(0, min(known - 1, taken.drafter.num_pairs[taken.number]))
    taken.cache.truncate(taken.number, start)
    taken.drafter.begin_turn(taken.number, taken.prompt_ids, start)
    return start


def held_by(cache: TreeCache, drafter: Drafter, row: int) -> HeldByRow:
    """What ``row`` holds."""
    return HeldByRow(cache.committed_lengths[row], drafter.num_pairs[row])


def new_generator(row: int, seed: int) -> torch.Generator:
    """The random numbers of a turn in ``row``. They begin by the seed, whichever turn had the row before."""
    return torch.Generator().manual_seed(seed)
