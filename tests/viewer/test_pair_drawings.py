"""What is drawn of two steps that belong together: matched by path, marked where they differ, hostile text as text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.pairs import SVG, XHTML, board_at, opened, parsed, sides_of, with_section, words_of
from support.traces import EAGER, flat_floors

from specscope.schemas import Step, TreeSection
from specscope.schemas.phases import Phase
from specscope.schemas.verdict import Difference
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.nodes import PathKey
from specscope.tracer.compare.roundings import spacing
from specscope.tracer.compare.said import said_at
from specscope.tracer.compare.steps import difference
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.markup import NOTHING
from specscope.viewer.drawing.pair.board import About, Front, PairLook, pair_board, pair_masks, pair_trees
from specscope.viewer.drawing.pair.differences import difference_table, pair_note
from specscope.viewer.drawing.pair.margins import MOST_ROWS, draw_margins, margin_picture, margins_of
from specscope.viewer.drawing.pair.sides import PairSide
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.mask import Cell
from specscope.viewer.drawing.svg.tree import draw_tree
from specscope.viewer.drawing.svg.tree_picture import picture_of

TraceMaker = Callable[..., Path]


def test_the_board_of_a_root(pair_of_traces: tuple[Path, Path]) -> None:
    with opened(*pair_of_traces) as pair:
        board = board_at(pair, 0, 1)
    root = parsed(board)
    text = words_of(root)
    for words in (
        "The divergence begins here: the only root",
        "Baseline, step 1 sound.jsonl: 5 nodes differ, marked ≠",
        "Candidate, step 1 wrong.jsonl: 5 nodes differ, marked ≠",
        "1 difference, in the order of the phases",
        "8 ≠ 10",  # slot 3 of five whose positions differ
        "✓ equal, slots matched by path",
    ):
        assert words in text
    asked = [element.get("data-do") for element in root.iter() if element.get("data-do")]
    assert {"open:a", "open:b"} <= set(asked)
    assert json.loads(board.raw["a"])["step"] == json.loads(board.raw["b"])["step"] == 1
    assert "≠ in the tree" in words_of(ElementTree.fromstring(board.notes["a3"]))


def test_hostile_text_stands_literally(pair_of_traces: tuple[Path, Path]) -> None:
    with opened(*pair_of_traces) as pair:
        board = board_at(pair, 0, 1)
    parsed(board)
    everything = "".join([board.html, *board.notes.values()])
    assert "&lt;script&gt;document.title" in everything
    assert "&lt;/svg&gt;&lt;img src=x onerror=" in everything
    assert "\u202e" not in everything


def test_bits_that_differ_between_two_masks_are_outlined_in_both(sound_step: Step) -> None:
    assert sound_step.tensors is not None
    rows = list(sound_step.tensors.mask_rows)
    rows[2] = "07"  # slot 2 sees slot 1 too
    other = with_section(sound_step, "tensors", mask_rows=rows)
    sides = sides_of(sound_step, other)
    assert sides.mask_differences == ([Cell(2, 1)], [Cell(2, 1)])
    drawn = ElementTree.fromstring(pair_masks(sides).replace("&#160;", ""))
    places = [(e.get("x"), e.get("y")) for e in drawn.iter() if e.get("class") == "apart"]
    assert places == [("0.9", "1.9")] * 2
    assert words_of(drawn).count("1 bit differs from the other mask") == 2
    assert "<details" not in pair_masks(sides)
    assert pair_masks(sides_of(sound_step, sound_step)).startswith("<details")
    assert "not compared: a mask was not recorded" in pair_masks(
        sides_of(sound_step, sound_step.model_copy(update={"tensors": None}))
    )


def test_a_mask_row_that_sees_others_differs_though_it_sees_as_many(sound_step: Step) -> None:
    assert sound_step.tensors is not None
    rows = list(sound_step.tensors.mask_rows)
    rows[2] = "06"  # slots 1 and 2 instead of 0 and 2
    sides = sides_of(sound_step, with_section(sound_step, "tensors", mask_rows=rows))
    assert sides.seen(sides.nodes[2]).differs
    assert not sides.seen(sides.nodes[1]).differs


def test_a_commit_that_differs_is_shown(make_trace: TraceMaker) -> None:
    def short(step: Step) -> Step:
        if step.step != 2 or step.commit is None:
            return step
        kept = len(step.commit.source_slots) - 1
        rows, slots = step.commit.destination_rows[:kept], step.commit.source_slots[:kept]
        after = step.commit.committed_after - 1
        return with_section(step, "commit", source_slots=slots, destination_rows=rows, committed_after=after)

    with opened(make_trace("a.jsonl"), make_trace("b.jsonl", mode="eager", change=short)) as pair:
        text = words_of(parsed(board_at(pair, 0, 2)))
        assert "Baseline's commit committed_after: 11 ≠ 10" in text
        assert "Cache commits ✓ no difference" in words_of(parsed(board_at(pair, 0, 1)))


def margin_steps(step: Step, gaps: list[tuple[float, float]]) -> tuple[Step, Step]:
    """Two steps whose two best logits lie ``gaps`` apart, from slot 0 on; beyond them as they were."""
    sides = []
    for side in (0, 1):
        logits = [[4.0 + two[side], 4.0] for two in gaps] + [[9.5, 7.25]] * (7 - len(gaps))
        sides.append(with_section(step, "verify", top_logits=logits))
    return sides[0], sides[1]


def test_what_lies_in_the_band_is_what_the_judge_calls_a_tie(sound_step: Step) -> None:
    floor = 1e-3
    gaps = [(1.9e-3, 2.1e-3), (0.0, 1e-5), (0.5, 0.1), (2.0e-3, 3.0)]
    sides = sides_of(*margin_steps(sound_step, gaps))
    root = ElementTree.fromstring(draw_margins(margins_of(sides), floor))
    edge = float(next(e for e in root.iter() if e.get("class") == "floor").get("d", "M0").split("V")[0][1:].split()[0])
    judge = FloatJudge(flat_floors(floor))
    drawn = 0
    for row in (e for e in root.iter(f"{SVG}g") if e.get("data-node")):
        slot = int(row.get("data-node", "")[1:])
        x = {e.get("class"): e.get("cx") or e.get("d", "M ")[1:].partition(" ")[0] for e in row}
        for side, mark in ((sides.a, "baseline"), (sides.b, "candidate")):
            assert side.step.verify is not None
            said = said_at(side.step.verify, slot)
            assert said is not None
            gap = said.logits[0] - said.logits[1]
            assert (float(x[mark] or 0) <= edge + 0.1) == judge.tied("logits", gap, spacing(said.size))
            drawn += 1
    assert drawn == 14


def test_margins_scale_with_magnitude_as_the_floor_does(sound_step: Step) -> None:
    large = with_section(sound_step, "verify", top_logits=[[164.0, 160.0]] * 7)
    margin = margins_of(sides_of(large, large))[0]
    assert margin.gap_a == pytest.approx(4.0 / (128.0 / 16.0)), "floats lie 128 / 16 times as far apart there"


def test_the_node_where_it_begins_stands_first_and_other_choices_are_signed(sound_step: Step) -> None:
    a, b = margin_steps(sound_step, [(0.5, 0.5)] * 4 + [(1e-4, 1e-4), (0.1, 0.1)])
    assert b.verify is not None
    argmax = [*b.verify.argmax[:5], 99, *b.verify.argmax[6:]]
    sides = sides_of(a, with_section(b, "verify", argmax=argmax), marked=frozenset({2, 5}), origin=2)
    assert [margin.name for margin in margins_of(sides)][:3] == ["a2", "a5", "a4"]
    text = words_of(ElementTree.fromstring(f"<div>{margin_picture(sides, 1e-3)}</div>"))
    assert "#50 ≠ #99" in text
    assert "the divergence begins here" in text


def test_margins_that_cannot_be_drawn_are_told_in_words(sound_step: Step) -> None:
    bare = with_section(sound_step, "verify", top_logits=None, top_tokens=None)
    assert "were not recorded on both sides" in margin_picture(sides_of(sound_step, bare), 1e-3)
    without_floor = margin_picture(sides_of(sound_step, sound_step), None)
    assert "No noise floor" in without_floor
    assert 'class="band"' not in without_floor
    assert 'class="band"' in margin_picture(sides_of(sound_step, sound_step), 1e-3)


def test_of_many_margins_the_narrowest_are_drawn() -> None:
    with opened(EAGER, EAGER) as pair:
        sides = pair.at(0, 0).look.sides
    assert sides is not None
    margins = margins_of(sides)
    assert len(margins) > MOST_ROWS
    picture = margin_picture(sides, 1e-3)
    assert picture.count("<circle") == MOST_ROWS
    assert f"{len(margins) - MOST_ROWS} more nodes, none with a gap below {margins[MOST_ROWS].narrowest:.2g}" in picture


def test_differences_name_their_node_and_where_it_begins(sound_step: Step) -> None:
    def differing(field: str, node: PathKey | None, a: object, b: object) -> Difference:
        return difference("verify", field, a, b, kind="real", inputs_equal=node is not None, node=node)

    seen = differing("mask", ((2, 0),), "also sees [[1]]", "sees nothing else")
    rows = [
        differing("argmax", ((1, 0), (3, 0)), 5, 6),
        differing("path", None, [1, 3], [1]),
        seen.model_copy(update={"tokens_a": [[1]], "tokens_b": []}),
        differing("path", None, [1] * 50, []),
    ]
    table = ElementTree.fromstring(difference_table(sides_of(sound_step, sound_step), rows, rows[0]))
    lines = [[words_of(cell) for cell in line] for line in table.iter("tr")][1:]
    assert [line.get("data-node") for line in table.iter("tr")][1:] == ["a3", None, "a2", None]
    assert lines[0] == ["≠ first", "verify", "argmax", "#1 › #3", "#5", "#6", "", "", "real", "recorded inputs equal"]
    assert lines[1][4:6] == ["#1 #3", "#1"]
    assert lines[2][4:6] == ["also sees #1", "sees nothing else"]
    assert lines[3][4:6] == [f"{'#1 ' * 12}and 38 more", "nothing"]
    assert [line[0] for line in lines[1:]] == [""] * 3


def test_what_was_not_compared_is_said_beside_what_differs_and_where_nothing_does(sound_step: Step) -> None:
    part = sides_of(sound_step, sound_step.model_copy(update={"tensors": None}))
    words = "Not compared: tensors, which the candidate does not record."
    assert words not in difference_table(sides_of(sound_step, sound_step), [], None)
    silent = difference_table(part, [], None)
    assert "Nothing that both record differs between these two steps" in silent
    assert words in silent
    bonus = difference("accept", "bonus_token", 5, 6, kind="structural", inputs_equal=True, node=None)
    assert words in difference_table(part, [bonus], None)


def test_the_panel_signs_what_differs_and_nothing_else(sound_step: Step) -> None:
    assert sound_step.tensors is not None
    positions = [*sound_step.tensors.positions[:6], 99]
    sides = sides_of(sound_step, with_section(sound_step, "tensors", positions=positions))
    assert "≠" not in pair_note(sides, sides.nodes[5])
    changed = ElementTree.fromstring(pair_note(sides, sides.nodes[6]))
    signed = [words_of(row) for row in changed.iter(f"{XHTML}tr") if row.get("class") == "differs"]
    assert signed == ["≠ in the tree parent slot 3, depth 3, position 6 parent slot 3, depth 3, position 99"]


def test_deep_trees_stand_one_above_the_other(sound_step: Step) -> None:
    def look(step: Step) -> PairLook:
        sides = sides_of(step, step)
        return PairLook(a=sides.a, b=sides.b, about=About("good", "equal"))

    assert "ss-halves" in pair_trees(look(sound_step), medium="page")
    assert "ss-halves" not in pair_trees(
        look(with_section(sound_step, "tree", depths=[0, 1, 1, 2, 2, 2, 7])), medium="page"
    )


def test_sections_that_were_not_recorded_are_told_in_words(sound_step: Step) -> None:
    bare = sound_step.model_copy(
        update=dict.fromkeys(("tree", "tensors", "verify", "accept", "commit", "stop", "timing"))
    )
    sides = sides_of(bare, bare)
    board = pair_board(Front(), PairLook(a=sides.a, b=sides.b, about=About("good", "equal"), floor=1e-3), strip=NOTHING)
    text = words_of(parsed(board))
    assert text.count("records no tree") == text.count("records no mask") == text.count("records no commit") == 2


def test_numbers_are_told_by_their_distance_and_lists_by_where_they_part(sound_step: Step) -> None:
    real = difference("verify", "top_logits[0]", "-3.3372866300000004", "-3.0", kind="real", inputs_equal=True)
    ids = list(range(20))
    rows = [
        real.model_copy(update={"floor": 0.001}),
        difference("draft", "inputs.positions", ids, [*ids[:9], 7, *ids[10:]], kind="structural", inputs_equal=True),
        difference("tensors", "positions", "30", "31", kind="structural", inputs_equal=True),
    ]
    table = ElementTree.fromstring(difference_table(sides_of(sound_step, sound_step), rows, None))
    lines = [[words_of(cell) for cell in line] for line in table.iter("tr")][1:]
    assert lines[0][4:8] == ["-3.33729", "-3", "0.337", "337"]
    assert lines[1][4:8] == ["[9]: … 7 8 9 10 11 …", "[9]: … 7 8 7 10 11 …", "", ""]
    assert lines[2][4:8] == ["30", "31", "", ""]
    exact = [cell.get("data-exact") for cell in table.iter("span") if cell.get("data-exact")]
    assert exact == ["-3.3372866300000004", "-3.0"]


def test_a_bar_tells_how_many_noise_floors_and_what_one_field_differs_in_is_one_line(sound_step: Step) -> None:
    def real(node: PathKey, b: str, floor: float | None = 0.001) -> Difference:
        differs = difference("verify", "top_logits[0]", "9.5", b, kind="real", inputs_equal=True, node=node)
        return differs.model_copy(update={"floor": floor})

    nodes: list[PathKey] = [((1, 0),), ((2, 0),), ((1, 0), (3, 0)), ((1, 0), (4, 0)), ((2, 0), (5, 0))]
    rows = [real(node, b) for node, b in zip(nodes, ("9.6", "9.501", "10.5", "9.4", "9.51"), strict=True)]
    sides = sides_of(sound_step, sound_step)
    table = ElementTree.fromstring(difference_table(sides, rows, rows[0]))
    lines = [[words_of(cell) for cell in line] for line in table.findall("div[1]//tbody/tr")]
    assert [line[3] for line in lines] == ["#1", "#1 › #3 and 3 others"]
    assert lines[1][4:8] == ["9.5", "10.5", "1", "1e+03"]
    assert "All 5 by themselves" in words_of(table)
    every = table.findall(".//details//tbody/tr")
    assert [line.get("data-node") for line in every] == ["a1", "a2", "a3", "a4", "a5"]
    widths = [bar.get("style") for line in every for bar in line.iter("u")]
    assert widths == ["width:67%", "width:0%", "width:100%", "width:67%", "width:33%"], (
        "by powers of ten; none at the floor"
    )
    assert "a full one is 1,000 floors" in words_of(table)
    bare = difference_table(sides, [real(nodes[0], "9.6", floor=None)], None)
    assert "<u" not in bare
    assert "floors." not in bare


@pytest.mark.parametrize(
    ("phase", "field", "first"),
    [
        ("tensors", "mask", "ss-card-mask"),
        ("tensors", "positions", "ss-card-nodes"),
        ("verify", "top_logits[0]", "ss-card-margins"),
        ("commit", "source_slots", "ss-card-commit"),
        ("tree", "nodes", "ss-card-tree-a"),
        ("draft", "inputs.tokens", "ss-card-differences"),
    ],
)
def test_what_shows_the_divergence_comes_first(sound_step: Step, phase: Phase, field: str, first: str) -> None:
    origin = difference(phase, field, "1", "2", kind="structural", inputs_equal=True)
    rows = [int(row, 16) for row in sound_step.tensors.mask_rows] if sound_step.tensors is not None else []
    other = with_section(sound_step, "tensors", mask_rows=[f"{row | 4:02x}" for row in rows])
    marks = NodeMarks(divergent=frozenset({2}), names=tuple(f"a{slot}" for slot in range(7)))
    a, b = (PairSide(step, TokenTexts(None), marks) for step in (sound_step, other))
    look = PairLook(a=a, b=b, about=About("parted", "here"), differences=[origin], origin=origin)
    html = pair_board(Front(), look, strip=NOTHING).html
    cards = re.findall(r"ss-card-[a-z-]+", html)
    assert cards[0] == first


def test_what_follows_from_what_was_fed_is_marked_lightly_and_folded() -> None:
    tokens = list(range(200, 280))
    parents = [0, *[0] * 79]
    tree = TreeSection(tokens=tokens, parents=parents, depths=[0, *[1] * 79], logprobs=None, scores=None)
    step = Step(seq=2, turn=0, step=0, tree=tree)
    because = frozenset(range(10, 80))
    view = StepView(step, TokenTexts(None), NodeMarks(divergent=because | {3}, origin=3, inherited=because))
    picture = picture_of(view, fold_above=62, most_shown=32)
    assert picture is not None
    assert len(picture.nodes) == 33
    drawn = draw_tree(picture, title="")
    assert drawn.count("≠") == 1
    assert 0 < drawn.count(" inherits") <= 32
