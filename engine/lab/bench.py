"""What speculation, its settings and tracing cost, as ratios measured in one run.

Every prompt is decoded by every variant in turn, the order rotating, so that a machine that drifts slows all alike.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from specscope.engine.load.models import Models, load_models
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import CACHE_STRATEGIES, TRACE_LEVELS, ModelChoice, Settings
from specscope.engine.tree.policy import PRESETS, TreePolicy, chain_policy, parse_policy
from specscope.schemas.manifest import TraceLevel


class Variant(NamedTuple):
    """One way to decode. The first of a comparison is what the others are measured against."""

    name: str
    choice: ModelChoice
    traced: TraceLevel | None = None  # at which level, where at all
    cache_strategy: str = "in-place"
    batch_size: int = 1


def _modes(choice: ModelChoice) -> list[Variant]:
    return [
        Variant(name="baseline", choice=replace(choice, mode="baseline")),
        Variant(name="eager", choice=replace(choice, mode="eager")),
        Variant(name="fused", choice=replace(choice, mode="fused")),
        Variant(name="fused, traced", choice=replace(choice, mode="fused"), traced="decisions"),
    ]


def _analysis(choice: ModelChoice) -> list[Variant]:
    return [
        Variant(name="baseline, eager", choice=replace(choice, mode="baseline", baseline_attention="eager")),
        Variant(name="eager", choice=replace(choice, mode="eager")),
    ]


def _strategies(choice: ModelChoice) -> list[Variant]:
    return [Variant(name=name, choice=choice, cache_strategy=name) for name in CACHE_STRATEGIES]


def _trees(choice: ModelChoice) -> list[Variant]:
    depth, top_k = choice.policy.depth, choice.policy.top_k
    policies = {
        f"dynamic, budget {m}": TreePolicy(kind="dynamic", depth=depth, top_k=top_k, budget=m) for m in (4, 8, 16, 32)
    }
    policies |= {f"chain of {d}": chain_policy(d) for d in (3, 5)}
    policies |= {f"static:{name}": parse_policy(f"static:{name}", depth, top_k, 1) for name in PRESETS}
    drafted = [Variant(name=name, choice=replace(choice, policy=policy)) for name, policy in policies.items()]
    return [Variant(name="baseline", choice=replace(choice, mode="baseline")), *drafted]


def _drafters(choice: ModelChoice) -> list[Variant]:
    names = ("eagle3", "ngram", "early-exit")
    drafted = [Variant(name=name, choice=replace(choice, drafter=name)) for name in names]
    chains = [
        Variant(name=f"{name}, chain", choice=replace(choice, drafter=name, policy=chain_policy(4))) for name in names
    ]
    return [Variant(name="baseline", choice=replace(choice, mode="baseline")), *drafted, *chains]


def _batches(choice: ModelChoice) -> list[Variant]:
    sizes = (1, 2, 4)
    plain = [Variant(name=f"baseline, {n} rows", choice=replace(choice, mode="baseline"), batch_size=n) for n in sizes]
    return plain + [Variant(name=f"{choice.mode}, {n} rows", choice=choice, batch_size=n) for n in sizes]


def _overhead(choice: ModelChoice) -> list[Variant]:
    variants = []
    for mode in ("fused", "eager"):
        plain = Variant(name=mode, choice=replace(choice, mode=mode))
        traced = [plain._replace(name=f"{mode}, {level}", traced=level) for level in TRACE_LEVELS]
        variants += [plain, *traced]
    return variants


#: What can be compared, by the name that ``--compare`` gives it.
COMPARISONS: dict[str, Callable[[ModelChoice], list[Variant]]] = {
    "modes": _modes,
    "analysis": _analysis,
    "cache-strategies": _strategies,
    "trees": _trees,
    "drafters": _drafters,
    "batch": _batches,
    "overhead": _overhead,
}


@dataclass(kw_only=True)
class VariantResult:
    """A variant's runs, in the same order for all variants."""

    name: str
    durations_ns: list[int] = field(default_factory=list)  # wall time of each run
    num_tokens: list[int] = field(default_factory=list)
    accepted_lengths: list[int] = field(default_factory=list)
    commit_ns: list[int] = field(default_factory=list)  # a step each
    trace_bytes: int = 0  # tensor files included

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
        """Median over runs of this variant's time over ``other``'s for the same prompts in the same round."""
        return median(self.slowdowns(other))

    def slowdowns(self, other: VariantResult) -> list[float]:
        """This variant's time over ``other``'s, run by run."""
        return [a / b for a, b in zip(self.durations_ns, other.durations_ns, strict=True)]


def num_runs(variants: Sequence[Variant], prompts: Sequence[Prompt], rounds: int) -> int:
    """How often ``run_bench`` decodes, warming up included."""
    return (rounds * len(_groups(variants, prompts)) + 1) * len(variants)


def _groups(variants: Sequence[Variant], prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    """The prompts one by one, or all together where a variant decodes side by side."""
    together = any(v.batch_size > 1 for v in variants)
    return [list(prompts)] if together else [[prompt] for prompt in prompts]


def run_bench(
    variants: Sequence[Variant],
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    rounds: int,
    advance: Callable[[str], None],
) -> dict[str, VariantResult]:
    """Decodes ``prompts`` ``rounds`` times by every variant, after one run of each that is not counted. Calls
    ``advance`` with the variant's name after each run.
    """
    models = {v.choice: load_models(v.choice) for v in {v.choice: v for v in variants}.values()}
    results = {v.name: VariantResult(name=v.name) for v in variants}
    groups = _groups(variants, prompts)
    for number in range(rounds + 1):
        for at, group in enumerate(groups if number else groups[:1]):
            for turn in range(len(variants)):
                variant = variants[(at + number + turn) % len(variants)]
                counted = results[variant.name] if number else VariantResult(name=variant.name)
                with tempfile.TemporaryDirectory() as folder:
                    _decode(
                        variant,
                        models[variant.choice],
                        prompts=group,
                        max_new_tokens=max_new_tokens,
                        folder=Path(folder),
                        result=counted,
                    )
                advance(variant.name)
    return results


def _decode(
    variant: Variant, models: Models, prompts: list[Prompt], max_new_tokens: int, folder: Path, result: VariantResult
) -> None:
    settings = Settings(
        choice=variant.choice,
        max_new_tokens=max_new_tokens,
        batch_size=variant.batch_size,
        cache_strategy=variant.cache_strategy,
    )
    target = TraceTarget(folder / "bench.jsonl", variant.traced) if variant.traced else None
    request = RunRequest(settings, prompts, target)
    writer = open_trace(request, models, warn=lambda _: None)
    begun = time.perf_counter_ns()
    reports = list(run_turns(request, models, writer))
    result.durations_ns.append(time.perf_counter_ns() - begun)
    if writer is not None:
        writer.check_whole()  # what was not written took no time
    result.num_tokens.append(sum(len(report.result.output_ids) for report in reports))
    for report in reports:
        result.accepted_lengths += report.result.accepted_lengths
        result.commit_ns += report.result.commit_ns
    result.trace_bytes += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
