"""An allowed difference does not fail by its own consequence, and what it keeps from being compared is said."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.toy_run import Toy, toy_lines
from support.traces import EAGER, FUSED, Lines, load, store

from specscope.schemas.verdict import Verdict
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.report.card import headline, impact_text
from specscope.tracer.report.values import same_texts

LENGTH = "stop_rules.max_new_tokens"


NO_TEXTS = same_texts(TokenTexts(None))


def shortened(lines: Lines, most: int) -> Lines:
    """The same run, had its turns been of ``most`` tokens at most; each turn is of another prompt."""
    kept: Lines = []
    for line in copy.deepcopy(lines):
        if line["kind"] == "turn_start":
            if line["prompt_turn"]:
                line["prompt_id"] += "-alone"
                line["prompt_turn"] = 0
            emitted, steps = 1, []
        elif line["kind"] == "step":
            if emitted >= most:
                continue
            steps.append(line)
            line["stop"]["kept"] = min(line["stop"]["kept"], most - emitted)
            emitted += line["stop"]["kept"]
            line["stop"] |= {"reason": "length"} if emitted == most else {}
        elif line["kind"] == "turn_end" and len(line["output_ids"]) > most:
            lengths = [step["accept"]["accepted_length"] for step in steps]
            line |= {"output_ids": line["output_ids"][:most], "reason": "length", "num_steps": len(steps)}
            line |= {"num_drafted": sum(len(step["tree"]["tokens"]) - 1 for step in steps)}
            line |= {"num_accepted": sum(lengths)}
            line["accepted_by_depth"] = [sum(n > depth for n in lengths) for depth in range(max(lengths))]
        kept.append({**line, "seq": len(kept)})
    kept[0]["stop_rules"]["max_new_tokens"] = most
    kept[-1]["counts"] = Counter(line["kind"] for line in kept[:-1])
    return kept


@pytest.fixture
def whole() -> Lines:
    return shortened(load(EAGER), 40)


def diff(tmp_path: Path, a: Lines, b: Lines, *allowed: str) -> Verdict:
    options = DiffOptions(allowed=frozenset(allowed))
    return diff_traces(store(a, tmp_path / "a.jsonl"), store(b, tmp_path / "b.jsonl"), options)


@pytest.mark.parametrize("most", [5, 17, 32])
def test_a_length_that_may_differ_ends_what_is_compared(tmp_path: Path, whole: Lines, most: int) -> None:
    short = shortened(load(FUSED), most)
    assert diff(tmp_path, whole, short).exit_code == 3
    for sides in ((whole, short), (short, whole)):
        verdict = diff(tmp_path, *sides, LENGTH)
        assert (verdict.verdict, verdict.exit_code, verdict.roots, verdict.uncovered) == ("equal", 0, [], [])
        assert set(verdict.compared.values()) == {verdict.num_steps}
        impact = verdict.impact
        assert impact.tokens_equal
        assert impact.num_tokens_a == impact.num_tokens_b == 3 * most
        assert (impact.num_steps_a, impact.accepted_length_a) == (impact.num_steps_b, impact.accepted_length_b)
        assert impact.num_beyond_a + impact.num_beyond_b == 3 * (40 - most)
        assert "beyond the other run's end" in impact_text(impact)
        assert verdict.num_regrouped == 0
        assert verdict.num_beyond > 0
        assert headline(verdict, NO_TEXTS) == "EQUAL: no decision differs over what both runs had to emit"


def test_what_differs_within_the_shared_range_is_found_all_the_same(tmp_path: Path, whole: Lines) -> None:
    short = shortened(load(FUSED), 17)
    step = [line for line in short if line["kind"] == "step"][2]
    step["tensors"]["positions"][1] += 1
    verdict = diff(tmp_path, whole, short, LENGTH)
    assert (verdict.exit_code, verdict.roots[0].difference.field) == (1, "positions")


def test_an_early_end_by_another_rule_than_the_allowed_one_is_a_root(tmp_path: Path, whole: Lines) -> None:
    short = shortened(load(FUSED), 17)
    assert diff(tmp_path, whole, short, *("stop_rules.stop_strings", "seed")).exit_code == 3
    short[0]["stop_rules"] = whole[0]["stop_rules"] | {"stop_strings": ["x"]}
    verdict = diff(tmp_path, whole, short, "stop_rules.stop_strings")
    assert (verdict.exit_code, verdict.roots[0].difference.field) == (1, "kept")


def test_who_ends_a_turn_where_its_rules_do_not_is_blamed(tmp_path: Path, whole: Lines) -> None:
    short = shortened(load(FUSED), 17)
    short[0]["stop_rules"] = whole[0]["stop_rules"]
    for sides, wrong in (((whole, short), "candidate"), ((short, whole), "baseline")):
        root = diff(tmp_path, *sides).roots[0]
        assert (root.difference.phase, root.wrong) == ("stop", wrong)
        assert "turn.end" in {blame.invariant for blame in root.blame}


def test_outputs_that_only_the_turns_end_tells_apart_are_its_sides_fault(tmp_path: Path, whole: Lines) -> None:
    other = copy.deepcopy(whole)
    next(line for line in other if line["kind"] == "turn_end")["output_ids"][-1] ^= 1
    root = diff(tmp_path, whole, other).roots[0]
    assert (root.difference.field, root.wrong) == ("output-is-sum", "candidate")


TEMPERATURE = Toy(rule="sampling", temperature=0.8)


@pytest.mark.parametrize("name", ["seed", "sampling.temperature", "sampling.top_k", "sampling.top_p"])
def test_tokens_that_are_drawn_otherwise_may_differ(tmp_path: Path, name: str) -> None:
    lines, other = toy_lines(TEMPERATURE), toy_lines(Toy(rule="sampling", temperature=0.8, seed=7))
    section, _, last = name.rpartition(".")
    if section:
        other[0]["seed"] = lines[0]["seed"]
        other[0][section][last] = {"temperature": 0.5, "top_k": 9, "top_p": 0.5}[last]
        for start, start_b in zip(lines, other, strict=True):
            if start["kind"] == "turn_start":
                start_b["generator_seed"] = start["generator_seed"]
    assert diff(tmp_path, lines, other).exit_code == 3
    verdict = diff(tmp_path, lines, other, name)
    assert not verdict.impact.tokens_equal
    assert verdict.roots == []
    assert verdict.compared.get("accept", 0) == 0
    assert any("follows from what was allowed to differ" in line for line in verdict.unjudged)
    assert "equal" not in headline(verdict, NO_TEXTS).lower()
    assert "agree" not in headline(verdict, NO_TEXTS)


def test_trees_that_may_differ_are_said_not_to_be_compared(tmp_path: Path) -> None:
    lines, other = toy_lines(Toy(levels=False)), toy_lines(Toy(levels=False))
    other[0]["tree_policy"] |= {"choices": None, "kind": "dynamic"}
    for step in (line for line in other if line["kind"] == "step"):
        token = next(t for t in range(16) if t not in step["tree"]["tokens"])
        leaf = max(slot for slot in range(1, 8) if slot not in step["accept"]["path"])
        step["tree"]["tokens"][leaf] = step["tensors"]["token_ids"][leaf] = token
    verdict = diff(tmp_path, lines, other, "tree_policy")
    assert verdict.compared.get("accept", 0) == 0
    assert any("the trees differ, as they may" in line for line in verdict.unjudged)
    assert headline(verdict, NO_TEXTS) != "EQUAL: no decision differs"


def test_nothing_compared_does_not_agree(tmp_path: Path, whole: Lines) -> None:
    other = copy.deepcopy(whole)
    for line in other:
        if "prompt_id" in line:
            line["prompt_id"] += " elsewhere"
            line["prompt_ids"][0] += 1  # prompts of other names are paired by their tokens
    next(line for line in other if line["kind"] == "step")["commit"]["prefix_after"] = "0" * 16
    verdict = diff(tmp_path, whole, other)
    assert headline(verdict, NO_TEXTS) == "VIOLATED: an invariant is broken; no decision was compared"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("nonsense.field", ""),
        ("stop_rules.max_new_token", LENGTH),
        ("weights_digest", "teacher.weights_digest, drafter.weights_digest"),
        ("tree", "tree_policy"),
        ("teacher.sampling", "sampling"),
    ],
)
def test_a_field_that_no_manifest_has_is_refused_with_the_nearest(tmp_path: Path, name: str, near: str) -> None:
    with pytest.raises(UsageError) as refused:
        diff_traces(tmp_path / "a", tmp_path / "b", DiffOptions(allowed=frozenset([name])))
    assert f"got --allow {name}" in str(refused.value)
    assert near in str(refused.value).partition("the nearest: ")[2]


def test_names_that_are_free_are_not_refused(tmp_path: Path, whole: Lines) -> None:
    names: tuple[Any, ...] = ("sampling.processors.mine", "drafter.settings.length", "versions.torch", "tokenizer")
    assert diff(tmp_path, whole, whole, *names).exit_code == 0


def test_what_only_one_side_says_of_its_drafter_lets_no_draft_differ(tmp_path: Path, whole: Lines) -> None:
    """As a trace of an earlier version, beside one that says that its head is not quantised."""
    other = shortened(load(EAGER), 40)
    other[0]["drafter"] |= {"name": "another", "quantization": "none", "num_layers": 1}
    assert diff(tmp_path, whole, other, "drafter").verdict == "equal"
    level = next(line for line in other if line["kind"] == "step")["draft"]["levels"][1]
    level["logprobs"] = [value - 0.5 for value in level["logprobs"]]
    roots = diff(tmp_path, whole, other, "drafter").roots
    assert (roots[0].difference.phase, roots[0].place.step_a) == ("draft", 0)
