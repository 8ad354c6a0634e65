"""The loop: draft, tensorize, check, verify, accept, commit, until a stop rule is met.

Knows no file format and no transformers. A ``Session`` holds the caches of one or more rows, each a conversation;
``begin`` takes a prompt in, ``step`` takes every row one step further. An observer, where a turn has one, is told of
all that happens to it; without one the loop pays an ``is None`` for it.

A step waits for the device once, where the acceptance is read: every other number that the host needs is known from the
policy or from the step before. An observer, processors, checks before the kernel, and a drafter that shares the
teacher's layers on a dynamic tree each look at the trees earlier, and so add a wait.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from specscope.engine.accept.greedy import Acceptance
from specscope.engine.accept.processors import process_last
from specscope.engine.accept.sampling import Coins, draw_bonus, draw_coins, target_probs
from specscope.engine.backends.attention import dispatch_log
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.commit import digest_layers
from specscope.engine.cache.strategies import commit_strategy
from specscope.engine.decode.phases import (
    AcceptInputs,
    Custody,
    Decoding,
    EndReason,
    ForwardInputs,
    HandOver,
    Observer,
    PendingDraw,
    RowAcceptance,
    StepResult,
    StepTensors,
    TurnResult,
    TurnStarted,
    Verification,
)
from specscope.engine.decode.stopping import StopRules, StopWatch
from specscope.engine.decode.turns import (
    PhaseClock,
    Row,
    StepBegun,
    Turn,
    TurnRequest,
    check_turn,
    common_length,
    state_of,
)
from specscope.engine.digests import digest_tensors
from specscope.engine.drafters.base import Draft, Drafter, DraftPairs, SharedLayers
from specscope.engine.teacher.model import PREFILL_ROWS, Teacher, TeacherOutput
from specscope.engine.tree.checks import CheckReport, check_row, input_digests, sound_rows
from specscope.engine.tree.tensors import TreeTensors, causal_mask
from specscope.tracer.errors import UsageError, ViolationError


class Session:
    """Conversations decoded side by side: the teacher's cache and the ids that it has taken in, row by row.

    The drafter keeps caches of its own, and serves one session at a time: a new session empties them.
    """

    def __init__(self, teacher: Teacher, drafter: Drafter, decoding: Decoding | None = None, num_rows: int = 1) -> None:
        self.teacher = teacher
        self.drafter = drafter
        self.decoding = decoding or Decoding()
        self.cache = teacher.new_cache(num_rows, commit_strategy(self.decoding.cache_strategy))
        self.rows = [Row() for _ in range(num_rows)]
        self.drafter.begin_session(self.cache)
        self.result = TurnResult()  # of the turn that began last
        self._clock = PhaseClock()
        self._known: dict[str, Any] = {}  # what the running phase is working on, for the failure record

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
            ViolationError: where a structural check fails.
        """
        try:
            self.begin(0, TurnRequest(prompt_ids, rules, observer, generator_seed))
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
        turn = self.new_turn(replace(request, rules=check_turn(self.teacher, request.prompt_ids, request.rules)))
        self.rows[row].turn, self.result = turn, turn.result
        self._clock, self._known = PhaseClock(), {"prefill": request, "row": row}
        turn.pairs, stop = self._prefill(row, turn, request)
        self._known = {}
        turn.result.prefill_ns = time.perf_counter_ns() - turn.begun_ns
        if stop is not None:
            self._end(row, stop)
        return turn.result

    def new_turn(self, request: TurnRequest) -> Turn:
        """The turn that ``request`` asks for, before anything is taken in."""
        generator, processors = None, request.processors
        if self.decoding.rule.rule != "greedy":
            generator = torch.Generator().manual_seed(request.generator_seed or 0)
        if processors is None and self.decoding.processors is not None:
            processors = self.decoding.processors.build(len(request.prompt_ids))
        watch = StopWatch(request.rules, self._decode_text, request.criterion)
        turn = Turn(watch, request.observer, generator, processors, time.perf_counter_ns(), len(request.prompt_ids))
        turn.result.output_ids = watch.output_ids
        return turn

    @torch.inference_mode()
    def step(self) -> list[StepResult]:
        """Takes every row, each of which must have a running turn, one step further; one result a row."""
        turns = [row.turn for row in self.rows if row.turn is not None]
        assert len(turns) == len(self.rows), "every row must have a running turn"
        clock, known = PhaseClock(), dict[str, Any]()
        self._clock, self._known = clock, known
        phases, cache, committed = self.decoding.phases, self.cache, list(self.cache.committed_lengths)
        observed = any(turn.observer is not None for turn in turns)
        pairs = [turn.pairs for turn in turns if turn.pairs is not None]
        generators = [turn.generator for turn in turns if turn.generator is not None]
        known["begun"] = StepBegun.of(turns, pairs, committed, generators if observed else [])
        # Branch: what the forwards of this step write to; the committed cache itself, unless the strategy copies it.
        with clock.phase("branch"):
            branch = cache.branch()
        # Draft: the drafter takes in what was committed and proposes a tree under each pending token.
        drawn = self.decoding.rule.draft == "sampled"
        kept_before = self._kept_digests() if observed else None
        with clock.phase("draft"):
            draft = known["draft"] = self.drafter.propose(pairs, branch, generators if drawn else None)
        custody = None if kept_before is None else Custody(kept_before, self._kept_digests())
        # Tensorize: the trees as ids, positions and visibility, the root being slot 0.
        with clock.phase("tensorize"):
            tensors = known["tensors"] = phases.tensorize(draft, committed, self.drafter.policy.depth)
        digests = input_digests(tensors) if observed else [None] * len(turns)
        # Check: no kernel is launched on a tree that is not one.
        with clock.phase("check"):
            reports = self._check(tensors, observed)
        # Verify: one teacher forward over all slots of all rows.
        with clock.phase("verify"):
            verification = known["verification"] = self._verify(tensors, draft, branch, turns, observed)
        # Accept: walk from the root along the teacher's own choices, or as the coins fall; the host reads the outcome.
        with clock.phase("accept"):
            coins = self._coins(tensors, turns)
            said, most, rule = verification, max(self.drafter.policy.top_k, 1), self.decoding.rule
            inputs = AcceptInputs(tensors, said.argmax, said.logits, draft.child_probs, coins, rule, most)
            acceptance = phases.accept(inputs)
            accepted = known["acceptance"] = self._read(acceptance, tensors, deferred=reports is None)
        # Commit: the root's and the path's positions become part of the committed prefix.
        with clock.phase("commit"):
            layers = [turn.checked_layer(self.teacher.num_layers) for turn in turns]
            commits = known["commit"] = phases.commit(cache, branch, [[0, *a.path] for a in accepted], layers)
        clock.current = "stop"
        shared = StepTensors(draft, tensors, verification, acceptance, coins, custody)
        results = []
        for row, (turn, own, commit, digest) in enumerate(zip(turns, accepted, commits, digests, strict=True)):
            self.rows[row].committed_ids += [turn.watch.output_ids[-1], *own.tokens]
            report, num_pairs = reports[row] if reports is not None else None, self.drafter.num_pairs[row]
            stop, times = phases.stop(turn.watch, [*own.tokens, own.bonus_token]), clock.durations_ns
            results.append(StepResult(turn.step, row, shared, digest, report, own, commit, num_pairs, stop, times))
        clock.current = "record"
        for turn, result in zip(turns, results, strict=True):
            self._take_note(turn, result)
        self._known = {}
        return results

    def end_stopped(self) -> list[int]:
        """Ends the turns whose last step met a stop rule, and names their rows."""
        ended = []
        for number, row in enumerate(self.rows):
            if row.turn is not None and row.turn.watch.reason is not None:
                self._end(number, row.turn.watch.reason)
                ended.append(number)
        return ended

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
        """Ends all running turns."""
        for number, row in enumerate(self.rows):
            if row.turn is not None:
                self._end(number, reason)

    def fail(self, error: Exception) -> None:
        """Tells the observers what happened, with the inputs of the running phase, and ends all turns.

        A prefill concerns its own row, a step all of them. What fails between the phases concerns no turn.
        """
        known = self._known
        for number, row in enumerate(self.rows):
            if known and known.get("row", number) == number and row.turn is not None and row.turn.observer is not None:
                state = state_of(row, number, known.get("begun"), known.get("prefill"))
                inputs = {**known, "row": number, "state": state}
                row.turn.observer.failed(self._clock.current, state.step, inputs, error)
        self.abandon("failed")

    def _kept_digests(self) -> list[str | None]:
        """A row each, of what the drafter keeps of it."""
        kept = [self.drafter.kept(row) for row in range(len(self.rows))]
        return [None if own is None else digest_tensors(own) for own in kept]

    def _end(self, row: int, reason: EndReason) -> None:
        turn = self.rows[row].turn
        assert turn is not None
        turn.result.reason = reason
        turn.result.duration_ns = time.perf_counter_ns() - turn.begun_ns
        self.rows[row].turn = None
        if turn.observer is not None and turn.result.output_ids:
            turn.observer.turn_ended(turn.result)

    def _take_note(self, turn: Turn, result: StepResult) -> None:
        own = turn.result
        phases = self.decoding.phases
        own.accepted_lengths.append(phases.tally(result.acceptance))
        own.num_drafted += result.shared.tensors.num_slots[result.row] - 1
        own.num_fallbacks += result.commit.fallback is not None
        own.commit_ns.append(result.durations_ns["branch"] + result.durations_ns["commit"])
        rows = [0, *result.acceptance.path]
        features = result.shared.verification.features[result.row]
        turn.pairs = phases.pairs(HandOver("step", features, rows, result.stop.emitted, self.teacher.device))
        if turn.observer is not None:
            turn.observer.step_done(result)
        turn.committed_after[turn.step] = result.commit.committed_after
        turn.step += 1

    def _check(self, tensors: TreeTensors, observed: bool) -> list[CheckReport] | None:
        """A report a row; None where the check is left to the acceptance."""
        if self.decoding.checks == "deferred" and not observed:
            return None
        reports = [check_row(tensors, row, self.teacher.vocab_size) for row in range(tensors.num_rows)]
        if self.decoding.phases.stop_on_violation:
            for row, report in enumerate(reports):
                if report.failed:
                    raise ViolationError(f"row {row}: " + "; ".join(f"{f.id}: {f.witness}" for f in report.failed))
        return reports

    def _verify(
        self, tensors: TreeTensors, draft: Draft, branch: TreeCache, turns: list[Turn], observed: bool
    ) -> Verification:
        phases, layers = self.decoding.phases, self.drafter.feature_layers
        given = phases.inputs(tensors, self.teacher.dtype)
        with dispatch_log() if observed else nullcontext(Counter[str]()) as dispatch:
            if draft.shared is None:
                output = self.teacher.forward(*given, branch, layers)
            else:
                output = self._resume(given, draft.shared, branch)
        logits = output.logits
        if any(turn.processors is not None for turn in turns):
            contexts = [row.committed_ids for row in self.rows]
            logits = phases.processors([turn.processors for turn in turns], contexts, tensors, logits)
        best = logits.argmax(dim=-1)
        return Verification(logits, output.logits, output.features, best, given, layers, dispatch)

    def _resume(self, given: ForwardInputs, shared: SharedLayers, branch: TreeCache) -> TeacherOutput:
        """The layers behind those that the drafter has already run."""
        rest = range(shared.num_layers, self.teacher.num_layers)
        hidden = self.teacher.run_layers(shared.hidden, given.position_ids, given.mask, branch, rest)
        return TeacherOutput(self.teacher.head(hidden), hidden.new_zeros(*hidden.shape[:2], 0))

    def _coins(self, tensors: TreeTensors, turns: list[Turn]) -> list[Coins] | None:
        """A row's own draws, one a slot of its tree and one for the bonus, whatever the step accepts."""
        if self.decoding.rule.rule == "greedy":
            return None
        coins = []
        for turn, count in zip(turns, tensors.num_slots, strict=True):
            assert turn.generator is not None
            drawn = draw_coins(turn.generator, count)
            padding = (0, tensors.padded_slots - count)
            coins.append(drawn._replace(slots=torch.nn.functional.pad(drawn.slots, padding)))
        return coins

    def _read(self, acceptance: Acceptance, tensors: TreeTensors, *, deferred: bool) -> list[RowAcceptance]:
        """The outcome on the host: the step's one wait for the device."""
        tokens = tensors.token_ids.gather(1, acceptance.paths)
        scalars = [acceptance.lengths, acceptance.bonus_tokens, acceptance.bonus_slots]
        if deferred:
            scalars.append(sound_rows(tensors, self.teacher.vocab_size).to(torch.int64))
        packed = torch.cat([torch.stack(scalars, dim=1), acceptance.paths, tokens], dim=1).tolist()
        depth, first = acceptance.paths.shape[1], len(scalars)
        if deferred and self.decoding.phases.stop_on_violation and not all(row[3] for row in packed):
            self._clock.current = "check"
            reports = [check_row(tensors, row, self.teacher.vocab_size) for row in range(tensors.num_rows)]
            raise ViolationError("; ".join(f"{f.id}: {f.witness}" for report in reports for f in report.failed))
        return [
            RowAcceptance(
                acceptance.rule,
                row[first : first + row[0]],
                row[first + depth : first + depth + row[0]],
                row[1],
                row[2],
            )
            for row in packed
        ]

    def _prefill(self, number: int, turn: Turn, request: TurnRequest) -> tuple[DraftPairs, EndReason | None]:
        """Takes in the prompt behind what both caches already hold of it; the drafter's first pairs, and why the turn
        ends at its first token, if it does."""
        prompt_ids, row = request.prompt_ids, self.rows[number]
        # The last known token is fed again: the drafter needs its features for the pair with the token that follows.
        known = common_length(row.committed_ids, prompt_ids[:-1])
        start = max(0, min(known - 1, self.drafter.num_pairs[number]))
        row.committed_ids = prompt_ids[:start]
        self.cache.truncate(number, start)
        self.drafter.begin_turn(number, prompt_ids, start)
        observed = turn.observer is not None
        with dispatch_log() if observed else nullcontext(Counter[str]()) as dispatch, self.cache.only(number):
            output = self.take_in(prompt_ids[start:], start)
        row.committed_ids = list(prompt_ids)
        last = output.logits[0, -1]
        logits = last if turn.processors is None else process_last(turn.processors, prompt_ids, last)
        pending, draw = self._first_token(logits, turn)
        if turn.observer is not None:
            turn.observer.turn_started(
                TurnStarted(
                    prompt_ids,
                    start,
                    number,
                    request.generator_seed if turn.generator is not None else None,
                    dispatch,
                    output.features[0],
                    logits,
                    pending,
                    draw,
                    digest_layers(self.cache, number),
                    time.perf_counter_ns() - turn.begun_ns,
                )
            )
        tokens = [*prompt_ids[start + 1 :], pending]
        rows, phases = list(range(len(tokens))), self.decoding.phases
        pairs = phases.pairs(HandOver("prefill", output.features[0], rows, tokens, self.teacher.device))
        return pairs, phases.stop(turn.watch, [pending]).reason

    def _first_token(self, logits: torch.Tensor, turn: Turn) -> tuple[int, PendingDraw | None]:
        """The first token behind the prompt, whose ``logits`` (V,) are given."""
        if turn.generator is None:
            return int(logits.argmax()), None
        coin = draw_coins(turn.generator, 0).bonus
        drawn = draw_bonus(target_probs(logits[None], self.decoding.rule), coin[None].to(logits.device))
        return int(drawn.tokens[0]), PendingDraw(float(coin), float(drawn.low[0]), float(drawn.high[0]))

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
                self.drafter.feature_layers,
                last_row_only=True,
            )
            self.cache.commit_length([count])
            features.append(output.features)
        return TeacherOutput(output.logits, torch.cat(features, dim=1))

    def _decode_text(self, token_ids: list[int]) -> str:
        if self.teacher.tokenizer is None:
            raise UsageError("stop strings need a tokenizer, and this teacher's folder has none")
        return str(self.teacher.tokenizer.decode(token_ids, skip_special_tokens=False))
