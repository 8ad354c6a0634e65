"""Modes, trees and acceptance from flags and from the environment: what is chosen, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from support.called import specscope

from specscope.engine.cli.choices import build_choice, model_options, rule_options, tree_options
from specscope.engine.settings import ModelChoice
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader


def choose(*arguments: str, **environment: str) -> ModelChoice:
    """What these flags and variables choose."""
    found: list[ModelChoice] = []

    @click.command()
    @model_options
    @tree_options
    @rule_options
    def command(**options: Any) -> None:
        found.append(build_choice(**options))

    done = CliRunner().invoke(command, arguments, env=environment)
    if isinstance(done.exception, UsageError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return found[0]


MODES = {
    "the default": ((), {}, "fused", "fused"),
    "reference": (("--mode", "reference"), {}, "eager", "eager"),
    "performance": (("--mode", "performance"), {}, "fused", "fused"),
    "baseline": (("--mode", "baseline"), {}, "baseline", "fused"),
    "analysis: the baseline": (("--mode", "baseline"), {"SPECSCOPE_ATTENTION": "eager"}, "baseline", "eager"),
    "analysis: speculation": ((), {"SPECSCOPE_ATTENTION": "eager"}, "eager", "eager"),
    "by environment": ((), {"SPECSCOPE_MODE": "reference"}, "eager", "eager"),
    "a flag wins": (("--mode", "fused"), {"SPECSCOPE_MODE": "reference"}, "fused", "fused"),
    "both agree": (("--mode", "eager", "--attention", "eager"), {}, "eager", "eager"),
}


@pytest.mark.parametrize("name", MODES)
def test_a_mode_is_chosen(name: str) -> None:
    arguments, environment, mode, attention = MODES[name]
    choice = choose(*arguments, **environment)
    assert (choice.mode, choice.attention) == (mode, attention)


def test_other_variables_are_honoured() -> None:
    choice = choose(SPECSCOPE_DTYPE="bfloat16", SPECSCOPE_DEVICE="cpu", SPECSCOPE_DRAFTER="ngram")
    assert (choice.dtype, choice.device, choice.drafter) == ("bfloat16", "cpu", "ngram")


def test_the_baseline_of_the_analysis_runs_on_the_eager_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECSCOPE_MODE", "baseline")
    monkeypatch.setenv("SPECSCOPE_ATTENTION", "eager")
    monkeypatch.setenv("SPECSCOPE_TRACE", str(tmp_path / "t.jsonl"))
    done = specscope("run", "--prompt", "x = 1", "--max-new-tokens", "3")
    assert (done.code, done.err) == (0, "")
    with TraceReader(tmp_path / "t.jsonl") as reader:
        assert (reader.manifest.mode, reader.manifest.attention) == ("baseline", "eager")
        assert set(reader.step(reader.turns[0], 0).verify.dispatch) == {"eager"}  # type: ignore[union-attr, arg-type]


def test_acceptance_is_chosen() -> None:
    assert choose().rule.rule == "greedy"
    drawn = choose("--temperature", "0.8", "--top-p", "0.9", "--sample-top-k", "40").rule
    assert (drawn.rule, drawn.temperature, drawn.top_p, drawn.top_k) == ("sampling", 0.8, 0.9, 40)
    assert drawn.lossless
    typical = choose("--temperature", "0.8", "--typical").rule
    assert (typical.rule, typical.lossless) == ("typical", False)
    assert choose("--temperature", "1", "--draft-sampling", "--tree", "chain").rule.draft == "sampled"


def test_trees_are_chosen() -> None:
    assert choose().policy.kind == "dynamic"
    assert (choose("--tree", "chain", "--depth", "3").policy.name) == "chain-3"
    assert choose("--tree", "static:bush-16").policy.budget == 16


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--mode", "fused", "--attention", "eager"), "the mode says the attention"),
        (("--top-p", "0.5"), "--top-p with temperature 0"),
        (("--typical",), "--typical with temperature 0"),
        (("--draft-sampling", "--sample-top-k", "3"), "--sample-top-k, --draft-sampling with temperature 0"),
        (("--temperature", "1", "--typical", "--draft-sampling"), "drop --draft-sampling"),
        (("--tree", "bush"), "wanted dynamic, chain, static:NAME"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        choose(*arguments)
