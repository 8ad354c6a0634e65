"""The EAGLE-3 draft head as a module, its parameters named as the tensors of public checkpoints. Knows no files.

A decoder layer whose attention reads [normed embedding ; normed hidden], so its q, k and v take 2H. A deeper head has
plain layers after it, which read the hidden state alone, as vLLM (pull request 26164) and speculators
(``models/eagle3/core.py``) have them; SpecForge's pull request 401 found that they accept more than layers that read
the embedding again. The un-normed output feeds the next draft step; ``fc`` projects the teacher's three hidden states
for the first.

Four switches of later heads change where norms stand. They are meant as vLLM (``llama_eagle3.py`` and its pull requests
42764 and 42143), speculators (``models/eagle3``), SGLang (pull requests 24663 and 32334) and TensorRT-LLM
(``modeling_speculative.py``) mean them:

- ``norm_before_residual``: the residual of the layer is the normed hidden, not the hidden;
- ``norm_before_fc``: one norm over all three features together, before ``fc``; its tensor is ``input_norm.weight``;
- ``fc_norm``: a norm for each of the three features, before ``fc``; ``fc_norm.{0,1,2}.weight``;
- ``norm_output``: the next draft step is fed the output after ``norm``, the one that ``lm_head`` reads.

Letters: R rows, S cached rows, H hidden, E teacher hidden, V draft vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from specscope.engine.drafters.draft_vocab import DraftVocab


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The shape of a head."""

    hidden_size: int
    teacher_hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    draft_vocab_size: int
    teacher_vocab_size: int
    rope_theta: float
    rms_norm_eps: float
    max_positions: int | None  # as stated; positions after it are computed by the same formula
    num_layers: int = 1
    qkv_bias: bool = False
    output_bias: bool = False
    norm_before_residual: bool = False
    norm_before_fc: bool = False
    fc_norm: bool = False
    norm_output: bool = False
    own_embedding: bool = False  # the head brings its own input embedding, H wide


class HeadOutput(NamedTuple):
    """One forward of the head."""

    hidden: torch.Tensor  # (..., R, H) what the next draft step is fed: un-normed, unless ``norm_output``
    logits: torch.Tensor  # (..., R, V)


class RotaryTable(NamedTuple):
    """cos and sin (..., 1, R, head_dim) of some positions, the same for every head."""

    cos: torch.Tensor
    sin: torch.Tensor


def rotary_table(positions: torch.Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> RotaryTable:
    """The rotation of ``positions`` (..., R): angle = position x theta^(-2i / head_dim).

    Computed in float32, as transformers does, and in float64 for a float64 head. By formula and not from a table, so
    that no position is out of bounds.
    """
    wide = torch.promote_types(dtype, torch.float32)
    angles = positions.to(wide)[..., None, :, None] * _frequencies(head_dim, theta, wide, positions.device)
    return RotaryTable(angles.cos().to(dtype), angles.sin().to(dtype))


@lru_cache(maxsize=16)
def _frequencies(head_dim: int, theta: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(head_dim,) angle per position, the same for both halves. Kept: a draft asks for it at every level."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64, device=device).to(dtype) / head_dim
    return (theta**-exponents).repeat(2)


def rotate(states: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    """Applies ``table`` to ``states`` (..., heads, R, head_dim), halves convention."""
    first, second = states.chunk(2, dim=-1)
    return states * table.cos + torch.cat([-second, first], dim=-1) * table.sin


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 at least."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Norms the last dimension."""
        if states.dtype in (torch.float32, torch.float64):
            return self.weight * F.rms_norm(states, states.shape[-1:], eps=self.eps)
        return self.weight * F.rms_norm(states.float(), states.shape[-1:], eps=self.eps).to(states.dtype)


class HeadAttention(nn.Module):
    """Projections of a layer's attention, of states ``num_inputs`` wide; the attention itself is the caller's."""

    def __init__(self, config: HeadConfig, num_inputs: int) -> None:
        super().__init__()
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(num_inputs, width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(num_inputs, kv_width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(num_inputs, kv_width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=config.output_bias)

    def heads(self, states: torch.Tensor) -> torch.Tensor:
        """(..., R, heads x head_dim) -> (..., heads, R, head_dim)."""
        return states.view(*states.shape[:-1], -1, self.head_dim).transpose(-2, -3)


class HeadMLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """down(silu(gate(x)) * up(x))."""
        out: torch.Tensor = self.down_proj(F.silu(self.gate_proj(states)) * self.up_proj(states))
        return out


class QueryKeyValue(NamedTuple):
    """A layer's projections of some rows, heads apart, rotated."""

    query: torch.Tensor  # (..., heads, R, head_dim)
    key: torch.Tensor  # (..., kv heads, R, head_dim)
    value: torch.Tensor


#: The attention of a layer, by its number, over what that layer projected: (..., heads, R, head_dim).
Attend = Callable[[int, QueryKeyValue], torch.Tensor]


class HeadLayer(nn.Module):
    """A decoder layer, whose attention reads states ``num_inputs`` wide."""

    def __init__(self, config: HeadConfig, num_inputs: int) -> None:
        super().__init__()
        self.self_attn = HeadAttention(config, num_inputs)
        self.mlp = HeadMLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def project(self, states: torch.Tensor, table: RotaryTable) -> QueryKeyValue:
        """Rotated query, key and value of normed ``states`` (..., R, inputs)."""
        attention = self.self_attn
        return QueryKeyValue(
            rotate(attention.heads(attention.q_proj(states)), table),
            rotate(attention.heads(attention.k_proj(states)), table),
            attention.heads(attention.v_proj(states)),
        )

    def finish(self, residual: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The rest of the layer (..., R, H), after attention (..., heads, R, head_dim)."""
        hidden = residual + self.self_attn.o_proj(attended.transpose(-2, -3).flatten(-2))
        out: torch.Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return out

    def parts(self) -> dict[str, nn.Module]:
        """Its modules by the name of what they do, in the order in which they run; the norms of its input left out."""
        return {
            "query projection": self.self_attn.q_proj,
            "key projection": self.self_attn.k_proj,
            "value projection": self.self_attn.v_proj,
            "output projection": self.self_attn.o_proj,
            "post-attention norm": self.post_attention_layernorm,
            "MLP": self.mlp,
        }


class FirstLayer(HeadLayer):
    """The layer that reads the embedding too."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, 2 * config.hidden_size)
        self.hidden_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Eagle3Head(nn.Module):
    """The head. ``d2t`` maps a draft id to a teacher id as an offset; ``t2d`` marks the teacher ids it covers."""

    d2t: torch.Tensor
    t2d: torch.Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        eps, features = config.rms_norm_eps, 3 * config.teacher_hidden_size
        self.embed_tokens: nn.Embedding | None = None
        if config.own_embedding:
            self.embed_tokens = nn.Embedding(config.teacher_vocab_size, config.hidden_size)
        self.input_norm = RMSNorm(features, eps) if config.norm_before_fc else None
        self.fc_norm: nn.ModuleList | None = None
        if config.fc_norm:
            self.fc_norm = nn.ModuleList(RMSNorm(config.teacher_hidden_size, eps) for _ in range(3))
        self.fc = nn.Linear(features, config.hidden_size, bias=False)
        self.midlayer = FirstLayer(config)
        later = range(1, config.num_layers)
        self.layers = nn.ModuleDict({str(number): HeadLayer(config, config.hidden_size) for number in later})
        self.norm = RMSNorm(config.hidden_size, eps)
        self.lm_head = nn.Linear(config.hidden_size, config.draft_vocab_size, bias=False)
        self.register_buffer("d2t", torch.zeros(config.draft_vocab_size, dtype=torch.int64))
        self.register_buffer("t2d", torch.zeros(config.teacher_vocab_size, dtype=torch.bool))

    def use_vocab(self, vocab: DraftVocab) -> None:
        """Takes ``vocab`` as the meaning of the draft ids."""
        self.d2t.copy_(torch.from_numpy(vocab.d2t()))
        self.t2d.copy_(torch.from_numpy(vocab.t2d()))

    def first_hidden(self, features: torch.Tensor) -> torch.Tensor:
        """What the first draft step is fed, (..., R, H), of the teacher's ``features`` (..., R, 3E), low to high."""
        if self.input_norm is not None:
            features = self.input_norm(features)
        if self.fc_norm is not None:
            parts = features.chunk(3, dim=-1)
            features = torch.cat([norm(part) for norm, part in zip(self.fc_norm, parts, strict=True)], dim=-1)
        hidden: torch.Tensor = self.fc(features)
        return hidden

    @property
    def later_layers(self) -> list[HeadLayer]:
        """Those after the first, in order."""
        return [layer for layer in self.layers.values() if isinstance(layer, HeadLayer)]

    def project(self, hidden: torch.Tensor, embedding: torch.Tensor, table: RotaryTable) -> QueryKeyValue:
        """The first layer's query, key and value of pairs: ``hidden`` and ``embedding`` (..., R, H)."""
        layer = self.midlayer
        return layer.project(torch.cat([layer.input_layernorm(embedding), layer.hidden_norm(hidden)], dim=-1), table)

    def rotation(self, positions: torch.Tensor, dtype: torch.dtype) -> RotaryTable:
        """Of ``positions`` (..., R), or (R,) for all alike; the same in every layer."""
        return rotary_table(positions, self.config.head_dim, self.config.rope_theta, dtype)

    def forward(
        self, hidden: torch.Tensor, embedding: torch.Tensor, positions: torch.Tensor, attend: Attend
    ) -> HeadOutput:
        """All layers over pairs: ``hidden`` and ``embedding`` (..., R, H), ``positions`` (..., R) or (R,) for all
        alike. Keys and values are the caller's to keep: ``attend`` is handed each layer's, in order."""
        table, first = self.rotation(positions, embedding.dtype), self.midlayer
        attended = attend(0, self.project(hidden, embedding, table))
        hidden = first.finish(first.hidden_norm(hidden) if self.config.norm_before_residual else hidden, attended)
        for number, layer in enumerate(self.later_layers, 1):
            hidden = layer.finish(hidden, attend(number, layer.project(layer.input_layernorm(hidden), table)))
        normed = self.norm(hidden)
        return HeadOutput(normed if self.config.norm_output else hidden, self.lm_head(normed))

    def parts(self) -> dict[str, nn.Module]:
        """Its modules by the name of what they do, without its own embedding, if it has one. Those of a layer are named
        with its number where there are several."""
        first, norms = self.midlayer, list(self.fc_norm) if self.fc_norm is not None else []
        layers = [
            {"embedding norm": first.input_layernorm, "hidden norm": first.hidden_norm, **first.parts()},
            *({"input norm": layer.input_layernorm, **layer.parts()} for layer in self.later_layers),
        ]
        numbered = len(layers) > 1
        named: dict[str, nn.Module | None] = {
            "feature norm": self.input_norm,
            **{f"feature norm {number}": norm for number, norm in enumerate(norms, 1)},
            "fc": self.fc,
            **{
                f"layer {number} {name}" if numbered else name: module
                for number, layer in enumerate(layers)
                for name, module in layer.items()
            },
            "final norm": self.norm,
            "output head": self.lm_head,
        }
        return {name: module for name, module in named.items() if module is not None}

    def teacher_tokens(self, draft_tokens: torch.Tensor) -> torch.Tensor:
        """Teacher ids of draft ids, any shape."""
        return draft_tokens + self.d2t[draft_tokens]
