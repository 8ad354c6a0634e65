"""The runs that faults go into, by name. Each is data: prompts, models, settings, and the two modes that are compared.

Together they reach the edges of ``edges.py``. All of them run the bundled demo models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import torch
from tokenizers import Tokenizer

from specscope.engine.backends.devices import backend_of
from specscope.engine.guided.grammar import is_installed
from specscope.engine.load.models import DEMO_MODELS
from specscope.engine.run.prompts import Prompt, Times, load_prompts
from specscope.engine.settings import (
    NO_PROCESSORS,
    CacheName,
    GrammarChoice,
    ModelChoice,
    ProcessorChoice,
    SamplingRule,
)
from specscope.engine.tree.policy import TreePolicy, chain_policy, parse_policy
from specscope.schemas.manifest import Mode
from specscope.tracer.errors import UsageError

TREE = TreePolicy(kind="dynamic", depth=5, top_k=4, budget=16)
DRAWN = SamplingRule("sampling", temperature=0.8, draft="sampled")
BEST = SamplingRule("sampling", temperature=0.8)
BLOCK = SamplingRule("block", temperature=0.8, draft="sampled")
#: The teacher has 2048 positions, its cache begins with 512 of them and takes a prompt in by 1024.
NEAR_MAX, NEAR_CAPACITY, PAST_512 = 2038, 498, 540


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A run to decode twice: the honest baseline, and the candidate with a fault in."""

    name: str
    says: str
    prompts: tuple[Prompt, ...]
    choice: ModelChoice  # its mode is replaced by the two below
    max_new_tokens: int = 24
    stop_strings: tuple[str, ...] = ()
    batch_size: int = 1
    processors: ProcessorChoice = NO_PROCESSORS
    cache: CacheName = "dense"
    grammar: GrammarChoice | None = None
    baseline: Mode = "eager"
    candidate: Mode = "fused"

    def objection(self, device: torch.device) -> str | None:
        """Why it cannot be decoded on ``device``; None where it can."""
        if self.choice.graph == "on" and backend_of(device.type).graphs(device) is None:
            return f"device {device} captures no graphs"
        return None


def find_scenario(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        UsageError: where there is none.
    """
    by_name = scenarios()
    if name not in by_name:
        raise UsageError(f"got scenario {name!r}, wanted one of {', '.join(by_name)}")
    return by_name[name]


@cache
def scenarios() -> dict[str, Scenario]:
    """All of them, by name."""
    return {
        scenario.name: scenario
        for scenario in (*_decoded_alone(), *_side_by_side(), *_at_length(), *_by_block(), *_guided())
    }


def demo_choice(policy: TreePolicy = TREE, rule: SamplingRule | None = None, drafter: str = "eagle3") -> ModelChoice:
    """The demo models with that tree and rule; greedy where no rule is given."""
    choice = ModelChoice(teacher="demo", drafter=drafter, mode="fused", dtype="float32", device="auto", policy=policy)
    return (
        choice
        if rule is None
        else ModelChoice(
            teacher="demo", drafter=drafter, mode="fused", dtype="float32", device="auto", policy=policy, rule=rule
        )
    )


def _decoded_alone() -> list[Scenario]:
    prompts = _demo_prompts()
    wide = TreePolicy(kind="dynamic", depth=5, top_k=8, budget=48)
    drawn = demo_choice(parse_policy("static:bush-16", 1, 1, 1), DRAWN)
    turns = (prompts[0].turns[0], prompts[1].turns[0])
    return [
        Scenario(name="greedy", says="two prompts, a tree of 16", prompts=prompts[:2], choice=demo_choice()),
        Scenario(
            name="wide",
            says="a tree of 48, which takes more than 32 slots",
            prompts=prompts[:2],
            choice=demo_choice(wide),
        ),
        Scenario(name="sampling", says="drafts that are drawn, on a fixed tree", prompts=prompts[:2], choice=drawn),
        Scenario(
            name="point-mass", says="drawn tokens, the best drafts", prompts=prompts[:2], choice=demo_choice(rule=BEST)
        ),
        Scenario(name="conversation", says="two turns", prompts=(Prompt("conversation", turns),), choice=demo_choice()),
        Scenario(
            name="stop",
            says="a stop string inside an accepted block",
            prompts=(prompts[0], prompts[2]),
            choice=demo_choice(),
            stop_strings=("auto()", "_cnt,"),
        ),
        Scenario(
            name="processors",
            says="repetition penalty and no repeated 3-gram",
            prompts=prompts[:2],
            choice=demo_choice(),
            processors=ProcessorChoice(repetition_penalty=1.3, no_repeat_ngram=3),
        ),
        Scenario(
            name="captured",
            says="verify forwards that are captured in graphs",
            prompts=prompts[:2],
            choice=replace(demo_choice(), graph="on"),
        ),
        Scenario(
            name="eager-candidate",
            says="eager against fused",
            prompts=prompts[:2],
            choice=demo_choice(),
            baseline="fused",
            candidate="eager",
        ),
    ]


def _side_by_side() -> list[Scenario]:
    prompts = _demo_prompts()
    short = Prompt("short", ids=_text_ids(5))  # its first step accepts 4
    return [
        Scenario(
            name="batch",
            says="three prompts in two rows: a row that is done takes the next",
            prompts=(short, prompts[1], prompts[2]),
            choice=demo_choice(),
            batch_size=2,
        ),
        Scenario(
            name="paged",
            says="the committed prefix in blocks: two rows, of which a third prompt follows in one",
            prompts=(prompts[1], prompts[2], prompts[0]),
            choice=demo_choice(),
            batch_size=2,
            cache="paged",
        ),
        Scenario(
            name="arrivals",
            says="drawn tokens; requests that arrive, are cancelled and take each other's rows, of which there are two",
            prompts=_arriving(prompts[:4]),
            choice=demo_choice(rule=BEST),
            max_new_tokens=16,
            batch_size=2,
        ),
        Scenario(
            name="lookup",
            says="looked up drafts in two rows: trees of unlike sizes, so that one row is padded",
            prompts=(prompts[1], prompts[2], prompts[0]),
            choice=demo_choice(drafter="ngram"),
            batch_size=2,
        ),
    ]


def _arriving(prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
    """Three that arrive at once or soon, one of which is cancelled while it runs, and one when nobody is left."""
    times = (Times(0), Times(0, cancel_at=2), Times(1), Times(1))
    return tuple(replace(prompt, times=when) for prompt, when in zip(prompts, times, strict=True))


def _at_length() -> list[Scenario]:
    def long(name: str, says: str, length: int, tokens: int) -> Scenario:
        return Scenario(
            name=name,
            says=says,
            prompts=(Prompt(name, ids=_text_ids(length)),),
            choice=demo_choice(),
            max_new_tokens=tokens,
        )

    return [
        long("long", "a prompt past position 512", PAST_512, 16),
        long("capacity", "the cache's buffer is filled and grows", NEAR_CAPACITY, 28),
        long("near-max", "up to the teacher's last position, the prompt in two chunks", NEAR_MAX, 24),
    ]


def _by_block() -> list[Scenario]:
    return [
        Scenario(
            name="block",
            says="chains of drawn drafts, each verified as a block",
            prompts=_demo_prompts()[:2],
            choice=demo_choice(chain_policy(5), BLOCK),
        )
    ]


def _guided() -> list[Scenario]:
    """None where the library of grammars is not installed."""
    if not is_installed():
        return []
    calls = r"([ ]{0,12}[a-z_.]+ = [a-z_.]+\([a-z_., ]*\)\n)+"
    return [
        Scenario(
            name="guided",
            says="lines that assign calls, by a grammar",
            prompts=_demo_prompts()[2:4],
            choice=demo_choice(),
            max_new_tokens=20,
            grammar=GrammarChoice("regex", calls),
        )
    ]


@cache
def _demo_prompts() -> tuple[Prompt, ...]:
    return tuple(load_prompts(DEMO_MODELS / "prompts.jsonl"))


@cache
def _tokens_of_all() -> tuple[int, ...]:
    tokenizer = Tokenizer.from_file(str(Path(DEMO_MODELS / "teacher" / "tokenizer.json")))
    texts = (prompt.turns[0] for prompt in _demo_prompts())
    return tuple(token for text in texts for token in tokenizer.encode(text).ids)


def _text_ids(length: int) -> tuple[int, ...]:
    """``length`` tokens of the demo's prompts one after the other, over and over."""
    return tuple(islice(cycle(_tokens_of_all()), length))
