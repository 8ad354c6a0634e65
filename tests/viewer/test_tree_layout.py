"""The layout: nothing overlaps, parents stand left of their children, the accepted path runs straight."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from specscope.viewer.drawing.svg.tree import draw_tree
from specscope.viewer.drawing.svg.tree_layout import (
    Place,
    connected_path,
    fold,
    fold_below,
    layout_tree,
    sound_parents,
    toggle,
)
from specscope.viewer.drawing.svg.tree_picture import Bonus, PictureNode, TreePicture


@st.composite
def trees(draw: st.DrawFn) -> list[int]:
    """Parents of a random tree of up to 40 slots."""
    size = draw(st.integers(1, 40))
    return [0, *(draw(st.integers(0, slot - 1)) for slot in range(1, size))]


@st.composite
def trees_with_path(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """A random tree and an accepted path in it."""
    parents = draw(trees())
    path: list[int] = []
    at = 0
    while children := [slot for slot in range(1, len(parents)) if parents[slot] == at and slot not in path]:
        if draw(st.booleans()):
            break
        at = draw(st.sampled_from(children))
        path.append(at)
    return parents, path


def test_small_tree_in_full() -> None:
    layout = layout_tree([0, 0, 0, 1, 1], [1, 3])
    assert layout.places == {
        0: Place(0, 0),
        1: Place(1, 0),
        3: Place(2, 0),
        4: Place(2, 1),
        2: Place(1, 1),
    }
    assert layout.bonus == Place(3, 0)
    assert (layout.num_rows, layout.num_columns) == (2, 4)


def test_without_acceptance_there_is_no_bonus() -> None:
    layout = layout_tree([0, 0, 0, 0], None)
    assert layout.places[0] == Place(0, 0)
    assert layout.bonus is None


@given(trees_with_path())
def test_edges_do_not_cross_and_nodes_stand_no_lower_than_they_must(tree: tuple[list[int], list[int]]) -> None:
    parents, path = tree
    layout = layout_tree(parents, path)
    edges: dict[int, list[tuple[int, int]]] = {}
    for slot, place in layout.places.items():
        if slot:
            edges.setdefault(place.column, []).append((place.row, layout.places[parents[slot]].row))
    for column, below in edges.items():
        starts = [start for _, start in sorted(below)]
        assert starts == sorted(starts)
        taken = {row for row, _ in below} | ({0} if layout.bonus and layout.bonus.column == column else set())
        assert all(row == start or row - 1 in taken for row, start in below)


@given(trees_with_path())
def test_no_two_nodes_overlap(tree: tuple[list[int], list[int]]) -> None:
    layout = layout_tree(*tree)
    columns: dict[int, list[int]] = {}
    for place in [*layout.places.values(), *([layout.bonus] if layout.bonus else [])]:
        columns.setdefault(place.column, []).append(place.row)
    for rows in columns.values():
        assert all(lower - upper >= 1 for upper, lower in pairwise(sorted(rows)))


@given(trees_with_path())
def test_parents_stand_one_column_left(tree: tuple[list[int], list[int]]) -> None:
    parents, path = tree
    places = layout_tree(parents, path).places
    assert sorted(places) == list(range(len(parents)))
    assert all(places[slot].column == places[parents[slot]].column + 1 for slot in range(1, len(parents)))


@given(trees_with_path())
def test_the_path_and_the_bonus_run_along_the_top(tree: tuple[list[int], list[int]]) -> None:
    parents, path = tree
    layout = layout_tree(parents, path)
    assert {layout.places[slot].row for slot in [0, *path]} == {0}
    assert layout.bonus == Place(len(path) + 1, 0)


@given(trees())
def test_every_place_is_inside_the_grid(parents: list[int]) -> None:
    layout = layout_tree(parents, None)
    assert all(0 <= p.row < layout.num_rows and 0 <= p.column < layout.num_columns for p in layout.places.values())


@given(trees_with_path(), st.integers(1, 20))
def test_folding_keeps_ancestors_and_counts_the_rest(tree: tuple[list[int], list[int]], limit: int) -> None:
    parents, path = tree
    scores = [-float(slot % 7) for slot in range(len(parents))]
    found = fold(parents, scores, path, limit)
    assert {0, *path} <= found.shown
    assert all(parents[slot] in found.shown for slot in found.shown)
    assert len(found.shown) + sum(found.hidden_below.values()) == len(parents)
    assert sorted(layout_tree(parents, path, found.shown).places) == sorted(found.shown)


@given(trees_with_path(), st.integers(-7, 0), st.integers(1, 50))
def test_unlikely_branches_are_folded_whole(tree: tuple[list[int], list[int]], least: int, limit: int) -> None:
    parents, path = tree
    scores = [-float(slot % 7) for slot in range(len(parents))]
    kept = fold_below(parents, scores, path, least=least, limit=limit)
    assert {0, *path} <= kept.shown
    assert all(parents[slot] in kept.shown for slot in kept.shown)
    assert all(scores[slot] >= least for slot in kept.shown - {0, *path})
    assert len(kept.shown) + sum(kept.hidden_below.values()) == len(parents)
    assert len(kept.shown - {0, *path}) < limit
    if limit > len(parents):
        folded = set(range(len(parents))) - kept.shown
        assert all(scores[slot] < least or parents[slot] in folded for slot in folded)


@given(trees_with_path(), st.integers(1, 20), st.integers(0, 39))
def test_a_branch_is_unfolded_whole_and_folded_but_for_the_path(
    tree: tuple[list[int], list[int]], limit: int, at: int
) -> None:
    parents, path = tree
    slot = at % len(parents)
    folded = fold(parents, [-float(other % 7) for other in range(len(parents))], path, limit)
    slot = slot if slot in folded.shown else 0
    below = {other for other in range(len(parents)) if other != slot and slot in ancestors(parents, other)}
    toggled = toggle(parents, folded, [slot], path)
    if folded.hidden_below.get(slot):
        hidden_here = {other for other in below - folded.shown if nearest(parents, folded.shown, other) == slot}
        assert toggled.shown == folded.shown | hidden_here
    else:
        kept = {0, *path}
        assert toggled.shown == folded.shown - (below - kept)
    assert len(toggled.shown) + sum(toggled.hidden_below.values()) == len(parents)
    assert toggle(parents, folded, [], path) == folded


def ancestors(parents: list[int], slot: int) -> set[int]:
    above = set()
    while slot:
        slot = parents[slot]
        above.add(slot)
    return above


def nearest(parents: list[int], shown: frozenset[int], slot: int) -> int:
    while slot not in shown:
        slot = parents[slot]
    return slot


def test_impossible_parents_hang_under_the_root() -> None:
    assert sound_parents([0, 5, -1, 2, 4]) == [0, 0, 0, 2, 0]
    layout = layout_tree([3, 5, -1, 3], [1])
    assert {place.column for slot, place in layout.places.items() if slot} == {1}


def test_a_path_that_jumps_is_cut_where_it_breaks() -> None:
    assert connected_path([0, 0, 1, 0], [1, 3, 2]) == [1]
    assert connected_path([0, 0], [9]) == []
    assert connected_path([0, 0], [0]) == []


def test_a_long_chain_needs_no_recursion() -> None:
    size = 5000
    layout = layout_tree([0, *range(size - 1)], list(range(1, size)))
    assert layout.num_columns == size + 1
    assert layout.num_rows == 1


def test_ten_levels_of_long_labels_fit_the_width() -> None:
    def drawn(target_width: float) -> ElementTree.Element:
        label = "interesting…"
        nodes = [
            PictureNode(
                slot=n,
                name=str(n),
                label=label,
                tooltip=(label,),
                probability=0.5,
                accepted=n % 3 == 0,
                divergent=False,
                origin=False,
            )
            for n in range(11)
        ]
        bonus = Bonus(label, (label,))
        whole = TreePicture(parents=[0, *range(10)], nodes=nodes, path=[], bonus=bonus, num_folded=0)
        return ElementTree.fromstring(draw_tree(whole, title="deep", target_width=target_width))

    def width(tree: ElementTree.Element) -> float:
        return float(tree.get("viewBox", "").split()[2])

    fitted, roomy = drawn(860), drawn(5000)
    assert width(fitted) <= 860 * 1.02 < 1400 < width(roomy)
    svg = "{http://www.w3.org/2000/svg}"
    texts = [text.text or "" for text in fitted.iter(f"{svg}text")]
    assert sum(text.endswith("…") for text in texts) == 12
    assert {title.text for title in fitted.iter(f"{svg}title")} == {"interesting…"}, "tooltips have the whole text"
