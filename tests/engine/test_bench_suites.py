"""What ``specscope bench`` decodes: the bundled suite, prompt files, and balanced samples of both."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from specscope.engine.lab.bench.suites import SUITES, categories, load_files, load_suite, sample
from specscope.engine.run.prompts import Prompt
from specscope.tracer.errors import UsageError

MT_BENCH = {"question_id": 81, "category": "writing", "turns": ["Write a poem.", "Shorten it."]}
HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def f():\n",
    "entry_point": "f",
    "canonical_solution": "",
    "test": "",
}


def write(path: Path, *entries: object) -> Path:
    text = "\n".join(map(json.dumps, entries)).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_demo240_has_240_turns_half_of_its_prompts_conversations() -> None:
    assert SUITES == ("demo240",)
    prompts = load_suite("demo240")
    assert Counter(prompt.num_turns for prompt in prompts) == {2: 80, 1: 80}
    assert sum(prompt.num_turns for prompt in prompts) == 240
    assert Counter(prompt.category for prompt in prompts) == dict.fromkeys(categories(prompts), 10)
    assert len(categories(prompts)) == 16
    texts = [turn for prompt in prompts for turn in prompt.turns]
    assert len(set(texts)) == len(texts), "no turn twice"
    for prompt in prompts:
        assert prompt.chat == (prompt.num_turns == 2), "conversations go through a chat template, where there is one"


@pytest.mark.parametrize("limit", [1, 3, 16, 20, 159, 160, 1000])
def test_a_sample_is_balanced_over_the_categories(limit: int) -> None:
    prompts = load_suite("demo240")
    chosen = sample(prompts, limit)
    assert len(chosen) == min(limit, 160)
    assert chosen == [prompt for prompt in prompts if prompt in chosen], "in their order"
    counts = Counter(prompt.category for prompt in chosen)
    assert max(counts.values()) - min(counts[name] for name in categories(prompts)) <= 1
    if limit == 3:
        assert len(counts) == 3
        assert {prompt.num_turns for prompt in chosen} == {1, 2}, "small samples have both kinds"


def test_categories_of_different_sizes_are_used_up_one_after_another() -> None:
    prompts = [
        Prompt(f"{name}{n}", turns=("x",), category=name) for name, size in (("a", 5), ("b", 1)) for n in range(size)
    ]
    assert [prompt.id for prompt in sample(prompts, 4)] == ["a0", "a1", "a2", "b0"]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_mt_bench_and_humaneval_files_load_together(tmp_path: Path, suffix: str) -> None:
    questions = write(tmp_path / f"question.{suffix}", MT_BENCH)
    problems = write(tmp_path / f"HumanEval.{suffix}", HUMAN_EVAL)
    assert load_files([questions, problems]) == [
        Prompt("81", turns=("Write a poem.", "Shorten it."), chat=True, category="writing"),
        Prompt("HumanEval/0", turns=("def f():\n",), category="HumanEval"),
    ]


def test_an_id_that_two_files_have_is_refused(tmp_path: Path) -> None:
    files = [write(tmp_path / name, MT_BENCH) for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(UsageError, match="two prompt files have the id '81'"):
        load_files(files)
