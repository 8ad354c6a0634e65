"""A trace's tokenizer is file by its digest, and no other file is taken for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from support.pages import Opener, boards_of
from support.traces import EAGER

from specscope.engine.settings import DEMO_MODELS
from specscope.schemas import Manifest
from specscope.tracer.files.reader import TraceReader
from specscope.viewer.runs.tokenizers import known_tokenizer


def manifest_of(trace: Path) -> Manifest:
    with TraceReader(trace) as reader:
        return reader.manifest


def test_the_demo_models_tokenizer_is_known() -> None:
    file = known_tokenizer(manifest_of(EAGER), EAGER)
    assert file is not None
    assert file.read_bytes() == (DEMO_MODELS / "teacher" / "tokenizer.json").read_bytes()


def test_only_equal_bytes_are_taken_and_none_for_a_redacted_trace(tmp_path: Path) -> None:
    manifest = manifest_of(EAGER)
    assert manifest.tokenizer is not None
    other = manifest.model_copy(update={"tokenizer": manifest.tokenizer.model_copy(update={"digest": "0" * 32})})
    shutil.copy(DEMO_MODELS / "teacher" / "tokenizer.json", tmp_path)
    assert known_tokenizer(other, tmp_path / "a.jsonl") is None
    assert known_tokenizer(manifest, tmp_path / "a.jsonl") == tmp_path / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    assert known_tokenizer(manifest, tmp_path / "a.jsonl") != tmp_path / "tokenizer.json"
    assert known_tokenizer(manifest.model_copy(update={"tokenizer": None}), EAGER) is None
    assert known_tokenizer(manifest.model_copy(update={"redaction": object()}), EAGER) is None


def test_a_page_shows_texts_that_the_trace_has_not(tmp_path: Path, open_app: Opener) -> None:
    lines = EAGER.read_text(encoding="utf-8").splitlines(keepends=True)
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(without_texts(line) for line in lines), encoding="utf-8")
    board = boards_of(open_app(bare, page="step"))[0]["html"]
    assert "return" in board
    assert ">#" not in board


def without_texts(line: str) -> str:
    record = json.loads(line)
    record.pop("texts", None)
    return json.dumps(record) + "\n"
