"""Root or inherited, and who is wrong: the filing of differences, on differences made by hand."""

from __future__ import annotations

import pytest

from specscope.schemas.phases import Phase
from specscope.schemas.verdict import Blame, Difference, DifferenceKind, Place
from specscope.tracer.compare.roots import Findings, who, with_violation


def difference(
    phase: Phase = "tensors", field: str = "mask", kind: DifferenceKind = "structural", inputs_equal: bool = True
) -> Difference:
    return Difference(phase=phase, field=field, a="1", b="2", kind=kind, inputs_equal=inputs_equal)


def place(step: int) -> Place:
    return Place(turn=0, turn_b=0, prompt_id="p", prompt_turn=0, position=step, step_a=step, step_b=step)


def blame(invariant: str, side: str = "b") -> Blame:
    return Blame(side="a" if side == "a" else "b", invariant=invariant, witness="seen")


MASK = blame("tensors.mask-is-ancestors")
WALK = blame("accept.walk")


def filed(*steps: tuple[list[Difference], list[Blame]], alone: bool = False) -> list[tuple[int, str, int, int]]:
    """Step, place, inherited and recurring of each root."""
    findings = Findings(steps_stand_alone=alone)
    for number, (found, blamed) in enumerate(steps):
        findings.file(place(number), found, blamed)
    return [
        (r.place.step_a, f"{r.difference.phase}.{r.difference.field}", r.inherited, r.recurs) for r in findings.roots
    ]


Filing = tuple[list[Difference], list[Blame]]
NOTHING: Filing = ([], [])


def test_what_follows_a_root_is_inherited_until_the_runs_agree() -> None:
    follows: Filing = ([difference("verify", "argmax", "real", False)], [])
    assert filed(([difference()], [MASK]), follows, follows, NOTHING, ([difference()], [MASK])) == [
        (0, "tensors.mask", 2, 0),
        (4, "tensors.mask", 0, 0),
    ]


def test_a_prefill_that_follows_is_no_step() -> None:
    findings, of_prompt = Findings(), difference("verify", "prefill.top_logits", "real")
    findings.file_prefill(place(0), of_prompt, [])
    findings.file(place(0), [difference("verify", "argmax", "real")], [])
    findings.file_prefill(place(0), of_prompt, [])
    assert [(root.difference.field, root.inherited) for root in findings.roots] == [("prefill.top_logits", 1)]
    assert findings.num_inherited == 1


def test_another_broken_invariant_at_another_place_is_a_root_of_its_own() -> None:
    walk: Filing = ([difference("accept", "path")], [WALK])
    assert filed(([difference()], [MASK]), walk, walk) == [(0, "tensors.mask", 0, 0), (1, "accept.path", 1, 0)]


@pytest.mark.parametrize(
    ("found", "blamed"),
    [
        ([difference("accept", "path")], []),  # nobody breaks a rule: it may follow from the cache
        ([difference("tensors", "mask")], [WALK]),  # the same place again
        ([difference("accept", "path", inputs_equal=False)], []),
        ([difference("tensors", "positions")], [blame("sequence.committed-continues")]),  # looks across steps
        ([difference("verify", "top_logits[0]", "real")], [WALK]),  # floats may follow from the cache
    ],
)
def test_what_may_follow_is_inherited(found: list[Difference], blamed: list[Blame]) -> None:
    assert filed(([difference()], [MASK]), (found, blamed)) == [(0, "tensors.mask", 1, 0)]


def test_a_tie_is_overtaken_by_a_real_root_and_by_nothing_else() -> None:
    tie: Filing = ([difference("verify", "argmax", "near-tie")], [])
    assert filed(tie, tie, ([difference()], [MASK])) == [(0, "verify.argmax", 1, 0), (2, "tensors.mask", 0, 0)]


def test_within_a_step_a_real_difference_comes_before_a_tie_and_equal_inputs_before_unequal_ones() -> None:
    tie, late = difference("draft", "levels[1].tokens", "near-tie"), difference("commit", "source_slots")
    unequal = difference("tree", "nodes", inputs_equal=False)
    assert filed(([tie, unequal, late], []))[0][1] == "commit.source_slots"
    assert filed(([tie, unequal], []))[0][1] == "draft.levels[1].tokens"
    assert filed(([unequal], []))[0][1] == "tree.nodes"


def test_steps_of_a_replay_stand_alone_and_the_same_place_is_counted() -> None:
    mask: Filing = ([difference()], [MASK])
    walk: Filing = ([difference("accept", "path")], [])
    levels: list[Filing] = [([difference("draft", f"levels[{n}].logprobs", "real")], []) for n in (1, 2)]
    assert filed(mask, walk, mask, NOTHING, mask, *levels, alone=True) == [
        (0, "tensors.mask", 0, 2),
        (1, "accept.path", 0, 0),
        (5, "draft.levels[1].logprobs", 0, 1),
    ]


# A broken invariant is a root where no difference shows.


def test_what_one_side_breaks_is_a_difference_even_where_no_field_differs() -> None:
    (made,) = with_violation([], [blame("commit.content-moved")])
    assert (made.phase, made.field, made.a, made.b) == ("commit", "content-moved", "holds", "seen")
    assert (made.kind, made.inputs_equal) == ("structural", True)
    (made,) = with_violation([], [blame("commit.content-moved", "a")])
    assert (made.a, made.b) == ("seen", "holds")


def test_what_both_sides_break_is_no_difference() -> None:
    assert with_violation([], [blame("accept.walk", "a"), blame("accept.walk", "b")]) == []


def test_a_difference_at_or_before_the_phase_stands_for_it() -> None:
    found = [difference("tensors", "mask")]
    assert with_violation(found, [MASK]) == found
    assert with_violation(found, [WALK]) == found
    late = [difference("stop", "kept")]
    assert [d.phase for d in with_violation(late, [WALK])] == ["accept", "stop"]


def test_a_tie_or_an_inherited_difference_before_it_does_not_hide_a_broken_invariant() -> None:
    found = [difference("draft", "levels[1].tokens", "near-tie"), difference("tree", "nodes", inputs_equal=False)]
    assert [d.phase for d in with_violation(found, [MASK])] == ["draft", "tree", "tensors"]
    assert filed((found, [MASK]))[0][1] == "tensors.mask-is-ancestors"


def test_rules_across_steps_stand_at_the_phase_that_they_speak_of() -> None:
    assert with_violation([], [blame("sequence.root-is-last-bonus")])[0].phase == "tree"
    assert with_violation([], [blame("sequence.committed-continues")])[0].phase == "commit"


def test_who_is_wrong() -> None:
    assert who([]) == "neither"
    assert who([MASK]) == "candidate"
    assert who([blame("accept.walk", "a")]) == "baseline"
    assert who([blame("accept.walk", "a"), MASK]) == "both"
