"""What is decoded: every cell is one model, dtype, tree, length, batch and rule. Knows nothing of machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from specscope.engine.load.models import DEMO_MODELS
from specscope.engine.run.prompts import Prompt, load_prompts
from specscope.engine.settings import SamplingRule
from specscope.engine.tree.policy import TreePolicy, parse_policy

ModelName = Literal["demo", "wide", "outlier"]
DTYPES = ("float32", "bfloat16", "float16")
GREEDY = SamplingRule("greedy")
BEST = SamplingRule("sampling", temperature=0.8)
DRAWN = SamplingRule("sampling", temperature=0.8, draft="sampled")
NODES_16 = TreePolicy(kind="dynamic", depth=5, top_k=4, budget=16)
NODES_60 = TreePolicy(kind="dynamic", depth=6, top_k=10, budget=60)
NODES_255 = TreePolicy(kind="dynamic", depth=8, top_k=16, budget=255)
BUSH = parse_policy("static:bush-16", 1, 1, 1)
#: The demo teacher has 2,048 positions; the others are made with more.
LONGEST = {"demo": 1984, "wide": 2047, "outlier": 2047}


@dataclass(frozen=True)
class Cell:
    """One thing to decode, in every setting."""

    name: str
    model: ModelName
    dtype: str
    policy: TreePolicy
    rule: SamplingRule
    prompts: tuple[Prompt, ...]
    max_new_tokens: int
    batch_size: int = 1

    @property
    def id(self) -> str:
        """Names its runs' files."""
        return f"{self.model}-{self.name}-{self.dtype}"


def cells() -> list[Cell]:
    """All of them, the quick ones of every dtype first."""
    return [cell for dtype in DTYPES for cell in (*_of_demo(dtype), *_of_others(dtype))]


def _of_demo(dtype: str) -> Iterator[Cell]:
    texts = tuple(load_prompts(DEMO_MODELS / "prompts.jsonl"))

    def cell(
        name: str,
        policy: TreePolicy,
        prompts: tuple[Prompt, ...],
        tokens: int,
        rule: SamplingRule = GREEDY,
        batch_size: int = 1,
    ) -> Cell:
        return Cell(name, "demo", dtype, policy, rule, prompts, tokens, batch_size)

    yield cell("16-nodes", NODES_16, texts[:3], 64)
    yield cell("60-nodes", NODES_60, texts[2:4], 40)
    yield cell("255-nodes", NODES_255, texts[4:6], 24)
    yield cell("long", NODES_16, (_of_length("demo", LONGEST["demo"], 4096),), 32)
    yield cell("middle", NODES_60, (_of_length("demo", 512, 4096),), 32)
    yield cell("batch-4", NODES_16, texts[:4], 32, batch_size=4)
    yield cell("sampled", NODES_16, texts[:2], 40, BEST)
    yield cell("drawn", BUSH, texts[3:5], 40, DRAWN)


def _of_others(dtype: str) -> Iterator[Cell]:
    models: tuple[ModelName, ...] = ("wide", "outlier")
    for model in models:
        short = tuple(_of_length(model, length, 1024) for length in (16, 48, 128))
        yield Cell("16-nodes", model, dtype, NODES_16, GREEDY, short, 40)
        yield Cell("60-nodes", model, dtype, NODES_60, GREEDY, short[:2], 24)
        yield Cell("long", model, dtype, NODES_16, GREEDY, (_of_length(model, LONGEST[model], 1024),), 24)
        yield Cell("drawn", model, dtype, BUSH, DRAWN, short[:2], 32, batch_size=2)


def _of_length(model: str, length: int, vocab_size: int) -> Prompt:
    """A prompt of so many ids: of the demo teacher real text, over and over, else any ids."""
    if model == "demo":
        return Prompt(f"text-{length}", ids=tuple(islice(cycle(_text_ids()), length)))
    return Prompt(
        f"ids-{length}", ids=tuple((31 * i * i + 7 * i + length) % (vocab_size - 2) + 2 for i in range(length))
    )


def _text_ids() -> list[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(DEMO_MODELS / "teacher" / "tokenizer.json"))
    texts = (prompt.turns[0] for prompt in load_prompts(DEMO_MODELS / "prompts.jsonl"))
    return [token for text in texts for token in tokenizer.encode(text).ids]
