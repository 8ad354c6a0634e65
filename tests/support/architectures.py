"""A tiny random model of any architecture that transformers has, by its model type: no hub, no files but its own."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig

VOCAB = 61
#: What configurations may call their sizes. Each takes those that it has.
SIZES: dict[str, Any] = {
    **{"vocab_size": VOCAB, "max_position_embeddings": 128, "n_positions": 128},
    **{"hidden_size": 64, "n_embd": 64, "d_model": 64, "word_embed_proj_dim": 64, "embedding_size": 64},
    **{"intermediate_size": 64, "ffn_dim": 64},
    **{"num_hidden_layers": 3, "n_layer": 3, "n_layers": 3, "num_layers": 3},
    **{"num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "attention_heads": 4},
    **{"num_key_value_heads": 2, "head_dim": 16, "rotary_dim": 16},
    **{"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    **{"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    **{"q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16},
    **{"shared_expert_intermediate_size": 32},
    **{"sliding_window": 128, "attention_chunk_size": 128},  # as long as there are positions: they never slide
    **{"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0, "is_decoder": True},
}


def tiny_config(model_type: str, **fields: Any) -> PreTrainedConfig:
    """The configuration of that type, as small as it can be; ``fields`` outrank what it would get."""
    kind = CONFIG_MAPPING[model_type]
    aliases = getattr(kind, "attribute_map", {})
    known = {*inspect.signature(kind.__init__).parameters, *getattr(kind, "__dataclass_fields__", {}), *aliases}
    sizes = {name: value for name, value in SIZES.items() if name in known}
    sizes = {name: value for name, value in sizes.items() if aliases.get(name) not in sizes}
    config: PreTrainedConfig = kind(**(sizes | fields))
    return config


def tiny_model(config: PreTrainedConfig) -> Any:
    """A random model whose attention matters: its weights are large enough for that."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4.0)
    model.generation_config.eos_token_id = None
    return model.eval()


def save_tiny(folder: Path, model_type: str, **fields: Any) -> Path:
    """The same in a folder, without a tokenizer."""
    tiny_model(tiny_config(model_type, **fields)).save_pretrained(folder)
    return folder
