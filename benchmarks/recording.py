"""What the parts of recording cost at level ``decisions``, in milliseconds per step.

    OMP_NUM_THREADS=1 python -m benchmarks.recording [--prompts N] [--tokens N] [--rounds N]

The demo models decode the demo's prompts, traced and untraced in turns. In a run of its own each part is timed where it
is called, which adds a microsecond per call. For custody there is a floor beside it: the time that it takes to read,
once per step and without computing anything, the keys and values that it is the custody of.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import click
import numpy as np
import torch

from specscope.engine import decode
from specscope.engine.cache import commit
from specscope.engine.lab.bench.suites import DEMO_PROMPTS, load_files, sample
from specscope.engine.load.models import Models, load_models
from specscope.engine.loop.step import StepPhases
from specscope.engine.record import recorder, sections
from specscope.engine.settings import Settings
from specscope.tracer.files.writer import TraceWriter


class Part(NamedTuple):
    """A function and the part of recording that it is."""

    owner: Any
    function: str
    part: str


PARTS = (
    Part(StepPhases, "take_custody", "custody: what the caches hold"),
    Part(StepPhases, "_sums_after", "custody: what the drafter took in"),
    Part(commit, "_sums_of_sources", "custody: what is to be kept"),
    Part(commit, "_content", "custody: what was written"),
    Part(sections, "summary", "logits: best tokens, log-sum-exp, entropy"),
    Part(recorder, "draft_section", "draft"),
    Part(recorder, "tree_section", "tree"),
    Part(recorder, "tensors_section", "tensors"),
    Part(recorder, "accept_section", "accept"),
    Part(recorder, "commit_section", "commit"),
    Part(TraceWriter, "write", "encoded and written"),
)
FLOOR = "(floor: the same keys and values read once)"


class Work(NamedTuple):
    """What is decoded again and again."""

    prompts: list[str]
    models: Models
    tokens: int
    trace: Path

    def run(self, *, traced: bool) -> float:
        """Seconds of one run."""
        self.trace.unlink(missing_ok=True)
        begun = time.perf_counter()
        decode(
            self.prompts,
            mode="fused",
            models=self.models,
            max_new_tokens=self.tokens,
            trace=self.trace if traced else None,
        )
        return time.perf_counter() - begun


class Pair(NamedTuple):
    """Seconds of the same run."""

    untraced: float
    traced: float


class Outcome(NamedTuple):
    """What was measured."""

    num_steps: int  # of one run
    pairs: list[Pair]
    parts: dict[str, float]  # seconds per step


@contextmanager
def timed(parts: tuple[Part, ...], seconds: dict[str, float]) -> Iterator[None]:
    """Adds up what the calls of ``parts`` take."""
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(patch.object(part.owner, part.function, _timed(part, seconds)))
        yield


def _timed(part: Part, seconds: dict[str, float]) -> Callable[..., Any]:
    function = getattr(part.owner, part.function)

    def call(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        result = function(*arguments, **named)
        seconds[part.part] += time.perf_counter() - begun
        if part.function == "take_custody":
            seconds[FLOOR] += _read(arguments[0])
        return result

    return call


def _read(phases: StepPhases) -> float:
    """Seconds to read what is committed, as numbers of 64 bits."""
    kept = phases.cache.committed(0)
    if kept is None:
        return 0.0
    words = kept.view(torch.int64).numpy()
    begun = time.perf_counter()
    np.bitwise_or.reduce(words, axis=None)
    return time.perf_counter() - begun


@click.command()
@click.option("--prompts", "num_prompts", default=4, show_default=True)
@click.option("--tokens", default=64, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(num_prompts: int, tokens: int, rounds: int) -> None:
    """Print a table in Markdown."""
    prompts = [prompt.turns[0] for prompt in sample(load_files([DEMO_PROMPTS]), num_prompts) if prompt.turns]
    models = load_models(Settings.of(mode="fused").choice)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(prompts, models, tokens, Path(folder) / "trace.jsonl")
        work.run(traced=True)
        num_steps = work.trace.read_text().count('"kind":"step"')
        pairs = [Pair(work.run(traced=False), work.run(traced=True)) for _ in range(rounds)]
        seconds: dict[str, float] = defaultdict(float)
        with timed(PARTS, seconds):
            for _ in range(rounds):
                work.run(traced=True)
    each = {name: total / rounds / num_steps for name, total in seconds.items()}
    _print(Outcome(num_steps=num_steps, pairs=pairs, parts=each))


def _print(outcome: Outcome) -> None:
    plain = statistics.median(pair.untraced for pair in outcome.pairs) / outcome.num_steps
    ratio = statistics.median(pair.traced / pair.untraced for pair in outcome.pairs)
    print(f"{outcome.num_steps} steps of {plain * 1e3:.1f} ms untraced; traced {ratio:.3f}x\n")
    print("| part | ms per step | share of an untraced step |\n|---|---|---|")
    for name, each in outcome.parts.items():
        print(f"| {name} | {each * 1e3:.2f} | {each / plain:.1%} |")


if __name__ == "__main__":
    main()
