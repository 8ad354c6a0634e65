"""The loop: draft, tensorize, check, verify, accept, commit, until a stop rule is met.

Knows no file format and no transformers. A ``Session`` holds one conversation's caches; each turn is a generator of
``StepResult``. An observer, where there is one, is told of every turn and step; without one the loop pays an ``is
None`` for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import torch

from specscope.engine.acceptance import Acceptance, accept_greedy
from specscope.engine.attention import dispatch_log
from specscope.engine.cache import TreeCache
from specscope.engine.checks import CheckReport, check_tree
from specscope.engine.commit import Commit, commit_step
from specscope.engine.digests import digest_tensors
from specscope.engine.drafters.base import Draft, Drafter, DraftPairs
from specscope.engine.stopping import StopDecision, StopRules, StopWatch
from specscope.engine.teacher import PREFILL_ROWS, Teacher, TeacherOutput
from specscope.engine.tree_tensors import TreeTensors, additive_mask, causal_mask, tensorize
from specscope.tracer.errors import UsageError, ViolationError

PhaseName = Literal["prefill", "draft", "tensorize", "check", "verify", "accept", "commit", "stop", "record"]


@dataclass(frozen=True)
class Phases:
    """The phases that can be replaced one by one: the seams where a deliberate fault goes in."""

    tensorize: Callable[[Draft, int, int], TreeTensors]
    accept: Callable[[list[int], list[int], list[int]], Acceptance]
    commit: Callable[[TreeCache, list[int], int | None], Commit]
    stop_on_violation: bool = True


def honest_phases() -> Phases:
    """The phases as they should be."""
    return Phases(lambda draft, length, depth: tensorize(draft.tree, length, depth), accept_greedy, commit_step)


class Verification(NamedTuple):
    """What the teacher said of a tree."""

    logits: torch.Tensor  # (P, V), padding rows included
    features: torch.Tensor  # (P, 3E)
    argmax: list[int]  # per real slot
    mask: torch.Tensor  # (1, 1, P, T + P), as it was used
    dispatch: Counter[str]  # empty without an observer


@dataclass(frozen=True)
class StepResult:
    """Everything one step decided."""

    step: int
    draft: Draft
    tensors: TreeTensors
    tensorized_digest: str | None  # of the inputs before the forward; None without an observer
    report: CheckReport
    verification: Verification
    acceptance: Acceptance
    commit: Commit
    drafter_pairs: int  # in the drafter's cache after the step
    stop: StopDecision
    durations_ns: dict[str, int]  # by phase


@dataclass(frozen=True)
class TurnStarted:
    """A turn whose prompt has been taken in."""

    prompt_ids: list[int]
    reused_length: int
    dispatch: Counter[str]
    last_hidden: torch.Tensor  # (3E,) features of the last prompt position, or empty
    last_logits: torch.Tensor  # (V,)
    pending_token: int
    duration_ns: int


EndReason = Literal["eos", "length", "stop_string", "interrupted", "failed"]


@dataclass
class TurnResult:
    """What a turn came to; filled while it runs."""

    output_ids: list[int] = field(default_factory=list)
    reason: EndReason = "failed"
    accepted_lengths: list[int] = field(default_factory=list)
    num_drafted: int = 0
    duration_ns: int = 0
    prefill_ns: int = 0

    @property
    def mean_accepted_length(self) -> float:
        """Accepted nodes a step; excludes root and bonus. 0 without a step."""
        return sum(self.accepted_lengths) / max(1, len(self.accepted_lengths))

    @property
    def tokens_per_s(self) -> float:
        """Output tokens over the turn's wall time, prefill included."""
        return len(self.output_ids) / max(self.duration_ns / 1e9, 1e-9)


class Observer(Protocol):
    """Is told what happens, and changes nothing."""

    def turn_started(self, turn: TurnStarted) -> None:
        """After the prefill."""

    def step_done(self, result: StepResult) -> None:
        """After each step."""

    def turn_ended(self, result: TurnResult) -> None:
        """After the last step, or when the turn was interrupted or failed."""

    def failed(self, phase: PhaseName, step: int | None, inputs: dict[str, Any], error: Exception) -> None:
        """Before an exception leaves the loop."""


class PhaseClock:
    """Which phase is running, and what each took."""

    def __init__(self) -> None:
        self.current: PhaseName = "prefill"
        self.durations_ns: dict[str, int] = {}

    @contextmanager
    def phase(self, name: PhaseName) -> Iterator[None]:
        """Times the block as phase ``name``; leaves ``current`` standing where it fails."""
        self.current = name
        begun = time.perf_counter_ns()
        yield
        self.durations_ns[name] = time.perf_counter_ns() - begun


class Session:
    """One conversation: the teacher's cache and the ids that it has taken in.

    The drafter keeps a cache of its own, and serves one session at a time: a new session empties it.
    """

    def __init__(self, teacher: Teacher, drafter: Drafter, phases: Phases | None = None) -> None:
        self.teacher = teacher
        self.drafter = drafter
        self.phases = phases or honest_phases()
        self.cache = teacher.new_cache(capacity=512)
        self.committed_ids: list[int] = []
        self.drafter.truncate(0)
        self.result = TurnResult()  # the running turn's

    @torch.inference_mode()
    def decode(
        self, prompt_ids: list[int], rules: StopRules, observer: Observer | None = None
    ) -> Generator[StepResult, None, None]:
        """Decodes one turn behind ``prompt_ids``, the whole context. ``self.result`` is filled while it runs.

        Raises:
            UsageError: for an empty prompt, ids outside the vocabulary, or a prompt longer than the positions.
            ViolationError: where a structural check fails before the verify forward.
        """
        rules = check_turn(self.teacher, prompt_ids, rules)
        result = self.result = TurnResult()
        watch = StopWatch(rules, self._decode_text)
        result.output_ids = watch.output_ids
        clock, step = PhaseClock(), 0
        known: dict[str, Any] = {"prompt_ids": prompt_ids}
        begun = time.perf_counter_ns()
        try:
            pairs = self._prefill(prompt_ids, observer)
            result.prefill_ns = time.perf_counter_ns() - begun
            stop = watch.take([int(pairs.tokens[-1])])
            while stop.reason is None:
                known.clear()
                outcome = self._step(step, pairs, watch, clock, observer is not None, known)
                stop, pairs = outcome.stop, self._next_pairs(outcome)
                result.accepted_lengths.append(outcome.acceptance.accepted_length)
                result.num_drafted += outcome.draft.tree.num_slots - 1
                if observer is not None:
                    clock.current = "record"
                    observer.step_done(outcome)
                yield outcome
                step += 1
            result.reason = stop.reason
        except (KeyboardInterrupt, GeneratorExit):
            result.reason = "interrupted"
            raise
        except Exception as error:
            if observer is not None:
                observer.failed(clock.current, step, known, error)
            raise
        finally:
            result.duration_ns = time.perf_counter_ns() - begun
            if observer is not None and result.output_ids:
                observer.turn_ended(result)

    def _step(
        self,
        step: int,
        pairs: DraftPairs,
        watch: StopWatch,
        clock: PhaseClock,
        observed: bool,
        known: dict[str, Any],
    ) -> StepResult:
        """One step. ``known`` gathers what each phase produced, for the failure record."""
        phases, cache, committed = self.phases, self.cache, self.cache.committed_length
        known["pairs"] = pairs
        # Draft: the drafter takes in what was committed and proposes a tree under the pending token.
        with clock.phase("draft"):
            draft = known["draft"] = self.drafter.propose(pairs)
        # Tensorize: the tree as ids, positions and visibility, the root being row 0.
        with clock.phase("tensorize"):
            tensors = known["tensors"] = phases.tensorize(draft, committed, self.drafter.policy.depth)
        digest = digest_tensors(tensors.token_ids, tensors.position_ids, tensors.visible) if observed else None
        # Check: no kernel is launched on a tree that is not one.
        with clock.phase("check"):
            report = check_tree(tensors, self.teacher.vocab_size)
            if report.failed and phases.stop_on_violation:
                raise ViolationError("; ".join(f"{f.id}: {f.witness}" for f in report.failed))
        # Verify: one teacher forward over all slots.
        with clock.phase("verify"):
            verification = known["verification"] = self._verify(tensors, observed)
        # Accept: walk from the root along the teacher's own choices.
        with clock.phase("accept"):
            acceptance = known["acceptance"] = phases.accept(
                draft.tree.tokens.tolist(), draft.tree.parents.tolist(), verification.argmax
            )
        # Commit: the root's and the path's rows become part of the committed prefix.
        with clock.phase("commit"):
            checked_layer = step % self.teacher.num_layers if observed else None
            commit = known["commit"] = phases.commit(cache, [0, *acceptance.path], checked_layer)
        clock.current = "stop"
        tokens = [int(draft.tree.tokens[slot]) for slot in acceptance.path]
        self.committed_ids += [int(draft.tree.tokens[0]), *tokens]
        stop = watch.take([*tokens, acceptance.bonus_token])
        return StepResult(
            step,
            draft,
            tensors,
            digest,
            report,
            verification,
            acceptance,
            commit,
            self.drafter.num_pairs,
            stop,
            dict(clock.durations_ns),
        )

    def _verify(self, tensors: TreeTensors, observed: bool) -> Verification:
        mask = additive_mask(tensors, self.teacher.dtype)
        with dispatch_log() if observed else nullcontext(Counter[str]()) as dispatch:
            output = self.teacher.forward(
                tensors.token_ids, tensors.position_ids, mask, self.cache, self.drafter.feature_layers
            )
        argmax = output.logits[: tensors.num_slots].argmax(dim=-1).tolist()  # the step's one wait for the device
        return Verification(output.logits, output.features, argmax, mask, dispatch)

    def _next_pairs(self, outcome: StepResult) -> DraftPairs:
        rows = [0, *outcome.acceptance.path]
        return DraftPairs(
            rows,
            outcome.verification.features[rows],
            torch.tensor(outcome.stop.emitted, device=self.teacher.device),
        )

    def _prefill(self, prompt_ids: list[int], observer: Observer | None) -> DraftPairs:
        """Takes in the prompt behind what both caches already hold of it, and returns the drafter's first pairs."""
        begun = time.perf_counter_ns()
        # The last known token is fed again: the drafter needs its features for the pair with the token that follows.
        known = _common_length(self.committed_ids, prompt_ids[:-1])
        start = max(0, min(known - 1, self.drafter.num_pairs))
        self.committed_ids = prompt_ids[:start]
        self.cache.truncate(start)
        self.drafter.truncate(start)
        with dispatch_log() if observer is not None else nullcontext(Counter[str]()) as dispatch:
            output = self._take_in(prompt_ids[start:], start)
        self.committed_ids = list(prompt_ids)
        pending = int(output.logits[-1].argmax())
        if observer is not None:
            observer.turn_started(
                TurnStarted(
                    prompt_ids,
                    start,
                    dispatch,
                    output.features[-1],
                    output.logits[-1],
                    pending,
                    time.perf_counter_ns() - begun,
                )
            )
        tokens = torch.tensor([*prompt_ids[start + 1 :], pending], device=self.teacher.device)
        return DraftPairs(list(range(len(tokens))), output.features, tokens)

    def _take_in(self, token_ids: list[int], start: int) -> TeacherOutput:
        """Forwards over ``token_ids`` behind ``start`` committed tokens, in chunks, and commits them all."""
        device, features = self.teacher.device, []
        for offset in range(0, len(token_ids), PREFILL_ROWS):
            ids = torch.tensor(token_ids[offset : offset + PREFILL_ROWS], device=device)
            committed = start + offset
            output = self.teacher.forward(
                ids,
                torch.arange(committed, committed + len(ids), device=device),
                causal_mask(len(ids), committed, self.teacher.dtype, device),
                self.cache,
                self.drafter.feature_layers,
                last_row_only=True,
            )
            self.cache.commit_length(len(ids))
            features.append(output.features)
        return TeacherOutput(output.logits, torch.cat(features))

    def _decode_text(self, token_ids: list[int]) -> str:
        if self.teacher.tokenizer is None:
            raise UsageError("stop strings need a tokenizer, and this teacher's folder has none")
        return str(self.teacher.tokenizer.decode(token_ids, skip_special_tokens=False))


def _common_length(first: list[int], second: list[int]) -> int:
    """How many leading ids are equal."""
    length = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        length += 1
    return length


def check_turn(teacher: Teacher, prompt_ids: list[int], rules: StopRules) -> StopRules:
    """The rules with the length cut to what the teacher's positions leave behind ``prompt_ids``.

    Raises:
        UsageError: for an empty prompt, ids outside the vocabulary, or a prompt longer than the positions.
    """
    if not prompt_ids:
        raise UsageError("the prompt is empty: give at least one token")
    wrong = [i for i in prompt_ids if not 0 <= i < teacher.vocab_size]
    if wrong:
        raise UsageError(f"got token id {wrong[0]}, wanted 0..{teacher.vocab_size - 1}, this teacher's ids")
    if rules.max_new_tokens < 1:
        raise UsageError(f"got {rules.max_new_tokens} new tokens, wanted at least 1")
    most = teacher.max_positions
    if most is None:
        return rules
    if len(prompt_ids) >= most:
        raise UsageError(f"the prompt has {len(prompt_ids)} tokens, this teacher has {most} positions: shorten it")
    return rules._replace(max_new_tokens=min(rules.max_new_tokens, most - len(prompt_ids)))
