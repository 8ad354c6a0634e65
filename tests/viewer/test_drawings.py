"""The SVG drawings are well-formed XML, say what they must, and hold hostile text as text."""

from __future__ import annotations

import json
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.toy_run import Toy, toy_lines
from support.traces import accepts_at_least, first_step

from specscope.schemas import Step
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.mask import EXTRA, HIDDEN, MISSING, VISIBLE, draw_mask, mask_cells, step_mask
from specscope.viewer.drawing.svg.ribbon import draw_ribbon
from specscope.viewer.drawing.svg.strip import MOST_BARS, SIGNS, STATES, WIDEST, StripStep, draw_strip, strip_key
from specscope.viewer.drawing.svg.tree import draw_tree, label_width
from specscope.viewer.drawing.svg.tree_picture import Bonus, PictureNode, TreePicture, picture_of
from specscope.viewer.drawing.tables.slots import slot_columns

SVG = "{http://www.w3.org/2000/svg}"
DRAWN = {f"{SVG}{name}" for name in ("svg", "style", "g", "title", "rect", "text", "tspan", "path", "line")}


def parsed(svg: str) -> ElementTree.Element:
    """The drawing, which must hold nothing but shapes and text, and no attribute that runs."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        assert element.tag in DRAWN
        assert not [name for name in element.attrib if name.startswith("on") or "href" in name]
    return root


def texts_of(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def learned(step: Step) -> TokenTexts:
    texts = TokenTexts(None)
    texts.learn(step)
    return texts


def view(step: Step, marks: NodeMarks | None = None) -> StepView:
    """The step with the texts that it carries."""
    return StepView(step, learned(step), marks or NodeMarks())


def drawn(step: Step, marks: NodeMarks | None = None) -> ElementTree.Element:
    picture = picture_of(view(step, marks))
    assert picture is not None
    return parsed(draw_tree(picture, title="a tree"))


def test_every_node_and_the_bonus_are_drawn(sound_step: Step) -> None:
    root = drawn(sound_step)
    groups = [e for e in root.iter(f"{SVG}g") if e.get("data-node")]
    nodes = {e.get("data-node", ""): e.get("class", "").split() for e in groups}
    assert sorted(nodes) == [str(slot) for slot in range(7)]
    assert {slot for slot, classes in nodes.items() if "on" in classes} == {"0", "1", "3"}
    assert "bonus" in texts_of(root)
    assert "#50" in texts_of(root)


def titles_by_slot(root: ElementTree.Element) -> dict[str, str]:
    nodes = (e for e in root.iter(f"{SVG}g") if e.get("data-node"))
    return {e.get("data-node", ""): e.findtext(f"{SVG}title") or "" for e in nodes}


@pytest.mark.parametrize("toy", [Toy("sampling", levels=False), Toy("typical")], ids=["sampling", "typical"])
def test_a_node_says_why_it_was_accepted(toy: Toy) -> None:
    line = first_step(toy_lines(toy), accepts_at_least(1))
    root = drawn(Step.model_validate_json(json.dumps(line)))
    titles = titles_by_slot(root)
    tried = {str(t["slot"]): t for visit in line["accept"]["visited"] for t in visit["trials"]}
    path = {str(slot) for slot in line["accept"]["path"]}
    for slot, trial in tried.items():
        word = "accepted" if slot in path else "rejected"
        passed = "coin" not in trial and trial["target_prob"] > trial["threshold"] and slot not in path
        reason = "coin" if "coin" in trial else "it passed, teacher probability" if passed else "teacher probability"
        assert f"{word}: {reason} " in titles[slot]
        assert passed == ("but a likelier sibling was followed" in titles[slot])
        assert f"threshold {trial['threshold']:.3g}" in titles[slot]
    assert all("not tried" in title for slot, title in titles.items() if slot not in {"0", *tried})
    bonus = next(e for e in root.iter(f"{SVG}g") if e.get("class") == "bonus")
    assert "the teacher's own draw, coin " in (bonus.findtext(f"{SVG}title") or "")


def test_divergent_nodes_carry_a_sign_too(sound_step: Step) -> None:
    root = drawn(sound_step, NodeMarks(divergent=frozenset({2, 5}), origin=2))
    assert texts_of(root).count("≠") == 2
    assert [e.get("data-node") for e in root.iter(f"{SVG}g") if "origin" in (e.get("class") or "")] == ["2"]


def test_hostile_text_stands_literally(hostile_step: Step) -> None:
    root = drawn(hostile_step)
    shown = texts_of(root)
    assert "<script>docum…" in shown
    assert "</svg><img sr…" in shown
    assert "\\u202egnp.exe" in shown
    titles = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert any("<script>document.title = 'pwned'</script>" in title for title in titles)
    assert "\u202e" not in "".join([*shown, *titles])


@given(st.text(max_size=30))
def test_any_text_makes_a_well_formed_drawing(text: str) -> None:
    texts = TokenTexts(None)
    texts.learn(Step(seq=0, turn=0, step=0, texts={"1": text}))
    label = texts.shown(1)
    node = PictureNode(
        slot=0,
        name="0",
        label=label,
        tooltip=(label,),
        probability=None,
        accepted=True,
        divergent=True,
        origin=True,
        hidden_below=3,
    )
    whole = TreePicture(parents=[0], nodes=[node], path=[], bonus=Bonus(label, (label,)), num_folded=3)
    root = parsed(draw_tree(whole, title=text, target_width=5000))
    assert texts_of(root).count(label) >= 2


def test_a_large_tree_is_folded_and_says_so() -> None:
    size = 200
    parents = [0, *((slot - 1) // 3 for slot in range(1, size))]
    scores = [-float(slot) for slot in range(size)]
    tree = {"tokens": list(range(size)), "parents": parents, "depths": [0] * size, "scores": scores}
    step = Step.model_validate({"seq": 0, "turn": 0, "step": 0, "tree": tree})
    picture = picture_of(view(step, NodeMarks(divergent=frozenset({199}))))
    assert picture is not None
    assert len(picture.nodes) == 65
    assert picture.num_folded == 135
    assert picture.nodes[-1].slot == 199
    assert sum(node.hidden_below for node in picture.nodes) == 135
    whole = picture_of(view(step), fold_above=None)
    assert whole is not None
    assert whole.num_folded == 0


def test_a_record_without_a_tree_draws_nothing() -> None:
    step = Step(seq=0, turn=0, step=0)
    assert picture_of(view(step)) is None
    assert mask_cells(step) is None
    assert slot_columns(view(step)) == {}


def test_nonsense_in_a_tree_is_drawn_all_the_same(sound_step: Step) -> None:
    assert sound_step.tree is not None
    tree = sound_step.tree.model_copy(
        update={"parents": [3, -7, 99, 1], "depths": [], "logprobs": [math.nan, math.inf, -math.inf], "scores": None}
    )
    broken = sound_step.model_copy(update={"tree": tree, "tensors": None, "verify": None})
    groups = [group for group in drawn(broken).iter(f"{SVG}g") if group.get("class") != "heads"]
    assert len(groups) == 8
    assert slot_columns(view(broken))["depth"] == [None] * 7


def test_wide_characters_get_wide_labels() -> None:
    assert label_width("日本語日本語") == label_width("abcdefabcdef")


def bars_of(steps: list[StripStep], current: int | None = None) -> list[ElementTree.Element]:
    return [e for e in parsed(draw_strip(steps, current=current)).iter(f"{SVG}g") if e.get("data-do")]


def test_the_strip_has_a_bar_a_step_and_says_what_is_wrong() -> None:
    bars = bars_of([StripStep(2), StripStep(0, "inherited", 2), StripStep(3, "root"), StripStep(1, "violated")], 1)
    assert [bar.get("data-do") for bar in bars] == ["step:0", "step:1", "step:2", "step:3"]
    classes = [set((bar.get("class") or "").split()) for bar in bars]
    assert classes == [{"step", "plain"}, {"step", "inherited", "none", "now"}, {"step", "root"}, {"step", "violated"}]
    assert [bar.findtext(f"{SVG}title") for bar in bars] == [
        "step 0: 2 accepted",
        "step 1: 0 accepted, 2 in the other run; differs because of an earlier step",
        "step 2: 3 accepted; divergence begins here",
        "step 3: 1 accepted; an invariant is violated",
    ]
    assert [[t.text for t in bar.iter(f"{SVG}text")] for bar in bars] == [[], [], ["≠"], ["✗"]]
    heights = [float(next(bar.iter(f"{SVG}rect")).get("height", 0)) for bar in bars]
    assert heights[0] == pytest.approx(2 * heights[3], abs=0.1)
    assert heights[1] == 2


@pytest.mark.parametrize(("num_steps", "share"), [(1, 0.05), (10, 0.7), (13, 0.9), (22, 1.0), (200, 1.0), (900, 1.0)])
def test_a_strip_leaves_little_of_a_wide_page_empty(num_steps: int, share: float) -> None:
    style = parsed(draw_strip([StripStep(accepted=2)] * num_steps)).get("style") or ""
    (most,) = re.findall(r"max-width:(\d+)px", style)
    assert share * WIDEST <= int(most) <= WIDEST


def test_the_key_says_what_is_on_the_strip_and_nothing_else() -> None:
    def words(steps: list[StripStep]) -> list[str]:
        return ["".join(line.itertext()) for line in ElementTree.fromstring(strip_key(steps)).iter("span")]

    bar, line = "bar: accepted length in the baseline", "in the candidate"
    assert strip_key([]) == ""
    assert words([StripStep(2)]) == [bar]
    assert words([StripStep(2, other=1), StripStep(1, "inherited"), StripStep(3, "root")]) == [
        bar,
        line,
        "≠ divergence begins",
        "follows from an earlier step",
    ]
    every = words([StripStep(1, state) for state in STATES])
    assert len(every) == len(STATES), "every state but the plain one, and the bar"
    for sign in SIGNS.values():
        assert any(text.startswith(sign) for text in every)


def test_a_bar_of_several_steps_leads_to_the_gravest() -> None:
    steps = [StripStep(1)] * 5000
    steps[1234], steps[1240] = StripStep(4, "tie"), StripStep(0, "root")
    bars = bars_of(steps)
    assert len(bars) <= MOST_BARS
    spans = [(int(bar.get("data-first", 0)), int(bar.get("data-last", 0))) for bar in bars]
    assert [step for first, last in spans for step in range(first, last + 1)] == list(range(5000))
    marked = {bar.get("data-do") for bar in bars if (bar.get("class") or "").split()[1] != "plain"}
    assert marked <= {"step:1234", "step:1240"}
    assert "step:1240" in marked
    rights = [float(e.get("x", 0)) + float(e.get("width", 0)) for bar in bars for e in bar.iter(f"{SVG}rect")]
    assert max(rights) <= 1200.5


def with_mask(step: Step, rows: dict[int, str]) -> Step:
    assert step.tensors is not None
    mask = [rows.get(row, text) for row, text in enumerate(step.tensors.mask_rows)]
    return step.model_copy(update={"tensors": step.tensors.model_copy(update={"mask_rows": mask})})


def mask_of(step: Step) -> ElementTree.Element:
    cells = mask_cells(step)
    assert cells is not None
    return parsed(draw_mask(view(step), cells))


#: Slot 2 sees slot 1, which is no ancestor; slot 5 misses slot 2, its parent.
WRONG_ROWS = {2: "07", 5: "21"}


def test_mask_cells_tell_wrong_from_right(sound_step: Step) -> None:
    cells = mask_cells(with_mask(sound_step, WRONG_ROWS))
    assert cells is not None
    assert [int(cell) for cell in cells[2]] == [VISIBLE, EXTRA, VISIBLE, HIDDEN, HIDDEN, HIDDEN, HIDDEN]
    assert [int(cell) for cell in cells[5]] == [VISIBLE, HIDDEN, MISSING, HIDDEN, HIDDEN, VISIBLE, HIDDEN]
    sound = mask_cells(sound_step)
    assert sound is not None
    assert set("".join(sound)) == {str(HIDDEN), str(VISIBLE)}


def test_wrong_bits_are_outlined_and_said(sound_step: Step) -> None:
    wrong = with_mask(sound_step, WRONG_ROWS)
    outlines = [e for e in mask_of(wrong).iter(f"{SVG}rect") if e.get("class") == "outline"]
    assert [(float(e.get("x", 0)) + 0.6, float(e.get("y", 0)) + 0.6) for e in outlines] == [(1.5, 2.5), (2.5, 5.5)]
    assert not [e for e in mask_of(sound_step).iter(f"{SVG}rect") if e.get("class") == "outline"]
    assert "Cells that see a slot that is not an ancestor: 1." in step_mask(view(wrong))
    assert "does not fit the tree" not in step_mask(view(sound_step))


_RUN = re.compile(r"M(\d+) (\d+)h(\d+)v1H(\d+)z")


@given(st.lists(st.integers(0, 2**20 - 1), min_size=20, max_size=20))
def test_the_paths_cover_the_cells_and_nothing_else(rows: list[int]) -> None:
    tensors = {
        "committed_length": 0,
        "num_slots": 20,
        "padded_slots": 20,
        "mask_rows": [row.to_bytes(3, "little").hex() for row in rows],
        "prefix_visible": [0] * 20,
        "positions": [],
        "token_ids": [],
        "index_tensors": {},
    }
    step = Step.model_validate({"seq": 0, "turn": 0, "step": 0, "tensors": tensors})
    paths = [e for e in mask_of(step).iter(f"{SVG}path") if e.get("class") == "visible"]
    drawn = {
        (int(row), column)
        for path in paths
        for left, row, width, _ in _RUN.findall(path.get("d", ""))
        for column in range(int(left), int(left) + int(width))
    }
    assert drawn == {(row, column) for row, bits in enumerate(rows) for column in range(20) if bits >> column & 1}


def test_what_a_cell_means_can_be_told_from_the_drawing(hostile_step: Step) -> None:
    mask = mask_of(hostile_step)
    labels = mask.get("data-labels", "").split("\n")
    assert labels[1] == "slot 1 <script>document.title = 'pwned'</script>"
    assert labels[3] == "slot 3 \\u202egnp.exe"
    assert len(labels) == 7
    assert mask.get("data-names", "").split(" ") == list("0123456")
    assert mask.get("data-cells", "").split(" ")[3] == "1101000"


def ribbon_of(step: Step) -> ElementTree.Element:
    assert step.commit is not None
    return parsed(draw_ribbon(view(step), step.commit))


def test_the_ribbon_shows_what_was_gathered_where(sound_step: Step) -> None:
    root = ribbon_of(sound_step)
    kept = [e for e in root.iter(f"{SVG}g") if "kept" in (e.get("class") or "")]
    assert [e.get("data-node") for e in kept] == ["0", "1", "3"]
    assert [[t.text for t in e.iter(f"{SVG}text")][1:] for e in kept] == [["3", "0"], ["4", "1"], ["5", "3"]]
    slots = [e for e in root.iter(f"{SVG}rect") if (e.get("class") or "").startswith("slot")]
    assert [e.get("data-node") for e in slots if e.get("class") == "slot taken"] == ["0", "1", "3"]
    assert len(slots) == 7
    assert "wrong" not in ElementTree.tostring(root, encoding="unicode")
    assert {"3 rows committed", "tree tail: 7 rows, 3 to 9", "pending"} <= set(texts_of(root))


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"source_slots": [0, 1, 4]}, ["4"]),
        ({"destination_rows": [3, 5, 4]}, ["1", "3"]),
        ({"source_slots": [0, 2, 3]}, ["2"]),
    ],
    ids=["not the path", "not in order", "a sibling"],
)
def test_rows_gathered_from_or_to_the_wrong_place_are_marked(
    sound_step: Step, changes: dict[str, list[int]], wrong: list[str]
) -> None:
    assert sound_step.commit is not None
    commit = sound_step.commit.model_copy(update=changes)
    root = ribbon_of(sound_step.model_copy(update={"commit": commit}))
    marked = [e for e in root.iter(f"{SVG}g") if e.get("class") == "kept wrong"]
    assert [e.get("data-node") for e in marked] == wrong
    assert sum("✗" in text for text in texts_of(root)) == len(wrong)


def test_the_slot_table_shows_what_was_recorded(hostile_step: Step) -> None:
    columns = slot_columns(view(hostile_step))
    assert columns["slot"] == list(range(7))
    assert columns["token"][1] == "<script>document.title = 'pwned'</script>"
    assert columns["token"][3] == "\\u202egnp.exe"
    assert columns["parent"] == [0, 0, 0, 1, 1, 2, 3]
    assert columns["position"] == [3, 4, 4, 5, 5, 5, 6]
    assert columns["accepted"] == ["root", "✓ yes", "–", "✓ yes", "–", "–", "–"]
    assert columns["logit"] == [9.5] * 7
    assert columns["its logit"] == [7.25] * 7
    assert columns["draft p"][0] is None
    assert math.isclose(columns["draft p"][1], math.exp(-0.2))
