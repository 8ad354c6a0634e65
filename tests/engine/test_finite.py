"""Weights that are no numbers are refused where they are loaded, and run where that is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.called import specscope
from support.commands import Outcome
from transformers import AutoModelForCausalLM

from specscope.engine.finite import is_finite
from specscope.engine.hf import TreeGenerate, tree_generate
from specscope.engine.load.models import DEMO_MODELS
from specscope.tracer.errors import UsageError

#: Of the demo's models: the folder, a tensor of it, and how it is chosen.
MODELS = {
    "teacher": ("teacher", "model.layers.3.mlp.up_proj.weight", "--teacher"),
    "eagle3": ("drafter", "midlayer.mlp.up_proj.weight", "--drafter"),
    "early-exit": ("exit_head", "norm.weight", "--drafter"),
}


def damaged(folder: Path, name: str, tensor: str, value: float) -> Path:
    """A copy of one of the demo's models with one weight replaced."""
    copy = Path(shutil.copytree(DEMO_MODELS / name, folder / name))
    for file in copy.glob("*.safetensors"):
        weights = load_file(file)
        if tensor in weights:
            weights[tensor].view(-1)[5] = value
            save_file(weights, file, {"format": "pt"})
            return copy
    raise AssertionError(f"{tensor} is not in {copy}")


def run(*arguments: str | Path) -> Outcome:
    return specscope("run", "--prompt", "def f(", "--max-new-tokens", "6", "--json", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("kind", list(MODELS))
def test_a_weight_that_is_no_number_is_refused_by_name(tmp_path: Path, kind: str, value: float) -> None:
    name, tensor, option = MODELS[kind]
    folder = damaged(tmp_path, name, tensor, value)
    chosen = [option, str(folder) if kind == "teacher" else f"{kind}:{folder}"]
    chosen += ["--drafter", "ngram"] if kind == "teacher" else []
    done = run(*chosen, "--trace", tmp_path / "t.jsonl")
    assert done.code == 2
    assert done.err.startswith(f"error: {tensor} in {folder}")
    assert "holds NaN or infinity" in done.err
    assert "--allow-nonfinite" in done.err
    assert not (tmp_path / "t.jsonl").exists()


@pytest.mark.slow
def test_a_broken_drafter_is_recorded_and_replayed_where_that_is_asked_for(tmp_path: Path) -> None:
    name, tensor, _ = MODELS["eagle3"]
    folder, trace = damaged(tmp_path, name, tensor, float("nan")), tmp_path / "t.jsonl"
    done = run("--drafter", f"eagle3:{folder}", "--allow-nonfinite", "--trace", trace)
    assert (done.code, done.err) == (0, "")
    found = specscope("check", trace)
    assert found.code == 1
    assert "draft.scores-finite" in found.out
    assert specscope("replay", trace, "--out", tmp_path / "again.jsonl").code == 0


@pytest.mark.slow
def test_a_dtype_that_is_too_narrow_is_named(tmp_path: Path) -> None:
    name, tensor, _ = MODELS["teacher"]
    folder = damaged(tmp_path, name, tensor, 1e30)
    file = next(iter(folder.glob("*.safetensors")))
    if load_file(file)[tensor].dtype == torch.float16:
        pytest.skip("the demo's own weights are as narrow")
    done = run("--teacher", folder, "--drafter", "ngram", "--dtype", "float16")
    assert done.code == 2
    assert "torch.float16 may be too narrow" in done.err


def test_a_given_model_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, teacher_folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(teacher_folder, dtype=torch.float32).eval()
    weight = model.model.layers[0].mlp.up_proj.weight

    def generate(**options: Any) -> torch.Tensor:
        asked = {"custom_generate": tree_generate, "specscope": TreeGenerate(**options), "do_sample": False}
        output: torch.Tensor = model.generate(torch.tensor([[5, 9, 2]]), max_new_tokens=4, pad_token_id=0, **asked)
        return output

    kept = float(weight.data[0, 0])
    weight.data[0, 0] = float("nan")
    with pytest.raises(UsageError, match=r"mlp\.up_proj\.weight .*allow_nonfinite=True"):
        generate()
    generate(allow_nonfinite=True)
    weight.data[0, 0] = kept
    generate()
    monkeypatch.setattr("specscope.engine.finite.is_finite", refuse_to_look)
    generate()


def refuse_to_look(_: torch.Tensor) -> bool:
    raise AssertionError("read again")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2])
def test_every_kind_of_number_is_understood(dtype: torch.dtype) -> None:
    whole = torch.ones(3, 4).to(dtype)
    assert is_finite(whole)
    assert is_finite(whole[:0])
    for value in (float("nan"), float("inf"), -float("inf")):
        assert not is_finite(torch.tensor([1.0, value]).to(dtype))
    assert is_finite(torch.ones(3, dtype=torch.int64))
