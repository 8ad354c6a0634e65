"""Text that the teacher itself generates: what a draft head must learn to foresee."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

PROMPT_TOKENS = 48
SAMPLING_TEMPERATURE = 0.8


def cut_prompts(stream: NDArray[np.int64], count: int, seed: int) -> torch.Tensor:
    """(count, PROMPT_TOKENS) ids cut from random places of ``stream``."""
    starts = np.random.default_rng(seed).integers(0, len(stream) - PROMPT_TOKENS, size=count)
    return torch.from_numpy(np.stack([stream[s : s + PROMPT_TOKENS] for s in starts]))


@torch.no_grad()
def continue_prompts(
    teacher: LlamaForCausalLM, prompts: torch.Tensor, new_tokens: int, *, greedy: bool
) -> torch.Tensor:
    """``prompts`` (B, P) with ``new_tokens`` more: greedily, or sampled at temperature 0.8."""
    model: Any = teacher  # the overloads of generate do not say that plain arguments give a tensor
    sampling = {"do_sample": False} if greedy else {"do_sample": True, "temperature": SAMPLING_TEMPERATURE, "top_k": 0}
    output: torch.Tensor = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        pad_token_id=0,
        **sampling,
    )
    return output


def generate_self_text(
    teacher: LlamaForCausalLM, stream: NDArray[np.int64], num_rows: int, length: int, seed: int, batch_size: int = 128
) -> NDArray[np.int64]:
    """(num_rows, length) ids: prompts cut from ``stream``, continued by ``teacher``; greedily in half of the rows
    and sampled in the others, so that the head sees both the paths taken and their neighbourhood."""
    torch.manual_seed(seed)
    rows: list[torch.Tensor] = []
    for number, batch in enumerate(cut_prompts(stream, num_rows, seed).to(teacher.device).split(batch_size)):
        rows.append(continue_prompts(teacher, batch, length - PROMPT_TOKENS, greedy=number % 2 == 0).cpu())
        print(f"self-generated text: {sum(len(r) for r in rows)} of {num_rows} rows", flush=True)
    return torch.cat(rows).numpy()
