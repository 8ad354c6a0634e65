"""Teachers of other widths than the demo's, with random weights and a random head; one has outlier channels.

In large models a few channels of the residual stream are hundreds of times as large as the others, from the first
layers on (Dettmers et al., "LLM.int8()", 2022; Sun et al., "Massive Activations", 2024): what rounds there is coarse.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from benchmarks.verdicts.cells import ModelName
from specscope.engine.drafters.eagle3.files import save_head
from specscope.engine.drafters.eagle3.head import Eagle3Head, HeadConfig

VOCAB = 1024
OUTLIER_CHANNELS, OUTLIER_SIZE = 3, 100.0


class ModelFolders(NamedTuple):
    """What a command line would name; ``demo`` and ``eagle3`` for the bundled models."""

    teacher: str
    drafter: str


def build_all(folder: Path) -> None:
    """Writes both teachers and their heads below ``folder``, where they are not there yet."""
    wide = LlamaConfig(hidden_size=512, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=8, **_SHARED)
    thin = Qwen3Config(
        hidden_size=320, intermediate_size=640, num_hidden_layers=12, num_attention_heads=5, head_dim=64, **_SHARED
    )
    for name, config in (("wide", wide), ("outlier", thin)):
        if not (folder / name / "head").exists():
            _build(folder / name, config, outliers=OUTLIER_CHANNELS if name == "outlier" else 0)


def folders(folder: Path, model: ModelName) -> ModelFolders:
    """Where the models of that name lie."""
    if model == "demo":
        return ModelFolders("demo", "eagle3")
    return ModelFolders(str(folder / model / "teacher"), f"eagle3:{folder / model / 'head'}")


_SHARED: dict[str, Any] = {
    "vocab_size": VOCAB,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 0,
}


def _build(folder: Path, config: LlamaConfig | Qwen3Config, outliers: int) -> None:
    torch.manual_seed(config.hidden_size)
    teacher = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3.0)  # logits some units wide, as a trained model's are
        for layer in teacher.model.layers[1:3]:
            layer.mlp.down_proj.weight[:outliers].mul_(OUTLIER_SIZE)
    teacher.save_pretrained(folder / "teacher")
    head = Eagle3Head(
        HeadConfig(
            hidden_size=config.hidden_size,
            teacher_hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=1,
            head_dim=64,
            draft_vocab_size=VOCAB // 2,
            teacher_vocab_size=VOCAB,
            rope_theta=10000.0,
            rms_norm_eps=1e-6,
            max_positions=4096,
        )
    )
    ids = torch.arange(VOCAB // 2) * 2
    head.d2t.copy_(ids - torch.arange(VOCAB // 2))
    head.t2d[ids] = True
    layers = config.num_hidden_layers
    save_head(head, folder / "head", (1, layers // 2, layers - 2))
