"""Roots that have one cause: the same value is wrong in the same way, in one place after another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from specscope.schemas.verdict import Root, Wrong

WRONG: dict[Wrong, str] = {
    "baseline": "the baseline is wrong",
    "candidate": "the candidate is wrong",
    "both": "both are wrong",
    "neither": "neither side is blamed",
}


class Cause(NamedTuple):
    """Roots of one cause."""

    name: str  # ``tensors: mask, structural, the candidate is wrong``
    roots: list[int]  # their places in the verdict's list, in order
    inherited: int  # later steps that follow from them


def causes_of(roots: Sequence[Root]) -> list[Cause]:
    """The causes, in the order of their first roots."""
    by_name: dict[str, list[int]] = {}
    for at, root in enumerate(roots):
        by_name.setdefault(_name(root), []).append(at)
    return [Cause(name, places, sum(roots[at].inherited for at in places)) for name, places in by_name.items()]


def one_of_each_cause(roots: Sequence[Root], most: int) -> list[int]:
    """The places of at most ``most`` roots, in order: the first of each cause, then what there is room for."""
    firsts = [cause.roots[0] for cause in causes_of(roots)][:most]
    others = [at for at in range(len(roots)) if at not in firsts]
    return sorted([*firsts, *others[: most - len(firsts)]])


def _name(root: Root) -> str:
    difference = root.difference
    field = re.sub(r"\[\d+\]", "", difference.field)
    return f"{difference.phase}: {field}, {difference.kind}, {WRONG[root.wrong]}"
