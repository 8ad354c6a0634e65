"""What speculation and tracing cost, as ratios measured in one run.

Every prompt is decoded by every variant in turn, the order rotating, so that a machine that drifts slows all alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from specscope.engine.assemble import Mode, ModelChoice, Models, load_models
from specscope.engine.decoding import TurnResult
from specscope.engine.prompts import Prompt
from specscope.engine.runner import RunRequest, TraceTarget, TurnEvents, open_trace, run_turns


class Variant(NamedTuple):
    """One way to decode."""

    name: str
    mode: Mode
    traced: bool


VARIANTS = (
    Variant("baseline", "baseline", traced=False),
    Variant("eager", "eager", traced=False),
    Variant("fused", "fused", traced=False),
    Variant("fused, traced", "fused", traced=True),
)


@dataclass(frozen=True)
class VariantResult:
    """A variant's runs: nanoseconds and tokens by (round, prompt), in the same order for all variants."""

    name: str
    durations_ns: list[int]
    num_tokens: list[int]
    accepted_lengths: list[int]
    trace_bytes: int

    @property
    def tokens_per_s(self) -> float:
        """Over all runs."""
        return sum(self.num_tokens) / (sum(self.durations_ns) / 1e9)

    @property
    def num_steps(self) -> int:
        """Over all runs."""
        return len(self.accepted_lengths)

    @property
    def accepted_length(self) -> float:
        """A step; root and bonus not counted."""
        return sum(self.accepted_lengths) / max(1, self.num_steps)

    def slowdown(self, other: VariantResult) -> float:
        """Median over runs of this variant's time over ``other``'s for the same prompt in the same round."""
        return median(a / b for a, b in zip(self.durations_ns, other.durations_ns, strict=True))


def run_bench(
    choice: ModelChoice,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    rounds: int,
    progress: Callable[[int, int], None],
) -> dict[str, VariantResult]:
    """Decodes ``prompts`` ``rounds`` times by every variant, after one run of each that is not counted."""
    models = {v.name: _load(choice, v) for v in VARIANTS}
    results = {v.name: VariantResult(v.name, [], [], [], 0) for v in VARIANTS}
    total, done = (rounds * len(prompts) + 1) * len(VARIANTS), 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for at, prompt in enumerate(prompts if number else prompts[:1]):
                order = [VARIANTS[(at + number + i) % len(VARIANTS)] for i in range(len(VARIANTS))]
                for variant in order:
                    trace = Path(folder) / "bench.jsonl" if variant.traced else None
                    result = _decode(choice, variant, models[variant.name], prompt, max_new_tokens, trace)
                    if number:
                        _note(results, variant, result, trace)
                    done += 1
                    progress(done, total)
    return results


def _load(choice: ModelChoice, variant: Variant) -> Models:
    return load_models(_choice(choice, variant))


def _choice(choice: ModelChoice, variant: Variant) -> ModelChoice:
    return replace(choice, mode=variant.mode)


def _decode(
    choice: ModelChoice, variant: Variant, models: Models, prompt: Prompt, max_new_tokens: int, trace: Path | None
) -> TurnResult:
    target = TraceTarget(trace, "decisions", overwrite=True, with_text=False) if trace else None
    request = RunRequest(_choice(choice, variant), [prompt], max_new_tokens, [], 0, target)
    writer = open_trace(request, models, warn=lambda _: None)
    reports = list(run_turns(request, models, writer, TurnEvents(lambda *_: None, lambda *_: None)))
    return reports[0].result


def _note(results: dict[str, VariantResult], variant: Variant, result: TurnResult, trace: Path | None) -> None:
    noted = results[variant.name]
    noted.durations_ns.append(result.duration_ns)
    noted.num_tokens.append(len(result.output_ids))
    noted.accepted_lengths.extend(result.accepted_lengths)
    if trace is not None:
        results[variant.name] = VariantResult(
            noted.name,
            noted.durations_ns,
            noted.num_tokens,
            noted.accepted_lengths,
            noted.trace_bytes + trace.stat().st_size,
        )
