"""Where teachers come from, and which are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from support.tiny_models import build_teacher, tiny_models

from specscope.engine.teacher.model import Teacher, TeacherOptions
from specscope.tracer.errors import UsageError

OPTIONS = TeacherOptions(dtype=torch.float32, device=torch.device("cpu"), attention="fused")


def test_an_id_in_the_local_cache_is_found_without_a_network(
    teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(teacher_folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    teacher = Teacher.load("someone/tiny", OPTIONS)
    assert teacher.num_layers == 8
    assert teacher.manifest().weights_digest == tiny_models(teacher_folder, None).teacher.manifest().weights_digest


@pytest.mark.parametrize("name", ["none", "some/one/else", "no-one/nothing", "/no/folder", "../x", ""])
def test_what_is_nowhere_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        Teacher.load(name, OPTIONS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}, "cannot be rolled back to a branch"),
        (
            {"model_type": "recurrent_gemma", "architectures": ["RecurrentGemmaForCausalLM"]},
            r"layers of types \['linear_attention', 'sliding_attention'\]",
        ),
        ({"model_type": "unheard-of"}, "cannot read a model configuration"),
    ],
)
def test_a_teacher_that_cannot_verify_trees_is_refused(
    teacher_folder: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    shutil.copytree(teacher_folder, tmp_path / "t")
    config = json.loads((tmp_path / "t" / "config.json").read_text())
    (tmp_path / "t" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UsageError, match=message):
        Teacher.load(str(tmp_path / "t"), OPTIONS)


def test_a_teacher_whose_layers_slide_is_loaded(teacher_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher_folder, tmp_path / "t")
    config = json.loads((tmp_path / "t" / "config.json").read_text())
    config |= {"model_type": "mistral", "sliding_window": 64, "architectures": ["MistralForCausalLM"]}
    (tmp_path / "t" / "config.json").write_text(json.dumps(config))
    assert Teacher.load(str(tmp_path / "t"), OPTIONS).sliding_windows == [64] * 8


def test_a_folder_without_safetensors_is_refused(teacher_folder: Path, tmp_path: Path) -> None:
    shutil.copy(teacher_folder / "config.json", tmp_path)
    with pytest.raises(UsageError, match="cannot load a teacher"):
        Teacher.load(str(tmp_path), OPTIONS)
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(UsageError, match="cannot load a teacher"):
        Teacher.load(str(tmp_path), OPTIONS)


@pytest.mark.parametrize("version", ["4.57.1", "5.16.9", "5.99.0"])
def test_an_untried_transformers_is_refused_by_name(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specscope.engine.teacher.model.version", lambda _: version)
    with pytest.raises(UsageError, match=f"got transformers {version}, wanted 5.17 to 5.24"):
        Teacher.load("demo", OPTIONS)


def test_digests_tell_weights_apart(teacher_folder: Path, tmp_path: Path) -> None:
    other = build_teacher(tmp_path, "biased-llama")
    digests = {tiny_models(folder, None).teacher.manifest().weights_digest for folder in (teacher_folder, other)}
    assert len(digests) == 2
    assert None not in digests
