"""Text that the teacher itself generates: what a draft head must learn to foresee, and its draft vocabulary."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

PROMPT_TOKENS = 48


@torch.no_grad()
def generate_self_text(
    teacher: LlamaForCausalLM, stream: NDArray[np.int64], num_rows: int, length: int, seed: int, batch_size: int = 128
) -> NDArray[np.int64]:
    """(num_rows, length) ids: prompts cut from ``stream``, continued by ``teacher``; greedily in half of the rows
    and at temperature 0.8 in the others, so that the head sees both the paths taken and their neighbourhood."""
    torch.manual_seed(seed)
    starts = np.random.default_rng(seed).integers(0, len(stream) - PROMPT_TOKENS, size=num_rows)
    prompts = torch.from_numpy(np.stack([stream[s : s + PROMPT_TOKENS] for s in starts])).to(teacher.device)
    rows: list[torch.Tensor] = []
    for number, batch in enumerate(prompts.split(batch_size)):
        sampled = {"do_sample": True, "temperature": 0.8, "top_k": 0} if number % 2 else {"do_sample": False}
        rows.append(
            teacher.generate(
                batch,
                attention_mask=torch.ones_like(batch),
                max_new_tokens=length - PROMPT_TOKENS,
                eos_token_id=None,
                pad_token_id=0,
                **sampled,
            ).cpu()
        )
        done = sum(len(r) for r in rows)
        print(f"self-generated text: {done} of {num_rows} rows", flush=True)
    return torch.cat(rows).numpy()


def frequent_tokens(rows: NDArray[np.int64], vocab_size: int, draft_vocab_size: int) -> NDArray[np.int64]:
    """The ``draft_vocab_size`` most frequent ids of ``rows``, ascending; ties go to the lower id."""
    counts = np.bincount(rows.ravel(), minlength=vocab_size)
    order = np.lexsort((np.arange(vocab_size), -counts))
    return np.sort(order[:draft_vocab_size])
