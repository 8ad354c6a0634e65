"""Where the nodes of a draft tree stand: pure arithmetic on parents. Knows no tokens, no pixels and no records.

A tidy layout from left to right: leaves on consecutive rows, a parent at the middle of its children, the accepted path
straight along row 0, with the bonus token at its end. Parents that cannot be (a trace may record nonsense, which is
why it is being looked at) are drawn under the root instead.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """A spot in the grid."""

    column: int  # edges from the root
    row: float  # 0 at the top; halves where a parent stands between its children


@dataclass(frozen=True)
class TreeLayout:
    """All spots."""

    places: dict[int, Place]  # by slot
    bonus: Place | None  # None where no acceptance was recorded
    num_rows: int
    num_columns: int


class Fold(NamedTuple):
    """A large tree cut down to its likely part."""

    shown: frozenset[int]
    hidden_below: dict[int, int]  # shown slot -> how many folded nodes hang below it


def sound_parents(parents: Sequence[int]) -> list[int]:
    """``parents`` with every entry that is not an earlier slot replaced by the root."""
    return [parent if 0 <= parent < slot else 0 for slot, parent in enumerate(parents)]


def connected_path(parents: Sequence[int], path: Sequence[int]) -> list[int]:
    """The beginning of ``path`` that really leads from the root from child to child."""
    connected: list[int] = []
    for slot in path:
        last = connected[-1] if connected else 0
        if not 0 < slot < len(parents) or parents[slot] != last:
            break
        connected.append(slot)
    return connected


def fold(parents: Sequence[int], scores: Sequence[float], keep: Collection[int], limit: int) -> Fold:
    """The ``limit`` best nodes by cumulative score, those in ``keep``, and all their ancestors."""
    above = sound_parents(parents)
    shown = {0}
    for slot in sorted(keep):
        _add_with_ancestors(shown, above, slot)
    for slot in sorted(range(1, len(above)), key=lambda s: (-scores[s], s)):
        if len(shown) >= limit:
            break
        _add_with_ancestors(shown, above, slot)
    hidden: dict[int, int] = {}
    for slot in range(len(above)):
        if slot not in shown:
            at = slot
            while at not in shown:
                at = above[at]
            hidden[at] = hidden.get(at, 0) + 1
    return Fold(frozenset(shown), hidden)


def _add_with_ancestors(shown: set[int], above: Sequence[int], slot: int) -> None:
    while 0 < slot < len(above) and slot not in shown:
        shown.add(slot)
        slot = above[slot]


def layout_tree(parents: Sequence[int], path: Sequence[int] | None, shown: Collection[int] | None = None) -> TreeLayout:
    """Places every slot of ``shown``, or all of them.

    Args:
        parents: per slot, its parent; slot 0 is the root.
        path: the accepted slots in order, without the root; None where no acceptance was recorded.
        shown: closed under parents, as ``fold`` gives it.
    """
    above = sound_parents(parents)
    straight = [] if path is None else [0, *connected_path(above, path)]
    end = straight[-1] if straight else None  # the bonus token hangs here
    children = _children(above, frozenset(straight), shown)
    order = _preorder(children)
    columns = {0: 0}
    rows: dict[int, float] = {}
    next_row = 0
    for slot in order:
        columns[slot] = columns[above[slot]] + 1 if slot else 0
        if slot == end or not children[slot]:
            rows[slot] = float(next_row)
            next_row += 1
    for slot in reversed(order):
        if children[slot] and slot != end:
            rows[slot] = (rows[children[slot][0]] + rows[children[slot][-1]]) / 2
    rows.update(dict.fromkeys(straight, 0.0))
    bonus = None if end is None else Place(columns[end] + 1, 0.0)
    places = {slot: Place(columns[slot], rows[slot]) for slot in order}
    last_column = max([*columns.values(), bonus.column if bonus else 0])
    return TreeLayout(places, bonus, next_row, last_column + 1)


def _children(above: Sequence[int], first: frozenset[int], shown: Collection[int] | None) -> dict[int, list[int]]:
    """Children by slot; the one on the accepted path first, the others in slot order."""
    slots = range(len(above)) if shown is None else sorted(shown)
    children: dict[int, list[int]] = {slot: [] for slot in slots}
    for slot in slots:
        if slot:
            children[above[slot]].append(slot)
    for row in children.values():
        row.sort(key=lambda slot: (slot not in first, slot))
    return children


def _preorder(children: dict[int, list[int]]) -> list[int]:
    """Parents before children, top to bottom; without recursion, because a chain may be long."""
    order, stack = [], [0]
    while stack:
        slot = stack.pop()
        order.append(slot)
        stack.extend(reversed(children[slot]))
    return order
