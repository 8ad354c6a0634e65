"""Random EAGLE-3 heads as public checkpoints hold them, and their forward in plain float64 numpy.

Nothing here uses the engine: the arithmetic is written from the papers' formulas, one row and one head at a time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Array = NDArray[np.float64]
Weights = dict[str, NDArray[Any]]

# A head of H 896, 14/2 heads, I 4864, V 151936, V_draft 16000, theta 1e6, all but the heads divided by 16 or more.
SMALL: dict[str, Any] = {
    "architectures": ["LlamaForCausalLMEagle3"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 56,
    "intermediate_size": 304,
    "num_hidden_layers": 1,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "vocab_size": 151,
    "draft_vocab_size": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@dataclass
class Checkpoint:
    """A head on disk, before it is written."""

    config: dict[str, Any]
    weights: Weights  # under the authors' names; later layers as vLLM and speculators call them
    teacher_hidden: int = 56
    extra: Weights = field(default_factory=dict)  # written as they are

    def write(self, folder: Path, prefix: str = "midlayer.", outer: str = "") -> Path:
        """Writes the folder; ``prefix`` names the layer, ``outer`` stands before every float tensor's name."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        named = {}
        for name, value in self.weights.items():
            inner = name.replace("midlayer.", prefix, 1)
            named[inner if name in ("d2t", "t2d", "lm_head.weight") else outer + inner] = value
        save_file({**named, **self.extra}, folder / "model.safetensors")
        return folder


class RandomWeights:
    """Draws weights of a head of the shape that ``config`` states."""

    def __init__(self, config: dict[str, Any], seed: int) -> None:
        self.config = config
        self.rng = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int) -> NDArray[np.float32]:
        """A linear layer's."""
        return np.asarray(self.rng.standard_normal((rows, columns)) * 1.5 / np.sqrt(columns), dtype=np.float32)

    def norm(self, size: int) -> NDArray[np.float32]:
        """A norm's."""
        return self.rng.uniform(0.5, 1.5, size).astype(np.float32)

    def layer(self, name: str, inputs: int) -> Weights:
        """A decoder layer's, whose attention reads ``inputs``."""
        config, hidden, inner = self.config, self.config["hidden_size"], self.config["intermediate_size"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        width = config.get("head_dim") or hidden // heads
        return {
            f"{name}.self_attn.q_proj.weight": self.matrix(heads * width, inputs),
            f"{name}.self_attn.k_proj.weight": self.matrix(kv_heads * width, inputs),
            f"{name}.self_attn.v_proj.weight": self.matrix(kv_heads * width, inputs),
            f"{name}.self_attn.o_proj.weight": self.matrix(hidden, heads * width),
            f"{name}.mlp.gate_proj.weight": self.matrix(inner, hidden),
            f"{name}.mlp.up_proj.weight": self.matrix(inner, hidden),
            f"{name}.mlp.down_proj.weight": self.matrix(hidden, inner),
            f"{name}.input_layernorm.weight": self.norm(hidden),
            f"{name}.post_attention_layernorm.weight": self.norm(hidden),
        }


def random_checkpoint(seed: int = 0, teacher_hidden: int = 56, **changes: Any) -> Checkpoint:
    """A random head of the ``SMALL`` shape with ``changes`` to its config; tensors follow the config's switches."""
    config = SMALL | changes
    draw, hidden = RandomWeights(config, seed), config["hidden_size"]
    rng = draw.rng
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or hidden // heads
    teacher_vocab, draft_vocab = config["vocab_size"], config["draft_vocab_size"] or config["vocab_size"]

    weights: Weights = {
        "fc.weight": draw.matrix(hidden, 3 * teacher_hidden),
        **draw.layer("midlayer", 2 * hidden),
        "midlayer.hidden_norm.weight": draw.norm(hidden),
        "norm.weight": draw.norm(hidden),
        "lm_head.weight": draw.matrix(draft_vocab, hidden),
    }
    for number in range(1, config["num_hidden_layers"]):
        weights |= draw.layer(f"layers.{number}", hidden)
    if config.get("attention_bias"):
        weights |= {
            f"{name}.self_attn.{n}_proj.bias": rng.standard_normal(size).astype(np.float32)
            for name in layer_names(config)
            for n, size in (("q", heads * width), ("k", kv_heads * width), ("v", kv_heads * width), ("o", hidden))
        }
    if config.get("norm_before_fc"):
        weights["input_norm.weight"] = draw.norm(3 * teacher_hidden)
    if config.get("fc_norm"):
        weights |= {f"fc_norm.{i}.weight": draw.norm(teacher_hidden) for i in range(3)}
    if draft_vocab != teacher_vocab:
        ids = np.sort(rng.choice(teacher_vocab, draft_vocab, replace=False))
        weights["d2t"] = ids - np.arange(draft_vocab)
        weights["t2d"] = np.isin(np.arange(teacher_vocab), ids)
    return Checkpoint(config, weights, teacher_hidden)


def layer_names(config: dict[str, Any]) -> list[str]:
    """What the layers' tensors begin with."""
    return ["midlayer", *(f"layers.{number}" for number in range(1, config["num_hidden_layers"]))]


def nested(checkpoint: Checkpoint) -> Checkpoint:
    """The same head with its config laid out as speculators does."""
    outer_keys = ("draft_vocab_size", "norm_before_residual", "norm_before_fc", "fc_norm", "norm_output")
    config = checkpoint.config
    outer = {
        "architectures": ["Eagle3Speculator"],
        "speculators_model_type": "eagle3",
        "target_hidden_size": None,
        "eagle_aux_hidden_state_layer_ids": None,
        **{key: config[key] for key in outer_keys if key in config},
        "transformer_layer_config": {k: v for k, v in config.items() if k not in (*outer_keys, "architectures")},
    }
    return Checkpoint(outer, checkpoint.weights, checkpoint.teacher_hidden, checkpoint.extra)


class SlowHead:
    """The head over one sequence of pairs and its draft steps, row by row, with all keys and values so far."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config
        self.config = {**config, **config.get("transformer_layer_config", {})}
        self.weights = {
            n: w.astype(np.float64) for n, w in checkpoint.weights.items() if np.issubdtype(w.dtype, np.floating)
        }
        self.layers = layer_names(self.config)
        self.keys: dict[str, list[Array]] = {layer: [] for layer in self.layers}  # of each pair
        self.values: dict[str, list[Array]] = {layer: [] for layer in self.layers}

    def norm(self, x: Array, name: str) -> Array:
        """x / rms(x) times the weight."""
        normed: Array = x / np.sqrt(np.mean(x * x) + self.config["rms_norm_eps"]) * self.weights[name]
        return normed

    def linear(self, x: Array, name: str) -> Array:
        """W x, and the bias where there is one."""
        return self.weights[f"{name}.weight"] @ x + self.weights.get(f"{name}.bias", 0.0)

    def first_hidden(self, features: Array) -> Array:
        """What the first step is fed, of one row's three features."""
        if self.config.get("norm_before_fc"):
            features = self.norm(features, "input_norm.weight")
        if self.config.get("fc_norm"):
            thirds = np.split(features, 3)
            features = np.concatenate([self.norm(x, f"fc_norm.{i}.weight") for i, x in enumerate(thirds)])
        return self.linear(features, "fc")

    def rotate(self, x: Array, position: int) -> Array:
        """Each head (a row of ``x``) as complex numbers (first half, second half), turned by p theta^(-2i/d)."""
        half = x.shape[1] // 2
        parameters = self.config.get("rope_parameters") or self.config
        angles = position / np.power(parameters.get("rope_theta", 10000.0), np.arange(half) / half)
        turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angles)
        return np.concatenate([turned.real, turned.imag], axis=1)

    def row(self, hidden: Array, embedding: Array, position: int) -> tuple[Array, Array]:
        """One pair behind all before it: what the next step is fed, and the logits."""
        out = hidden
        for layer in self.layers:
            residual, x = out, self.norm(embedding if layer == "midlayer" else out, f"{layer}.input_layernorm.weight")
            if layer == "midlayer":
                normed = self.norm(hidden, f"{layer}.hidden_norm.weight")
                x = np.concatenate([x, normed])
                residual = normed if self.config.get("norm_before_residual") else hidden
            out = residual + self.attention(layer, x, position)
            x = self.norm(out, f"{layer}.post_attention_layernorm.weight")
            gate = self.linear(x, f"{layer}.mlp.gate_proj")
            up = self.linear(x, f"{layer}.mlp.up_proj")
            out = out + self.linear(gate / (1 + np.exp(-gate)) * up, f"{layer}.mlp.down_proj")
        final = self.norm(out, "norm.weight")
        return (final if self.config.get("norm_output") else out), self.linear(final, "lm_head")

    def attention(self, layer: str, x: Array, position: int) -> Array:
        """Of one row over all rows of the layer so far and itself, projected."""
        heads, groups = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        query, key, value = (self.linear(x, f"{layer}.self_attn.{n}_proj") for n in "qkv")
        query = self.rotate(query.reshape(heads, -1), position)
        self.keys[layer].append(self.rotate(key.reshape(groups, -1), position))
        self.values[layer].append(value.reshape(groups, -1))
        attended = []
        for head in range(heads):
            group = head // (heads // groups)
            scores = np.array([query[head] @ k[group] for k in self.keys[layer]]) / np.sqrt(query.shape[1])
            weights = np.exp(scores - scores.max())
            values = np.array([v[group] for v in self.values[layer]])
            attended.append(np.einsum("s,sd->d", weights / weights.sum(), values))
        return self.linear(np.concatenate(attended), f"{layer}.self_attn.o_proj")
