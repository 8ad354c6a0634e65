"""Whether a logits processor remembers its calls, as grammar matchers do: then it cannot judge the branches of a tree.

A copy of a processor that nobody knows is tried on texts that branch, twice, the second time in another order. What has
no memory gives a text the same answer whenever it is asked, and what it holds comes to rest: a cache is filled by then.
A number that goes on changing may be a mere counter, so it is set far ahead, to see whether an answer depends on it.
"""

from __future__ import annotations

import copy
import math
import types
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PrefixConstrainedLogitsProcessor, PreTrainedTokenizerBase
from transformers.generation import logits_process

from specscope.tracer.errors import UsageError

#: Processors of transformers that remember the tokens they were called with, or want a batch of their own making.
WITH_MEMORY = frozenset(
    {
        "UnbatchedClassifierFreeGuidanceLogitsProcessor",
        "SynthIDTextWatermarkLogitsProcessor",
        "WhisperNoSpeechDetection",
        "DiaEOSDelayPatternLogitsProcessor",
        "ClassifierFreeGuidanceLogitsProcessor",
        "DiaClassifierFreeGuidanceLogitsProcessor",
    }
)
#: Packages whose processors drive a matcher, token by token.
MATCHERS = frozenset({"xgrammar", "outlines", "outlines_core", "llguidance", "guidance", "transformers_cfg"})
FAR = (1, 100, 1_000_000)  # how far ahead a counter is set
MAX_DEPTH, MAX_ITEMS = 6, 10_000  # of the state that is looked at


def refuse_memory(processors: Iterable[Any], prompt: torch.Tensor, vocab_size: int) -> None:
    """Refuses a processor that remembers its calls, as far as trying it on ``prompt`` (T,) tells.

    Raises:
        UsageError: naming the processor and what it was caught at.
    """
    for processor in processors:
        kind = type(processor)
        if kind.__module__ == logits_process.__name__ and kind is not PrefixConstrainedLogitsProcessor:
            continue  # those with memory were refused by name
        evidence = _memory(processor, prompt, vocab_size)
        if evidence is not None:
            raise with_memory(kind.__name__, evidence)


def refuse_known_memory(processors: Iterable[Any]) -> None:
    """Refuses the processors that are known to follow one text.

    Raises:
        UsageError: naming the processor.
    """
    for processor in processors:
        for kind in type(processor).__mro__:
            if kind.__name__ in WITH_MEMORY or kind.__module__.partition(".")[0] in MATCHERS:
                raise with_memory(type(processor).__name__, "it is known to")


def with_memory(name: str, evidence: str) -> UsageError:
    """The one error for a processor that remembers."""
    return UsageError(
        f"got the processor {name}, which follows one text token by token ({evidence}): it cannot judge the branches "
        "of a tree, and the text would change; make it depend on input_ids only, drop it, or leave custom_generate out"
    )


class _Texts(NamedTuple):
    """A prompt and texts that branch after it; each (1, T)."""

    prompt: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    longer: torch.Tensor  # than the first


def _memory(processor: Any, prompt: torch.Tensor, vocab_size: int) -> str | None:
    """What gives the processor away; None where nothing does."""
    tried = _copied(processor)
    scores = torch.randn(1, vocab_size, generator=torch.Generator().manual_seed(0)).to(prompt.device)
    texts = _texts(_answer(tried, prompt[None], scores), prompt[None])
    once = (texts.prompt, texts.first, texts.second, texts.longer)
    answers = [_answer(tried, text, scores) for text in once]
    rested = _state(tried)
    # The longer text is the last one both times, so that a processor may keep the text that it was asked for last.
    again = [_answer(tried, text, scores) for text in (texts.second, texts.first, texts.prompt, texts.longer)]
    if not all(map(_same, answers, (again[2], again[1], again[0], again[3]))):
        return "asked for one text twice, it gave two answers"
    held = _state(tried)
    changed = {name for name in {*rested, *held} if rested.get(name) != held.get(name)}
    counters = {name for name in changed if type(vars(tried).get(name)) in (int, float)}
    if changed - counters:
        return f"its {min(changed - counters)} changes with every call"
    for name in sorted(counters):
        if not all(_same(answers[0], _answer(_ahead(tried, name, by), texts.prompt, scores)) for by in FAR):
            return f"its answers depend on {name}, which changes with every call"
    return None


def _copied(processor: Any) -> Any:
    """A copy to try, with the models and tokenizers of the original; the original where it cannot be copied."""
    shared = (nn.Module, PreTrainedTokenizerBase)
    memo = {id(value): value for value in getattr(processor, "__dict__", {}).values() if isinstance(value, shared)}
    try:
        return copy.deepcopy(processor, memo)
    except Exception:  # copying is up to the processor's own code, and to what it holds
        return processor


def _ahead(processor: Any, counter: str, by: int) -> Any:
    """The processor with one of its numbers set ahead."""
    moved = copy.copy(processor)
    setattr(moved, counter, getattr(moved, counter) + by)
    return moved


def _answer(processor: Any, text: torch.Tensor, scores: torch.Tensor) -> torch.Tensor | type[Exception]:
    """What the processor makes of ``scores`` (1, V) behind ``text`` (1, T), or what it raises: decoding, which may
    never get to such a text, would tell of it."""
    try:
        processed: torch.Tensor = processor(text, scores.clone())
    except Exception as error:
        return type(error)
    return processed.clone()


def _same(one: torch.Tensor | type[Exception], other: torch.Tensor | type[Exception]) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    return one is other


def _texts(first_answer: torch.Tensor | type[Exception], prompt: torch.Tensor) -> _Texts:
    """Branches of two tokens that the processor itself lets through, where it says."""
    best = [0, 0]
    if isinstance(first_answer, torch.Tensor) and first_answer.shape[-1] > 1:
        best = first_answer[0].topk(2).indices.tolist()
    first, second = (torch.cat([prompt, prompt.new_tensor([[token]])], dim=1) for token in best)
    return _Texts(prompt, first, second, torch.cat([first, prompt.new_tensor([[best[1]]])], dim=1))


def _state(processor: Any) -> dict[str, Any]:
    """What can be seen of each of the processor's attributes, to be compared."""
    seen: set[int] = set()
    return {name: _seen(value, MAX_DEPTH, seen) for name, value in getattr(processor, "__dict__", {}).items()}


def _seen(value: Any, depth: int, seen: set[int]) -> Any:
    """``value`` as far as it can be compared: numbers, texts, arrays, and containers, functions, objects of them."""
    if value is None or isinstance(value, bool | int | str | bytes):
        return value
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value
    if isinstance(value, torch.Tensor):
        return value.shape, repr(value.detach().cpu().flatten()[:MAX_ITEMS].tolist())
    if hasattr(value, "tobytes"):  # an array of numpy or of the standard library
        return value.tobytes()
    opaque = isinstance(value, nn.Module | PreTrainedTokenizerBase | type | types.ModuleType)
    if opaque or depth == 0 or id(value) in seen or len(seen) > MAX_ITEMS:
        return id(value)
    seen.add(id(value))
    return type(value).__name__, [_seen(part, depth - 1, seen) for part in _parts(value)]


def _parts(value: Any) -> list[Any]:
    """What a container, a function or an object holds."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()][:MAX_ITEMS]
    if isinstance(value, list | tuple | deque | bytearray):
        return list(value)[:MAX_ITEMS]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))[:MAX_ITEMS]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or () if _is_set(cell)]
    return list(getattr(value, "__dict__", {}).values())


def _is_set(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # of a name that has no value yet
        return False
