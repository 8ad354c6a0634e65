"""What is decoded: prompts by category, whole or a balanced sample of them.

``demo240`` is this project's own: 240 turns in the demo teacher's domain, Python source; 80 conversations of two turns
and 80 functions to complete, ten in each of 16 categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from specscope.engine.run.prompts import Prompt, load_prompts
from specscope.tracer.errors import UsageError

FOLDER = Path(__file__).parent / "suites"
DEMO_PROMPTS = Path(__file__).parents[2] / "demo_models" / "prompts.jsonl"
SUITES = ("demo240",)


def load_suite(name: str) -> list[Prompt]:
    """The prompts of a bundled suite."""
    return load_prompts(FOLDER / f"{name}.jsonl")


def load_files(paths: Sequence[Path]) -> list[Prompt]:
    """The prompts of all files. Those that name no category get one by their file's name.

    Raises:
        UsageError: where a file cannot be read, or two prompts have the same id.
    """
    prompts: list[Prompt] = []
    for path in paths:
        name = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
        prompts += [p if p.category is not None else replace(p, category=name) for p in load_prompts(path)]
    first_in: set[str] = set()
    for prompt in prompts:
        if prompt.id in first_in:
            raise UsageError(f"two prompt files have the id {prompt.id!r}; ids name what was measured: rename one")
        first_in.add(prompt.id)
    return prompts


def categories(prompts: Sequence[Prompt]) -> list[str]:
    """In the order of their first prompts; prompts without a category are in none."""
    return list(dict.fromkeys(p.category for p in prompts if p.category is not None))


def sample(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """At most ``limit`` of the prompts, in their order: of every category as many as of the others, or one fewer. Where
    there are more categories than that, evenly spaced ones have a prompt."""
    if limit is None or limit >= len(prompts):
        return list(prompts)
    by_category: dict[str | None, list[Prompt]] = {}
    for prompt in prompts:
        by_category.setdefault(prompt.category, []).append(prompt)
    groups = list(by_category.values())
    num_groups = min(limit, len(groups))
    spaced = [groups[number * len(groups) // num_groups] for number in range(num_groups)]
    spaced += [group for group in groups if group not in spaced]
    ranked = [group[depth] for depth in range(max(map(len, groups))) for group in spaced if depth < len(group)]
    chosen = {prompt.id for prompt in ranked[:limit]}
    return [prompt for prompt in prompts if prompt.id in chosen]


def num_turns(prompts: Sequence[Prompt]) -> int:
    """Turns of all of them."""
    return sum(prompt.num_turns for prompt in prompts)
