"""The SVG drawings are well-formed XML, say what they must, and hold hostile text as text."""

from __future__ import annotations

import json
import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.toy_run import Toy, toy_lines
from support.traces import accepts_at_least, first_step

from specscope.schemas import Step
from specscope.tracer.tokens import TokenTexts
from specscope.viewer.drawing.mask_svg import EXTRA, HIDDEN, MISSING, VISIBLE, mask_cells, mask_figure
from specscope.viewer.drawing.ribbon_svg import RibbonCell, draw_ribbon
from specscope.viewer.drawing.slot_table import slot_columns
from specscope.viewer.drawing.strip_svg import draw_strip
from specscope.viewer.drawing.tree_picture import Bonus, PictureNode, TreePicture, picture_of
from specscope.viewer.drawing.tree_svg import draw_tree, label_width

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


def drawn(step: Step, **settings: object) -> ElementTree.Element:
    picture = picture_of(step, learned(step), **settings)  # type: ignore[arg-type]
    assert picture is not None
    return parsed(draw_tree(picture, title="a tree"))


def test_every_node_and_the_bonus_are_drawn(sound_step: Step) -> None:
    root = drawn(sound_step)
    groups = [e for e in root.iter(f"{SVG}g") if e.get("data-slot")]
    nodes = {e.get("data-slot", ""): e.get("class", "").split() for e in groups}
    assert sorted(nodes) == [str(slot) for slot in range(7)]
    assert {slot for slot, classes in nodes.items() if "on" in classes} == {"0", "1", "3"}
    assert "bonus" in texts_of(root)
    assert "#50" in texts_of(root)


def titles_by_slot(root: ElementTree.Element) -> dict[str, str]:
    nodes = (e for e in root.iter(f"{SVG}g") if e.get("data-slot"))
    return {e.get("data-slot", ""): e.findtext(f"{SVG}title") or "" for e in nodes}


@pytest.mark.parametrize("toy", [Toy("sampling", levels=False), Toy("typical")], ids=["sampling", "typical"])
def test_a_node_says_why_it_was_accepted(toy: Toy) -> None:
    line = first_step(toy_lines(toy), accepts_at_least(1))
    root = drawn(Step.model_validate_json(json.dumps(line)))
    titles = titles_by_slot(root)
    tried = {str(t["slot"]): t for visit in line["accept"]["visited"] for t in visit["trials"]}
    path = {str(slot) for slot in line["accept"]["path"]}
    for slot, trial in tried.items():
        word = "accepted" if slot in path else "rejected"
        assert f"{word}: {'coin' if 'coin' in trial else 'teacher probability'} " in titles[slot]
        assert f"threshold {trial['threshold']:.3g}" in titles[slot]
    assert all("not tried" in title for slot, title in titles.items() if slot not in {"0", *tried})
    bonus = next(e for e in root.iter(f"{SVG}g") if e.get("class") == "bonus")
    assert "the teacher's own draw, coin " in (bonus.findtext(f"{SVG}title") or "")


def test_divergent_nodes_carry_a_sign_too(sound_step: Step) -> None:
    root = drawn(sound_step, divergent={2, 5}, origin=2)
    assert texts_of(root).count("≠") == 2
    assert [e.get("data-slot") for e in root.iter(f"{SVG}g") if "origin" in (e.get("class") or "")] == ["2"]


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
    node = PictureNode(0, label, (label,), None, accepted=True, divergent=True, origin=True, hidden_below=3)
    root = parsed(draw_tree(TreePicture([0], [node], [], Bonus(label, (label,)), 3), title=text))
    assert texts_of(root).count(label) >= 2
    assert texts_of(parsed(draw_ribbon(3, [RibbonCell(3, 0, label)], label))).count(label) >= 2


def test_a_large_tree_is_folded_and_says_so() -> None:
    size = 200
    parents = [0, *((slot - 1) // 3 for slot in range(1, size))]
    scores = [-float(slot) for slot in range(size)]
    tree = {"tokens": list(range(size)), "parents": parents, "depths": [0] * size, "scores": scores}
    step = Step.model_validate({"seq": 0, "turn": 0, "step": 0, "tree": tree})
    picture = picture_of(step, TokenTexts(None), divergent={199})
    assert picture is not None
    assert len(picture.nodes) == 73
    assert picture.num_folded == 127
    assert picture.nodes[-1].slot == 199
    assert sum(node.hidden_below for node in picture.nodes) == 127
    whole = picture_of(step, TokenTexts(None), fold_above=None)
    assert whole is not None
    assert whole.num_folded == 0


def test_a_record_without_a_tree_draws_nothing() -> None:
    step = Step(seq=0, turn=0, step=0)
    assert picture_of(step, TokenTexts(None)) is None
    assert mask_figure(step, TokenTexts(None)) is None
    assert slot_columns(step, TokenTexts(None)) == {}


def test_nonsense_in_a_tree_is_drawn_all_the_same(sound_step: Step) -> None:
    assert sound_step.tree is not None
    tree = sound_step.tree.model_copy(
        update={"parents": [3, -7, 99, 1], "depths": [], "logprobs": [math.nan, math.inf, -math.inf], "scores": None}
    )
    broken = sound_step.model_copy(update={"tree": tree, "tensors": None, "verify": None})
    assert len(list(drawn(broken).iter(f"{SVG}g"))) == 8
    assert slot_columns(broken, TokenTexts(None))["depth"] == [None] * 7


def test_wide_characters_get_wide_labels() -> None:
    assert label_width("日本語日本語") == label_width("abcdefabcdef")


def test_the_strip_has_a_bar_a_step_and_marks() -> None:
    root = parsed(draw_strip([2, 0, 3], 1, {2}, mark="≠", meaning="something is wrong"))
    steps = [e for e in root.iter(f"{SVG}g") if e.get("data-pick")]
    assert [e.get("data-pick") for e in steps] == ["0", "1", "2"]
    assert [e.get("class") for e in steps] == ["step", "step now", "step"]
    assert texts_of(root).count("≠") == 1
    assert [(e.findtext(f"{SVG}title") or "") for e in steps][2] == "step 2: 3 accepted, something is wrong"


def test_a_strip_of_a_thousand_steps_fits() -> None:
    root = parsed(draw_strip([1] * 1000, 0, set(), mark="≠", meaning=""))
    rights = [float(e.get("x", 0)) + float(e.get("width", 0)) for e in root.iter(f"{SVG}rect")]
    assert max(rights) <= 1200.5


def test_mask_cells_tell_wrong_from_right(sound_step: Step) -> None:
    assert sound_step.tensors is not None
    rows = list(sound_step.tensors.mask_rows)
    rows[2] = "07"  # slot 2 sees slot 1, which is no ancestor
    rows[5] = "21"  # slot 5 misses slot 2, its parent
    wrong = sound_step.model_copy(update={"tensors": sound_step.tensors.model_copy(update={"mask_rows": rows})})
    cells = mask_cells(wrong)
    assert cells is not None
    assert cells[2].tolist() == [VISIBLE, EXTRA, VISIBLE, HIDDEN, HIDDEN, HIDDEN, HIDDEN]
    assert cells[5].tolist() == [VISIBLE, HIDDEN, MISSING, HIDDEN, HIDDEN, VISIBLE, HIDDEN]
    sound = mask_cells(sound_step)
    assert sound is not None
    assert set(sound.ravel().tolist()) == {HIDDEN, VISIBLE}


def test_the_heatmap_has_the_root_at_the_top_left(hostile_step: Step) -> None:
    figure = mask_figure(hostile_step, learned(hostile_step))
    assert figure is not None
    assert tuple(figure.layout.yaxis.range) == (6.5, -0.5)
    assert figure.layout.xaxis.side == "top"
    hover = figure.data[0].hovertext[1][1]
    assert "&lt;script&gt;" in hover
    assert "<script" not in hover


def test_the_slot_table_shows_what_was_recorded(hostile_step: Step) -> None:
    columns = slot_columns(hostile_step, learned(hostile_step))
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
