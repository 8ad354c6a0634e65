"""Every load in every way, in turn, in rounds: without speculation, with each shape of tree, and dispatched.

A round decodes the same text in every way, from the same prompts on, so that a ratio within it is of the same tokens
in the same seconds. Each round has other texts, so that no load depends on a single one. Rows neither join nor
leave: the load is what was asked for, as long as a round lasts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Any

import xxhash

from specscope.engine.drafters.base import NoDrafter
from specscope.engine.lab.bench.batch.plan import DISPATCHED, OFF, SweepPlan
from specscope.engine.lab.bench.batch.record import BatchMeasure
from specscope.engine.lab.bench.clocks import clock_of
from specscope.engine.lab.bench.kept import kept
from specscope.engine.lab.bench.texts import EndlessText
from specscope.engine.load.decoding import decoding_of
from specscope.engine.load.models import Models
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import TurnRequest
from specscope.engine.run.runner import turn_seed
from specscope.schemas import ShapeSection
from specscope.tracer.shapes import Load

WITHOUT_END = StopRules(max_new_tokens=1 << 30, eos_token_ids=[], stop_strings=[])


def measure(
    plan: SweepPlan, models: Models, advance: Callable[[str], None] = lambda _: None
) -> Generator[list[BatchMeasure], None, None]:
    """Measures ``plan`` with ``models``; one round of a load at a time, each way once; calls ``advance`` after each.

    Raises:
        UsageError: where the plan does not fit the teacher.
    """
    plan.check(models.teacher.max_positions)
    text = EndlessText(plan.prompts, models.teacher)
    for load in plan.loads:
        # Taken whether or not they are needed: what a load decodes does not depend on which were kept.
        prompts = [[text.take(load.context) for _ in range(load.rows)] for _ in range(plan.rounds)]
        decoded = _DecodedLoad(plan, models, load, prompts)
        for number in range(plan.rounds):
            key = _key(plan, load, number, prompts[number])
            entries = kept(plan.keep, key, partial(_round, decoded, number, advance))
            yield [BatchMeasure.from_json(entry) for entry in entries["ways"]]


def _key(plan: SweepPlan, load: Load, number: int, prompts: list[list[int]]) -> dict[str, Any]:
    """What makes one round of a load this one. The profile stands for the models and the device."""
    choice = plan.settings.choice
    return {
        "suite": "batch",
        "form": 2,
        **load._asdict(),
        "round": number,
        "tokens": plan.tokens,
        "clock": plan.clock,
        "texts": xxhash.xxh3_128_hexdigest(repr(prompts).encode()),
        "seed": plan.settings.seed,
        "mode": choice.mode,
        "graph": choice.graph,
        "rule": asdict(choice.rule),
        "profile": plan.table.profile,
        "hysteresis": plan.table.hysteresis,
        "ways": plan.ways,
    }


def _round(decoded: _DecodedLoad, number: int, advance: Callable[[str], None]) -> dict[str, Any]:
    ways, load = decoded.plan.ways, decoded.load
    first = number % len(ways)
    entries = []
    for way in [*ways[first:], *ways[:first]]:
        entries.append(decoded.take(way, number).to_json())
        advance(f"{load.rows} x {load.context}, {way}")
    return {"ways": entries}


class _DecodedLoad:
    """The rows of one load, ready to be decoded from their prompts on as often as wanted; ``prompts`` by round."""

    def __init__(self, plan: SweepPlan, models: Models, load: Load, prompts: list[list[list[int]]]) -> None:
        self.plan, self.load = plan, load
        self._models, self._prompts = models, prompts
        self._now = clock_of(plan.clock, models.teacher.device)

    @cached_property
    def _drafting(self) -> Session:
        """All ways with a drafter: what they differ in is which shape a step has."""
        decoding = decoding_of(self.plan.settings, self._models.teacher)
        return Session(self._models.teacher, self._models.drafter, decoding, self.load.rows)

    @cached_property
    def _alone(self) -> Session:
        """The teacher, and nothing that would be fed for a draft."""
        settings = replace(self.plan.settings, choice=replace(self.plan.settings.choice, mode="baseline"))
        teacher = self._models.teacher
        return Session(teacher, NoDrafter(), decoding_of(settings, teacher), self.load.rows)

    def take(self, way: str, number: int) -> BatchMeasure:
        """Decodes the rows from the prompts of round ``number`` on. Taking these in, and the first step, in which the
        drafter does, is not counted."""
        session = self._alone if way == OFF else self._drafting
        if session.dispatcher is not None:
            session.dispatcher.begin()
            session.dispatcher.recorded = None if way == DISPATCHED else self._always(way)
        for row, ids in enumerate(self._prompts[number]):
            seed = turn_seed(self.plan.settings.seed or 0, f"row {row}", 0)
            session.begin(row, TurnRequest(ids, WITHOUT_END, generator_seed=seed))
        session.step()
        wanted = self.plan.tokens * self.load.rows
        shapes: Counter[str] = Counter()
        num_tokens, num_steps, begun_ns = 0, 0, self._now()
        while num_tokens < wanted:
            results = session.step()
            num_tokens += sum(result.stop.kept for result in results)
            num_steps += 1
            if results[0].shape is not None:
                shapes[results[0].shape.name] += 1
        duration_ns = self._now() - begun_ns
        session.abandon("interrupted")
        return BatchMeasure(
            rows=self.load.rows,
            context=self.load.context,
            round=number,
            way=way,
            num_tokens=num_tokens,
            num_steps=num_steps,
            duration_ns=duration_ns,
            shapes=dict(shapes),
        )

    def _always(self, name: str) -> ShapeSection:
        """The choice of that shape, as a step that is run again has one: it is followed."""
        return ShapeSection(
            name=name,
            rows=self.load.rows,
            context=self.load.context,
            before=None,
            reason="first",
            promised=1.0,
            best=name,
            best_promised=1.0,
        )
