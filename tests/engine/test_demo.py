"""``specscope demo`` and ``bench`` as a newcomer runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import specscope

from specscope.engine.load.models import DEMO_MODELS
from specscope.tracer.oracle.check import check_trace


@pytest.mark.slow
def test_the_demo_runs_the_whole_path(tmp_path: Path) -> None:
    done = specscope("demo", cwd=tmp_path)
    assert done.code == 0, done
    assert "EQUAL: no decision differs" in done.out
    assert "DIFFERENT" in done.out
    assert "specscope view runs/demo/eager.jsonl runs/demo/fused.jsonl" in done.out
    assert "≠" not in done.out.split("2  check")[0], "a mode's tokens differ from the teacher's"
    for name in ("eager", "fused"):
        assert check_trace(tmp_path / "runs" / "demo" / f"{name}.jsonl").num_violations == 0
    assert specscope("demo", cwd=tmp_path).code == 0, "a second demo replaces the first one's traces"


def test_bench_prints_ratios_of_one_run(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(json.dumps({"prompt": "def f(x):\n"}))
    done = specscope("bench", "--prompts", prompts, "--rounds", "1", "--max-new-tokens", "8")
    assert done.code == 0, done
    for words in (
        "baseline",
        "eager",
        "fused, traced",
        "Speed over baseline",
        "tracing: fused, traced: time x",
        "bytes per step",
    ):
        assert words in done.out


def test_the_bundled_models_are_in_the_standard_formats_and_small() -> None:
    size = sum(path.stat().st_size for path in DEMO_MODELS.rglob("*") if path.is_file())
    assert size <= 40_000_000
    for part in ("teacher", "drafter"):
        assert (DEMO_MODELS / part / "model.safetensors").is_file()
        assert (DEMO_MODELS / part / "config.json").is_file()
    assert not list(DEMO_MODELS.rglob("*.bin"))
    assert not list(DEMO_MODELS.rglob("*.pt"))
