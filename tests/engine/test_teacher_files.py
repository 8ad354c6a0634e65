"""Teachers in their true formats: they compute what transformers computes; what cannot verify trees is refused."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import COMMON, VOCAB
from tokenizers import Tokenizer, models
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from specscope.engine.teacher.files import sliding_windows
from specscope.engine.teacher.model import Teacher, TeacherOptions
from specscope.tracer.errors import UsageError

OPTIONS = TeacherOptions(dtype=torch.float32, device=torch.device("cpu"), attention="eager")
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2}
TEACHERS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**COMMON),
    "llama-tied": LlamaConfig(**COMMON, tie_word_embeddings=True),
    "llama-scaled": LlamaConfig(
        **COMMON,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "qwen2": Qwen2Config(**COMMON),
    "qwen3": Qwen3Config(**COMMON, head_dim=16),
    "mistral": MistralConfig(**COMMON, sliding_window=None),
    "mixtral": MixtralConfig(**COMMON, **EXPERTS, num_local_experts=4),
    "qwen3-moe": Qwen3MoeConfig(**COMMON, **EXPERTS, num_experts=4, moe_intermediate_size=16),
}


def random_model(config: PreTrainedConfig) -> Any:
    """A random model whose biases are not zero, so that losing one shows."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    return model


def logits_of(model: Any) -> torch.Tensor:
    ids = torch.arange(24)[None] % VOCAB
    with torch.inference_mode():
        logits: torch.Tensor = model(ids, attention_mask=causal(24, model.dtype), use_cache=False).logits
    return logits


def causal(length: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.full((length, length), -torch.inf, dtype=dtype).triu(1)[None, None]


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("attention", ["eager", "fused"])
def test_a_teacher_computes_what_transformers_computes(tmp_path: Path, name: str, attention: str) -> None:
    model = random_model(TEACHERS[name])
    model.save_pretrained(tmp_path)
    teacher = Teacher.load(
        str(tmp_path), TeacherOptions(dtype=torch.float32, device=torch.device("cpu"), attention=attention)
    )
    assert type(teacher.model) is type(model)
    assert teacher.config._attn_implementation == f"specscope_{attention}"
    assert torch.allclose(logits_of(teacher.model), logits_of(model), atol=2e-5)


def test_shards_with_an_index_are_one_model(tmp_path: Path) -> None:
    model = random_model(TEACHERS["llama"])
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert torch.allclose(logits_of(Teacher.load(str(tmp_path), OPTIONS).model), logits_of(model), atol=2e-5)
    shards[1].unlink()
    with pytest.raises(UsageError, match="cannot load a teacher"):
        Teacher.load(str(tmp_path), OPTIONS)


@pytest.mark.parametrize("num_files", [1, 2])
def test_pickled_weights_are_refused_with_a_conversion(tmp_path: Path, num_files: int) -> None:
    model = random_model(TEACHERS["llama-tied"])
    model.config.save_pretrained(tmp_path)
    tensors = list(model.state_dict().items())
    for number in range(num_files):
        name = "pytorch_model.bin" if num_files == 1 else f"pytorch_model-0000{number + 1}-of-00002.bin"
        torch.save(dict(tensors[number::num_files]), tmp_path / name)
    with pytest.raises(UsageError, match="its weights are pickled, which are never read; convert them by: ") as refused:
        Teacher.load(str(tmp_path), OPTIONS)
    command = shlex.split(str(refused.value).partition("convert them by: ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert torch.allclose(logits_of(Teacher.load(str(tmp_path), OPTIONS).model), logits_of(model), atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_asked_for_is_the_dtype_computed_in(tmp_path: Path, dtype: torch.dtype) -> None:
    random_model(TEACHERS["llama"]).to(torch.bfloat16).save_pretrained(tmp_path)
    teacher = Teacher.load(str(tmp_path), TeacherOptions(dtype=dtype, device=torch.device("cpu"), attention="fused"))
    assert {parameter.dtype for parameter in teacher.model.parameters()} == {dtype}
    assert logits_of(teacher.model).dtype == dtype


# openPangu-Embedded: Llama under another name, one flag for the biases of q, k, v and o, its own code beside it.
PANGU: dict[str, Any] = {
    "architectures": ["PanguEmbeddedForCausalLM"],
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_openpangu_dense.PanguEmbeddedConfig",
        "AutoModel": "modeling_openpangu_dense.PanguEmbeddedModel",
        "AutoModelForCausalLM": "modeling_openpangu_dense.PanguEmbeddedForCausalLM",
    },
    "bias": True,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "PanguEmbedded",
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "rope_theta": 16000000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.53.2",
    "use_cache": True,
    **COMMON,
    "eos_token_id": 45,
}


def write_pangu(folder: Path, shard_size: str = "1GB", **changes: Any) -> LlamaForCausalLM:
    """A random openPangu-Embedded folder, with code that must not run; returns the Llama of the same tensors."""
    same = LlamaConfig(
        **{**COMMON, "eos_token_id": 45, "pad_token_id": 0},
        rms_norm_eps=1e-5,
        rope_parameters={"rope_theta": 16000000.0, "rope_type": "default"},
        attention_bias=True,
    )
    model = random_model(same)
    model.save_pretrained(folder, max_shard_size=shard_size)
    config = {key: value for key, value in (PANGU | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_openpangu_dense.py").write_text("raise SystemExit('remote code ran')\n")
    (folder / "configuration_openpangu_dense.py").write_text(
        "from transformers import PreTrainedConfig\n\n\n"
        "class PanguEmbeddedConfig(PreTrainedConfig):\n    model_type = 'PanguEmbedded'\n"
    )
    llama: LlamaForCausalLM = model
    return llama


@pytest.mark.parametrize("shard_size", ["1GB", "40KB"])
@pytest.mark.parametrize("remote", [False, True])
def test_pangu_is_the_llama_of_the_same_tensors(tmp_path: Path, shard_size: str, remote: bool) -> None:
    model = write_pangu(tmp_path, shard_size)
    options = TeacherOptions(
        dtype=torch.float32, device=torch.device("cpu"), attention="fused", allow_remote_code=remote
    )
    teacher = Teacher.load(str(tmp_path), options)
    assert isinstance(teacher.model, LlamaForCausalLM)
    assert torch.equal(logits_of(teacher.model), logits_of(model))
    loaded = teacher.model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
    assert teacher.eos_token_ids == [45]
    manifest = teacher.manifest()
    assert (manifest.rope_theta, manifest.max_positions, manifest.num_layers) == (16000000.0, 256, 8)


@pytest.mark.parametrize("changes", [{"rope_theta": 10000.0}, {"rms_norm_eps": 0.1}, {"bias": False}])
def test_the_comparison_would_notice_a_field_that_was_mapped_wrongly(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = write_pangu(tmp_path, **changes)
    if "bias" in changes:
        with pytest.raises(UsageError, match=r"unexpected model\.layers\.0\.self_attn\.k_proj\.bias"):
            Teacher.load(str(tmp_path), OPTIONS)
    else:
        assert not torch.allclose(logits_of(Teacher.load(str(tmp_path), OPTIONS).model), logits_of(model), atol=1e-3)


@pytest.mark.parametrize("field", ["bias", "rms_norm_eps", "rope_theta", "num_key_value_heads"])
def test_no_field_of_pangus_is_guessed(tmp_path: Path, field: str) -> None:
    changes: dict[str, Any] = {field: None}
    write_pangu(tmp_path, **changes)
    with pytest.raises(UsageError, match=f"lacks {field}, which PanguEmbeddedForCausalLM needs"):
        Teacher.load(str(tmp_path), OPTIONS)


def test_pangus_weights_are_loaded_strictly(tmp_path: Path) -> None:
    write_pangu(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    bias = tensors.pop("model.layers.2.self_attn.o_proj.bias")
    tensors["model.layers.3.self_attn.param_sink_key"] = bias
    tensors["model.norm.weight"] = torch.ones(5)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UsageError) as caught:
        Teacher.load(str(tmp_path), OPTIONS)
    message = str(caught.value)
    assert "missing model.layers.2.self_attn.o_proj.bias" in message
    assert "model.norm.weight: got [5], wanted [32]" in message
    assert "unexpected model.layers.3.self_attn.param_sink_key" in message


def test_pangus_tokenizer_is_not_run_but_a_plain_one_beside_it_is_read(tmp_path: Path) -> None:
    write_pangu(tmp_path)
    config = {
        "auto_map": {"AutoTokenizer": ["tokenization_openpangu.PanguTokenizer", None]},
        "tokenizer_class": "PanguTokenizer",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "tokenization_openpangu.py").write_text("raise SystemExit('remote code ran')\n")
    assert Teacher.load(str(tmp_path), OPTIONS).tokenizer is None
    plain = Tokenizer(models.WordLevel({"<unk>": 0, "a": 7}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=plain).save_pretrained(tmp_path / "plain")
    (tmp_path / "plain" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    tokenizer = Teacher.load(str(tmp_path), OPTIONS).tokenizer
    assert tokenizer is not None
    assert tokenizer("a").input_ids == [7]


@pytest.mark.parametrize("tensor", ["model.layers.3.mlp.up_proj.weight", "model.embed_tokens.weight"])
def test_weights_that_are_not_the_files_are_refused_by_name(tmp_path: Path, tensor: str) -> None:
    random_model(TEACHERS["qwen2"]).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    whole = tensors.pop(tensor)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=f"do not fit its config.json: missing {tensor}"):
        Teacher.load(str(tmp_path), OPTIONS)
    save_file(tensors | {tensor: whole[:3].clone()}, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=rf"{tensor}: got \[3, 32\], wanted"):
        Teacher.load(str(tmp_path), OPTIONS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "qwen3_next"}, "layers of types .*linear_attention"),
        ({"model_type": "jamba"}, "layers of types .*linear_attention|keeps a running state"),
        ({"model_type": "mamba"}, "layers of types .*linear_attention|keeps a running state"),
        ({"model_type": "rwkv"}, "keeps a running state .model type rwkv."),
        ({"model_type": "bloom"}, "takes no position ids"),
        ({"model_type": "falcon", "alibi": True}, "takes no position ids"),
        ({"model_type": "t5"}, "is no plain decoder"),
        (
            {"model_type": "llama", "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rope_type 'dynamic', which changes with the length",
        ),
        ({"model_type": "unheard-of"}, "cannot read a model configuration"),
        ({"model_type": "llama", "num_attention_heads": "four"}, "cannot read a model configuration"),
    ],
)
def test_what_cannot_verify_trees_is_refused_with_the_reason(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(COMMON | config))
    with pytest.raises(UsageError, match=message) as caught:
        Teacher.load(str(tmp_path), OPTIONS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "windows"),
    [
        ({"model_type": "mistral", "max_position_embeddings": 4097}, [4096] * 4),  # its default
        ({"model_type": "mistral", "max_position_embeddings": 4096}, None),
        ({"model_type": "starcoder2", "sliding_window": 64}, [64] * 4),
        (
            {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
            [None, None, 8, 8],
        ),
        ({"model_type": "gemma2", "sliding_window": 255}, [255, None, 255, None]),
        ({"model_type": "gemma3_text", "max_position_embeddings": 4097}, [4096] * 4),
    ],
)
def test_which_layers_slide_is_read_from_the_configuration(
    config: dict[str, Any], windows: list[int | None] | None
) -> None:
    fields = COMMON | {"num_hidden_layers": 4, "bos_token_id": 1, "eos_token_id": 1} | config
    assert sliding_windows(AutoConfig.for_model(**fields)) == windows


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000])
def test_a_broken_config_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match="cannot read a model configuration") as caught:
        Teacher.load(str(tmp_path), OPTIONS)
    assert "\n" not in str(caught.value)
