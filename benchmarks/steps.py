"""What a step costs, drafter by drafter: torch operations, Python frames and processor time.

    python -m benchmarks.steps [--drafter NAME]... [--limit N] [--tokens N] [--budget N] [--suite NAME]

Operations and frames are counted, so that they are the same on every machine, busy or not. Processor time is that of
this process, with one thread; drafters decode each prompt in turn. The first step of a turn, which takes the prompt in,
is not counted.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import click
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.base import Draft, DrafterProxy, DraftPairs
from specscope.engine.lab.bench.suites import SUITES, load_suite, sample
from specscope.engine.load.models import Models, load_models
from specscope.engine.loop.phases import Decoding
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.settings import DEFAULT_TREE, ModelChoice
from specscope.engine.tree.policy import TreePolicy

DRAFTERS = ("eagle3", "eagle3+ngram", "ngram")


@dataclass
class Calls:
    """Calls of one kind, in all steps and while drafting."""

    total: int = 0
    drafting: int = 0


class Operations(TorchDispatchMode):
    """Counts torch operations."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and counts it."""
        self._calls.total += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def frames(calls: Calls) -> Iterator[None]:
    """Counts Python frames."""

    def count(_: FrameType, event: str, __: object) -> None:
        calls.total += event == "call"

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


class CountedDrafter(DrafterProxy):
    """A drafter whose calls are counted by themselves, too."""

    calls = Calls()

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """The inner drafter's draft."""
        before = self.calls.total
        draft = super().propose(pairs, branch, generators)
        self.calls.drafting += self.calls.total - before
        return draft


@dataclass
class Measured:
    """What a drafter's steps came to."""

    tokens: int = 0
    accepted_lengths: list[int] = field(default_factory=list)  # of all steps
    counted_steps: int = 0  # without the first of each turn
    processor_s: float = 0.0
    operations: Calls = field(default_factory=Calls)
    frames: Calls = field(default_factory=Calls)


class Steps:
    """Decodes with one drafter: as it is, and counted."""

    def __init__(self, models: Models, tokens: int) -> None:
        self._models = models
        self._drafter = CountedDrafter(models.drafter)
        self._rules = StopRules(tokens, [], [])
        self.measured = Measured()

    def time(self, prompt_ids: list[int]) -> list[int]:
        """Adds the processor time of a turn; its output."""
        session = Session(self._models.teacher, self._models.drafter, Decoding(checks="deferred"))
        begun = time.process_time()
        for _ in session.decode(prompt_ids, self._rules):
            pass
        self.measured.processor_s += time.process_time() - begun
        self.measured.accepted_lengths += session.result.accepted_lengths
        self.measured.tokens += len(session.result.output_ids)
        return session.result.output_ids

    def count(self, prompt_ids: list[int]) -> None:
        """Adds the calls of a turn. Twice, because counting operations is done by calls of its own."""
        for counting, calls in ((Operations, self.measured.operations), (frames, self.measured.frames)):
            self._drafter.calls = calls
            session = Session(self._models.teacher, self._drafter, Decoding(checks="deferred"))
            steps = session.decode(prompt_ids, self._rules)
            next(steps)
            with counting(calls):
                counted_steps = sum(1 for _ in steps)
        self.measured.counted_steps += counted_steps


def table(measured: dict[str, Measured]) -> list[str]:
    """One row per drafter, in Markdown; processor time relative to the first."""
    lines = [
        "| drafter | tokens per step | processor time per token | operations per step, drafting "
        "| frames per step, drafting |",
        "|---|---|---|---|---|",
    ]
    first = next(iter(measured.values()))
    for name, result in measured.items():
        ratio = (result.processor_s / result.tokens) / (first.processor_s / first.tokens)
        per_step = 1 + statistics.mean(result.accepted_lengths)
        counts = (
            f"{calls.total / max(1, result.counted_steps):.0f}, {calls.drafting / max(1, result.counted_steps):.0f}"
            for calls in (result.operations, result.frames)
        )
        lines.append(f"| {name} | {per_step:.2f} | {ratio:.2f} | {' | '.join(counts)} |")
    return lines


@click.command()
@click.option("--drafter", "drafters", multiple=True, default=DRAFTERS, show_default=True)
@click.option("--suite", type=click.Choice(SUITES), default="demo240", show_default=True)
@click.option("--limit", default=8, show_default=True, help="Prompts, of which the first turn is decoded.")
@click.option("--tokens", default=48, show_default=True)
@click.option("--budget", default=DEFAULT_TREE.budget, show_default=True)
def main(drafters: tuple[str, ...], suite: str, limit: int, tokens: int, budget: int) -> None:
    """Print a table in Markdown."""
    torch.set_num_threads(1)
    policy = TreePolicy("dynamic", depth=DEFAULT_TREE.depth, top_k=DEFAULT_TREE.top_k, budget=budget)
    runs: dict[str, Steps] = {}
    for name in drafters:
        models = load_models(ModelChoice(drafter=name, policy=policy, products="plain", self_check=False))
        runs[name] = Steps(models, tokens)
    tokenizer = models.teacher.tokenizer
    assert tokenizer is not None
    for number, prompt in enumerate(sample(load_suite(suite), limit), 1):
        prompt_ids = list(tokenizer(prompt.turns[0]).input_ids)
        if number == 1:
            for steps in runs.values():
                steps.count(prompt_ids)
        outputs = [steps.time(prompt_ids) for steps in runs.values()]
        if any(output != outputs[0] for output in outputs):
            raise SystemExit(f"prompt {prompt.id}: the drafters' outputs differ")
        click.echo(f"{number} prompts", err=True)
        click.echo("\n".join(table({name: steps.measured for name, steps in runs.items()})), err=number < limit)


if __name__ == "__main__":
    main()
