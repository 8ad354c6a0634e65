"""The loop: draft, tensorize, check, verify, accept, commit, until a stop rule is met.

Knows no file format and no transformers. A ``Session`` holds the caches of one or more rows, each a conversation;
``begin`` takes a prompt in, ``step`` takes every row one step further. An observer, where a turn has one, is told of
all that happens to it; without one the loop pays an ``is None`` for it.

A step waits for the device once, where the acceptance is read: every other number that the host needs is known from the
policy or from the step before. An observer adds no wait to that. Processors, checks before the kernel, and a drafter
that shares the teacher's layers on a dynamic tree each look earlier, and so add waits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import torch

from specscope.engine.accept.processors import process_last
from specscope.engine.accept.sampling import draw_bonus, draw_coins, target_probs
from specscope.engine.backends.attention import dispatch_log
from specscope.engine.backends.devices import backend_of
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.commit import prefix_sums
from specscope.engine.cache.custody import as_digests
from specscope.engine.cache.strategies import commit_strategy
from specscope.engine.drafters.base import Drafter, DraftPairs
from specscope.engine.guided.logits import forbid_next
from specscope.engine.loop.agreement import exchange_outcomes, exchange_trees
from specscope.engine.loop.graphs import VerifyGraphs
from specscope.engine.loop.guided import begin_guided
from specscope.engine.loop.in_flight import PrefillInFlight, StepInFlight
from specscope.engine.loop.interrupts import held_interrupts
from specscope.engine.loop.phases import (
    Decoding,
    EndReason,
    HandOver,
    Observer,
    PendingDraw,
    StepResult,
    TurnResult,
    TurnStarted,
)
from specscope.engine.loop.rows import TakenRow, common_length, held_by
from specscope.engine.loop.shapes import TreeDispatcher
from specscope.engine.loop.step import StepPhases
from specscope.engine.loop.stopping import StopRules, StopWatch
from specscope.engine.loop.turns import Row, Turn, TurnRequest, check_turn
from specscope.engine.teacher.model import PREFILL_ROWS, Teacher, TeacherOutput
from specscope.engine.tree.tensors import causal_mask
from specscope.tracer.errors import UsageError


class Session:
    """Conversations decoded side by side: the teacher's cache and the ids that it has taken in, row by row.

    The drafter keeps its own caches and serves one session at a time: a new session empties them.
    """

    def __init__(self, teacher: Teacher, drafter: Drafter, decoding: Decoding | None = None, num_rows: int = 1) -> None:
        self.teacher = teacher
        self.drafter = drafter
        self.decoding = decoding or Decoding()
        self.cache = self._new_cache(num_rows)
        self.rows = [Row() for _ in range(num_rows)]
        self.drafter.begin_session(self.cache)
        graphs = self.decoding.graphs
        shapes = self.decoding.shapes
        self.dispatcher = None if shapes is None else TreeDispatcher(table=shapes)
        self._phases = StepPhases(
            teacher=teacher,
            drafter=drafter,
            decoding=self.decoding,
            cache=self.cache,
            rows=self.rows,
            graphs=None if graphs is None else VerifyGraphs(teacher, graphs, self.decoding.phases),
            dispatcher=self.dispatcher,
        )
        # A run that leaves its checks to the device shall not wait for more because it is observed.
        self._settle: Callable[[], None] | None = None
        if self.decoding.checks == "before":
            self._settle = partial(backend_of(teacher.device.type).synchronise, teacher.device)
        self.result = TurnResult()  # of the turn that began last
        self._in_flight: PrefillInFlight | StepInFlight | None = None  # for the record of a failure

    def decode(
        self,
        prompt_ids: list[int],
        rules: StopRules,
        observer: Observer | None = None,
        generator_seed: int | None = None,
    ) -> Generator[StepResult, None, None]:
        """Decodes one turn behind ``prompt_ids``, the whole context, in a session of one row. ``self.result`` is filled
        while it runs.

        Raises:
            UsageError: for an empty prompt, ids outside the vocabulary, or a prompt longer than the positions.
            ViolationError: where a structural check fails, or ranks part.
        """
        try:
            self.begin(0, TurnRequest(prompt_ids, rules, observer=observer, generator_seed=generator_seed))
            while self.rows[0].turn is not None:
                yield from self.step()
                self.end_stopped()
        except (KeyboardInterrupt, GeneratorExit):
            self.abandon("interrupted")
            raise
        except Exception as error:
            self.fail(error)
            raise

    @torch.inference_mode()
    def begin(self, row: int, request: TurnRequest) -> TurnResult:
        """Takes in the prompt of a turn in ``row`` behind what its caches already hold of it.

        Raises:
            UsageError: for an empty prompt, ids outside the vocabulary, or a prompt longer than the positions.
        """
        request = replace(request, rules=check_turn(self.teacher, request.prompt_ids, request.rules))
        turn = self.new_turn(request, row)
        self.rows[row].turn = turn
        self.result = turn.result
        self._in_flight = PrefillInFlight(row=row, turn=turn, request=request)
        turn.pairs, stop = self._prefill(row, turn, request)
        self._in_flight = None
        turn.result.prefill_ns = time.perf_counter_ns() - turn.begun_ns
        if stop is not None:
            self._end(row, stop)
        return turn.result

    def new_turn(self, request: TurnRequest, row: int) -> Turn:
        """The turn that ``request`` asks for in ``row``, before anything is taken in."""
        generator = None
        if self.decoding.rule.rule != "greedy":
            generator = self.decoding.phases.new_generator(row, request.generator_seed or 0)
        grammar = self.decoding.grammar
        processors = request.processors
        if processors is None and self.decoding.processors is not None:
            processors = self.decoding.processors.build(len(request.prompt_ids))
        watch = StopWatch(request.rules, self._decode_text, request.criterion)
        turn = Turn(
            watch=watch,
            observer=request.observer,
            generator=generator,
            processors=processors,
            begun_ns=time.perf_counter_ns(),
            prompt_length=len(request.prompt_ids),
            guide=None if grammar is None else grammar.guide(),
        )
        turn.result.output_ids = watch.output_ids
        return turn

    @torch.inference_mode()
    def step(self, meanwhile: Callable[[], None] | None = None) -> list[StepResult]:
        """Takes every row, each of which must have a running turn, one step further; one result per row.

        ``meanwhile`` is called once the draft is launched, for what the caller has to do beside it. It may raise, and
        may not change the rows.
        """
        step = self._in_flight = StepInFlight.of(self.rows, self.cache.committed_lengths, self._settle)
        # Shape: how large the trees are, where that is chosen anew by what the rows have to do.
        self._phases.choose_shape(step)
        # Custody: what the last step left in the caches, where somebody observes.
        self._phases.take_custody(step)
        # Branch: what the forwards of this step write to; the committed cache itself, unless the strategy copies it.
        with step.clock.phase("branch"):
            branch = self.cache.branch()
        # Draft: the drafter takes in what was committed and proposes a tree under each pending token.
        draft = self._phases.draft(step, branch)
        if meanwhile is not None:
            with step.clock.phase("deliver"), self._left_alone(step):
                meanwhile()
        # Tensorize: the trees as ids, positions and visibility, the root being slot 0.
        tensors = self._phases.tensorize(step, draft)
        # Check: no kernel is launched on a tree that is not one.
        with step.clock.phase("check"):
            self._phases.check(step, tensors)
        # Agree: where several ranks compute the step, their trees must be the same.
        exchange = self.decoding.phases.exchange
        if exchange is not None:
            exchange_trees(step, exchange)
        # Verify: one teacher forward over all slots of all rows.
        with step.clock.phase("verify"):
            verification = self._phases.verify(step, draft, tensors, branch)
        # Accept: walk from the root along the teacher's own choices, or as the coins fall; the host reads the outcome.
        with step.clock.phase("accept"):
            self._phases.accept(step, draft, tensors, verification)
        # Commit: the root's and the path's positions become part of the committed prefix.
        with step.clock.phase("commit"):
            commits = self._phases.commit(step, branch)
        parted = None if exchange is None else exchange_outcomes(step, exchange)
        with held_interrupts():
            # Stop: what the rows emit, cut where a stop rule is met.
            decisions = self._phases.stop(step, commits)
            # Record: the observers hear of it.
            step.clock.current = "record"
            results = step.results(decisions, self.drafter.num_pairs)
            for row, result in zip(step.rows, results, strict=True):
                self._take_note(row.turn, result)
            self._in_flight = None
        if parted is not None:
            raise parted
        return results

    @contextmanager
    def _left_alone(self, step: StepInFlight) -> Iterator[None]:
        """A block of the caller's in the midst of a step. What fails there is no phase's failure, and the step is not
        taken: what its draft drew counts as not drawn."""
        self._in_flight = None
        try:
            with torch.inference_mode(mode=False):
                yield
        except BaseException:
            step.take_back_draws()
            raise
        self._in_flight = step

    def end_stopped(self) -> list[int]:
        """Ends the turns whose last step met a stop rule, and names their rows."""
        ended = []
        for number, row in enumerate(self.rows):
            if row.turn is not None and row.turn.watch.reason is not None:
                self._end(number, row.turn.watch.reason)
                ended.append(number)
        return ended

    def cancel(self, row: int) -> None:
        """Ends the turn of ``row`` before it has come to its end, between two steps."""
        self._end(row, "cancelled")

    def add_rows(self, count: int) -> None:
        """Adds ``count`` empty rows behind the others. Each is to begin a turn before the next step."""
        self.cache.add_rows(count)
        self.drafter.add_rows(count)
        self.rows += [Row() for _ in range(count)]

    @torch.inference_mode()
    def drop_row(self, row: int) -> None:
        """Ends a conversation: the last row takes the number of ``row``."""
        self.cache.drop_row(row)
        self.drafter.drop_row(row)
        last = self.rows.pop()
        if row < len(self.rows):
            self.rows[row] = last

    def clear_row(self, row: int) -> None:
        """Makes room for another conversation in ``row``: nothing of the last one is reused."""
        self.rows[row].committed_ids = []

    def abandon(self, reason: EndReason) -> None:
        """Ends all running turns, for ``reason`` or because their last step met a stop rule."""
        for number, row in enumerate(self.rows):
            if row.turn is not None:
                self._end(number, row.turn.watch.reason or reason)

    def fail(self, error: Exception) -> None:
        """Tells the observers what happened, with the inputs of the running phase, and ends all turns.

        A prefill concerns its own row, a step all of them. What fails between the phases concerns no turn.
        """
        for number, row in enumerate(self.rows):
            in_flight = self._in_flight.of_row(number) if self._in_flight is not None else None
            if in_flight is not None and row.turn is not None and row.turn.observer is not None:
                row.turn.observer.failed(in_flight, error)
        self.abandon("failed")

    def _end(self, row: int, reason: EndReason) -> None:
        turn = self.rows[row].turn
        assert turn is not None
        turn.result.reason = reason
        turn.result.duration_ns = time.perf_counter_ns() - turn.begun_ns
        turn.result.row = row
        turn.result.generator_state = turn.generator_state
        with held_interrupts():
            self.rows[row].turn = None
            if turn.observer is not None and turn.result.output_ids:
                turn.observer.turn_ended(turn.result)

    def _take_note(self, turn: Turn, result: StepResult) -> None:
        phases, totals = self.decoding.phases, turn.result
        totals.accepted_lengths.append(phases.tally(result.acceptance))
        totals.num_drafted += result.shared.tensors.num_slots[result.row] - 1
        totals.num_fallbacks += result.commit.fallback is not None
        totals.commit_ns.append(result.durations_ns["branch"] + result.durations_ns["commit"])
        turn.pairs = phases.pairs(
            HandOver(
                phase="step",
                features=result.shared.verification.features[result.row],
                source_rows=[0, *result.acceptance.path],
                tokens=result.stop.emitted,
                device=self.teacher.device,
            )
        )
        if turn.observer is not None:
            turn.observer.step_done(result)
        turn.step += 1

    def _prefill(self, number: int, turn: Turn, request: TurnRequest) -> tuple[DraftPairs, EndReason | None]:
        """Takes in the prompt behind what both caches already hold of it; the drafter's first pairs, and why the turn
        ends at its first token, if it does."""
        prompt_ids, row = request.prompt_ids, self.rows[number]
        start = self.decoding.phases.take_row(
            TakenRow(number, self.cache, self.drafter, held_ids=row.committed_ids, prompt_ids=prompt_ids)
        )
        row.committed_ids = prompt_ids[:start]
        held, drawn_by = held_by(self.cache, self.drafter, number), turn.generator_state
        observed = turn.observer is not None
        with dispatch_log() if observed else nullcontext(Counter[str]()) as dispatch, self.cache.only(number):
            output = self.take_in(prompt_ids[start:], start)
        row.committed_ids = list(prompt_ids)
        self.cache.share(number, [common_length(other.committed_ids, prompt_ids) for other in self.rows])
        last = output.logits[0, -1]
        logits = last if turn.processors is None else process_last(turn.processors, prompt_ids, last)
        if turn.guide is not None:
            logits = forbid_next(logits, turn.guide.allowed())
        pending, draw = self._first_token(logits, turn)
        guided = None if turn.guide is None else begin_guided(turn.guide, pending, logits)
        with held_interrupts():
            if turn.observer is not None:
                turn.observer.turn_started(
                    TurnStarted(
                        prompt_ids=prompt_ids,
                        reused_length=start,
                        row=number,
                        held=held,
                        generator_state=drawn_by,
                        generator_seed=request.generator_seed if turn.generator is not None else None,
                        dispatch=dispatch,
                        features=output.features[0],
                        last_logits=logits,
                        pending_token=pending,
                        draw=draw,
                        guided=guided,
                        prefix_digests=as_digests(prefix_sums(self.cache, number)),
                        block_table=self._block_table(number),
                        duration_ns=time.perf_counter_ns() - turn.begun_ns,
                    )
                )
            tokens = [*prompt_ids[start + 1 :], pending]
            pairs = self.decoding.phases.pairs(
                HandOver(
                    phase="prefill",
                    features=output.features[0],
                    source_rows=list(range(len(tokens))),
                    tokens=tokens,
                    device=self.teacher.device,
                )
            )
            return pairs, self.decoding.phases.stop(turn.watch, [pending]).reason

    def _first_token(self, logits: torch.Tensor, turn: Turn) -> tuple[int, PendingDraw | None]:
        """The first token after the prompt, whose ``logits`` (V,) are given."""
        if turn.generator is None:
            return int(logits.argmax()), None
        coin = draw_coins(turn.generator, 0).bonus
        drawn = draw_bonus(target_probs(logits[None], self.decoding.rule), coin[None].to(logits.device))
        return int(drawn.tokens[0]), PendingDraw(float(coin), float(drawn.low[0]), float(drawn.high[0]))

    def _new_cache(self, num_rows: int) -> TreeCache:
        block_size = self.decoding.block_size
        if block_size is not None:
            return self.teacher.new_paged_cache(num_rows, block_size)
        return self.teacher.new_cache(num_rows, commit_strategy(self.decoding.cache_strategy))

    def _block_table(self, row: int) -> list[int] | None:
        note = self.cache.block_note(row, [r.committed_ids for r in self.rows])
        return None if note is None else note.table

    def take_in(self, token_ids: list[int], start: int) -> TeacherOutput:
        """Forwards over ``token_ids`` behind ``start`` committed tokens of the one active row, in chunks, and commits
        them all. The logits are the last token's alone."""
        device, features = self.teacher.device, []
        for offset in range(0, len(token_ids), PREFILL_ROWS):
            ids = torch.tensor([token_ids[offset : offset + PREFILL_ROWS]], device=device)
            committed, count = start + offset, ids.shape[1]
            output = self.teacher.forward(
                ids,
                torch.arange(committed, committed + count, device=device)[None],
                causal_mask(count, committed, self.teacher.dtype, device),
                self.cache,
                feature_layers=self.drafter.feature_layers,
                last_row_only=True,
            )
            self.cache.commit_length([count])
            features.append(output.features)
        return TeacherOutput(output.logits, torch.cat(features, dim=1))

    def _decode_text(self, token_ids: list[int]) -> str:
        if self.teacher.tokenizer is None:
            raise UsageError("stop strings need a tokenizer, and this teacher's folder has none")
        return str(self.teacher.tokenizer.decode(token_ids, skip_special_tokens=False))
