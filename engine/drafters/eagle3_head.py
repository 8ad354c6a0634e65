"""The EAGLE-3 draft head as a module, its parameters named as the tensors of public checkpoints. Knows no files.

One decoder layer whose attention reads [normed embedding ; normed hidden], so its q, k and v take 2H. The un-normed
output feeds the next draft step; ``fc`` projects the teacher's three hidden states for the first.

Letters: R rows, S cached rows, H hidden, E teacher hidden, V draft vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
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
    max_positions: int


class HeadOutput(NamedTuple):
    """One forward of the head."""

    hidden: torch.Tensor  # (..., R, H) un-normed: what the next draft step is fed
    logits: torch.Tensor  # (..., R, V)


class RotaryTable(NamedTuple):
    """cos and sin (..., R, head_dim) of some positions."""

    cos: torch.Tensor
    sin: torch.Tensor


def rotary_table(positions: torch.Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> RotaryTable:
    """The rotation of ``positions`` (R,), computed in float32 as transformers does."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64, device=positions.device).float() / head_dim
    angles = positions.float()[..., None] * theta**-exponents
    angles = torch.cat([angles, angles], dim=-1)
    return RotaryTable(angles.cos().to(dtype), angles.sin().to(dtype))


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
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        return self.weight * F.rms_norm(wide, wide.shape[-1:], eps=self.eps).to(states.dtype)


class HeadAttention(nn.Module):
    """Projections of the layer's attention; the attention itself is the caller's."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(2 * config.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(2 * config.hidden_size, kv_width, bias=False)
        self.v_proj = nn.Linear(2 * config.hidden_size, kv_width, bias=False)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)

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


class HeadLayer(nn.Module):
    """The decoder layer."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.self_attn = HeadAttention(config)
        self.mlp = HeadMLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hidden_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class QueryKeyValue(NamedTuple):
    """The layer's projections of some rows, heads apart, rotated."""

    query: torch.Tensor  # (..., heads, R, head_dim)
    key: torch.Tensor  # (..., kv heads, R, head_dim)
    value: torch.Tensor


class Eagle3Head(nn.Module):
    """The head. ``d2t`` maps a draft id to a teacher id as an offset; ``t2d`` marks the teacher ids it covers."""

    d2t: torch.Tensor
    t2d: torch.Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.fc = nn.Linear(3 * config.teacher_hidden_size, config.hidden_size, bias=False)
        self.midlayer = HeadLayer(config)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.draft_vocab_size, bias=False)
        self.register_buffer("d2t", torch.zeros(config.draft_vocab_size, dtype=torch.int64))
        self.register_buffer("t2d", torch.zeros(config.teacher_vocab_size, dtype=torch.bool))

    def project(self, hidden: torch.Tensor, embedding: torch.Tensor, positions: torch.Tensor) -> QueryKeyValue:
        """Rotated query, key and value of pairs: ``hidden`` and ``embedding`` (..., R, H), ``positions`` (R,)."""
        layer, attention = self.midlayer, self.midlayer.self_attn
        states = torch.cat([layer.input_layernorm(embedding), layer.hidden_norm(hidden)], dim=-1)
        table = rotary_table(positions, self.config.head_dim, self.config.rope_theta, states.dtype)
        return QueryKeyValue(
            rotate(attention.heads(attention.q_proj(states)), table),
            rotate(attention.heads(attention.k_proj(states)), table),
            attention.heads(attention.v_proj(states)),
        )

    def finish(self, hidden: torch.Tensor, attended: torch.Tensor) -> HeadOutput:
        """The rest of the layer after attention (..., heads, R, head_dim); the residual is ``hidden`` un-normed."""
        layer = self.midlayer
        hidden = hidden + layer.self_attn.o_proj(attended.transpose(-2, -3).flatten(-2))
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return HeadOutput(hidden, self.lm_head(self.norm(hidden)))

    def teacher_tokens(self, draft_tokens: torch.Tensor) -> torch.Tensor:
        """Teacher ids of draft ids, any shape."""
        return draft_tokens + self.d2t[draft_tokens]
