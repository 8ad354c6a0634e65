"""What vLLM's model runner holds of a batch while it samples. All that is known of vLLM's insides stands here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch

#: What is read of a runner, and what would be missing from one of another kind.
READ = ("_sample", "input_batch", "requests", "query_start_loc", "num_computed_tokens", "discard_request_mask")
#: Sampling parameters that change what is decided after the logits were seen here, and what leaves it as it is.
CHANGES: dict[str, Any] = {
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "min_tokens": 0,
    "logit_bias": None,
    "bad_words": None,
    "allowed_token_ids": None,
    "structured_outputs": None,
    "thinking_token_budget": None,
    "trace_decode_token_ids": None,
}
#: Likewise, what may end a request by a rule that is not known here.
ENDS: dict[str, Any] = {"repetition_detection": None}


@dataclass(frozen=True, kw_only=True)
class BatchRow:
    """One request's part of a forward whose last tokens are its root and its drafts."""

    request: str
    state: Any  # what the runner keeps of the request
    drafts: list[int]
    logits: torch.Tensor  # (1 + drafts, V), before anything changes them
    tokens: list[int]  # (1 + drafts,), as they were fed
    positions: list[int]  # of these
    num_fed: int  # with tokens before them, such as the prompt's
    num_before: int  # tokens in the cache before the forward
    is_partial: bool  # the forward took in a part of a prompt, and what is sampled is thrown away

    @property
    def committed(self) -> int:
        """Tokens before the root."""
        return self.num_before + self.num_fed - len(self.tokens)


def rows_of(runner: Any, logits: torch.Tensor, metadata: Any) -> Iterator[BatchRow]:
    """Every request of the batch that ``runner`` is about to sample from ``logits`` (rows, V); ``metadata`` says what
    was drafted, None where nothing was."""
    requests = list(runner.input_batch.req_ids)
    counts = [0] * len(requests) if metadata is None else list(metadata.num_draft_tokens)
    drafts = [] if metadata is None else metadata.draft_token_ids.tolist()
    starts = runner.query_start_loc.np[: len(requests) + 1].tolist()
    before = runner.num_computed_tokens[: len(requests)].tolist()
    tokens, positions = runner.input_ids.gpu[: starts[-1]].tolist(), runner.positions[: starts[-1]].tolist()
    first_draft = first_row = 0
    for number, (request, count) in enumerate(zip(requests, counts, strict=True)):
        begin, end = starts[number], starts[number + 1]
        yield BatchRow(
            request=request,
            state=runner.requests[request],
            drafts=drafts[first_draft : first_draft + count],
            logits=logits[first_row : first_row + count + 1],
            tokens=tokens[end - count - 1 : end],
            positions=positions[end - count - 1 : end],
            num_fed=end - begin,
            num_before=before[number],
            is_partial=bool(runner.discard_request_mask.np[number]),
        )
        first_draft, first_row = first_draft + count, first_row + count + 1


def sampled(output: Any, vocab_size: int) -> list[list[int]]:
    """Per request of the batch, the tokens that were kept: accepted drafts, and one more. The rest is filled up with
    what is no token."""
    return [[token for token in row if 0 <= token < vocab_size] for row in output.sampled_token_ids.tolist()]


def why_not_recorded(state: Any) -> str | None:
    """What of a request keeps it from being recorded, in words; None where nothing does."""
    params = state.sampling_params
    if params is None or state.prompt_token_ids is None:
        return "it has no token ids, or samples none"
    for name in _other(params, CHANGES):
        return f"{name} changes the logits that decide, which are not seen"
    for name in _other(params, ENDS):
        return f"{name} may end it, which is not seen"
    if state.output_token_ids:
        return "it had begun before it was watched"
    return None


def _other(params: Any, plain: dict[str, Any]) -> Iterator[str]:
    """Names of the parameters that are set to something else."""
    for name, value in plain.items():
        if getattr(params, name, value) not in (value, [], {}):
            yield name


class StopSearch:
    """vLLM's own search for a request's stop strings, in its text so far.

    vLLM searches where it makes its answers. Its model runner is told only that a request is gone, be it for a stop
    string or because nobody wants it any longer. So the search is made here once more.
    """

    def __init__(self, runner: Any, state: Any) -> None:
        """For the request that ``runner`` keeps as ``state``.

        Raises:
            ImportError: where vLLM has its search elsewhere.
        """
        tokenizer = import_module("vllm.tokenizers").cached_tokenizer_from_config(runner.vllm_config.model_config)
        request = SimpleNamespace(
            request_id="", prompt_token_ids=state.prompt_token_ids, sampling_params=state.sampling_params
        )
        detokenizer: Any = import_module("vllm.v1.engine.detokenizer").IncrementalDetokenizer
        self._text: Any = detokenizer.from_new_request(tokenizer, request)

    def kept(self, tokens: Sequence[int], *, stop_terminated: bool) -> int | None:
        """How many of ``tokens``, which come next, are kept where they complete a stop string; None where they do not.

        Args:
            tokens: of the output.
            stop_terminated: whether the last one is a stop token, which may be no part of the text.
        """
        before: int = self._text.num_output_tokens()
        completed: str | None = self._text.update(list(tokens), stop_terminated)
        after: int = self._text.num_output_tokens()
        return None if completed is None else after - before
