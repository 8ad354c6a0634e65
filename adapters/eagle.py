"""The official EAGLE code (github.com/SafeAILab/EAGLE), recorded from outside: EAGLE-3, greedy.

What ``eagenerate`` calls in a step is wrapped by its name while it is recorded, and hooks on modules tell the masks,
positions and scores that were really used. No line of EAGLE's is changed, and no token. Its checkout is the user's: it
is known by the model alone and not imported here.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from specscope.adapters.eagle_draft import DraftWatch
from specscope.adapters.eagle_run import about_run, ends_of
from specscope.adapters.sections import best_tokens, in_place_commit, tree_tensors, verify_numbers
from specscope.tracer.errors import UsageError
from specscope.tracer.files.recorder import RecordedTurn, Recorder, TurnReason

if TYPE_CHECKING:
    from _typeshed import StrPath

#: So many are recorded of each slot, for ties of several tokens in half precision.
NUM_BEST = 8
#: What of the checkout is wrapped, and what would be wrapped in vain if another version had none.
STEPS = ("initialize_tree", "tree_decoding", "evaluate_posterior", "update_inference_inputs")


@contextmanager
def record_eagle(
    model: Any,
    trace: StrPath,
    *,
    teacher: StrPath | None = None,
    head: StrPath | None = None,
    prompt_ids: Sequence[str] = (),
    max_new_tokens: int | None = None,
    overwrite: bool = False,
) -> Iterator[None]:
    """Every greedy ``model.eagenerate`` within is recorded as a turn of ``trace``.

    Args:
        model: an ``EaModel`` of the official code, with an EAGLE-3 head.
        trace: the file; compressed where its name ends with ``.gz``.
        teacher, head: the folders of the two models, for their names and digests. Without, the teacher's is the one
            that it was loaded from; the head's is not known to the model.
        prompt_ids: names of the prompts in the order in which they are decoded; without them ``prompt-0`` and so on.
        max_new_tokens: where turns end in the trace: after so many tokens, or after the end of text. EAGLE itself
            emits some tokens more. None: all that it emitted.
        overwrite: whether an existing file may be replaced.

    Raises:
        UsageError: where nothing was decoded, the model is none of the official code or has another head, a call draws
            its tokens, or the file cannot be written.
    """

    def begin() -> Recorder:
        return Recorder(trace, overwrite=overwrite, **about_run(model, teacher, head, max_new_tokens))

    watch = _Watch(model, begin, max_new_tokens, list(prompt_ids))
    try:
        with ExitStack() as stack:
            watch.watch(stack)
            yield
    except BaseException as error:
        if watch.recorder is not None:
            watch.recorder.__exit__(type(error), error, None)
        raise
    if watch.recorder is None:
        raise UsageError("nothing was recorded: call model.eagenerate inside the block")
    watch.recorder.close()


@dataclass(kw_only=True)
class _Forward:
    """What hooks on the teacher saw of its last forward."""

    mask: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (1, 1, rows, columns), 0 where visible
    positions: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (rows, V)


@dataclass(kw_only=True)
class _Step:
    """One step, while it runs: its tree, and what the teacher's forward over it was given and gave."""

    tokens: list[int]
    paths: list[list[int]]  # per leaf: its slots from the root on, and -1 after them
    committed: int
    draft: dict[str, Any]
    forward: _Forward
    path: list[int] = field(default_factory=list)

    @property
    def parents(self) -> list[int]:
        """Per slot, from the paths."""
        parents = [0] * len(self.tokens)
        for leaf in self.paths:
            for above, slot in itertools.pairwise(leaf):
                if slot >= 0:
                    parents[slot] = above
        return parents


def _api_of(model: Any) -> Any:
    """The module whose functions ``eagenerate`` calls."""
    modules = [sys.modules.get(kind.__module__) for kind in type(model).__mro__]
    api = next((module for module in modules if all(hasattr(module, name) for name in STEPS)), None)
    if api is None or not hasattr(model, "eagenerate"):
        raise UsageError(f"got {type(model).__name__}, wanted an EaModel of github.com/SafeAILab/EAGLE")
    if not getattr(model, "use_eagle3", False):
        raise UsageError("got a head of EAGLE 1 or 2, wanted one of EAGLE-3: load it with use_eagle3=True")
    return api


class _Watch:
    """What is seen of the model's calls, and the turns that are made of it."""

    def __init__(self, model: Any, begin: Callable[[], Recorder], limit: int | None, names: list[str]) -> None:
        self.recorder: Recorder | None = None  # begun with the first turn
        self._new_recorder = begin
        self._model, self._api, self._limit, self._names = model, _api_of(model), limit, names
        self._eos = ends_of(model)
        self._num_turns = 0
        self._is_watched = False  # the functions serve calls of other methods as well
        self._drafting = DraftWatch(model.ea_layer)
        self._turn: RecordedTurn | None = None  # None as well once its end was recorded
        self._output: list[int] = []
        self._draft: dict[str, Any] = {}
        self._step: _Step | None = None
        self._source_rows: list[int] | None = None  # of the next pairs; None: all of the prompt
        self._forward = _Forward()

    def watch(self, stack: ExitStack) -> None:
        """Watches until ``stack`` is left."""
        steps: tuple[Callable[..., Any], ...] = (self._begin, self._decode, self._judge, self._update)
        for name, wrapper in zip(STEPS, steps, strict=True):
            self._wrap(stack, self._api, name, functools.partial(self._inside, wrapper))
        self._wrap(stack, self._model.ea_layer, "topK_genrate", functools.partial(self._inside, self._propose))
        self._wrap(stack, self._model, "eagenerate", self._generate)
        for hook in [*self._hooks(), *self._drafting.hooks()]:
            stack.callback(hook.remove)

    def _wrap(self, stack: ExitStack, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        stack.enter_context(mock.patch.object(owner, name, functools.partial(wrapper, getattr(owner, name))))

    # Hooks on the teacher.

    def _hooks(self) -> list[Any]:
        base = self._model.base_model
        return [
            base.model.layers[0].register_forward_pre_hook(self._fed, with_kwargs=True),
            base.lm_head.register_forward_hook(self._said),
        ]

    def _fed(self, _module: Any, _args: Any, words: dict[str, Any]) -> None:
        self._forward = _Forward(mask=words["attention_mask"], positions=words["position_ids"])

    def _said(self, _module: Any, _args: Any, output: torch.Tensor) -> None:
        self._forward.logits = output[0]

    # What eagenerate calls, in order.

    def _generate(self, call: Callable[..., Any], *args: Any, **words: Any) -> Any:
        self._source_rows, self._step, self._is_watched = None, None, True
        try:
            output = call(*args, **words)
        except BaseException as error:
            self._end("failed" if isinstance(error, Exception) else "interrupted")
            raise
        finally:
            self._is_watched = False
        self._end("criterion")
        return output

    def _inside(self, wrapper: Callable[..., Any], call: Callable[..., Any], *args: Any, **words: Any) -> Any:
        """``wrapper`` within ``eagenerate``; other methods of the model call these functions, too."""
        return wrapper(call, *args, **words) if self._is_watched else call(*args, **words)

    def _begin(self, call: Callable[..., Any], input_ids: torch.Tensor, *rest: Any) -> Any:
        if rest[-1] is not None:
            raise UsageError("got a call that draws its tokens, wanted temperature=0.0: only greedy calls are recorded")
        begun = call(input_ids, *rest)
        pending = int(begun[6])
        best = best_tokens(self._forward.logits[-1:].float(), NUM_BEST)
        prefill = {of_best: values[0] for of_best, values in best.items()}
        self.recorder = self.recorder or self._new_recorder()
        self._turn = self.recorder.turn(self._next_name(), input_ids[0].tolist(), pending, prefill=prefill)
        self._output = [pending]
        self._end_where_it_must()
        return begun

    def _next_name(self) -> str:
        number, self._num_turns = self._num_turns, self._num_turns + 1
        return self._names[number] if number < len(self._names) else f"prompt-{number}"

    def _propose(
        self, call: Callable[..., Any], hidden: torch.Tensor, input_ids: torch.Tensor, *args: Any, **words: Any
    ) -> Any:
        begun_at = self._drafting.begin()
        proposed = call(hidden, input_ids, *args, **words)
        tokens = input_ids[0, 1 + begun_at :].tolist()
        rows = list(range(len(tokens))) if self._source_rows is None else self._source_rows
        self._draft = self._drafting.section(begun_at, rows=rows, tokens=tokens, hidden=hidden[0])
        return proposed

    def _decode(
        self, call: Callable[..., Any], model: Any, tree: torch.Tensor, past: Any, *rest: Any, **words: Any
    ) -> Any:
        paths = (rest[-1] if rest else words["retrieve_indices"]).tolist()
        tokens, committed = tree[0].tolist(), int(past[0][0].current_length)
        decoded = call(model, tree, past, *rest, **words)
        self._step = _Step(tokens=tokens, paths=paths, committed=committed, draft=self._draft, forward=self._forward)
        return decoded

    def _judge(self, call: Callable[..., Any], *args: Any, **words: Any) -> Any:
        judged = call(*args, **words)
        if self._step is not None:
            self._step.path = self._step.paths[int(judged[0])][1 : int(judged[1]) + 1]
        return judged

    def _update(self, call: Callable[..., Any], *args: Any, **words: Any) -> Any:
        step, self._step = self._step, None
        if step is not None:
            self._source_rows = [0, *step.path]
        before = args[0].shape[1]  # tokens of the text, without the root
        updated = call(*args, **words)  # commits, and drafts the next tree
        if step is not None and self._turn is not None:
            bonus = int(updated[7])
            self._record(self._turn, step, bonus, emitted=[*updated[0][0, before + 1 :].tolist(), bonus])
        return updated

    def _record(self, turn: RecordedTurn, step: _Step, bonus: int, *, emitted: list[int]) -> None:
        logits, draft = step.forward.logits.float(), step.draft
        kept = self._kept(emitted)
        seen = (step.forward.mask[0, 0, -len(step.tokens) :] == 0).tolist()
        positions = step.forward.positions.reshape(-1).tolist()
        rows = [step.committed + number for number in range(1 + len(step.path))]
        turn.step(
            tokens=step.tokens,
            parents=step.parents,
            argmax=logits.argmax(-1).tolist(),
            path=step.path,
            bonus_token=bonus,
            emitted=emitted,
            kept=kept,
            draft=draft,
            tensors=tree_tensors(step.tokens, positions, seen, step.committed),
            verify=verify_numbers(logits, NUM_BEST),
            commit={
                **in_place_commit(step.committed, [0, *step.path], rows, int(self._model.current_length_data[0])),
                "drafter_before": draft["kv_before"],
                "drafter_after": draft["kv_after"],
            },
        )
        self._output += emitted[:kept]
        self._end_where_it_must()

    # Where a turn ends.

    def _kept(self, emitted: list[int]) -> int:
        """How many of ``emitted`` count, where the trace's turns end exactly."""
        if self._limit is None:
            return len(emitted)
        ends = self._eos
        to_the_end = next((at + 1 for at, token in enumerate(emitted) if token in ends), len(emitted))
        return min(to_the_end, self._limit - len(self._output))

    def _end_where_it_must(self) -> None:
        if self._limit is not None and (self._output[-1] in self._eos or len(self._output) >= self._limit):
            self._end("length")

    def _end(self, reason: TurnReason) -> None:
        if self._turn is not None:
            self._turn.end("eos" if self._output[-1] in self._eos else reason)
        self._turn = None
