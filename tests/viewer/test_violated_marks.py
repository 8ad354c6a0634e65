"""A violated step shows where: the slots that a witness names are marked in tree, table and ribbon."""

from __future__ import annotations

from specscope.schemas import Step
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.step.judgement import Judgement, violated_slots
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.ribbon import draw_ribbon
from specscope.viewer.drawing.svg.tree import draw_tree
from specscope.viewer.drawing.svg.tree_picture import picture_of
from specscope.viewer.drawing.tables.slots import slot_table

TEXTS = TokenTexts(None)


def test_a_witness_names_its_slots(sound_step: Step) -> None:
    violated = [
        ("tensors.position-is-length-plus-depth", "slot 2: position 37, wanted 36"),
        ("tensors.mask-is-ancestors", "row 3 sees [1] that are no ancestors"),
        ("commit.content-moved", "layer 0: row 4 is not its source"),
        ("tree.parent-before-child", "slot 9999999: parent 3"),
    ]
    assert violated_slots(Judgement([], violated, []), sound_step) == {2, 3}


def test_violated_slots_are_marked_everywhere(sound_step: Step) -> None:
    view = StepView(sound_step, TEXTS, NodeMarks(violated=frozenset({2})))
    picture = picture_of(view)
    assert picture is not None
    assert draw_tree(picture, title="").count("✗") == 1
    assert slot_table(view).count("✗") == 1
    assert sound_step.commit is not None
    assert draw_ribbon(view, sound_step.commit).count(" wrong") == 1


def test_no_label_is_cut_where_there_is_room(sound_step: Step) -> None:
    assert sound_step.tree is not None
    texts = TokenTexts(None)
    words = {str(token): "ninechars" for token in sound_step.tree.tokens}
    texts.learn(sound_step.model_copy(update={"texts": words}))
    picture = picture_of(StepView(sound_step, texts))
    assert picture is not None
    assert "…" not in draw_tree(picture, title="", target_width=560)
