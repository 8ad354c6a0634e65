"""What there is to look at for each step of the baseline: its pair or the step beside it, and where it follows from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.pairs import board_at, opened, parsed, with_section, words_of
from support.traces import EAGER, FAULTY, load, permute_slots, store

from specscope.schemas import Step
from specscope.tracer.compare.align import align_steps, align_turns
from specscope.tracer.compare.diff import compare_traces
from specscope.tracer.files.reader import TraceReader
from specscope.viewer.drawing.markup import NOTHING
from specscope.viewer.drawing.pair.board import Front, pair_board
from specscope.viewer.pairs.looks import first_spot
from specscope.viewer.pairs.pairs import covering_step, first_pair, marks_of, pair_at, steps_at, turn_named

TraceMaker = Callable[..., Path]


def test_nodes_are_matched_by_path_whatever_their_slots_are(tmp_path: Path) -> None:
    lines = load(EAGER)
    permute_slots(lines, seed=1)
    with opened(EAGER, store(lines, tmp_path / "permuted.jsonl")) as pair:
        moved = 0
        for found in pair.all():
            sides = found.look.sides
            assert sides is not None
            for node in sides.nodes:
                assert node.slot_a is not None
                assert node.slot_b is not None
                assert sides.a.path(node.slot_a) == sides.b.path(node.slot_b)
                moved += node.slot_a != node.slot_b
            assert not sides.marked
            assert sides.mask_differences == ([], [])
            assert not found.look.differences
        assert moved > 100
        assert "✓ equal, slots matched by path" in board_at(pair, 0, 0).html


def test_lists_that_do_not_fit_are_not_matched(sound_step: Step, make_trace: TraceMaker) -> None:
    def broken(step: Step) -> Step:
        return with_section(step, "tree", parents=[3, 9, 99], depths=[]) if step.step == 1 else step

    with opened(make_trace("a.jsonl"), make_trace("b.jsonl", change=broken)) as pair:
        found = pair.at(0, 1)
        parsed(pair_board(Front(), found.look, strip=NOTHING))
    assert not found.look.compared


def test_equal_steps_whose_lists_do_not_fit_say_so(make_trace: TraceMaker) -> None:
    def short(step: Step) -> Step:
        return with_section(step, "verify", argmax=[50, 51]) if step.step == 1 else step

    def wrong(step: Step) -> Step:
        return with_section(short(step), "tensors", positions=[9] * 7) if step.step == 2 else short(step)

    shallow = [make_trace(name, change=lambda step: with_section(step, "tree", depths=[0])) for name in ("c", "d")]
    with opened(make_trace("a.jsonl", change=short), make_trace("b.jsonl", change=wrong)) as pair:
        looks = [pair.at(0, step).look for step in range(3)]
    with opened(*shallow) as pair:
        looks.append(pair.at(0, 0).look)
    for look in looks:
        parsed(pair_board(Front(), look, strip=NOTHING))
    assert [look.compared for look in looks] == [True, False, True, False]
    assert looks[0].about.title == "These two steps are equal in all that both record"
    told = "These two steps are equal, but their lists do not fit together"
    assert looks[1].about.title == looks[3].about.title == told
    assert looks[1].about.tone == "warn"
    assert not looks[1].differences


def test_steps_that_record_no_tree_are_looked_at(make_trace: TraceMaker) -> None:
    def treeless(step: Step) -> Step:
        return step.model_copy(update={"tree": None}) if step.step == 1 else step

    bare = [make_trace(name, change=treeless) for name in ("a.jsonl", "b.jsonl")]
    for a, b in (bare, (bare[0], make_trace("c.jsonl"))):
        with opened(a, b) as pair:
            for found in pair.all():
                parsed(pair_board(Front(), found.look, strip=NOTHING))


def test_every_pair_knows_whether_steps_were_passed_over_before_it() -> None:
    comparison = compare_traces(EAGER, FAULTY)
    seen = set()
    with TraceReader(EAGER) as a, TraceReader(FAULTY) as b:
        for turns in align_turns(a, b).pairs:
            marks = marks_of(comparison, turns.a.turn)
            if marks is None or not marks.pairs:
                continue
            for aligned in align_steps(a, b, turns):
                pair = pair_at(marks, aligned.step_a)
                assert pair is not None
                steps = steps_at(a, b, marks, pair)
                assert steps is not None
                assert steps.regrouped == (aligned.regrouped > 0)
                seen.add(steps.regrouped)
    assert seen == {True, False}


def test_a_step_without_a_partner_stands_beside_the_one_that_covers_its_position() -> None:
    told = 0
    with opened(EAGER, FAULTY) as pair:
        for entry in pair.a.reader.turns:
            marks = marks_of(pair.comparison, entry.turn)
            turn_b = turn_named(pair.b.reader, entry.turn)
            if marks is None or not marks.same_prompt or turn_b is None:
                continue
            for step in (step for step in range(len(entry.steps)) if pair_at(marks, step) is None):
                covering = covering_step(marks, entry, turn_b, step)
                if covering is None:
                    continue
                position = pair.a.reader.step(entry, step).commit
                other = pair.b.reader.step(turn_b, covering).commit
                assert position is not None
                assert other is not None
                assert other.committed_before < position.committed_before < other.committed_after
                told += 1
        assert told > 5
        found = pair.at(0, 1)
        text = words_of(parsed(pair_board(Front(), found.look, strip=NOTHING)))
    assert "Step 1 of the baseline has no partner" in text
    assert "The candidate grouped these tokens into different steps" in text
    assert not found.look.compared
    assert found.beside == (0, 1)


def test_a_root_is_told_by_its_place_though_ties_are_listed_last(make_trace: TraceMaker) -> None:
    def tied(step: Step, best: int) -> Step:
        verify = step.verify
        assert verify is not None
        if (step.turn, step.step) != (0, 0):
            return step
        tokens, logits = list(verify.top_tokens or []), list(verify.top_logits or [])
        tokens[5], logits[5] = [best, 99 + 50 - best], [9.5, 9.5]
        argmax = [*verify.argmax[:5], best, verify.argmax[6]]
        return with_section(step, "verify", argmax=argmax, top_tokens=tokens, top_logits=logits)

    def wrong(step: Step) -> Step:
        step = tied(step, 99)
        if step.turn != 1 or step.tensors is None:
            return step
        return with_section(step, "tensors", positions=[p + 5 for p in step.tensors.positions])

    turns = [[1, 0], [2, 1]]
    a = make_trace("a.jsonl", turns=turns, change=lambda step: tied(step, 50))
    with opened(a, make_trace("b.jsonl", turns=turns, change=wrong)) as pair:
        roots = pair.comparison.verdict.roots
        assert [root.difference.kind for root in roots] == ["structural", "exact-tie"]
        assert pair.at(0, 0).root == 1
        assert "A tie within the noise floor: root 2 of 2" in pair.at(0, 0).look.about.title
        assert pair.at(0, 1).root is None
        assert pair.at(1, 0).root == 0
        follows = pair.at(1, 1)
        assert (follows.root, follows.look.about.root) == (0, 0)
        assert follows.look.origin is None
        first = first_pair(pair.comparison)
        assert first is not None
        assert (first[0].turn_a, first[1].step_a) == (1, 0)


def test_a_root_in_the_prompt_stands_at_the_first_step(make_trace: TraceMaker) -> None:
    a = make_trace("a.jsonl")
    lines = load(a)
    lines[1]["prefill"]["top_logits"] = [2.0, 1.0]
    with opened(a, store(lines, a.with_name("b.jsonl"))) as pair:
        assert pair.comparison.verdict.roots[0].difference.field == "prefill.top_logits"
        found = pair.at(0, 0)
        assert found.root == 0
        assert "The prompt's own forward, before this step, differs." in found.look.about.lines
        assert pair.at(0, 1).root is None


def test_the_first_look_is_at_the_first_root_though_it_lies_in_a_prompt(make_trace: TraceMaker) -> None:
    def wrong(step: Step) -> Step:
        return with_section(step, "tensors", positions=[9] * 7) if (step.turn, step.step) == (2, 1) else step

    turns = [[1], [2, 0], [1, 2]]
    a, b = make_trace("a.jsonl", turns=turns), make_trace("b.jsonl", turns=turns, change=wrong)
    lines = load(b)
    next(line for line in lines if line["kind"] == "turn_start" and line["turn"] == 1)["prefill"]["top_logits"] = [2, 1]
    both, later = compare_traces(a, store(lines, b.with_name("both.jsonl"))), compare_traces(a, b)
    assert [root.difference.field for root in both.verdict.roots] == ["prefill.top_logits", "positions"]
    assert first_spot(both, []) == (1, 0)
    assert first_spot(later, []) == (2, 1)


def test_a_node_of_one_tree_alone_says_so(make_trace: TraceMaker) -> None:
    def smaller(step: Step) -> Step:
        tree = step.tree
        assert tree is not None
        return with_section(step, "tree", tokens=[*tree.tokens[:6], 77])

    with opened(make_trace("a.jsonl"), make_trace("b.jsonl", change=smaller)) as pair:
        found = pair.at(0, 0)
        board = pair_board(Front(), found.look, strip=NOTHING)
    parsed(board)
    assert found.look.b is not None
    assert found.look.a.marks.divergent == found.look.b.marks.divergent == {6}
    assert "in the baseline only" in board.notes["a6"]
    assert "in the candidate only" in board.notes["b6"]
