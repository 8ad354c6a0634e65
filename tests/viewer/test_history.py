"""The cache over several steps: what was written wrongly is marked there and in every later line, and nothing else."""

from __future__ import annotations

from xml.etree import ElementTree

from support.traces import EAGER, FUSED

from specscope.schemas import Step
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.step_view import StepView
from specscope.viewer.drawing.svg.history import CommittedStep, committed_step, draw_history

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>x</script>\u202e"


def committed(step: Step, texts: TokenTexts | None = None) -> CommittedStep:
    done = committed_step(StepView(step, texts or TokenTexts(None)))
    assert done is not None
    return done


def changed(step: Step, **fields: object) -> Step:
    assert step.commit is not None
    return step.model_copy(update={"commit": step.commit.model_copy(update=fields)})


def test_a_sound_run_has_nothing_wrong_and_all_that_was_accepted() -> None:
    for path in (EAGER, FUSED):
        with TraceReader(path) as reader:
            for turn in reader.turns:
                steps = [committed(step) for step in reader.steps(turn)]
                assert [len(step.rows) for step in steps] == [length + 1 for length in turn.accepted_lengths]
                drawing = draw_history(steps[:20])
                assert "wrong" not in drawing
                assert "✗" not in drawing
                root = ElementTree.fromstring(drawing)
                assert root.get("role") == "group", "what is within an image cannot be reached"
                lines = list(root.iter(f"{SVG}g"))
                assert {(line.get("role"), line.get("tabindex")) for line in lines} == {("link", "0")}
                assert [line.get("aria-label") for line in lines] == [line.findtext(f"{SVG}title") for line in lines]
                assert [line.get("data-do") for line in lines] == [f"step:{step.step}" for step in steps[:20]]


def test_a_row_from_the_wrong_slot_stays_marked_until_it_is_written_again(sound_step: Step) -> None:
    assert sound_step.commit is not None
    wrong = changed(sound_step, source_slots=[0, 2, 3])
    [bad] = [row for row in committed(wrong).rows if row.problem]
    assert (bad.row, bad.problem) == (4, "taken from slot 2, wanted slot 1")
    later = sound_step.model_copy(update={"step": 1})
    next_ = changed(later, committed_before=6, committed_after=9, destination_rows=[6, 7, 8])
    again = changed(later.model_copy(update={"step": 2}), committed_before=4, destination_rows=[4, 5, 6])
    drawing = draw_history([committed(step) for step in (wrong, next_, again)])
    lines = [ElementTree.tostring(line, encoding="unicode") for line in ElementTree.fromstring(drawing).iter(f"{SVG}g")]
    assert ['class="wrong"' in line for line in lines] == [True, False, False]
    assert ['class="wrong held"' in line for line in lines] == [False, True, True]
    labels = [line.get("aria-label", "") for line in ElementTree.fromstring(drawing).iter(f"{SVG}g")]
    assert labels[0].endswith("; row 4: #2; ✗ taken from slot 2, wanted slot 1")
    assert labels[1].endswith("; still there: row 4: #2; ✗ taken from slot 2, wanted slot 1")
    last = draw_history([committed(step) for step in (wrong, again, next_)])
    lines = [ElementTree.tostring(line, encoding="unicode") for line in ElementTree.fromstring(last).iter(f"{SVG}g")]
    assert 'class="wrong held"' not in lines[2], "it was written again"


def test_what_else_can_be_wrong_is_named(sound_step: Step) -> None:
    rows = committed(changed(sound_step, destination_rows=[3, 4, 9])).rows
    assert [row.problem for row in rows] == ["", "", "written to row 9, wanted row 5"]
    rows = committed(changed(sound_step, source_slots=[0, 1, 3, 6], destination_rows=[3, 4, 5, 6])).rows
    assert rows[3].problem == "taken from slot 6, wanted none"
    unfaithful = changed(sound_step, written_checksums=["0" * 16, "fedcba9876543210"])
    assert all("does not equal its source" in row.problem for row in committed(unfaithful).rows)
    after_gap = changed(sound_step.model_copy(update={"step": 1}), committed_before=7)
    drawing = draw_history([committed(sound_step), committed(after_gap)])
    assert "✗ begins at row 7, the step before ended at 6" in drawing


def test_hostile_and_absent_records_are_drawn_as_they_are(sound_step: Step) -> None:
    assert committed_step(StepView(sound_step.model_copy(update={"commit": None}), TokenTexts(None))) is None
    texts = TokenTexts(None)
    texts.learn(sound_step.model_copy(update={"texts": {"7": HOSTILE, "1": HOSTILE}}))
    drawing = draw_history([committed(sound_step, texts)])
    ElementTree.fromstring(drawing)
    assert "<script>" not in drawing
    assert "\u202e" not in drawing
    far = changed(sound_step, destination_rows=[3, 10**15, -5], source_slots=[0, 10**15, -1])
    assert len(draw_history([committed(far)])) < 10_000
