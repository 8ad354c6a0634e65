"""Where the nodes of a draft tree are drawn: pure arithmetic on parents. Knows no tokens, no pixels and no records.

From left to right, one column per depth. A node is level with its first child, and stands as high up as its column and
its parent allow, so that no column has a gap that it does not need: a tree is about as tall as its widest level, and no
two edges cross. The accepted path runs straight along row 0, with the bonus token at its end. Parents that cannot be (a
trace may record nonsense, which is why it is being looked at) are drawn under the root instead.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """A spot in the grid."""

    column: int  # edges from the root
    row: int  # 0 at the top


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
    hidden_below: dict[int, int]  # shown slot -> how many folded nodes are below it


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
    return Fold(frozenset(shown), _hidden_below(above, shown))


def fold_below(
    parents: Sequence[int], scores: Sequence[float], keep: Collection[int], *, least: float, limit: int
) -> Fold:
    """The nodes whose cumulative score, and that of all their ancestors, is ``least`` or more, the first ``limit`` of
    them; those in ``keep``, and all their ancestors."""
    above = sound_parents(parents)
    shown = {0}
    for slot in sorted(keep):
        _add_with_ancestors(shown, above, slot)
    for slot in range(1, len(above)):  # parents come first
        if len(shown) < limit and scores[slot] >= least and above[slot] in shown:
            shown.add(slot)
    return Fold(frozenset(shown), _hidden_below(above, shown))


def toggle(parents: Sequence[int], folded: Fold, slots: Collection[int], keep: Collection[int]) -> Fold:
    """``folded`` with the branches below ``slots`` shown where any of them is hidden, and hidden where none is, except
    for the slots in ``keep`` and what leads there."""
    above = sound_parents(parents)
    kept = {0}
    for slot in keep:
        _add_with_ancestors(kept, above, slot)
    opened = {slot for slot in slots if folded.hidden_below.get(slot)}
    closed = set(slots) - opened  # and all that is below these
    shown = set()
    for slot in range(len(above)):  # parents come first
        parent = above[slot]
        if slot and parent in closed:
            closed.add(slot)
        if not slot or slot in kept:
            shown.add(slot)
        elif parent in shown and parent not in closed and (slot in folded.shown or parent in opened):
            shown.add(slot)
            if slot not in folded.shown:
                opened.add(slot)
    return Fold(frozenset(shown), _hidden_below(above, shown))


def _hidden_below(above: Sequence[int], shown: Collection[int]) -> dict[int, int]:
    hidden: dict[int, int] = {}
    for slot in range(len(above)):
        if slot not in shown:
            at = slot
            while at not in shown:
                at = above[at]
            hidden[at] = hidden.get(at, 0) + 1
    return hidden


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
    end = straight[-1] if straight else None  # the bonus token is attached here
    children = _children(above, frozenset(straight), shown)
    order = _preorder(children)
    places: dict[int, Place] = {}
    bonus = None if end is None else Place(len(straight), 0)
    free = {} if bonus is None else {bonus.column: 1}  # by column, the first row that is free; 0 where none is taken
    for slot in order:
        parent = places[above[slot]] if slot else Place(-1, 0)
        column = parent.column + 1
        row = max(parent.row, free.get(column, 0))
        places[slot] = Place(column, row)
        free[column] = row + 1
    return TreeLayout(places, bonus, max(free.values()), max(free) + 1)


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
