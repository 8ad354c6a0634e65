"""``benchmarks/conformance_vllm.py``: what vLLM is called with, what its answers are held against, and the table.

vLLM is not here: a stand-in decodes in its place.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from safetensors import safe_open
from support.traces import load, store
from support.vllm_stand_in import LLM, params

from benchmarks import conformance_vllm
from benchmarks.conformance_vllm import SETTINGS, arguments_of, check_against, cut_teacher, record_vllm_run, table
from specscope.adapters.vllm_replay import RecordedDrafts

SETTING = SETTINGS[0]
PROMPTS = {"a": [4, 7, 1], "b": [9, 9]}


class Answering(LLM):
    """Answers as vLLM does."""

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def generate(self, prompts: Any, *settings: Any, **_: Any) -> Any:
        outputs = super().generate([prompt["prompt_token_ids"] for prompt in prompts], *settings)
        return [answer(*pair) for pair in zip(outputs, self.accepted, strict=True)]


def answer(output: list[int], accepted: list[int] | None) -> SimpleNamespace:
    """As vLLM gives it; it counts nothing unless it is asked to."""
    metrics = None if accepted is None else SimpleNamespace(per_step_accepted=accepted)
    return SimpleNamespace(outputs=[SimpleNamespace(token_ids=output, spec_decode_metrics=metrics, stop_reason=None)])


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The trace of a run of the stand-in, recorded as vLLM's is."""
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = Answering, params  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    trace = tmp_path / f"{SETTING.name}-vllm.jsonl"
    record_vllm_run({"model": "toy"}, PROMPTS, {"temperature": 0.0, "max_tokens": 6}, trace)
    return trace


def test_what_was_asked_for_is_recorded(recorded: Path) -> None:
    lines = load(recorded)
    starts = [line for line in lines if line["kind"] == "turn_start"]
    assert {start["prompt_id"]: start["prompt_ids"] for start in starts} == PROMPTS
    assert [len(line["output_ids"]) for line in lines if line["kind"] == "turn_end"] == [6, 6]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("output", "the trace has another output than vLLM gave"),
        ("accepted lengths", "the trace has other accepted lengths than vLLM counted"),
        ("no counts", "vLLM's answer has no spec_decode_metrics to compare"),
    ],
)
def test_a_trace_that_is_not_what_vllm_answered_is_refused(recorded: Path, what: str, words: str) -> None:
    lines = load(recorded)
    answers = {}
    for turn, name in enumerate(PROMPTS):
        (output,) = (line["output_ids"] for line in lines if line["kind"] == "turn_end" and line["turn"] == turn)
        steps = [line for line in lines if line["kind"] == "step" and line["turn"] == turn]
        answers[name] = answer(output, [step["accept"]["accepted_length"] for step in steps])
    check_against(recorded, answers)
    output_of_b = answers["b"].outputs[0]
    if what == "output":
        output_of_b.token_ids = output_of_b.token_ids[:-1]
    elif what == "accepted lengths":
        output_of_b.spec_decode_metrics.per_step_accepted[0] += 1
    else:
        answers["a"].outputs[0].spec_decode_metrics = output_of_b.spec_decode_metrics = None
        answers["a"].outputs[0].stop_reason = "what ended it"  # then vLLM gives no counts
    with pytest.raises(SystemExit, match=f"^b: {words}"):
        check_against(recorded, answers)


def test_vllm_is_given_its_own_drafter_or_what_was_recorded(recorded: Path) -> None:
    by_name = {setting.name: setting for setting in SETTINGS}
    drafting = arguments_of(by_name["draft model"], recorded)["speculative_config"]
    assert (drafting["method"], Path(drafting["model"])) == ("draft_model", recorded.parent / "teacher-8")
    replayed = arguments_of(by_name["eagle3, our drafts"], recorded)
    assert replayed["speculative_config"]["method"] == "custom_class"
    drafts = RecordedDrafts(SimpleNamespace(additional_config=replayed["additional_config"]))
    assert drafts.recorded["drafter"]["kind"] == "ngram"


def test_the_cut_teacher_has_the_first_layers_alone(tmp_path: Path) -> None:
    cut_teacher(tmp_path / "cut", layers=2)
    assert json.loads((tmp_path / "cut" / "config.json").read_bytes())["num_hidden_layers"] == 2
    with safe_open(tmp_path / "cut" / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {name.split(".")[2] for name in names if name.startswith("model.layers.")} == {"0", "1"}
    assert "model.embed_tokens.weight" in names


def test_the_command_prints_what_the_pairs_came_to(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def record(setting: conformance_vllm.Setting, _prompts: Any, folder: Path, given: argparse.Namespace) -> None:
        assert given.vllm_python == "P"
        lines = load(recorded)
        store(lines, folder / f"{setting.name}-ours.jsonl")
        lines[0]["run_id"] = "another"
        store(lines, folder / f"{setting.name}-vllm.jsonl")

    monkeypatch.setattr(conformance_vllm, "record_both", record)
    monkeypatch.setattr(conformance_vllm, "cut_teacher", lambda *_, **__: None)
    monkeypatch.setattr(conformance_vllm, "demo_prompts", lambda limit: {"one": [1] * limit})
    monkeypatch.setattr(sys, "argv", ["conformance", "--vllm-python", "P", "--only", SETTINGS[1].name])
    conformance_vllm.main()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert printed[-1].startswith(f"| {SETTINGS[1].name} | ")
    assert printed[-1].endswith("| equal |")
    assert table([], recorded.parent)[0].startswith("| drafts | accepted length")
