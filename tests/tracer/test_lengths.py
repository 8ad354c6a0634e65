"""Runs that record only lengths: judged by what they hold, compared by it, and never called equal."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.called import specscope
from support.lengths_runs import HONEST, LENGTHS_MUTANTS, lengths_lines
from support.traces import FUSED, Lines, load, store

from specscope.schemas.verdict import Verdict
from specscope.tracer.compare import diff_traces
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.report.card import where_text


def stored(folder: Path, name: str, lines: Lines) -> Path:
    return store(lines, folder / f"{name}.jsonl")


def compared(folder: Path, a: Lines, b: Lines) -> Verdict:
    return diff_traces(stored(folder, "a", a), stored(folder, "b", b))


def violated(lines: Lines, folder: Path) -> set[str]:
    report = check_trace(stored(folder, "checked", lines))
    return {name for name, tally in report.invariants.items() if tally.failed}


def test_an_honest_run_passes_and_what_needs_more_is_skipped(tmp_path: Path) -> None:
    report = check_trace(stored(tmp_path, "honest", lengths_lines(HONEST)))
    assert report.num_violations == 0
    passed = {name for name, tally in report.invariants.items() if tally.passed}
    assert {"lengths.accepted-of-drafted", "turn.metrics", "run.capabilities"} <= passed
    assert not any(name.split(".")[0] in ("tree", "tensors", "verify", "accept", "commit", "stop") for name in passed)
    assert not {"turn.output-is-sum", "turn.prefill", "turn.end"} & passed, "no token is there to be judged"


@pytest.mark.parametrize("invariant", LENGTHS_MUTANTS)
def test_lengths_that_do_not_fit_together_are_violations(tmp_path: Path, invariant: str) -> None:
    lines = lengths_lines(HONEST)
    LENGTHS_MUTANTS[invariant](lines)
    assert violated(lines, tmp_path) == {invariant}


def test_lengths_whose_drafts_are_not_known_are_no_violation(tmp_path: Path) -> None:
    lines = lengths_lines(HONEST)
    del next(line for line in lines if line["kind"] == "step")["lengths"]["drafted"]
    assert violated(lines, tmp_path) == set()


def test_equal_lengths_are_never_called_equal(tmp_path: Path) -> None:
    verdict = compared(tmp_path, lengths_lines(HONEST), lengths_lines(HONEST))
    assert (verdict.verdict, verdict.exit_code, verdict.roots) == ("uncovered", 4, [])
    assert verdict.uncovered[0].startswith("only lengths are recorded: 5 of 5 pairs of steps")
    assert (verdict.impact.tokens_equal, verdict.impact.tokens_compared) == (False, False)
    assert verdict.impact.accepted_length_a == verdict.impact.accepted_length_b == pytest.approx(8 / 5)


def test_the_first_length_that_differs_is_a_root_and_the_turns_rest_follows_from_it(tmp_path: Path) -> None:
    other = [[(3, 3), (3, 1), (3, 0)], HONEST[1]]
    verdict = compared(tmp_path, lengths_lines(HONEST), lengths_lines(other))
    assert (verdict.verdict, verdict.exit_code, verdict.num_inherited) == ("different", 1, 1)
    [root] = verdict.roots
    assert (root.place.turn, root.place.step_a, root.difference.a, root.difference.b) == (0, 1, "0", "1")
    assert root.difference.inputs_equal is False, "what was accepted from is not recorded"
    assert root.place.position == 7 + 4


@pytest.mark.parametrize("rules", [("sampling", "greedy"), ("unknown", "unknown"), ("greedy", "unknown")])
def test_where_chance_may_explain_it_other_lengths_are_no_root(tmp_path: Path, rules: tuple[str, str]) -> None:
    lines = [lengths_lines(HONEST, rules[0]), lengths_lines([[(3, 2)], HONEST[1]], rules[1])]
    lines[0][0]["not_known"].append("sampling")
    verdict = compared(tmp_path, lines[0], lines[1])
    assert (verdict.roots, verdict.exit_code) == ([], 4)
    assert any("3 -> 2 at step 0" in line and "chance" in line for line in verdict.unjudged)


def test_a_draft_that_was_cut_shorter_explains_a_shorter_length(tmp_path: Path) -> None:
    verdict = compared(tmp_path, lengths_lines(HONEST), lengths_lines([[(2, 2), (3, 0)], HONEST[1]]))
    assert (verdict.roots, verdict.exit_code) == ([], 4)
    assert any("drafted no more" in line for line in verdict.unjudged)
    longer = compared(tmp_path, lengths_lines(HONEST), lengths_lines([[(2, 1), (3, 0)], HONEST[1]]))
    assert longer.exit_code == 1, "it did not accept all that it drafted"


def drafting_only(lines: Lines) -> Lines:
    """The same run by a writer that does not report steps which verified no draft."""
    lines[0]["conventions"] = {"steps": "drafting"}
    return lines


def test_where_steps_without_a_draft_are_not_reported_the_others_are_compared_in_their_order(tmp_path: Path) -> None:
    whole = lengths_lines([[(3, 1), (0, 0), (3, 2), (0, 0), (3, 0)]])
    reported = drafting_only(lengths_lines([[(3, 1), (3, 2), (3, 0)]]))
    verdict = compared(tmp_path, whole, reported)
    assert (verdict.roots, verdict.exit_code, verdict.num_regrouped) == ([], 4, 0)
    assert verdict.uncovered[0].startswith("only lengths are recorded: 3 of 3 pairs of steps")
    assert any("does not record steps that verified no draft" in line for line in verdict.unjudged)


def test_where_steps_are_missing_no_position_is_claimed(tmp_path: Path) -> None:
    whole = lengths_lines([[(3, 1), (0, 0), (3, 2)]])
    verdict = compared(tmp_path, whole, drafting_only(lengths_lines([[(3, 1), (3, 1)]])))
    [root] = verdict.roots
    assert (root.place.position, root.place.step_a, root.place.step_b) == (None, 2, 1)
    assert (root.difference.a, root.difference.b) == ("2", "1")


@pytest.mark.parametrize(("option", "value"), [("--tolerance", "0.1"), ("--noise", FUSED)])
def test_what_judges_floats_is_refused_of_lengths(tmp_path: Path, option: str, value: str | Path) -> None:
    a, b = (stored(tmp_path, name, lengths_lines(HONEST)) for name in "ab")
    done = specscope("diff", a, b, option, value)
    assert done.code == 2
    assert f"{option} says nothing of these two: a side records only lengths" in done.err


def without_lengths(lines: Lines, step: int) -> Lines:
    """The same run, where one step of the first turn does not record its lengths."""
    steps = [line for line in lines if line["kind"] == "step" and line["turn"] == 0]
    del steps[step]["lengths"]
    return lines


def test_a_step_that_drafted_nothing_keeps_its_place_and_explains_a_shorter_length(tmp_path: Path) -> None:
    idle = lengths_lines([[(3, 1), (0, 0), (3, 1), (3, 2)]])
    verdict = compared(tmp_path, idle, lengths_lines([[(3, 1), (3, 2), (3, 2)]]))
    assert (verdict.roots, verdict.exit_code) == ([], 4)
    assert any("0 -> 2 at step 1, where one side drafted no more" in line for line in verdict.unjudged)
    both = compared(tmp_path, idle, lengths_lines([[(3, 1), (0, 0), (3, 2), (3, 2)]]))
    assert [root.place.step_a for root in both.roots] == [2], "where both idle, they stay in step"


def test_after_a_step_without_lengths_nothing_is_compared(tmp_path: Path) -> None:
    other = without_lengths(lengths_lines([[(3, 3), (3, 1), (3, 1)]]), 1)
    verdict = compared(tmp_path, lengths_lines([[(3, 3), (3, 1), (3, 2)]]), other)
    assert verdict.roots == []
    assert {violation.invariant for violation in verdict.violations} == {"run.capabilities"}
    assert any("candidate does not record what it accepted at step 1" in line for line in verdict.unjudged)


def test_a_tree_is_as_deep_as_its_policy_and_not_as_it_has_nodes(tmp_path: Path) -> None:
    runs = [
        lengths_lines([[(16, 5)]]),
        lengths_lines([[(16, 6)]]),
        lengths_lines([[(16, 4)]]),
        lengths_lines([[(15, 4)]]),
    ]
    for lines in runs:
        lines[0]["tree_policy"] = {"kind": "dynamic", "depth": 5, "top_k": 4, "budget": 16}
    assert compared(tmp_path, runs[0], runs[1]).roots == []
    assert compared(tmp_path, runs[0], runs[2]).exit_code == 1, "it could have accepted one more"
    assert compared(tmp_path, runs[0], runs[3]).exit_code == 4, "of another tree"


@pytest.mark.parametrize("field", ["dtype", "teacher", "drafter", "drafter.kind", "tree_policy", "sampling.rule"])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_known_to_be_the_same_may_explain_other_lengths(tmp_path: Path, field: str, side: int) -> None:
    runs = [lengths_lines([[(3, 2)]]), lengths_lines([[(3, 1)]])]
    assert compared(tmp_path, *runs).exit_code == 1
    for lines in runs:
        lines[0]["teacher"].pop("weights_digest")
    runs[side][0]["not_known"].append(field)
    verdict = compared(tmp_path, *runs)
    assert (verdict.roots, verdict.exit_code) == ([], 4)
    assert any("2 -> 1 at step 0" in line for line in verdict.unjudged)


def test_a_placeholder_is_not_the_same_as_another(tmp_path: Path) -> None:
    runs = [lengths_lines([[(3, 2)]]), lengths_lines([[(3, 1)]])]
    for lines in runs:
        lines[0]["dtype"] = "unknown"
    verdict = compared(tmp_path, *runs)
    assert (verdict.exit_code, any("same: dtype" in line for line in verdict.unjudged)) == (4, True)


@pytest.mark.parametrize("length", [10**400, (1 << 20) + 1])
def test_a_length_that_no_step_has_is_an_error_in_words(tmp_path: Path, length: int) -> None:
    lines = lengths_lines(HONEST)
    next(line for line in lines if line["kind"] == "step")["lengths"]["accepted"] = length
    path = stored(tmp_path, "huge", lines)
    done = specscope("check", path)
    assert (done.code, "line 3" in done.err, "bug in" in done.err) == (2, True, False), done.err


def test_a_place_in_a_prompt_of_unknown_length_is_not_called_0(tmp_path: Path) -> None:
    runs = [lengths_lines([[(3, 2)]]), lengths_lines([[(3, 1)]])]
    for lines in runs:
        del lines[1]["num_prompt_tokens"]
    verdict = compared(tmp_path, *runs)
    assert (verdict.exit_code, verdict.roots[0].place.position) == (1, None)
    assert "position not known" in where_text(verdict.roots[0].place, verdict.roots[0].difference.field)


def test_prompts_of_other_lengths_are_not_compared(tmp_path: Path) -> None:
    other = lengths_lines(HONEST)
    other[1]["num_prompt_tokens"] = 8
    verdict = compared(tmp_path, lengths_lines(HONEST), other)
    assert (verdict.verdict, verdict.exit_code) == ("incomparable", 3)
    assert "7 and 8 token ids" in verdict.incomparable[0]


def test_prompts_of_other_names_are_not_paired_by_ids_that_nobody_recorded(tmp_path: Path) -> None:
    other = lengths_lines(HONEST)
    for line in other:
        if line["kind"] == "turn_start":
            line["prompt_id"] += " of another server"
    verdict = compared(tmp_path, lengths_lines(HONEST), other)
    assert (verdict.num_turns, verdict.num_steps, verdict.exit_code) == (0, 0, 4)


def only_lengths(whole: Lines) -> Lines:
    """A trace of the same run that records only lengths."""
    turns: dict[int, list[tuple[int, int]]] = {}
    names = {line["turn"]: line for line in whole if line["kind"] == "turn_start"}
    for line in whole:
        if line["kind"] == "step":
            drafted, accepted = len(line["tree"]["tokens"]) - 1, line["accept"]["accepted_length"]
            turns.setdefault(line["turn"], []).append((drafted, accepted))
    lines = lengths_lines(list(turns.values()))
    lines[0]["tree_policy"] = whole[0]["tree_policy"]
    for line in (line for line in lines if line["kind"] == "turn_start"):
        start = names[line["turn"]]
        line |= {name: start[name] for name in ("prompt_id", "prompt_turn")}
        line["num_prompt_tokens"] = len(start["prompt_ids"])
    return lines


def test_a_whole_trace_is_compared_with_lengths_as_far_as_they_go(tmp_path: Path) -> None:
    lines = only_lengths(load(FUSED))
    alike = diff_traces(FUSED, stored(tmp_path, "lengths", lines))
    assert (alike.verdict, alike.exit_code, alike.incomparable) == ("uncovered", 4, []), alike.incomparable
    depth = lines[0]["tree_policy"]["depth"]
    step = next(line for line in lines if line["kind"] == "step" and 0 < line["lengths"]["accepted"] < depth)
    step["lengths"]["accepted"] -= 1
    other = diff_traces(FUSED, stored(tmp_path, "other", lines))
    assert [root.difference.field for root in other.roots] == ["accepted_length"]


def test_what_is_not_known_is_not_called_0(tmp_path: Path) -> None:
    lines = [lengths_lines([[(3, 2)]]) for _ in range(2)]
    del lines[1][1]["num_prompt_tokens"]
    del lines[1][3]["num_output_tokens"]
    paths = [stored(tmp_path, name, run) for name, run in zip("ab", lines, strict=True)]
    diffed = specscope("diff", *paths)
    assert "output tokens not compared (4 -> not known)" in diffed.out
    assert "1 of 1 pair of steps" in diffed.out
    assert "prompt of unknown length" in specscope("show", paths[1]).out


def test_the_commands_say_what_was_recorded(tmp_path: Path) -> None:
    path, other = (stored(tmp_path, name, lengths_lines(HONEST)) for name in ("one", "two"))
    checked = specscope("check", path)
    assert (checked.code, "lengths only" in checked.out) == (0, True)
    assert "need more than lengths, and were skipped" in checked.out
    summed = specscope("metrics", path)
    assert (summed.code, "1.600" in summed.out, "8 of 14 drafted" in summed.out) == (0, True, True)
    diffed = specscope("diff", path, other)
    assert (diffed.code, "EQUAL" in diffed.out) == (4, False)
    assert "output tokens not compared (15 -> 15)" in diffed.out
    assert "7 prompt tokens" in specscope("show", path).out
    noisy = specscope("diff", path, other, "--noise", path)
    assert (noisy.code, "--noise says nothing of these two" in noisy.err) == (2, True)
    tried = specscope("whatif", path, "--depth", "99")
    assert (tried.code, "only lengths were recorded" in tried.err) == (4, True)
    assert specscope("show", path).code == 0
    assert specscope("report", path, "-o", tmp_path / "report.html").code == 0
    refused = specscope("replay", path, "--out", tmp_path / "replayed.jsonl")
    assert (refused.code, "records only how many tokens were accepted" in refused.err) == (2, True)
