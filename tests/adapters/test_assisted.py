"""Transformers' assisted generation, recorded from outside: the same tokens, sound traces, the same decisions as ours.

This engine and transformers share no code that decides, so equal traces are worth something; and every kind of mistake
that is put into a recorded one is found.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.drafting import choice_of
from support.tiny_models import build_teacher
from support.traced import record
from support.traces import Lines, load, store
from transformers import AutoModelForCausalLM

from specscope.adapters import record_assisted
from specscope.engine.run.prompts import Prompt
from specscope.engine.tree.policy import chain_policy
from specscope.tracer.compare import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.oracle.check import check_trace

PROMPTS = [Prompt("short", ids=(5, 9, 2)), Prompt("long", ids=tuple(range(3, 40))), Prompt("same", ids=(44, 3, 3, 3))]
TOKENS = 16
DEPTH = 4


class Models:
    """A teacher, and an assistant that is often right: the teacher with noise on its weights."""

    def __init__(self, folder: Path) -> None:
        self.teacher_folder, self.assistant_folder = build_teacher(folder / "teacher"), folder / "assistant"
        self.teacher = AutoModelForCausalLM.from_pretrained(self.teacher_folder, dtype=torch.float32).eval()
        self.assistant = AutoModelForCausalLM.from_pretrained(self.teacher_folder, dtype=torch.float32).eval()
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in self.assistant.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.01)
        self.assistant.save_pretrained(self.assistant_folder)
        self.assistant = AutoModelForCausalLM.from_pretrained(self.assistant_folder, dtype=torch.float32).eval()
        settings = self.assistant.generation_config
        settings.num_assistant_tokens, settings.num_assistant_tokens_schedule = DEPTH, "constant"
        settings.assistant_confidence_threshold = 0.0

    def generate(self, prompt: Prompt, **options: Any) -> list[int]:
        torch.manual_seed(0)
        ids = torch.tensor([prompt.ids])
        options.setdefault("max_new_tokens", TOKENS)
        output = self.teacher.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)
        tokens: list[int] = output[0, ids.shape[1] :].tolist()
        return tokens


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def assisted(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the assistant."""
    path = tmp_path_factory.mktemp("assisted") / "theirs.jsonl"
    with record_assisted(models.teacher, path, prompt_ids=[prompt.id for prompt in PROMPTS]):
        for prompt in PROMPTS:
            models.generate(prompt, assistant_model=models.assistant)
    return path


@pytest.fixture(scope="module")
def ours(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This engine with the same two models."""
    path = tmp_path_factory.mktemp("ours") / "ours.jsonl"
    drafter = f"model:{models.assistant_folder}"
    choice = choice_of(models.teacher_folder, drafter, policy=chain_policy(DEPTH))
    record(choice, PROMPTS, path, tokens=TOKENS)
    return path


KINDS: dict[str, Callable[[Models], dict[str, Any]]] = {
    "assistant": lambda models: {"assistant_model": models.assistant},
    "lookup": lambda models: {"prompt_lookup_num_tokens": 3},
    "early exit": lambda models: {"assistant_early_exit": 4},
}


@pytest.mark.parametrize("drawn", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_recorded_is_sound_and_what_generate_returns(
    models: Models, tmp_path: Path, kind: str, drawn: bool
) -> None:
    options = KINDS[kind](models) | {"do_sample": drawn}
    prompts = PROMPTS[1:]
    alone = [models.generate(prompt, **options) for prompt in prompts]
    path = tmp_path / "theirs.jsonl"
    with record_assisted(models.teacher, path):
        watched = [models.generate(prompt, **options) for prompt in prompts]
    lines = load(path)
    assert watched == alone == [line["output_ids"] for line in lines if line["kind"] == "turn_end"]
    report = check_trace(path)
    assert (report.num_violations, report.end_reason) == (0, "complete")
    rules = {"lookup": "match"}.get(kind, "sampling") if drawn else "greedy"
    assert {line["accept"]["rule"] for line in lines if line["kind"] == "step"} == {rules}
    passed = {name for name, tally in report.invariants.items() if tally.passed}
    assert passed >= {"tensors.mask-is-ancestors", "tensors.position-is-length-plus-depth", "commit.length-equation"}
    assert ("accept.walk" in passed) is not drawn
    assert models.teacher._get_candidate_generator.__func__ is type(models.teacher)._get_candidate_generator


def test_transformers_decides_as_this_engine_does(assisted: Path, ours: Path) -> None:
    verdict = diff_traces(ours, assisted)
    assert (verdict.verdict, verdict.incomparable, verdict.roots) == ("equal", [], [])
    assert verdict.compared["accept"] > len(PROMPTS)
    assert verdict.impact.tokens_equal
    accepted = [line["accept"]["accepted_length"] for line in load(assisted) if line["kind"] == "step"]
    assert 0 < sum(accepted) < DEPTH * len(accepted), "drafts must hold and fail"


def test_eager_attention_shows_its_masks_and_a_stop_token_ends_the_turn(models: Models, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        models.teacher_folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = torch.tensor([PROMPTS[1].ids])
    path = tmp_path / "eager.jsonl"
    words = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "max_new_tokens": TOKENS}
    plain = model.generate(ids, **words)[0, ids.shape[1] :].tolist()
    with record_assisted(model, path):
        model.generate(ids, **words, prompt_lookup_num_tokens=3, eos_token_id=plain[5])
    lines = load(path)
    end = lines[-2]
    assert (end["reason"], end["output_ids"]) == ("eos", plain[: plain.index(plain[5]) + 1])
    assert all("mask_from" not in line["tensors"] for line in lines if line["kind"] == "step")
    assert check_trace(path).num_violations == 0


Change = Callable[[dict[str, Any]], Any]


def other_bit(step: dict[str, Any]) -> None:
    step["tensors"]["mask_rows"][2] = "05"


MUTANTS: dict[str, tuple[Change, str]] = {
    "mask": (other_bit, "tensors.mask-is-ancestors"),
    "position": (
        lambda step: step["tensors"]["positions"].__setitem__(1, 99),
        "tensors.position-is-length-plus-depth",
    ),
    "choice": (lambda step: step["verify"]["argmax"].__setitem__(0, 60), "verify.argmax-is-top"),
    "path": (lambda step: step["accept"].update(path=[1, 2, 3, 4], accepted_length=4), "accept.walk"),
    "cache": (lambda step: step["commit"].update(committed_after=7), "commit.length-equation"),
    "draft": (lambda step: step["tree"]["tokens"].__setitem__(4, 60), "tensors.tokens-are-the-trees"),
    "score": (lambda step: step["tree"]["scores"].__setitem__(3, -9.5), "tree.scores-add-up"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_in_a_recorded_run_is_found_and_blamed(assisted: Path, ours: Path, tmp_path: Path, name: str) -> None:
    change, invariant = MUTANTS[name]
    lines: Lines = load(assisted)
    rejected = [
        line
        for line in lines
        if line["kind"] == "step" and len(line["tree"]["tokens"]) == DEPTH + 1 and line["accept"]["accepted_length"] < 2
    ]
    change(rejected[0])
    broken = store(lines, tmp_path / "broken.jsonl")
    assert invariant in {key for key, tally in check_trace(broken).invariants.items() if tally.failed}
    verdict = diff_traces(ours, broken)
    assert (verdict.verdict, verdict.exit_code) == ("different", 1)
    assert {violation.side for violation in verdict.violations} == {"b"}


def test_wrong_use_is_refused(models: Models, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no assisted generation ran"), record_assisted(models.teacher, tmp_path / "a"):
        models.generate(PROMPTS[0])
    with pytest.raises(UsageError, match="a trace is of one setting"), record_assisted(models.teacher, tmp_path / "b"):
        [models.generate(PROMPTS[0], prompt_lookup_num_tokens=number) for number in (3, 4)]
    assert load(tmp_path / "b")[-1]["reason"] == "failed"
    with pytest.raises(UsageError, match="exists already"), record_assisted(models.teacher, tmp_path / "b"):
        models.generate(PROMPTS[0], prompt_lookup_num_tokens=3)


def test_a_heuristic_schedule_and_unnamed_prompts_are_recorded(models: Models, tmp_path: Path) -> None:
    settings = models.assistant.generation_config
    settings.num_assistant_tokens_schedule = "heuristic"
    path = tmp_path / "heuristic.jsonl.gz"
    try:
        with record_assisted(models.teacher, path):
            models.generate(PROMPTS[0], assistant_model=models.assistant)
    finally:
        settings.num_assistant_tokens_schedule, settings.num_assistant_tokens = "constant", DEPTH
    report = check_trace(path)
    assert (report.num_violations, report.manifest.tree_policy.adaptive) == (0, True)
