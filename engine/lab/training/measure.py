"""What the trained models are worth: held-out loss, accepted length and repetition on held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from specscope.engine.lab.training.corpus import Document
from specscope.engine.load.models import Models
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.run.prompts import Prompt

PROMPT_CHARACTERS = 320


def held_out_prompts(documents: Sequence[Document], count: int, seed: int) -> list[Prompt]:
    """``count`` prompts cut from held-out files, each from the start of a line to the end of one; fewer where the
    files hold no more that are different."""
    rng = np.random.default_rng(seed)
    pool = [d for d in documents if d.held_out and len(d.text) > 4 * PROMPT_CHARACTERS]
    order = rng.permutation(len(pool))
    prompts: dict[str, Prompt] = {}
    for number in range(20 * count):
        if len(prompts) == count:
            break
        document = pool[order[number % len(pool)]]
        at = int(rng.integers(0, len(document.text) - 3 * PROMPT_CHARACTERS))
        start = document.text.index("\n", at) + 1
        end = document.text.find("\n", start + PROMPT_CHARACTERS) + 1 or len(document.text)
        name = f"{document.name}@{start}"
        prompts[name] = Prompt(name, turns=(document.text[start:end],))
    return list(prompts.values())


def repeated_share(ids: Sequence[int], n: int = 8) -> float:
    """The share of n-grams of ``ids`` that occurred before in it; 0 where it is shorter than n."""
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class Acceptance(NamedTuple):
    """Speculation measured over prompts."""

    num_prompts: int
    num_tokens: int
    accepted_length: float  # a step, root and bonus not counted
    accepted_by_depth: list[float]  # share of steps that accepted at least d + 1 nodes
    repeated_8grams: float  # over all outputs


def measure_acceptance(models: Models, prompts: Sequence[Prompt], max_new_tokens: int) -> Acceptance:
    """Decodes ``prompts`` greedily and counts."""
    tokenizer = models.teacher.tokenizer
    assert tokenizer is not None
    lengths: list[int] = []
    repeated: list[float] = []
    num_tokens = 0
    rules = StopRules(max_new_tokens, models.teacher.eos_token_ids, [])
    for prompt in prompts:
        session = Session(models.teacher, models.drafter)
        for _ in session.decode(list(tokenizer(prompt.turns[0]).input_ids), rules):
            pass
        lengths += session.result.accepted_lengths
        repeated.append(repeated_share(session.result.output_ids))
        num_tokens += len(session.result.output_ids)
    by_depth = [float(np.mean([n > d for n in lengths])) for d in range(max(lengths, default=0))]
    return Acceptance(
        num_prompts=len(prompts),
        num_tokens=num_tokens,
        accepted_length=float(np.mean(lengths)),
        accepted_by_depth=by_depth,
        repeated_8grams=float(np.mean(repeated)),
    )
