"""Transformers' own assisted generation, recorded from outside: assistant models, prompt lookup, early exit.

One method of one model object is replaced while it is recorded: ``_get_candidate_generator``. Its result learns all
that a step decides by the public protocol of ``CandidateGenerator``: ``get_candidates`` before the teacher's forward,
``update_candidate_strategy`` after it. Positions, masks and logits as they were used come from forward hooks. No token
is changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from specscope.adapters.generation import about_call, eos_of
from specscope.adapters.sections import best_tokens, in_place_commit, tree_tensors
from specscope.tracer.errors import UsageError
from specscope.tracer.files.recorder import RecordedTurn, Recorder, StopReason
from specscope.tracer.oracle.invariants.walk import greedy_walk

if TYPE_CHECKING:
    from _typeshed import StrPath

NUM_BEST = 2


@contextmanager
def record_assisted(
    model: Any, trace: StrPath, *, prompt_ids: Sequence[str] = (), overwrite: bool = False
) -> Iterator[None]:
    """Every assisted ``model.generate`` within is recorded as a turn of ``trace``.

    Args:
        model: a decoder that transformers loaded.
        trace: the file; compressed where its name ends with ``.gz``.
        prompt_ids: names of the prompts in the order in which they are decoded; without them ``prompt-0`` and so on.
        overwrite: whether an existing file may be replaced.

    Raises:
        UsageError: where nothing was decoded with assistance, a call had other settings than the first (a trace is of
            one setting), the model is no decoder, or the file cannot be written.
    """
    if model.config.is_encoder_decoder:
        raise UsageError(f"got {type(model).__name__}, wanted a decoder: an encoder's input is no prompt of a trace")
    watch = _Watch(model, Path(trace), list(prompt_ids), overwrite)
    make = model._get_candidate_generator
    model._get_candidate_generator = lambda *args, **words: watch.generator(make(*args, **words), words)
    hooks = watch.hooks()
    try:
        yield
    except BaseException as error:
        watch.abandon(error)
        raise
    finally:
        del model._get_candidate_generator
        for hook in hooks:
            hook.remove()
    watch.close()


@dataclass(kw_only=True)
class _Forward:
    """One forward of the teacher, as it was called and what it gave."""

    begun_ns: int
    positions: list[int] | None  # of the rows fed; None where the model makes them itself
    cache: Any
    mask: torch.Tensor | None = None  # as the first layer's attention was given it
    logits: torch.Tensor | None = None  # (rows, V)


@dataclass(kw_only=True)
class _Draft:
    """One chain, before the teacher has seen it."""

    before: list[int]  # all tokens so far, the root last
    tokens: list[int]
    logprobs: list[float] | None  # None where the drafter has no distribution
    begun_ns: int
    duration_ns: int


@dataclass(kw_only=True)
class _Call:
    """One ``generate``: the turn that it becomes, and when it must end."""

    turn: RecordedTurn
    max_length: int  # of the output
    eos: frozenset[int]
    rule: str
    capped: bool
    begun_ns: int
    output: list[int] = field(default_factory=list)

    @property
    def limit(self) -> dict[str, int]:
        """Of the tree: how deep drafts go, where they end with what may still be emitted."""
        return {"depth_limit": self.max_length - len(self.output) - 1} if self.capped else {}

    @property
    def reason(self) -> StopReason:
        if self.output and self.output[-1] in self.eos:
            return "eos"
        return "length" if len(self.output) >= self.max_length else "criterion"


class _Walk(NamedTuple):
    """What became of a chain."""

    path: list[int]
    bonus_token: int


def _walk(rule: str, tokens: list[int], parents: list[int], *, choices: list[int], emitted: list[int]) -> _Walk:
    """Greedy: the walk before any stop rule cut it. Drawn: coins stay inside, and what was kept is what is known."""
    if rule != "greedy":
        return _Walk(list(range(1, len(emitted))), emitted[-1])
    path = greedy_walk(tokens, parents, choices).path
    return _Walk(path, choices[len(path)])


class _Watch:
    """What is seen of the model's calls, and the trace that is made of it."""

    def __init__(self, model: Any, path: Path, names: list[str], overwrite: bool) -> None:
        self._model, self._path, self._names, self._overwrite = model, path, names, overwrite
        self._recorder: Recorder | None = None
        self._about: dict[str, Any] = {}
        self._num_calls = 0
        self._call: _Call | None = None
        self._draft: _Draft | None = None
        self._forward: _Forward | None = None
        self._drafting = False  # early exit drafts with the same object

    # Hooks on the teacher.

    def hooks(self) -> list[Any]:
        """Sets them; each has a ``remove``."""
        attention = self._model.get_decoder().layers[0].self_attn
        return [
            self._model.register_forward_pre_hook(self.forward_begins, with_kwargs=True),
            self._model.register_forward_hook(self.forward_ends),
            attention.register_forward_pre_hook(self.attention_begins, with_kwargs=True),
        ]

    def forward_begins(self, _module: Any, _args: Any, words: dict[str, Any]) -> None:
        """Notes what the teacher is fed."""
        if self._drafting:
            return
        positions = words.get("position_ids")
        self._forward = _Forward(
            begun_ns=time.perf_counter_ns(),
            positions=None if positions is None or positions.dim() != 2 else positions[0].tolist(),
            cache=words.get("past_key_values", words.get("cache")),  # as it is called from transformers 5.24 on
        )

    def attention_begins(self, _module: Any, _args: Any, words: dict[str, Any]) -> None:
        """Notes the mask that is used."""
        if not self._drafting and self._forward is not None:
            self._forward.mask = words.get("attention_mask")

    def forward_ends(self, _module: Any, _args: Any, output: Any) -> None:
        """Notes the logits, before any processor."""
        if not self._drafting and self._forward is not None:
            self._forward.logits = output.logits[0]

    # The protocol of candidate generators.

    def generator(self, generator: Any, words: dict[str, Any]) -> Any:
        """Watches ``generator`` through its own two methods, and begins a turn at its first draft."""
        self._end_call()
        get, update = generator.get_candidates, generator.update_candidate_strategy

        def get_candidates(input_ids: torch.Tensor, **more: Any) -> Any:
            before, begun_ns, self._drafting = input_ids[0].tolist(), time.perf_counter_ns(), True
            try:
                ids, logits = get(input_ids, **more)
            finally:
                self._drafting = False
            if self._call is None:
                self._begin_call(generator, words, before, begun_ns)
            self._draft = _drafted(before, ids[0].tolist(), logits, begun_ns)
            return ids, logits

        def update_candidate_strategy(input_ids: torch.Tensor, scores: torch.Tensor, num_matches: int) -> Any:
            self._step(input_ids[0].tolist(), scores[0])
            return update(input_ids, scores, num_matches)

        generator.get_candidates, generator.update_candidate_strategy = get_candidates, update_candidate_strategy
        return generator

    def _begin_call(self, generator: Any, words: dict[str, Any], prompt: list[int], begun_ns: int) -> None:
        settings = words["generation_config"]
        about = about_call(self._model, generator, settings, words)
        recorder = self._trace_of(about)
        number, self._num_calls = self._num_calls, self._num_calls + 1
        name = self._names[number] if number < len(self._names) else f"prompt-{number}"
        self._call = _Call(
            turn=recorder.turn(name, prompt),
            max_length=settings.max_length - len(prompt),
            eos=frozenset(eos_of(settings)),
            rule=about["sampling"]["rule"],
            capped=about["drafter"]["kind"] != "ngram",
            begun_ns=begun_ns,
        )

    def _trace_of(self, about: dict[str, Any]) -> Recorder:
        """The trace, which is begun with the first call."""
        if self._recorder is None:
            self._recorder, self._about = Recorder(self._path, overwrite=self._overwrite, **about), about
        for name, value in about.items():
            if value != self._about[name]:
                raise UsageError(
                    f"{name} is {value}, and was {self._about[name]} before: a trace is of one setting, so record the "
                    "calls with other settings to another file"
                )
        return self._recorder

    def _step(self, after: list[int], scores: torch.Tensor) -> None:
        """One step: ``after`` are all tokens after it, ``scores`` (N, V) the teacher's logits after the processors."""
        call, draft, forward = self._call, self._draft, self._forward
        if call is None or draft is None or forward is None:
            return
        emitted = after[len(draft.before) :]
        tokens = [draft.before[-1], *draft.tokens]
        parents = [max(0, slot - 1) for slot in range(len(tokens))]
        walk = _walk(call.rule, tokens, parents, choices=scores.argmax(-1).tolist(), emitted=emitted)
        numbers = scores if call.rule == "greedy" or forward.logits is None else forward.logits[-len(tokens) :].float()
        whole = len(emitted) == len(walk.path) + 1
        call.turn.step(
            tokens=tokens,
            parents=parents,
            argmax=numbers.argmax(-1).tolist(),
            path=walk.path,
            bonus_token=walk.bonus_token,
            kept=len(emitted),
            tree=_scores_of(draft) | call.limit,
            verify=best_tokens(numbers, NUM_BEST),
            accept={"rule": call.rule},
            timing=_timing_of(draft, forward, call),
            **_tensors_of(draft, forward),
            **(_commit_of(draft, forward, walk.path) if whole else {}),
        )
        call.output += emitted

    # The end.

    def _end_call(self) -> None:
        if self._call is not None:
            self._call.turn.end(self._call.reason)
        self._call = None

    def close(self) -> None:
        """Ends the trace."""
        if self._recorder is None:
            raise UsageError(
                "no assisted generation ran: pass assistant_model, prompt_lookup_num_tokens or assistant_early_exit to "
                "generate, on the model that is recorded"
            )
        self._end_call()
        self._recorder.close()

    def abandon(self, error: BaseException) -> None:
        """Ends the trace as failed."""
        if self._recorder is not None:
            self._recorder.__exit__(type(error), error, None)


def _drafted(before: list[int], after: list[int], logits: torch.Tensor | None, begun_ns: int) -> _Draft:
    tokens = after[len(before) :]
    logprobs = None
    if logits is not None and tokens:
        of_tokens = logits[0].float().log_softmax(-1)
        logprobs = [of_tokens[row, token].item() for row, token in enumerate(tokens)]
    duration_ns = time.perf_counter_ns() - begun_ns
    return _Draft(before=before, tokens=tokens, logprobs=logprobs, begun_ns=begun_ns, duration_ns=duration_ns)


def _scores_of(draft: _Draft) -> dict[str, Any]:
    """Of the tree: what the drafter thought of its tokens."""
    if draft.logprobs is None:
        return {}
    logprobs = [0.0, *draft.logprobs]
    return {"logprobs": logprobs, "scores": [sum(logprobs[: slot + 1]) for slot in range(len(logprobs))]}


def _timing_of(draft: _Draft, forward: _Forward, call: _Call) -> dict[str, Any]:
    """Only drafting and verifying are seen; what lies between them is counted to neither."""
    unseen = dict.fromkeys(("tensorize_ns", "check_ns", "accept_ns", "commit_ns"), 0)
    return {
        "begun_ns": draft.begun_ns - call.begun_ns,
        "draft_ns": draft.duration_ns,
        "verify_ns": time.perf_counter_ns() - forward.begun_ns,
        "synchronised": False,
        **unseen,
    }


def _tensors_of(draft: _Draft, forward: _Forward) -> dict[str, Any]:
    """What the teacher's forward was really given for the root and the drafts, as far as it was seen."""
    rows, committed, mask = len(draft.tokens) + 1, len(draft.before) - 1, forward.mask
    if forward.positions is None or (mask is not None and mask.dim() != 4):
        return {}
    tokens, positions = [draft.before[-1], *draft.tokens], forward.positions[-rows:]
    section = tree_tensors(tokens, positions, _visible(mask, rows, committed), committed)
    return {"tensors": section if mask is not None else section | {"mask_from": "causal"}}


def _visible(mask: torch.Tensor | None, rows: int, committed: int) -> list[list[bool]]:
    """Per row, which columns it sees: those of the committed tokens, then those of the rows."""
    if mask is None:
        return [[True] * (committed + row + 1) + [False] * (rows - row - 1) for row in range(rows)]
    of_rows = mask[0, 0, -rows:, : committed + rows]
    visible: list[list[bool]] = (of_rows if of_rows.dtype == torch.bool else of_rows == 0).tolist()
    return visible


def _commit_of(draft: _Draft, forward: _Forward, path: list[int]) -> dict[str, Any]:
    """How the cache was cut back: its length is the one that it really has now."""
    if forward.cache is None:
        return {}
    before, slots = len(draft.before) - 1, [0, *path]
    after = int(forward.cache.get_seq_length())
    return {"commit": in_place_commit(before, slots, [before + slot for slot in slots], after)}
