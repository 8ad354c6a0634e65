"""``benchmarks/peers.py``: every engine answers from its own process, and the table says where outputs part.

Official EAGLE is not here: a stand-in has its interface, and like it ends some tokens after the length that it is
given.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.traces import ROOT

PROMPTS = {"a": [5, 9, 2], "b": [44, 3, 3, 3, 60, 21, 7, 7]}
STAND_IN = """
import json
from pathlib import Path
from types import SimpleNamespace
from transformers import AutoModelForCausalLM

class EaModel:
    tokenizer = SimpleNamespace(eos_token_id=0)

    @classmethod
    def from_pretrained(cls, use_eagle3, base_model_path, ea_model_path, total_token, depth, top_k, torch_dtype):
        assert use_eagle3 and (total_token, depth, top_k) == (10, 3, 3)
        assert (Path(ea_model_path) / "config.json").exists()
        assert "rope_theta" in json.loads((Path(base_model_path) / "config.json").read_text())
        model = cls()
        model.teacher = AutoModelForCausalLM.from_pretrained(base_model_path, dtype=torch_dtype)
        return model

    def eval(self):
        print("libraries print what they like")
        return self

    def naivegenerate(self, input_ids, temperature, max_new_tokens, max_length):
        longer = max_new_tokens + 1
        return self.teacher.generate(input_ids, max_new_tokens=longer, do_sample=False, pad_token_id=0)

    def eagenerate(self, input_ids, temperature, max_new_tokens, max_length):
        output = self.naivegenerate(input_ids, temperature, max_new_tokens + 3, max_length)
        if input_ids.shape[1] == {wrong_length}:
            output[0, input_ids.shape[1] + 4] += 1
        return output
"""


@pytest.fixture
def options(tmp_path: Path, teacher_folder: Path, head_folder: Path) -> list[str]:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("\n".join(json.dumps({"id": name, "ids": ids}) for name, ids in PROMPTS.items()))
    models = ["--teacher", str(teacher_folder), "--drafter", str(head_folder), "--prompts", str(prompts)]
    return [*models, "--max-new-tokens", "8", "--depth", "4", "--top-k", "3", "--budget", "9"]


def checkout(folder: Path, wrong_length: int) -> str:
    (folder / "eagle" / "model").mkdir(parents=True)
    (folder / "eagle" / "model" / "ea_model.py").write_text(STAND_IN.replace("{wrong_length}", str(wrong_length)))
    return str(folder)


def peers(options: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.peers", *options]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def rows(printed: str) -> dict[str, list[str]]:
    """The table's cells by the first of each row."""
    cells = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.slow
def test_every_engine_is_measured_against_its_own_greedy_decoding(tmp_path: Path, options: list[str]) -> None:
    done = peers([*options, "--eagle", checkout(tmp_path / "official", wrong_length=0)])
    assert done.returncode == 0, done.stderr
    table = rows(done.stdout)
    header = ["tokens/s", "over its greedy: mean", "median", "worst prompt", "over official EAGLE", "outputs"]
    assert table.pop("engine") == header
    names = {
        "transformers": ("greedy", "assisted", "lookup"),
        "ours": ("greedy", "eagle3", "eagle3, budget auto", "ngram"),
    }
    labels = [f"{engine}: {name}" for engine, methods in names.items() for name in methods]
    assert list(table) == [*labels, "eagle: greedy", "eagle: eagle3"]
    for label, cells in table.items():
        assert cells[-1] == "same", label
        assert float(cells[0]) > 0
        if label.endswith("greedy"):
            assert cells[1:4] == ["-"] * 3
        else:
            average, _, worst = (float(cell.removesuffix("x")) for cell in cells[1:4])
            assert worst <= average
    assert table["eagle: eagle3"][4] == "1.00x"
    ours, official = float(table["ours: eagle3"][0]), float(table["eagle: eagle3"][0])
    assert float(table["ours: eagle3"][4].removesuffix("x")) == pytest.approx(ours / official, abs=0.02)


@pytest.mark.slow
def test_the_first_difference_is_named_and_without_a_checkout_the_rest_is_printed(
    tmp_path: Path, options: list[str]
) -> None:
    done = peers([*options, "--eagle", checkout(tmp_path / "official", wrong_length=len(PROMPTS["b"]))])
    table = rows(done.stdout)
    assert table["eagle: eagle3"][-1] == "b, token 4"
    assert table["ours: eagle3"][-1] == "same"
    without = peers([*options, "--limit", "1"])
    assert not [label for label in rows(without.stdout) if label.startswith("eagle:")]
    assert "official EAGLE did not run: give its checkout with --eagle" in without.stdout


@pytest.mark.slow
def test_a_checkout_that_cannot_be_loaded_is_one_line(tmp_path: Path, options: list[str]) -> None:
    folder = tmp_path / "official"
    (folder / "eagle" / "model").mkdir(parents=True)
    (folder / "eagle" / "model" / "ea_model.py").write_text("from transformers.utils import LossKwargs")
    done = peers([*options, "--eagle", str(folder)])
    assert done.returncode == 1
    hint = r"; it requires transformers 4\.53: see --eagle-packages"
    assert re.fullmatch(rf"eagle failed: ImportError: .*{hint}\n", done.stderr)
