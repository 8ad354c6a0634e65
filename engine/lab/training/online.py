"""Online distillation: text that the current head's drafts lead to, written while it trains.

A draft continues from tokens that the head itself proposed, wrong ones among them, and the teacher's own text has none
of those. So the head drafts a chain, all of it is kept, and the teacher adds one token; then the head drafts again.
What the teacher gives at each place is computed when the text is trained on, as for any text.

Letters: B rows, T tokens, E teacher hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, LlamaForCausalLM

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.base import DraftPairs
from specscope.engine.drafters.draft_vocab import DraftVocab
from specscope.engine.drafters.eagle3.drafter import Eagle3Drafter
from specscope.engine.drafters.eagle3.files import HeadFiles, default_hidden_state_indices
from specscope.engine.drafters.eagle3.head import Eagle3Head
from specscope.engine.lab.training.self_text import PROMPT_TOKENS, SAMPLING_TEMPERATURE, cut_prompts
from specscope.engine.tree.policy import chain_policy

DRAFTED = 4  # tokens of a chain


def drafter_of(head: Eagle3Head, teacher: LlamaForCausalLM, vocab: DraftVocab) -> Eagle3Drafter:
    """Drafts chains by ``head`` as it is at each call."""
    layers = default_hidden_state_indices(teacher.config.num_hidden_layers)
    files = HeadFiles(
        head=head,
        folder=Path(),
        hidden_state_indices=layers,
        hidden_state_source="default",
        rope_theta_source="rope_theta",
        vocab=vocab,
    )
    return Eagle3Drafter(
        files,
        chain_policy(DRAFTED),
        embedding=teacher.get_input_embeddings(),
        feature_layers=layers,
        attention="fused",
        dtype=head.fc.weight.dtype,
        device=head.fc.weight.device,
    )


def text_of_drafts(
    teacher: LlamaForCausalLM,
    drafter: Eagle3Drafter,
    prompts: torch.Tensor,
    new_tokens: int,
    choose: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """``prompts`` (B, T) with ``new_tokens`` more: in turn one that ``choose`` takes (B,) by the teacher's logits
    (B, V), and those of a draft."""
    text, fed, cache = prompts, prompts, DynamicCache(config=teacher.config)
    unused = TreeCache(1, 1, len(prompts))  # the drafter reads nothing of it but how many rows there are
    drafter.begin_session(unused)
    with torch.no_grad():
        while text.shape[1] < prompts.shape[1] + new_tokens:
            output = teacher(fed, past_key_values=cache, use_cache=True, output_hidden_states=True)
            pending = choose(output.logits[:, -1])[:, None]
            features = torch.cat(
                [output.hidden_states[layer] for layer in drafter.feature_layers], dim=-1
            )  # (B, T, 3E)
            tokens = torch.cat([fed[:, 1:], pending], dim=1)
            rows = list(range(tokens.shape[1]))
            pairs = [DraftPairs(rows, of, next_, next_.tolist()) for of, next_ in zip(features, tokens, strict=True)]
            drafted = drafter.propose(pairs, unused).tree.tokens[:, 1:]
            fed = torch.cat([pending, drafted], dim=1)
            text = torch.cat([text, fed], dim=1)
    return text[:, : prompts.shape[1] + new_tokens]


def write_online(
    teacher: LlamaForCausalLM, drafter: Eagle3Drafter, stream: NDArray[np.int64], num_rows: int, length: int, seed: int
) -> torch.Tensor:
    """(num_rows, length) ids after prompts cut from ``stream``; the teacher's own tokens are its best ones in every
    second row, and drawn in the others, by ``seed`` alone."""
    generator = torch.Generator(teacher.device).manual_seed(seed)

    def choose(logits: torch.Tensor) -> torch.Tensor:
        drawn = torch.softmax(logits.float() / SAMPLING_TEMPERATURE, dim=-1).multinomial(1, generator=generator)[:, 0]
        is_drawn = torch.arange(len(logits), device=logits.device) % 2 == 1
        return torch.where(is_drawn, drawn, logits.argmax(dim=-1))

    prompts = cut_prompts(stream, num_rows, seed).to(teacher.device)
    return text_of_drafts(teacher, drafter, prompts, length - PROMPT_TOKENS, choose)
