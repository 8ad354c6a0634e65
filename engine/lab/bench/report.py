"""What a bench has to say: which turns, by which settings, whether all of them, and their summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from specscope.engine.lab.bench.summary import Overhead, VariantSummary, overheads, summarise
from specscope.engine.lab.bench.turns import Clock, TurnMeasure
from specscope.tracer.naming.text import counted

FORMAT = "specscope.bench/1.0"


class MissingTurn(NamedTuple):
    """A turn that was to be measured and was not."""

    variant: str
    round: int
    prompt_id: str
    prompt_turn: int
    rank: int  # of the process that had it to measure


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What was run, for people who read the numbers later."""

    compare: str
    variants: tuple[str, ...]
    prompts: str  # a suite's name, or files'
    num_prompts: int
    num_turns: int
    rounds: int
    clock: Clock
    max_new_tokens: int
    teacher: str
    drafter: str
    device: str
    dtype: str
    num_threads: int
    num_ranks: int
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As it is read back from JSON."""
        return {**asdict(self), "variants": list(self.variants)}


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Everything that was measured."""

    facts: RunFacts
    measures: Sequence[TurnMeasure]
    expected: int  # records of a whole run
    missing: Sequence[MissingTurn] = ()  # of ranks that were lost
    problems: Sequence[str] = ()  # why, one sentence each

    @property
    def state(self) -> Literal["complete", "partial"]:
        """Whether every turn was measured."""
        return "complete" if len(self.measures) == self.expected else "partial"

    @cached_property
    def summaries(self) -> list[VariantSummary]:
        """Each variant that was measured."""
        return summarise(self.measures, self.facts.variants)

    @cached_property
    def overheads(self) -> list[Overhead]:
        """Each variant that was measured traced and untraced."""
        return overheads(self.measures, self.facts.variants)

    @property
    def remarks(self) -> list[str]:
        """What the numbers rest on, one sentence each; first of all, what is missing."""
        facts = self.facts
        lines = []
        if self.state == "partial":
            lines.append(f"PARTIAL: {len(self.measures)} of {self.expected} measurements, the rest was not measured")
        lines += self.problems
        lines.append(
            f"{counted(facts.num_prompts, 'prompt')} of {facts.prompts}, {counted(facts.num_turns, 'turn')}, x "
            f"{counted(facts.rounds, 'round')}, at most {counted(facts.max_new_tokens, 'token')} per turn; "
            "ratios are of the same turn in the same round"
        )
        if facts.clock == "processor":
            lines.append("processor time of this process, without stages: what others do on the machine is not in it")
        lines += [
            f"{summary.name}: the tokens of {counted(summary.num_other_outputs, 'turn')} are not {facts.variants[0]}'s"
            for summary in self.summaries
            if summary.num_other_outputs
        ]
        if facts.compare != "overhead":
            lines += [
                f"tracing: {cost.name}: time x {cost.slowdown.p50:.3f}; {cost.bytes_per_step:.0f} bytes per step, "
                "file headers included"
                for cost in self.overheads
            ]
        if facts.device != "cpu":
            lines.append("stages are host times: what the device does is waited for in accept")
        if facts.num_ranks > 1:
            lines.append(f"{facts.num_ranks} ranks measured at the same time")
        return lines

    def to_json(self) -> dict[str, Any]:
        """All of it as one object."""
        return {
            "format": FORMAT,
            "state": self.state,
            "run": self.facts.to_json(),
            "remarks": self.remarks,
            "variants": [{**asdict(summary), "tokens_per_step": summary.tokens_per_step} for summary in self.summaries],
            "overheads": [asdict(cost) for cost in self.overheads],
            "missing": [turn._asdict() for turn in self.missing],
            "turns": [measure.to_json() for measure in self.measures],
        }
