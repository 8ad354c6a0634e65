"""Trees of 255 drafted nodes on up to 20 levels: decoded, recorded, judged, compared and drawn like small ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.drafting import choice_of
from support.tiny_models import reference_generate
from support.traced import record

from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import ModelChoice
from specscope.engine.tree.policy import TreePolicy
from specscope.tracer import TraceReader, check_trace, diff_traces
from specscope.tracer.cli.main import cli

#: A tiny head is unsure, and its best 255 candidates are shallow unless few are proposed per level: 4 + 19 * 16 = 308.
DEEP = TreePolicy(kind="dynamic", depth=20, top_k=4, budget=255)
TOKENS = 5
PROMPTS = [Prompt("short", ids=(5, 9, 2)), Prompt("long", ids=tuple(range(3, 40)))]


@pytest.fixture(scope="module")
def choices(teacher_folder: Path, head_folder: Path) -> dict[str, ModelChoice]:
    """By mode."""
    drafter = f"eagle3:{head_folder}"
    return {mode: choice_of(teacher_folder, drafter, mode, policy=DEEP) for mode in ("eager", "fused")}


@pytest.fixture(scope="module")
def traces(choices: dict[str, ModelChoice], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By mode; ``wrong`` has a fault."""
    folder = tmp_path_factory.mktemp("deep")
    paths = {name: folder / f"{name}.jsonl" for name in (*choices, "wrong")}
    for mode, choice in choices.items():
        record(choice, PROMPTS, paths[mode], batch_size=2, tokens=TOKENS)
    record(choices["fused"], PROMPTS, paths["wrong"], batch_size=2, tokens=TOKENS, fault="F16")
    return paths


def test_the_trees_are_that_large_and_the_tokens_the_teachers(
    teacher_folder: Path, choices: dict[str, ModelChoice], tmp_path: Path
) -> None:
    trace = tmp_path / "t.jsonl"
    recording = record(choices["fused"], PROMPTS, trace, tokens=TOKENS)
    for prompt in PROMPTS:
        assert prompt.ids is not None
        assert recording.output_ids[prompt.id] == reference_generate(teacher_folder, list(prompt.ids), TOKENS)
    with TraceReader(trace) as reader:
        trees = [step.tree for turn in reader.turns for step in reader.steps(turn) if step.tree is not None]
    assert {len(tree.tokens) for tree in trees} == {256}
    assert max(max(tree.depths) for tree in trees) > 16


def test_honest_modes_are_equal_and_break_nothing(traces: dict[str, Path]) -> None:
    for mode in ("eager", "fused"):
        assert check_trace(traces[mode]).num_violations == 0
    assert diff_traces(traces["eager"], traces["fused"]).verdict in ("equal", "ties")


def test_a_fault_is_placed_and_blamed(traces: dict[str, Path]) -> None:
    verdict = diff_traces(traces["eager"], traces["wrong"])
    assert verdict.verdict == "different"
    assert verdict.roots[0].difference.field.startswith("positions")
    assert check_trace(traces["wrong"]).num_violations > 0


def test_they_are_drawn(traces: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for command in (
        ["show", str(traces["fused"]), "--at", "1/0"],
        ["report", str(traces["eager"]), str(traces["wrong"]), "--out", str(page)],
    ):
        result = CliRunner().invoke(cli, command)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert page.stat().st_size > 100_000
