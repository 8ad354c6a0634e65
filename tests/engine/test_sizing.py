"""Trees that are no larger than pays: what is expected of them, what they grow to, and that tokens stay the same."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.called import specscope
from support.traces import flat_floors, store

from specscope.engine import decode
from specscope.engine.drafters.eagle3.drafter import Eagle3Drafter
from specscope.engine.load.costs import measure_costs
from specscope.engine.load.models import Models, load_models
from specscope.engine.settings import ModelChoice
from specscope.engine.tree.policy import TreePolicy
from specscope.schemas import Manifest, Step, StepCosts
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.sizing import depth_is_tied, size_is_tied
from specscope.tracer.compare.steps import RecordedSteps, StepPair
from specscope.tracer.errors import UsageError
from specscope.tracer.goodput import best_size, goodput_of
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.invariants.sizing import best_first

CHEAP = StepCosts(fixed_ms=0.01, level_ms=0.001, verify_slots=[1, 64], verify_ms=[10.0, 10.001])
DEAR = StepCosts(fixed_ms=0.01, level_ms=1000.0, verify_slots=[1, 2, 64], verify_ms=[1.0, 500.0, 9000.0])
USUAL = StepCosts(fixed_ms=2.5, level_ms=2.2, verify_slots=[1, 4, 8, 16, 32], verify_ms=[10.0, 11.5, 17.0, 20.5, 24.0])
PROMPT = "def parse(line):\n"


def sized(costs: StepCosts, budget: int = 24, depth: int = 6) -> TreePolicy:
    """The usual tree, sized by ``costs``."""
    return TreePolicy(kind="dynamic", depth=depth, top_k=4, budget=budget, sizing=costs)


def test_between_what_was_measured_times_lie_on_a_line() -> None:
    times = [USUAL.step_ms(1, slots) - USUAL.fixed_ms for slots in (1, 2, 4, 12, 32, 48)]
    assert times == pytest.approx([10.0, 10.5, 11.5, 18.75, 24.0, 27.5])
    assert USUAL.step_ms(4, 1) == pytest.approx(2.5 + 3 * 2.2 + 10.0)
    alone = StepCosts(fixed_ms=1, level_ms=1, verify_slots=[8], verify_ms=[3.0])
    assert alone.step_ms(1, 100) == 4.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"verify_slots": []},
        {"verify_slots": [2, 1], "verify_ms": [1.0, 1.0]},
        {"verify_slots": [0]},
        {"verify_ms": [1.0, 2.0]},
        {"verify_ms": [0.0]},
        {"level_ms": math.inf},
        {"fixed_ms": math.nan},
    ],
)
def test_what_cannot_be_a_cost_is_refused(wrong: dict[str, object]) -> None:
    right = {"fixed_ms": 1.0, "level_ms": 1.0, "verify_slots": [1], "verify_ms": [1.0]}
    with pytest.raises(ValueError, match=r"wanted"):
        StepCosts.model_validate(right | wrong)


@settings(deadline=None)
@given(
    scores=st.lists(st.lists(st.floats(-12, 0), min_size=6, max_size=6), min_size=1, max_size=3),
    levels=st.integers(1, 4),
    most=st.integers(1, 8),
)
def test_the_best_size_is_the_best_of_all(scores: list[list[float]], levels: int, most: int) -> None:
    ordered = [sorted(row, reverse=True) for row in scores]

    def promised(size: int) -> float:
        tokens = sum(1 + sum(math.exp(score) for score in row[:size]) for row in ordered)
        return tokens / USUAL.step_ms(levels, len(ordered) * (size + 1))

    best = best_size(USUAL, ordered, levels, most)
    assert best.goodput == pytest.approx(max(promised(size) for size in range(min(most, 6) + 1)))
    assert best.goodput == pytest.approx(promised(best.num_nodes))
    assert goodput_of(USUAL, ordered, levels, best.num_nodes).tokens == pytest.approx(best.tokens)


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(ModelChoice(self_check=False))


def head_of(models: Models) -> Eagle3Drafter:
    """Their drafter."""
    assert isinstance(models.drafter, Eagle3Drafter)
    return models.drafter


def steps_of(models: Models, policy: TreePolicy, trace: Path) -> list[dict[str, Any]]:
    """The steps of a run with ``policy``, as recorded."""
    head_of(models).policy = policy
    decode(PROMPT, models=models, policy=policy, max_new_tokens=40, trace=trace)
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]


def test_dear_steps_have_small_trees_and_cheap_ones_large(models: Models, tmp_path: Path) -> None:
    dear = steps_of(models, sized(DEAR), tmp_path / "dear.jsonl")
    cheap = steps_of(models, sized(CHEAP), tmp_path / "cheap.jsonl")
    usual = steps_of(models, sized(USUAL), tmp_path / "usual.jsonl")
    size = [[len(step["tree"]["tokens"]) - 1 for step in steps] for steps in (dear, cheap, usual)]
    depth = [[len(step["draft"]["levels"]) for step in steps] for steps in (dear, cheap, usual)]
    assert set(size[0]) == {0}
    assert set(depth[0]) == {1}
    assert set(size[1]) == {24}
    assert set(depth[1]) == {6}
    assert len(set(size[2])) > 3, "each step has the size that pays for it"
    assert len(set(depth[2])) > 2
    for name in ("dear", "cheap", "usual"):
        assert specscope("check", str(tmp_path / f"{name}.jsonl")).code == 0


@pytest.mark.parametrize("costs", [DEAR, CHEAP, USUAL], ids=["dear", "cheap", "usual"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tokens_are_the_teachers_own(costs: StepCosts, batch_size: int) -> None:
    prompts = [PROMPT, "import os\n", "class Reader:\n    def"]
    wanted = [turn.result.output_ids for turn in decode(prompts, mode="baseline", max_new_tokens=24)]
    turns = decode(prompts, policy=sized(costs), max_new_tokens=24, batch_size=batch_size)
    assert sorted(turn.result.output_ids for turn in turns) == sorted(wanted)


def test_measured_costs_are_of_a_step(models: Models) -> None:
    head = head_of(models)
    policy = head.policy = TreePolicy(kind="dynamic", depth=4, top_k=4, budget=20)
    costs = measure_costs(models.teacher, head)
    assert head.policy is policy
    assert costs.verify_slots == [1, 2, 4, 8, 16, 32]
    assert costs.verify_ms == sorted(costs.verify_ms)
    assert 0 < costs.level_ms < 100 * costs.verify_ms[0]


def test_the_second_run_takes_the_costs_of_the_first(tmp_path: Path) -> None:
    fused, eager, other = (str(tmp_path / f"{name}.jsonl") for name in ("fused", "eager", "other"))
    shared = ["run", "--prompt", PROMPT, "--max-new-tokens", "24", "--depth", "6", "--budget"]
    assert specscope(*shared, "auto", "--trace", fused).code == 0
    assert specscope(*shared, "auto", "--costs", fused, "--mode", "eager", "--trace", eager).code == 0
    assert specscope(*shared, "16", "--trace", other).code == 0
    assert specscope("check", fused, eager).code == 0
    assert specscope("diff", eager, fused).code == 0
    assert specscope("replay", fused, "--out", str(tmp_path / "again.jsonl")).code == 0
    for arguments, says in (
        ([*shared, "16", "--costs", fused], "wanted --budget auto"),
        ([*shared, "auto", "--costs", other], "has no costs"),
        ([*shared, "auto", "--costs", str(tmp_path / "none.jsonl")], "no such file"),
        ([*shared, "auto", "--tree", "chain"], "for a chain tree"),
        ([*shared, "auto", "--drafter", "ngram"], "wanted eagle3 or model"),
        ([*shared, "much"], "much"),
    ):
        result = specscope(*arguments)
        assert result.code == 2
        assert says in " ".join(result.err.split()), result.err


def test_costs_that_fit_no_drafter_are_refused() -> None:
    with pytest.raises(UsageError, match="drafter early-exit, wanted eagle3 or model"):
        decode(PROMPT, drafter="early-exit", policy=sized(USUAL), max_new_tokens=4)


@pytest.fixture(scope="module")
def recorded(models: Models, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The lines of a run that was sized by ``USUAL``."""
    path = tmp_path_factory.mktemp("sized") / "usual.jsonl"
    steps_of(models, sized(USUAL), path)
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_its_worst_node(step: dict[str, Any]) -> None:
    """The tree of ``step`` loses the leaf with the lowest score."""
    tree = step["tree"]
    slot = min(range(1, len(tree["tokens"])), key=lambda at: (tree["scores"][at], -at))
    for values in tree.values():
        del values[slot]
    tree["parents"] = [parent - (parent > slot) for parent in tree["parents"]]
    for section in ("tensors", "verify", "accept", "commit", "stop"):
        step.pop(section, None)


def of_large_tree(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The first step with a tree of several nodes in several levels, fewer than the policy allows."""
    return next(
        line
        for line in lines
        if line["kind"] == "step" and len(line["tree"]["tokens"]) > 4 and 1 < len(line["draft"]["levels"]) < 6
    )


def violated(lines: list[dict[str, Any]], path: Path) -> dict[str, str]:
    """The first message of each invariant that the oracle finds violated."""
    store(lines, path)
    tallies = check_trace(path).invariants
    return {name: tally.first.witness for name, tally in tallies.items() if tally.first is not None}


def test_the_oracle_decides_the_size_anew(recorded: list[dict[str, Any]], tmp_path: Path) -> None:
    assert violated(recorded, tmp_path / "honest.jsonl") == {}
    lines = copy.deepcopy(recorded)
    without_its_worst_node(of_large_tree(lines))
    assert "promise" in violated(lines, tmp_path / "smaller.jsonl")["tree.size-pays"]
    lines = copy.deepcopy(recorded)
    lines[0]["tree_policy"]["costs"]["level_ms"] = 200.0
    assert "was grown" in violated(lines, tmp_path / "deep.jsonl")["tree.size-pays"]
    lines = copy.deepcopy(recorded)
    lines[0]["tree_policy"]["costs"]["level_ms"] = 0.001
    assert "was not grown" in violated(lines, tmp_path / "flat.jsonl")["tree.size-pays"]
    lines = copy.deepcopy(recorded)
    lines[0] |= {"batch_size": 2}  # rows are then sized together
    lines[0]["tree_policy"]["costs"]["level_ms"] = 200.0
    assert "tree.size-pays" not in violated(lines, tmp_path / "batch.jsonl")


def pair_of(lines: list[dict[str, Any]], costs: StepCosts) -> StepPair:
    """A step beside itself with its worst node left out, both sized by ``costs``."""
    manifest, whole = copy.deepcopy(lines[0]), copy.deepcopy(of_large_tree(lines))
    manifest["tree_policy"]["costs"] = costs.model_dump()
    less = copy.deepcopy(whole)
    without_its_worst_node(less)
    less["draft"]["levels"] = less["draft"]["levels"][:-1]
    read = Manifest.model_validate_json(json.dumps(manifest))
    a, b = (Step.model_validate_json(json.dumps(step)) for step in (whole, less))
    steps = RecordedSteps(a=a, b=b, previous_a=None, previous_b=None)
    return StepPair.of(steps, read, read, judge=FloatJudge(flat_floors(1e-5)))


def test_a_size_that_promises_as_much_is_a_tie_and_one_that_promises_less_is_not(
    recorded: list[dict[str, Any]],
) -> None:
    step = of_large_tree(recorded)
    num_nodes, num_levels = len(step["tree"]["tokens"]) - 1, len(step["draft"]["levels"])
    for off, tied in ((1.0, True), (1.0 + 1e-9, True), (1.01, False), (0.99, False)):
        pair = pair_of(recorded, USUAL)
        scores = [best_first(candidate.score for candidate in pair.a.numbered)]
        more = goodput_of(USUAL, scores, num_levels=num_levels, num_nodes=num_nodes)
        fewer = goodput_of(USUAL, scores, num_levels=num_levels, num_nodes=num_nodes - 1)
        # The time of one node more that makes both promise the same, times what is off.
        before = USUAL.step_ms(1, num_nodes) - USUAL.fixed_ms
        rest = USUAL.step_ms(num_levels, 1) - USUAL.verify_ms[0]
        equal = (rest + before) * more.tokens / fewer.tokens - rest
        costs = StepCosts(
            fixed_ms=USUAL.fixed_ms,
            level_ms=USUAL.level_ms,
            verify_slots=[num_nodes, num_nodes + 1],
            verify_ms=[before, equal * off],
        )
        pair = pair_of(recorded, costs)
        kept = replace(pair, b=StepNodes(pair.b.step.model_copy(update={"draft": pair.a.step.draft})))
        assert size_is_tied(kept) is tied
    assert not depth_is_tied(pair_of(recorded, USUAL))
    assert not size_is_tied(replace(pair_of(recorded, USUAL), sized=None))
