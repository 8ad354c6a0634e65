"""Honest traces of a toy decoder, without an engine: every acceptance rule, any tree, rows side by side.

The teacher's logits are random numbers seeded by the last two tokens; the drafter's are the same with noise. Acceptance
is written down here once more, in plain numbers, so that the oracle is not tested against itself.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from specscope.schemas import (
    SCHEMA_VERSION,
    AcceptSection,
    AnyRecord,
    CommitSection,
    Device,
    Drafter,
    DraftInputs,
    DraftSection,
    InvariantsSection,
    Manifest,
    Prefill,
    RunEnd,
    Sampling,
    Step,
    StopRules,
    StopSection,
    Teacher,
    TensorsSection,
    TimingSection,
    TreePolicy,
    TreeSection,
    TurnEnd,
    TurnStart,
    VerifySection,
    encode_record,
)
from specscope.tracer.oracle.invariants.structure import expected_rows
from support.toy_drafts import Grown, grow
from support.toy_sampling import accept_greedy, accept_sampling, accept_typical, draw, softmax
from support.traces import Lines

VOCAB = 16
BUSH = ((0,), (1,), (2,), (0, 0), (0, 1), (1, 0), (0, 0, 0))
SUMS = ["0123456789abcdef", "fedcba9876543210"]
LAYERS = [0, 1, 1]


@dataclass(frozen=True)
class Toy:
    """What is to be decoded, and how."""

    rule: str = "greedy"
    draft: str = "point-mass"
    temperature: float = 1.0
    top_k: int | None = None
    kind: str = "static"
    choices: tuple[tuple[int, ...], ...] = BUSH
    levels: bool = True  # off: a lookup, which proposes whole paths
    batch_size: int | None = None
    num_turns: int = 2
    num_steps: int = 4
    seed: int = 0
    jitter: float = 0.0  # how far the teacher's logits are off, as another kernel's are
    coins: dict[tuple[int, int, int], float] = field(default_factory=dict)  # (turn, step, slot; -1: bonus) -> coin
    fallback_at: int = -1  # the step of turn 0 that commits in another way than asked for

    @property
    def policy(self) -> TreePolicy:
        """As the manifest has it."""
        choices = None if self.kind == "dynamic" else [list(choice) for choice in self.choices]
        depth = max(map(len, self.choices))
        return TreePolicy(kind=self.kind, depth=depth, top_k=3, budget=len(self.choices), choices=choices)  # type: ignore[arg-type]

    @property
    def sampling(self) -> Sampling:
        """As the manifest has it."""
        if self.rule == "greedy":
            return Sampling(rule="greedy", lossless=True)
        return Sampling(
            rule=self.rule,  # type: ignore[arg-type]
            lossless=self.rule != "typical",
            temperature=self.temperature,
            top_k=self.top_k,
            draft=self.draft,  # type: ignore[arg-type]
            epsilon=0.3 if self.rule == "typical" else None,
            delta=0.9 if self.rule == "typical" else None,
        )


def toy_lines(toy: Toy) -> Lines:
    """The whole trace as plain objects, one a line."""
    records = list(_records(toy))
    counts: dict[str, int] = {}
    for record in records:
        counts[record.kind] = counts.get(record.kind, 0) + 1
    end = RunEnd(seq=0, reason="complete", counts=counts, digest=SUMS[0])
    numbered = (record.model_copy(update={"seq": seq}) for seq, record in enumerate([*records, end]))
    return [json.loads(encode_record(record)) for record in numbered]


def _records(toy: Toy) -> Iterator[AnyRecord]:
    """Rows in turn, a step each; the next turn starts in the row that is free."""
    yield _manifest(toy)
    waiting = [_turn(toy, number) for number in range(toy.num_turns)]
    rows: list[Iterator[AnyRecord]] = []
    while waiting or rows:
        while waiting and len(rows) < (toy.batch_size or 1):
            rows.append(waiting.pop(0))
            yield next(rows[-1])
        for row in list(rows):
            record = next(row)
            yield record
            if isinstance(record, TurnEnd):
                rows.remove(row)


def _manifest(toy: Toy) -> Manifest:
    return Manifest(
        seq=0,
        schema=str(SCHEMA_VERSION),
        run_id="toy",
        created="2026-01-01T00:00:00+00:00",
        engine="toy",
        versions={},
        mode="fused",
        attention="fused",
        dtype="float32",
        device=Device(backend="cpu", name="paper"),
        teacher=Teacher(name="toy", architecture="Toy", num_layers=2, hidden_size=4, vocab_size=VOCAB),
        drafter=Drafter(
            kind="eagle3" if toy.levels else "ngram",
            hidden_state_indices=LAYERS if toy.levels else None,
            settings=None if toy.levels else {"length": 3},
        ),
        tree_policy=toy.policy,
        sampling=toy.sampling,
        stop_rules=StopRules(max_new_tokens=99, eos_token_ids=[], stop_strings=[]),
        cache_strategy="in-place",
        batch_size=toy.batch_size,
        seed=toy.seed,
        level="decisions",
        capabilities=["draft", "tree", "tensors", "verify", "accept", "commit", "stop", "invariants", "timing"],
    )


def _turn(toy: Toy, number: int) -> Iterator[AnyRecord]:
    return _Turn(toy, number).records()


class _Turn:
    """One turn, step by step."""

    def __init__(self, toy: Toy, number: int) -> None:
        self.toy, self.number = toy, number
        self.prompt = [1 + number % 3, 2, 3 + number % 5]
        self.context = list(self.prompt)  # with everything emitted
        self.coins = random.Random(f"coins {toy.seed} {number}")
        self.draws = random.Random(f"draws {toy.seed} {number}")
        self.pairs = 0  # in the drafter's cache
        self.fed = [*self.prompt[1:]]
        self.rows: list[int] = list(range(len(self.prompt)))
        self.steps: list[Step] = []

    def records(self) -> Iterator[AnyRecord]:
        """Its records; ``seq`` is not theirs to know."""
        yield self._start()
        for step in range(self.toy.num_steps):
            self.steps.append(self._step(step))
            yield self.steps[-1]
        yield self._end()

    def logits(self, context: list[int]) -> list[float]:
        rng = random.Random(f"{context[-2]} {context[-1]}")
        noise = random.Random(f"noise {context[-2]} {context[-1]}")
        return [rng.gauss(0, 1.5) + self.toy.jitter * noise.uniform(-1, 1) for _ in range(VOCAB)]

    def draft_logits(self, context: list[int]) -> list[float]:
        rng, noise = random.Random(f"{context[-2]} {context[-1]}"), random.Random(f"draft {context[-1]}")
        return [rng.gauss(0, 1.5) + noise.gauss(0, 0.7) for _ in range(VOCAB)]

    def probs(self, context: list[int]) -> list[float]:
        return softmax(self.logits(context), self.toy.temperature, self.toy.top_k)

    def coin(self, step: int, slot: int) -> float:
        drawn = self.coins.random()  # always, so that one replaced coin changes no other
        return self.toy.coins.get((self.number, step, slot), drawn)

    def _start(self) -> TurnStart:
        logits = self.logits(self.context)
        best = sorted(range(VOCAB), key=lambda token: -logits[token])[:2]
        pending, drawn = best[0], None
        if self.toy.rule != "greedy":
            pending, drawn = draw(self.probs(self.context), self.coin(-1, -1))
        self.context.append(pending)
        self.fed.append(pending)
        prefill = Prefill(
            num_tokens=len(self.prompt),
            dispatch={"sdpa": 2},
            features_digest=SUMS[0],
            pending_token=pending,
            top_tokens=best,
            top_logits=[logits[token] for token in best],
            draw=drawn,
        )
        return TurnStart(
            seq=0,
            turn=self.number,
            prompt_id=f"prompt-{self.number}",
            prompt_turn=0,
            prompt_ids=self.prompt,
            reused_length=0,
            row=self.number % (self.toy.batch_size or 1),
            generator_seed=None if self.toy.rule == "greedy" else self.toy.seed * 1000 + self.number,
            prefill=prefill,
        )

    def _end(self) -> TurnEnd:
        lengths = [step.accept.accepted_length for step in self.steps if step.accept is not None]
        return TurnEnd(
            seq=0,
            turn=self.number,
            output_ids=self.context[len(self.prompt) :],
            reason="criterion",
            num_steps=len(self.steps),
            num_drafted=sum(len(step.tree.tokens) - 1 for step in self.steps if step.tree is not None),
            num_accepted=sum(lengths),
            accepted_by_depth=[sum(n > depth for n in lengths) for depth in range(max(lengths, default=0))],
            num_fallbacks=1 if self.number == 0 and self.toy.fallback_at >= 0 else None,
            duration_ns=1,
        )

    def _step(self, number: int) -> Step:
        committed, root, grown = len(self.context) - 1, self.context[-1], self._grow()
        tokens = [root, *(node.tokens[-1] for node in grown.nodes)]
        contexts = [self.context, *([*self.context, *node.tokens] for node in grown.nodes)]
        logits = [self.logits(context) for context in contexts]
        accept = self._accept(number, tokens, grown, contexts, logits)
        emitted = [*(tokens[slot] for slot in accept.path), accept.bonus_token]
        last = number == self.toy.num_steps - 1
        record = Step(
            seq=0,
            turn=self.number,
            step=number,
            draft=self._draft(grown),
            tree=TreeSection(
                tokens=tokens,
                parents=grown.parents,
                depths=[0, *(len(node.tokens) for node in grown.nodes)],
                logprobs=[0.0, *(node.logprob for node in grown.nodes)],
                scores=[0.0, *(node.score for node in grown.nodes)],
            ),
            tensors=_tensors(tokens, grown, committed),
            verify=_verify(logits, LAYERS if self.toy.levels else None),
            accept=accept,
            commit=self._commit(number, committed, [0, *accept.path]),
            stop=StopSection(emitted=emitted, kept=len(emitted), reason="criterion" if last else None),
            invariants=InvariantsSection(passed=[], failed=[], skipped=[]),
            timing=TimingSection(
                draft_ns=1, tensorize_ns=1, check_ns=1, verify_ns=1, accept_ns=1, commit_ns=1, synchronised=True
            ),
        )
        self.context += emitted
        self.pairs, self.fed, self.rows = committed, emitted, [0, *accept.path]
        return record

    def _draft(self, grown: Grown) -> DraftSection:
        after = self.pairs + len(self.fed)
        levels = [
            level.model_copy(update={"positions": [after - 1 + depth] * max(1, len(level.frontier))})
            for depth, level in enumerate(grown.levels)
        ]
        return DraftSection(
            inputs=DraftInputs(
                source_rows=self.rows,
                tokens=self.fed,
                positions=list(range(self.pairs, after)),
                hidden_digest=SUMS[0],
            ),
            kv_before=self.pairs,
            kv_after=after,
            levels=levels if self.toy.levels else None,
            num_candidates=sum(len(level.tokens) for level in levels),
        )

    def _grow(self) -> Grown:
        policy = self.toy.policy
        return grow(policy.kind, self.toy.choices, lambda tokens: self._proposals([*self.context, *tokens]))

    def _proposals(self, context: list[int]) -> tuple[list[int], list[float]]:
        """Three tokens, best first or as they were drawn, and the drafter's distribution."""
        probs = softmax(self.draft_logits(context), self.toy.temperature)
        if self.toy.draft == "point-mass":
            return sorted(range(VOCAB), key=lambda token: -probs[token])[:3], probs
        keys = {token: math.log(p) - math.log(-math.log(self.draws.random())) for token, p in enumerate(probs)}
        return sorted(keys, key=lambda token: -keys[token])[:3], probs

    def _accept(
        self, number: int, tokens: list[int], grown: Grown, contexts: list[list[int]], logits: list[list[float]]
    ) -> AcceptSection:
        if self.toy.rule == "greedy":
            return accept_greedy(tokens, grown.parents, logits)
        bonus = self.coin(number, -1)
        coins = [self.coin(number, slot) for slot in range(len(tokens))]
        probs = [self.probs(context) for context in contexts]
        if self.toy.rule == "typical":
            return accept_typical(tokens, grown.parents, probs, bonus, 0.3, 0.9)
        drawn_from = grown.child_probs if self.toy.draft == "sampled" else None
        return accept_sampling(tokens, grown.parents, probs, drawn_from, coins, bonus)

    def _commit(self, number: int, committed: int, kept: list[int]) -> CommitSection:
        fell_back = self.number == 0 and number == self.toy.fallback_at
        return CommitSection(
            strategy="full-reorder" if fell_back else "in-place",
            fallback="a path that does not ascend" if fell_back else None,
            committed_before=committed,
            committed_after=committed + len(kept),
            source_slots=kept,
            destination_rows=list(range(committed, committed + len(kept))),
            source_checksums=SUMS,
            written_checksums=SUMS,
            prefix_layer=0,
            prefix_before=SUMS[0],
            prefix_after=SUMS[0],
            features_digest=SUMS[0],
            drafter_before=self.pairs,
            drafter_after=committed,
        )


def _tensors(tokens: list[int], grown: Grown, committed: int) -> TensorsSection:
    size = len(tokens)
    return TensorsSection(
        committed_length=committed,
        num_slots=size,
        padded_slots=size,
        mask_rows=[row.to_bytes(2, "little").hex() for row in expected_rows(grown.parents, size, size)],
        prefix_visible=[committed] * size,
        positions=[committed, *(committed + len(node.tokens) for node in grown.nodes)],
        token_ids=tokens,
        index_tensors={"parents": grown.parents},
        input_digest=SUMS[0],
    )


def _verify(logits: list[list[float]], layers: list[int] | None) -> VerifySection:
    best = [sorted(range(VOCAB), key=lambda token, row=row: -row[token])[:2] for row in logits]  # type: ignore[misc]
    probs = [softmax(row) for row in logits]
    return VerifySection(
        dispatch={"sdpa": 2},
        argmax=[two[0] for two in best],
        top_tokens=best,
        top_logits=[[row[token] for token in two] for row, two in zip(logits, best, strict=True)],
        logsumexp=[math.log(sum(map(math.exp, row))) for row in logits],
        entropy=[-sum(p * math.log(p) for p in row) for row in probs],
        nonfinite_slots=[],
        input_digest=SUMS[0],
        feature_layers=layers,
    )
