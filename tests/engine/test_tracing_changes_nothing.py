"""A traced run emits the very tokens of an untraced one, at every level, in both modes, greedy and sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.drafting import PROMPTS, choice_of
from support.traced import record

from specscope.engine.load.models import Models, load_models
from specscope.engine.settings import SamplingRule

RULES = {
    "greedy": SamplingRule("greedy"),
    "sampling": SamplingRule("sampling", temperature=0.8, top_p=0.95),
    "typical": SamplingRule("typical", temperature=0.8),
}


@pytest.fixture(scope="module", params=["fused", "eager"])
def mode(request: pytest.FixtureRequest) -> str:
    """Either mode."""
    return str(request.param)


@pytest.fixture(scope="module")
def models(mode: str, teacher_folder: Path, head_folder: Path) -> Models:
    """Loaded once a mode."""
    return load_models(choice_of(teacher_folder, f"eagle3:{head_folder}", mode))


@pytest.mark.parametrize("rule", RULES)
def test_the_tokens_are_those_of_an_untraced_run(
    tmp_path: Path, mode: str, models: Models, rule: str, teacher_folder: Path, head_folder: Path
) -> None:
    choice = choice_of(teacher_folder, f"eagle3:{head_folder}", mode, rule=RULES[rule])

    def outputs(name: str | None, **more: Any) -> dict[str, list[int]]:
        trace = tmp_path / f"{name}.jsonl" if name is not None else None
        return record(choice, PROMPTS, trace, models=models, batch_size=2, **more).output_ids

    untraced = outputs(None)
    assert {prompt: len(ids) for prompt, ids in untraced.items()}.keys() == {p.id for p in PROMPTS}
    assert sum(map(len, untraced.values())) > len(PROMPTS) * 4
    for level in ("decisions", "scores", "tensors"):
        assert outputs(level, level=level) == untraced
    assert outputs("redacted", redact="a key of some length") == untraced
