"""``specscope bench --overhead``: what each trace level costs, beside the same run untraced."""

from __future__ import annotations

import json
import re
from pathlib import Path

from click.testing import CliRunner
from support.drafting import PROMPTS, choice_of

from specscope.engine.cli.bench import bench
from specscope.engine.lab.bench import COMPARISONS, num_runs, run_bench

LEVELS = ("decisions", "scores", "tensors")


def test_every_level_is_measured_beside_the_untraced_run_of_its_mode(teacher_folder: Path, head_folder: Path) -> None:
    variants = COMPARISONS["overhead"](choice_of(teacher_folder, f"eagle3:{head_folder}"))
    names = [f"{mode}{suffix}" for mode in ("fused", "eager") for suffix in ("", *(f", {level}" for level in LEVELS))]
    assert [variant.name for variant in variants] == names
    done: list[str] = []
    results = run_bench(variants, PROMPTS[:2], 6, 2, done.append)
    assert len(done) == num_runs(variants, PROMPTS[:2], 2) == (2 * 2 + 1) * 8
    assert done[:8] != done[8:16], "the order rotates"
    for mode in ("fused", "eager"):
        plain, *traced = (results[name] for name in names if name.startswith(mode))
        assert plain.trace_bytes == 0
        assert 0 < traced[0].trace_bytes < traced[1].trace_bytes < traced[2].trace_bytes
        for result in traced:
            assert (result.num_tokens, result.accepted_lengths) == (plain.num_tokens, plain.accepted_lengths)
            assert len(result.slowdowns(plain)) == 4
            assert result.slowdown(plain) > 0


def test_the_command_prints_a_ratio_and_bytes_for_each_level(
    tmp_path: Path, teacher_folder: Path, head_folder: Path
) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(json.dumps({"ids": [5, 9, 2, 44]}))
    models = ["--teacher", str(teacher_folder), "--drafter", f"eagle3:{head_folder}", "--device", "cpu"]
    options = ["--overhead", "--prompts", str(prompts), "--rounds", "2", "--max-new-tokens", "4", *models]
    done = CliRunner().invoke(bench, options, catch_exceptions=False)
    assert done.exit_code == 0
    for mode in ("fused", "eager"):
        for level in LEVELS:
            assert re.search(rf"^{mode}, {level} +[\d.]+ +[\d.]+x +[\d.]+ to [\d.]+ +\d+ *$", done.output, re.MULTILINE)
