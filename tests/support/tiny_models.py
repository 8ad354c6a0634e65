"""Tiny random models in the true formats: fast enough for every unit test, wrong enough to reject most drafts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from specscope.engine.drafters.eagle3.files import save_head
from specscope.engine.drafters.eagle3.head import Eagle3Head, HeadConfig
from specscope.engine.load.models import Models, load_models
from specscope.engine.settings import ModelChoice, ProductsChoice
from specscope.engine.tree.policy import TreePolicy
from specscope.schemas.manifest import Mode

VOCAB = 61
HIDDEN = 32
POLICY = TreePolicy(kind="dynamic", depth=4, top_k=3, budget=9)

COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 0,
}


def teacher_config(architecture: str) -> PretrainedConfig:
    """A tiny configuration of the architecture."""
    match architecture:
        case "llama":
            return LlamaConfig(**COMMON)
        case "biased-llama":
            return LlamaConfig(**COMMON, attention_bias=True)
        case "qwen2":
            return Qwen2Config(**COMMON)
        case "qwen3":
            return Qwen3Config(**COMMON, head_dim=16)
    raise ValueError(architecture)


def build_teacher(folder: Path, architecture: str = "llama") -> Path:
    """Writes a random teacher whose logits are spread out enough to make ties unlikely."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(teacher_config(architecture))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    return folder


def build_head(
    folder: Path, draft_vocab: int = 40, hidden: int = HIDDEN, num_layers: int = 1, intermediate: int = 48
) -> Path:
    """Writes a random head with a draft vocabulary of its own."""
    torch.manual_seed(1)
    head = Eagle3Head(
        HeadConfig(
            hidden_size=hidden,
            teacher_hidden_size=hidden,
            intermediate_size=intermediate,
            num_heads=4,
            num_kv_heads=2,
            head_dim=hidden // 4,
            draft_vocab_size=draft_vocab,
            teacher_vocab_size=VOCAB,
            rope_theta=10000.0,
            rms_norm_eps=1e-6,
            max_positions=256,
            num_layers=num_layers,
        )
    )
    ids = torch.arange(draft_vocab) + torch.arange(draft_vocab) // 2
    head.d2t.copy_(ids - torch.arange(draft_vocab))
    head.t2d[ids] = True
    save_head(head, folder, (2, 4, 5))
    return folder


def tiny_models(
    teacher: Path,
    head: Path | None,
    mode: Mode = "fused",
    policy: TreePolicy = POLICY,
    dtype: str = "float32",
    products: ProductsChoice = "plain",
) -> Models:
    """A tiny teacher with a tiny head, or none, loaded as the command line loads them."""
    drafter = f"eagle3:{head}" if head is not None else "none"
    return load_models(
        ModelChoice(
            teacher=str(teacher),
            drafter=drafter,
            mode=mode,
            dtype=dtype,
            device="cpu",
            policy=policy,
            products=products,
        )
    )


def reference_generate(folder: Path, prompt_ids: list[int], max_new_tokens: int) -> list[int]:
    """The teacher's own greedy continuation, by transformers."""
    teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([prompt_ids])
    with torch.inference_mode():
        output = teacher.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=0
        )
    return [int(token) for token in output[0, len(prompt_ids) :]]
