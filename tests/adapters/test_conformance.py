"""``benchmarks/conformance.py``: it records both sides as it is told to, and its table says what their traces came to.

The official code is not here: a stand-in has its names and calls, in a checkout that is made for the test.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from statistics import fmean

import pytest
from support import eagle_stand_in
from support.traces import Lines, store

from benchmarks import conformance
from benchmarks.conformance import Setting, record_both, table

SETTING = Setting(depth=2, top_k=2, budget=4)
PROMPTS = {"a": [4, 7, 1], "b": [9, 9]}
LOADING = """

def from_pretrained(use_eagle3, base_model_path, ea_model_path, total_token, depth, top_k, torch_dtype):
    assert use_eagle3 and (total_token, depth, top_k, torch_dtype) == (5, 1, 2, torch.float32)
    return EaModel()


EaModel.from_pretrained = staticmethod(from_pretrained)
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trace of the stand-in, which a process of its own recorded; ours is left out."""
    folder = tmp_path_factory.mktemp("conformance")
    checkout = folder / "checkout" / "eagle" / "model"
    checkout.mkdir(parents=True)
    source = Path(eagle_stand_in.__file__).read_text(encoding="utf-8")
    (checkout / "ea_model.py").write_text(source + LOADING, encoding="utf-8")
    given = Namespace(eagle=str(folder / "checkout"), eagle_packages=str(folder / "packages"), max_new_tokens=6)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(conformance, "record_ours", lambda *_: None)
        record_both(SETTING, PROMPTS, folder, given)
    return folder


@pytest.fixture
def traces(recorded: Path, tmp_path: Path) -> Path:
    """A folder with two equal traces, of two runs."""
    lines = records(recorded / f"{SETTING.name}-official.jsonl")
    store(lines, tmp_path / f"{SETTING.name}-official.jsonl")
    lines[0]["run_id"] = "another"
    store(lines, tmp_path / f"{SETTING.name}-ours.jsonl")
    return tmp_path


def records(trace: Path) -> Lines:
    return [json.loads(line) for line in trace.read_bytes().splitlines()]


def test_every_prompt_is_recorded_with_the_models_that_were_named(recorded: Path) -> None:
    lines = records(recorded / f"{SETTING.name}-official.jsonl")
    starts = [line for line in lines if line["kind"] == "turn_start"]
    assert {start["prompt_id"]: start["prompt_ids"] for start in starts} == PROMPTS
    assert [len(line["output_ids"]) for line in lines if line["kind"] == "turn_end"] == [6, 6]


def test_the_table_says_what_equal_traces_came_to(traces: Path) -> None:
    steps = [line for line in records(traces / f"{SETTING.name}-ours.jsonl") if line["kind"] == "step"]
    accepted = f"{fmean(step['accept']['accepted_length'] for step in steps):.3f}"
    shape = f"| {SETTING.depth} | {SETTING.top_k} | {SETTING.budget} | float32 |"
    assert table([SETTING], traces)[2:] == [
        f"{shape} {accepted}, {accepted} | 0 violations in {len(steps)} steps | equal |"
    ]


def test_it_says_where_ours_decides_otherwise(traces: Path) -> None:
    ours = traces / f"{SETTING.name}-ours.jsonl"
    lines = records(ours)
    step = next(line for line in lines if line["kind"] == "step")
    step["accept"]["bonus_token"] += 1
    store(lines, ours)
    assert table([SETTING], traces)[-1].endswith("| different |")


def test_it_says_what_is_wrong_with_the_official_trace(traces: Path) -> None:
    official = traces / f"{SETTING.name}-official.jsonl"
    lines = records(official)
    step = next(line for line in lines if line["kind"] == "step")
    step["tensors"]["positions"][2] += 1
    store(lines, official)
    last = table([SETTING], traces)[-1]
    assert "| 1 violations in " in last
    assert last.endswith("| different |")


def test_the_command_prints_the_settings_that_were_asked_for(
    traces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def record(setting: Setting, prompts: dict[str, list[int]], folder: Path, given: Namespace) -> None:
        assert prompts.keys() == {"one"}
        asked.append(setting)
        for side in ("official", "ours"):
            (folder / f"{setting.name}-{side}.jsonl").write_bytes(
                (traces / f"{SETTING.name}-{side}.jsonl").read_bytes()
            )

    monkeypatch.setattr(conformance, "record_both", record)
    monkeypatch.setattr(conformance, "demo_prompts", lambda limit: {"one": [1] * limit})
    name = conformance.SETTINGS[1].name
    keep = traces / "kept"
    arguments = ["--eagle", "E", "--eagle-packages", "P", "--only", name, "--keep", str(keep)]
    monkeypatch.setattr(sys, "argv", ["conformance", *arguments])
    conformance.main()
    printed = capsys.readouterr().out.splitlines()
    assert asked == [conformance.SETTINGS[1]]
    assert [line.rpartition("| ")[2] for line in printed] == ["diff |", "--- |", "equal |"]
    assert {path.name for path in keep.glob("*.jsonl")} == {f"{name}-official.jsonl", f"{name}-ours.jsonl"}
