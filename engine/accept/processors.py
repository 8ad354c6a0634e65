"""transformers' logits processors along a tree: what each slot's logits would be, had its path been decoded one by one.

The processors are transformers' own. They want ids on the host and equally long rows, so slots go in depth by depth.

Letters: B rows of the batch, P padded slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from specscope.engine.settings import NO_PROCESSORS, ProcessorChoice
from specscope.engine.tree.tensors import TreeTensors
from specscope.tracer.errors import UsageError


@dataclass(frozen=True)
class Processors:
    """What changes the teacher's logits before they decide."""

    build: Callable[[int], LogitsProcessorList]  # from the turn's prompt length
    described: dict[str, Any] = field(default_factory=dict)  # for the manifest


def build_processors(choice: ProcessorChoice, eos_token_ids: list[int], device: torch.device) -> Processors | None:
    """The processors that ``choice`` names; None where it names none.

    Raises:
        UsageError: where transformers refuses a value.
    """
    described = {name: value for name, value in vars(choice).items() if value != getattr(NO_PROCESSORS, name)}
    if not described:
        return None

    def build(prompt_length: int) -> LogitsProcessorList:
        processors = LogitsProcessorList()
        if "repetition_penalty" in described:
            processors.append(RepetitionPenaltyLogitsProcessor(choice.repetition_penalty))
        if "no_repeat_ngram" in described:
            processors.append(NoRepeatNGramLogitsProcessor(choice.no_repeat_ngram))
        if "bad_words_ids" in described:
            processors.append(NoBadWordsLogitsProcessor(choice.bad_words_ids, eos_token_ids or None))
        if "min_new_tokens" in described:
            least = MinNewTokensLengthLogitsProcessor(prompt_length, choice.min_new_tokens, eos_token_ids, str(device))
            processors.append(least)
        return processors

    try:
        build(1)
    except (ValueError, TypeError) as error:
        raise UsageError(f"transformers refuses these processors: {error}") from None
    return Processors(build, described)


def process_last(processors: LogitsProcessorList, context_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
    """``logits`` (V,) of the last token of ``context_ids``, processed."""
    ids: Any = torch.tensor([context_ids], device=logits.device)
    processed: torch.Tensor = processors(ids, _wide(logits)[None])
    return processed[0]


def process_tree(
    processors: list[LogitsProcessorList | None],
    contexts: list[list[int]],
    tensors: TreeTensors,
    logits: torch.Tensor,
) -> torch.Tensor:
    """``logits`` (B, P, V) processed, each slot after its row's ``contexts`` (up to before the root) and its own path.

    Padding slots stay as they are. Reads the trees back from the device: with processors a step waits twice.
    """
    processed = _wide(logits).clone()
    for row, (row_processors, context) in enumerate(zip(processors, contexts, strict=True)):
        if row_processors is None:
            continue
        tokens, count = tensors.token_ids[row], tensors.num_slots[row]
        depths = tensors.depths[row, :count].tolist()
        before = torch.tensor(context, dtype=torch.int64, device=tokens.device)
        for depth in range(max(depths) + 1):
            slots = torch.tensor([s for s, d in enumerate(depths) if d == depth], device=tokens.device)
            # Level l of the ancestor table holds the slot l edges up: read from the root down, it is the path.
            paths = tensors.ancestors[row, : depth + 1].flip(0)[:, slots].T  # (n, depth + 1)
            ids: Any = torch.cat([before.expand(len(slots), -1), tokens[paths]], dim=1)
            processed[row, slots] = row_processors(ids, processed[row, slots])
    return processed


def _wide(logits: torch.Tensor) -> torch.Tensor:
    """As transformers hands them to processors: in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
