"""Measures: every turn is decoded by every variant in turn, the order rotating, so that a machine that drifts slows all
alike.

A variant has its own drafter and caches, so that the variants' conversations run beside each other; teachers that are
loaded alike are one. The clock is read when the device is idle: before a prompt is taken in, and after its last step.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash

from specscope.engine.lab.bench.clocks import clock_of
from specscope.engine.lab.bench.turns import Clock, TurnMeasure, VariantTurn
from specscope.engine.lab.bench.variants import Variant
from specscope.engine.load.models import DTYPES, Models, load_drafter, load_models, resolve_device
from specscope.engine.loop.phases import StepResult
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, TurnEvents, TurnReport, open_trace, run_turns
from specscope.engine.settings import ModelChoice, Settings
from specscope.engine.teacher.model import TeacherOptions

GROUPS_PER_ROW = 4  # prompts decoded together, over the rows of the largest batch


class Plan(NamedTuple):
    """What is measured."""

    variants: Sequence[Variant]
    prompts: Sequence[Prompt]
    settings: Settings  # but for what the variants say
    rounds: int
    clock: Clock = "wall"

    @property
    def groups(self) -> list[list[Prompt]]:
        """The prompts one by one; or several together where a variant decodes side by side."""
        rows = max(variant.batch_size for variant in self.variants)
        size = rows * GROUPS_PER_ROW if rows > 1 else 1
        return [list(self.prompts[first : first + size]) for first in range(0, len(self.prompts), size)]

    @property
    def num_turns(self) -> int:
        """Turns that are decoded and counted: by every variant, in every round."""
        return sum(prompt.num_turns for prompt in self.prompts) * len(self.variants) * self.rounds

    @property
    def num_measures(self) -> int:
        """How many records ``measure`` gives."""
        return len(self.expected)

    @property
    def expected(self) -> list[VariantTurn]:
        """What ``measure`` gives a record of each."""
        turns = [(g[0].id, turn) for g in self.groups for turn in range(g[0].num_turns if len(g) == 1 else 1)]
        return [
            VariantTurn(variant.name, number, prompt_id, turn)
            for number in range(self.rounds)
            for prompt_id, turn in turns
            for variant in self.variants
        ]


def load_variants(variants: Sequence[Variant]) -> dict[str, Models]:
    """The models of each variant, by its name. Each has its own drafter.

    Raises:
        UsageError: where something is missing, or a drafter does not fit the teacher.
    """
    first_alike: dict[object, Models] = {}
    loaded = {}
    for variant in variants:
        options = _teacher_options(variant.choice)
        alike = first_alike.get((variant.choice.teacher, variant.choice.products, options))
        if alike is None:
            models = first_alike[variant.choice.teacher, variant.choice.products, options] = load_models(variant.choice)
        else:
            models = Models(alike.teacher, load_drafter(variant.choice, alike.teacher, options))
        loaded[variant.name] = models
    return loaded


def _teacher_options(choice: ModelChoice) -> TeacherOptions:
    return TeacherOptions(
        dtype=DTYPES[choice.dtype],
        device=resolve_device(choice.device),
        attention=choice.attention,
        allow_remote_code=choice.allow_remote_code,
        allow_download=choice.allow_download,
        allow_nonfinite=choice.allow_nonfinite,
    )


def measure(plan: Plan, models: dict[str, Models], ready: Callable[[], None] = lambda: None) -> Iterator[TurnMeasure]:
    """Decodes the plan's prompts in its rounds, after the first of them by each variant, which is not counted; gives
    each turn when it is measured. Calls ``ready`` when it begins to count.

    Raises:
        SpecScopeError: where a prompt does not fit, decoding fails, or a trace could not be written.
    """
    groups = plan.groups
    for variant in plan.variants if groups else ():
        for _ in _decode(variant, models[variant.name], groups[0], plan, 0):
            pass
    ready()
    for number in range(plan.rounds):
        for place, group in enumerate(groups):
            first = (place + number) % len(plan.variants)
            order = [*plan.variants[first:], *plan.variants[:first]]
            with ExitStack() as stack:
                running = [
                    stack.enter_context(closing(_decode(variant, models[variant.name], group, plan, number)))
                    for variant in order
                ]
                for turns in zip(*running, strict=True):
                    yield from turns


class _Watch:
    """What happens while a turn is decoded."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.now = clock_of(clock, device)
        self.begun_ns: int | None = None
        self.phase_ns: Counter[str] = Counter()
        self.num_steps = 0

    def restart(self) -> None:
        """For the next turn."""
        self.begun_ns, self.phase_ns, self.num_steps = None, Counter(), 0

    def begins(self, prompt: Prompt, turn: int) -> None:
        """A turn begins; where several are decoded together, the first one counts."""
        if self.begun_ns is None:
            self.begun_ns = self.now()

    def stepped(self, results: list[StepResult]) -> None:
        """The phases' times are of all rows together."""
        self.num_steps += 1
        self.phase_ns.update(results[0].durations_ns)

    def elapsed_ns(self) -> int:
        """Since the turn began."""
        assert self.begun_ns is not None
        return self.now() - self.begun_ns


def _decode(
    variant: Variant, models: Models, prompts: list[Prompt], plan: Plan, number: int
) -> Generator[TurnMeasure, None, None]:
    """One turn of ``prompts`` at a time, or all where there are several prompts."""
    settings = replace(
        plan.settings,
        choice=variant.choice,
        batch_size=variant.batch_size,
        cache_strategy=variant.cache_strategy,
        cache=variant.cache,
        grammar=plan.settings.grammar if variant.grammar == "as-asked" else None,
    )
    with tempfile.TemporaryDirectory() as folder:
        target = TraceTarget(Path(folder) / "bench.jsonl", variant.traced) if variant.traced else None
        request = RunRequest(settings, prompts, target)
        writer = open_trace(request, models)
        watch = _Watch(models.teacher.device, plan.clock)
        turns = run_turns(request, models, writer, TurnEvents(watch.begins, lambda *_: None, watch.stepped))
        num_units = prompts[0].num_turns if len(prompts) == 1 else 1
        with closing(turns):
            for unit in range(num_units):
                watch.restart()
                last = unit + 1 == num_units
                reports = list(turns) if last else [next(turns)]  # the end of a trace belongs to its last turn
                duration_ns = watch.elapsed_ns()
                yield TurnMeasure(
                    variant=variant.name,
                    round=number,
                    prompt_id=prompts[0].id,
                    prompt_turn=unit,
                    category=_common_category(prompts),
                    num_turns=len(reports),
                    duration_ns=duration_ns,
                    # Phases and prefills have wall time only.
                    phase_ns=dict(watch.phase_ns) if plan.clock == "wall" else {},
                    num_steps=watch.num_steps,
                    trace_bytes=_size_of(Path(folder)) if last else 0,
                    **_outcome(reports),
                )


def _common_category(prompts: list[Prompt]) -> str | None:
    """Where they have one."""
    categories = {prompt.category for prompt in prompts}
    return prompts[0].category if len(categories) == 1 else None


def _outcome(reports: list[TurnReport]) -> dict[str, Any]:
    """What the turns decoded, all together."""
    results = [report.result for report in sorted(reports, key=lambda report: (report.prompt_id, report.prompt_turn))]
    outputs = repr([result.output_ids for result in results])
    return {
        "num_tokens": sum(len(result.output_ids) for result in results),
        "prefill_ns": sum(result.prefill_ns for result in results),
        "accepted_lengths": [length for result in results for length in result.accepted_lengths],
        "num_drafted": sum(result.num_drafted for result in results),
        "output_digest": xxhash.xxh3_128_hexdigest(outputs.encode()),
    }


def _size_of(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
