"""Prompt files: ours, MT-Bench's and HumanEval's shapes, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from specscope.engine.run.prompts import Prompt, load_prompts
from specscope.tracer.errors import UsageError


def write(path: Path, *entries: object) -> Path:
    path.write_text("\n".join(json.dumps(e) for e in entries) + "\n", encoding="utf-8")
    return path


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"prompt": "a"}\r\n{"prompt": "b"}\r\n')
    assert load_prompts(path) == [Prompt("line-1", turns=("a",)), Prompt("line-2", turns=("b",))]


def test_every_documented_shape_loads(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        {"prompt": "a"},
        {"id": "two", "turns": ["b", "c"]},
        {"id": 7, "ids": [1, 2]},
        {"question_id": 81, "category": "writing", "turns": ["x", "y"], "reference": []},
        {"task_id": "HumanEval/0", "prompt": "def f():", "entry_point": "f", "test": ""},
    )
    assert load_prompts(path) == [
        Prompt("line-1", turns=("a",)),
        Prompt("two", turns=("b", "c"), chat=True),
        Prompt("7", ids=(1, 2)),
        Prompt("81", turns=("x", "y"), chat=True, category="writing"),
        Prompt("HumanEval/0", turns=("def f():",)),
    ]


def test_a_gzipped_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "a"}\n'))
    assert load_prompts(path)[0].turns == ("a",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no prompt"),
        ("\n\n", "holds no prompt"),
        ("not json\n", "line 1: not JSON"),
        ('{"prompt": "a"}\n[1]\n', "line 2: got list"),
        ('{"text": "a"}\n', "got the fields text, wanted 'prompt', 'turns' or 'ids'"),
        ('{"prompt": 3}\n', "'prompt' wants text"),
        ('{"prompt": ""}\n', "is empty"),
        ('{"turns": []}\n', "is empty"),
        ('{"turns": ["a", ""]}\n', "empty turn"),
        ('{"ids": []}\n', "is empty"),
        ('{"ids": ["1"]}\n', "'ids' wants token ids"),
        ('{"ids": [true]}\n', "'ids' wants token ids"),
        ('{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}\n', "two prompts have the id '1'"),
    ],
)
def test_what_is_no_prompt_file_is_refused_by_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        load_prompts(path)


def test_binary_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read prompts"):
        load_prompts(path)
    with pytest.raises(UsageError, match="no prompt file"):
        load_prompts(tmp_path / "none.jsonl")
    broken = tmp_path / "p.jsonl.gz"
    broken.write_bytes(b"not gzip")
    with pytest.raises(UsageError, match="cannot read prompts"):
        load_prompts(broken)
