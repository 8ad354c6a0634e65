"""vLLM's speculative decoding, recorded from outside: its own methods and custom ones, greedy or sampled, in batches.

``with record_vllm(llm, trace=...)`` finds the model runner by the public ``collective_rpc``; in a server,
``vllm_plugin`` meets it in its own process. Either way one method of it is wrapped, ``_sample``: it is given the
teacher's logits after every draft, and what it returns is what was kept. No line of vLLM's is changed, and no token.
vLLM itself is not imported here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from specscope.adapters.sections import tree_tensors, verify_numbers
from specscope.adapters.vllm_batch import READ, BatchRow, StopSearch, rows_of, sampled, why_not_recorded
from specscope.adapters.vllm_run import about_run, sampling_of, stop_rules_of
from specscope.tracer.errors import UsageError
from specscope.tracer.files.recorder import RecordedTurn, Recorder, TurnReason
from specscope.tracer.oracle.invariants.walk import greedy_walk

if TYPE_CHECKING:
    from _typeshed import StrPath

#: So many are recorded of each slot, for ties of several tokens in half precision.
NUM_BEST = 8
#: So many requests are named that were left out; the others are counted, since a server may refuse them for months.
MOST_NAMED = 3


@contextmanager
def record_vllm(llm: Any, trace: StrPath, *, prompt_ids: Sequence[str] = (), overwrite: bool = False) -> Iterator[None]:
    """Every request of ``llm`` within is recorded as a turn of ``trace``.

    Args:
        llm: a ``vllm.LLM`` whose engine runs in this process (``VLLM_ENABLE_V1_MULTIPROCESSING=0``).
        trace: the file; compressed where its name ends with ``.gz``.
        prompt_ids: names of the prompts in the order in which they are begun; without them ``prompt-0`` and so on.
        overwrite: whether an existing file may be replaced.

    Raises:
        UsageError: where the engine runs elsewhere or is another one, nothing was decoded, a request could not be
            recorded (the others are), or the file cannot be written.
    """
    runner = _runner_of(llm)
    names = list(prompt_ids)

    def begin(about: dict[str, Any]) -> Recorder:
        return Recorder(trace, overwrite=overwrite, **about)

    def name(number: int, _request: str) -> str:
        return names[number] if number < len(names) else f"prompt-{number}"

    watch = Watch(runner, begin, name, holds_for_all=stop_rules_of)
    try:
        with mock.patch.object(runner, "_sample", functools.partial(watch.sample, runner._sample)):
            yield
    except BaseException as error:
        watch.abandon(error)
        raise
    watch.close()
    watch.check()


def _runner_of(llm: Any) -> Any:
    """The model runner of an engine in this process.

    Raises:
        UsageError: where it runs in another, or is none whose insides are known.
    """
    engine = getattr(getattr(llm, "llm_engine", None), "engine_core", None)
    if engine is None:
        raise UsageError(f"got {type(llm).__name__}, wanted a vllm.LLM")
    if not hasattr(engine, "engine_core"):
        raise UsageError(
            "the engine runs in another process: set VLLM_ENABLE_V1_MULTIPROCESSING=0 before vllm is imported, or "
            "record by the plugin, with SPECSCOPE_VLLM_TRACE"
        )
    runners = llm.collective_rpc(lambda worker: worker.model_runner)
    if len(runners) != 1:
        raise UsageError(f"got an engine of {len(runners)} workers, wanted one: use the plugin, in their processes")
    missing = [name for name in READ if not hasattr(runners[0], name)]
    if missing:
        raise UsageError(
            f"got {type(runners[0]).__module__}, which has no {missing[0]}; wanted vllm.v1.worker.gpu_model_runner: "
            "set VLLM_USE_V2_MODEL_RUNNER=0"
        )
    return runners[0]


@dataclass(kw_only=True)
class _Request:
    """One request, and the turn that it becomes."""

    name: str
    prompt: list[int]
    reused: int  # tokens of the prompt that were in the cache already
    ends: frozenset[int]
    limit: int  # output tokens
    search: StopSearch | None  # for its stop strings; None: it has none, or its text is not known
    turn: RecordedTurn | None = None  # before its first token; None as well once it has ended
    has_ended: bool = False
    output: list[int] = field(default_factory=list)

    def keep(self, emitted: list[int]) -> _Kept:
        """What counts of ``emitted``, which come next, and whether the request ends there, judged in vLLM's order."""
        kept, most = _Kept(len(emitted), None), max(1, self.limit - len(self.output))
        if most <= len(emitted):
            kept = _Kept(most, "length")
        at = next((at for at, token in enumerate(emitted[: kept.num]) if token in self.ends), None)
        if at is not None:
            kept = _Kept(at + 1, "eos")
        if self.search is not None:
            num = self.search.kept(emitted[: kept.num], stop_terminated=at is not None)
            kept = kept if num is None else _Kept(num, "stop_string")
        self.output += emitted[: kept.num]
        return kept


class _Kept(NamedTuple):
    """What counts of the tokens that a step emitted."""

    num: int  # leading ones
    reason: TurnReason | None  # why the turn ends with the last of them; None: it goes on


class Watch:
    """What is seen of the samples of one model runner, and the turns that are made of it. Never raises into vLLM."""

    def __init__(
        self,
        runner: Any,
        begin: Callable[[dict[str, Any]], Recorder],
        name: Callable[[int, str], str],
        *,
        holds_for_all: Callable[[Any], dict[str, Any]] = lambda params: {},
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """``begin`` makes the recorder; ``name`` names a request's prompt, by its number and id; ``holds_for_all``
        gives what the manifest says of the first request's parameters, besides how it draws, and must hold for all;
        ``tell`` is told at once what ``check`` says at the end, where a process may never come to its end."""
        self._runner, self._begin, self._name, self._of_all = runner, begin, name, holds_for_all
        self._tell = tell
        self._recorder: Recorder | None = None
        self._setting: dict[str, Any] = {}
        self._rule = "greedy"
        self._requests: dict[str, _Request | None] = {}  # None: left out
        self._num_requests = 0
        self._left_out: list[str] = []  # the first of them, and why
        self._num_left_out = 0
        self.failure: Exception | None = None

    def sample(self, call: Callable[..., Any], logits: Any, metadata: Any) -> Any:
        """Samples by ``call``, and takes note of what is decided."""
        if self.failure is not None or logits is None:
            return call(logits, metadata)
        seen: list[_Seen] = []
        with self._noting():
            seen = [_Seen(row) for row in rows_of(self._runner, logits, metadata)]
        output = call(logits, metadata)  # which works in place
        if self.failure is not None:
            return output
        with self._noting():
            emitted = sampled(output, self._runner.input_batch.vocab_size)
            self._end_those_gone()
            for part, tokens in zip(seen, emitted, strict=True):
                self._take(part, tokens)
        return output

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """What goes wrong here ends the recording, and nothing else; the first failure is the one that is told."""
        try:
            yield
        except Exception as error:
            if self.failure is None:
                self.failure = error
                self._tell(f"the recording is given up: {error}")

    def _take(self, seen: _Seen, emitted: list[int]) -> None:
        row = seen.row
        if row.request not in self._requests:
            self._requests[row.request] = self._new_request(row)
        request = self._requests[row.request]
        if request is None or request.has_ended or row.is_partial:
            return  # a request that has ended may have been scheduled once more
        if request.turn is None:
            self._first(request, seen, emitted)
        else:
            self._step(request, request.turn, seen, emitted)

    def _new_request(self, row: BatchRow) -> _Request | None:
        number, self._num_requests = self._num_requests, self._num_requests + 1
        why = why_not_recorded(row.state) or self._why_other(row.state.sampling_params)
        if why is not None:
            self._num_left_out += 1
            if len(self._left_out) < MOST_NAMED:
                self._left_out.append(f"request {row.request}: {why}")
                self._tell(f"left out: {self._left_out[-1]}")
            return None
        params, prompt = row.state.sampling_params, list(row.state.prompt_token_ids)
        room = self._runner.max_model_len - len(prompt)
        return _Request(
            name=self._name(number, row.request),
            prompt=prompt,
            reused=row.num_before,
            ends=frozenset([*(params.stop_token_ids or ()), *([] if (eos := params.eos_token_id) is None else [eos])]),
            limit=room if params.max_tokens is None else min(params.max_tokens, room),
            search=self._search(row.state) if params.stop else None,
        )

    def _search(self, state: Any) -> StopSearch | None:
        try:
            return StopSearch(self._runner, state)
        except ImportError:  # the request then counts as withdrawn, as it does to vLLM's runner
            return None

    def _why_other(self, params: Any) -> str | None:
        """How the setting differs from that of the requests before; the first one begins the trace."""
        setting = {"sampling": sampling_of(self._runner, params), **self._of_all(params)}
        if self._recorder is None:
            self._recorder, self._setting = (
                self._begin(about_run(self._runner) | setting | sections_of(setting)),
                setting,
            )
            self._rule = setting["sampling"]["rule"]
        for name in self._setting | setting:  # either may lack what the other sets
            value, before = (given.get(name, "not set") for given in (setting, self._setting))
            if value != before:
                return f"{name} is {value}, and was {before} before: a trace is of one setting"
        return None

    def _first(self, request: _Request, seen: _Seen, emitted: list[int]) -> None:
        """The prompt was taken in."""
        assert self._recorder is not None
        request.turn = self._recorder.turn(
            request.name,
            request.prompt,
            emitted[0],
            reused_length=request.reused,
            prefill={name: seen.numbers[name][-1] for name in ("top_tokens", "top_logits")},
        )
        self._end_by(request, request.keep(emitted[:1]))

    def _step(self, request: _Request, turn: RecordedTurn, seen: _Seen, emitted: list[int]) -> None:
        row, tokens = seen.row, [request.output[-1], *seen.row.drafts]
        parents = [max(0, slot - 1) for slot in range(len(tokens))]
        path, bonus = list(range(1, len(emitted))), emitted[-1]
        if self._rule == "greedy":  # what follows from the logits; what vLLM made of it is emitted
            path = greedy_walk(tokens, parents, seen.argmax).path
            bonus = seen.argmax[len(path)]
        kept = request.keep(emitted)
        turn.step(
            tokens=tokens,
            parents=parents,
            argmax=seen.argmax,
            path=path,
            bonus_token=bonus,
            emitted=emitted,
            kept=kept.num,
            tensors=_fed(row),
            verify=seen.numbers,
            accept={"rule": self._rule},
        )
        self._end_by(request, kept)

    # Where a turn ends.

    def _end_by(self, request: _Request, kept: _Kept) -> None:
        if kept.reason is not None:
            self._end(request, kept.reason)

    def _end(self, request: _Request, reason: TurnReason) -> None:
        if request.turn is not None:
            request.turn.end(reason)
        request.turn, request.has_ended = None, True

    def _end_those_gone(self) -> None:
        """Requests that the runner no longer knows, although no rule has ended them: they were withdrawn."""
        for name in [name for name in self._requests if name not in self._runner.requests]:
            request = self._requests.pop(name)
            if request is not None:
                self._end(request, "cancelled")

    def close(self) -> None:
        """Ends the trace, and the turns that are still running."""
        with self._noting():
            self._end_those_gone()
            for request in self._requests.values():
                if request is not None:
                    self._end(request, "interrupted")
        self._requests = {}
        if self._recorder is not None and self.failure is not None:
            self._recorder.__exit__(type(self.failure), self.failure, None)
        elif self._recorder is not None:
            self._recorder.close()

    def check(self) -> None:
        """Says what of the requests is not in the trace.

        Raises:
            UsageError: where something is not.
        """
        if self.failure is not None:
            raise UsageError(f"the recording was given up: {self.failure}") from self.failure
        if self._left_out:
            num_more = self._num_left_out - len(self._left_out)
            rest = [f"{num_more} more"] if num_more else []
            raise UsageError(f"left out: {'; '.join([*self._left_out, *rest])}. The others are recorded")
        if self._recorder is None:
            raise UsageError("nothing was recorded: call llm.generate inside the block")

    def abandon(self, error: BaseException) -> None:
        """Ends the trace as failed."""
        if self._recorder is not None:
            self._recorder.__exit__(type(error), error, None)


def sections_of(setting: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """What every step has; where tokens are drawn, coins stay inside vLLM."""
    accept = "accept" if setting["sampling"]["rule"] == "greedy" else "accept.path"
    return {"sections": ("tree", "tensors", "verify", accept, "stop")}


class _Seen:
    """A row of the batch, and what its logits say before the sampler works on them."""

    def __init__(self, row: BatchRow) -> None:
        logits = row.logits.float()
        self.row, self.argmax = row, logits.argmax(-1).tolist()
        self.numbers = verify_numbers(logits, NUM_BEST)


def _fed(row: BatchRow) -> dict[str, Any]:
    """What the forward was given for the root and the drafts. vLLM's attention has a flag in place of a mask."""
    rows = len(row.tokens)
    seen = [[True] * (row.committed + slot + 1) + [False] * (rows - slot - 1) for slot in range(rows)]
    return tree_tensors(row.tokens, row.positions, seen, row.committed) | {"mask_from": "causal"}
