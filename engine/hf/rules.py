"""What transformers' ``generate`` hands to a decoding loop, in the terms of ours: a rule, processors, stop rules.

``generate`` calls processors and criteria once a token with all rows of the batch, equally long, padding in front. Here
rows go at their own pace and a step asks for many slots of one row. So each row has its own processors and criteria,
which are shown its ids as ``generate`` would show them, padding included: prompt lengths that they were built with fit.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from transformers import (
    EosTokenCriteria,
    LogitNormalization,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation import logits_process

from specscope.engine.hf.memory import refuse_known_memory
from specscope.engine.loop.stopping import StopRules
from specscope.engine.settings import GREEDY, SamplingRule
from specscope.tracer.errors import UsageError

#: Processors that make of each row what its own ids and scores say: all slots of a level go through them at once.
TOGETHER = frozenset(
    getattr(logits_process, name)
    for name in (
        "MinLengthLogitsProcessor",
        "MinNewTokensLengthLogitsProcessor",
        "TemperatureLogitsWarper",
        "RepetitionPenaltyLogitsProcessor",
        "TopPLogitsWarper",
        "TopKLogitsWarper",
        "MinPLogitsWarper",
        "TypicalLogitsWarper",
        "EpsilonLogitsWarper",
        "EtaLogitsWarper",
        "NoRepeatNGramLogitsProcessor",
        "SequenceBiasLogitsProcessor",
        "NoBadWordsLogitsProcessor",
        "PrefixConstrainedLogitsProcessor",
        "ForcedBOSTokenLogitsProcessor",
        "ForcedEOSTokenLogitsProcessor",
        "InfNanRemoveLogitsProcessor",
        "LogitNormalization",
        "SuppressTokensAtBeginLogitsProcessor",
        "SuppressTokensLogitsProcessor",
    )
)
#: Processors that hold a copy of the whole batch's prompts.
OF_THE_BATCH = frozenset({"EncoderRepetitionPenaltyLogitsProcessor", "EncoderNoRepeatNGramLogitsProcessor"})
NO_LIMIT = sys.maxsize


class Word(NamedTuple):
    """What the command line calls a processor."""

    name: str
    attribute: str  # that holds its value


WORDS = {
    RepetitionPenaltyLogitsProcessor: Word("repetition_penalty", "penalty"),
    NoRepeatNGramLogitsProcessor: Word("no_repeat_ngram", "ngram_size"),
    NoBadWordsLogitsProcessor: Word("bad_words_ids", "bad_word_ids"),
    MinNewTokensLengthLogitsProcessor: Word("min_new_tokens", "min_new_tokens"),
}


class Warped(NamedTuple):
    """Processors, and the rule that follows them."""

    processors: list[Any]
    rule: SamplingRule


def split_warpers(processors: Iterable[Any], *, do_sample: bool) -> Warped:
    """The processors without the last ones where those are temperature, top-k and top-p, which the rule then does.

    ``generate`` puts them there, in that order. Where others stand after them, all stay processors: the rule comes
    last, and nothing is done twice.

    Raises:
        UsageError: for a processor that a tree cannot be decoded with, or a temperature out of range.
    """
    rest = list(processors)
    refuse_known_memory(rest)
    if not do_sample:
        return Warped(rest, GREEDY)
    if rest and type(rest[-1]) is LogitNormalization:
        rest.pop()  # the softmax does it again
    warpers: dict[str, Any] = {}
    for kind, name in (
        (TopPLogitsWarper, "top_p"),
        (TopKLogitsWarper, "top_k"),
        (TemperatureLogitsWarper, "temperature"),
    ):
        if rest and type(rest[-1]) is kind and _is_plain(rest[-1]):
            warpers[name] = getattr(rest.pop(), name)
    return Warped(rest, SamplingRule("sampling", **warpers))


def _is_plain(warper: Any) -> bool:
    """Whether what it filters is gone, and nothing is kept against the filter."""
    filled, kept = getattr(warper, "filter_value", -float("inf")), getattr(warper, "min_tokens_to_keep", 1)
    return bool(filled == -float("inf") and kept == 1)


class RowProcessors(LogitsProcessorList):
    """The processors of one row of the batch.

    Args:
        processors: those of ``generate``.
        row: its number in the batch, of ``num_rows``.
        padding: (P,) the ids in front of its prompt; they say where the processors want to run, too.

    Raises:
        UsageError: for a processor that knows the batch alone.
    """

    def __init__(self, processors: list[Any], row: int, num_rows: int, padding: torch.Tensor) -> None:
        super().__init__(_of_row(processor, row, num_rows) for processor in processors)
        self._padding = padding[None]  # (1, P)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """``scores`` (n, V) behind ``input_ids`` (n, T) of n branches of the row, processed."""
        device = self._padding.device
        ids = torch.cat([self._padding.expand(len(input_ids), -1), input_ids.to(device)], dim=1)
        processed = scores.to(device)
        for processor in self:
            if type(processor) in TOGETHER:
                processed = processor(ids, processed)
            else:  # nobody knows what a stranger makes of a batch that is none
                rows = [processor(ids[n : n + 1], processed[n : n + 1]) for n in range(len(ids))]
                processed = torch.cat(rows)
        return processed.to(scores.device)


def _of_row(processor: Any, row: int, num_rows: int) -> Any:
    """``processor`` as it treats ``row`` in its own batch."""
    if type(processor).__name__ in OF_THE_BATCH and num_rows > 1:
        raise UsageError(
            f"got the processor {type(processor).__name__} and {num_rows} rows: it penalises all prompts at once; "
            "generate row by row"
        )
    of_row = copy.copy(processor)
    if isinstance(processor, RepetitionPenaltyLogitsProcessor):
        ignored = processor.prompt_ignore_length
        if isinstance(ignored, torch.Tensor):
            of_row.prompt_ignore_length = int(ignored[row])
    elif isinstance(processor, PrefixConstrainedLogitsProcessor):
        allowed = processor._prefix_allowed_tokens_fn
        of_row._prefix_allowed_tokens_fn = lambda _, ids: allowed(row, ids)
    return of_row


def described(processors: list[Any]) -> dict[str, Any]:
    """The processors for the manifest: in the command line's words where it has some, else by class with what numbers
    and texts they hold."""
    words: dict[str, Any] = {}
    for processor in processors:
        held = {k: v for k, v in vars(processor).items() if not k.startswith("_")}
        word = WORDS.get(type(processor))
        if word is None or isinstance(held.get("prompt_ignore_length"), int):
            name = type(processor).__name__
            value: Any = {k: v for k, v in held.items() if isinstance(v, bool | int | float | str)}
        else:
            name, value = word.name, held[word.attribute]
        while name in words:
            name += "+"
        words[name] = value
    return words


class Stops(NamedTuple):
    """Stop rules, and the criteria that they do not cover."""

    rules: StopRules
    others: list[StoppingCriteria]


def split_criteria(criteria: Iterable[StoppingCriteria], prompt_width: int) -> Stops:
    """End-of-text tokens and length become stop rules; a row's prompt is ``prompt_width`` wide with its padding."""
    most, eos, others = NO_LIMIT, list[int](), list[StoppingCriteria]()
    for criterion in criteria:
        if type(criterion) is MaxLengthCriteria:
            most = min(most, criterion.max_length - prompt_width)
        elif type(criterion) is EosTokenCriteria:
            eos += criterion.eos_token_id.tolist()
        else:
            others.append(criterion)
    return Stops(StopRules(max(1, most), eos, []), others)  # a token is generated before anything is asked


class RowCriterion:
    """Asks a row's criteria after each of its tokens, as ``generate`` does; all of them, for some count.

    Args:
        criteria: those that are no stop rules.
        prompt: (T,) the row's ids as ``generate`` got them, padding included.
    """

    def __init__(self, criteria: list[StoppingCriteria], prompt: torch.Tensor) -> None:
        self._criteria = criteria
        self._ids = prompt[None]
        self._prompt_width = len(prompt)

    def __call__(self, output_ids: list[int]) -> bool:
        """Whether one of them is met behind ``output_ids``, one more than the last time."""
        fresh = output_ids[self._ids.shape[1] - self._prompt_width :]
        self._ids = torch.cat([self._ids, self._ids.new_tensor([fresh])], dim=1)
        answers = [criterion(self._ids, None) for criterion in self._criteria]
        return any(bool(torch.as_tensor(answer).all()) for answer in answers)
