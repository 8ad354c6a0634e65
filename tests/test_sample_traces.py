"""The sample traces are what their commands make, and say what their README says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from support.called import specscope
from support.traces import EAGER, FAULTY, FUSED, SAMPLES

from specscope.tracer.compare.diff import diff_traces

COMMANDS = re.findall(r"^specscope (run .*)$", (SAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("committed", [EAGER, FUSED, FAULTY], ids=lambda p: p.stem)
def test_the_readmes_command_makes_the_committed_trace_again(tmp_path: Path, committed: Path) -> None:
    (command,) = [c for c in COMMANDS if c.endswith(f"sample_traces/{committed.name}")]
    (tmp_path / "sample_traces").mkdir()
    shutil.copy(SAMPLES / "prompts.jsonl", tmp_path / "sample_traces")
    done = specscope(*shlex.split(command), cwd=tmp_path)
    assert done.code == 0, done.err
    done = specscope("diff", committed, tmp_path / "sample_traces" / committed.name, "--format", "json")
    verdict = json.loads(done.out)
    assert verdict["roots"] == []
    assert verdict["impact"]["tokens_equal"]
    assert verdict["incomparable"] == []
    if committed == FAULTY:
        sides = {name: {v["invariant"] for v in verdict["violations"] if v["side"] == name} for name in "ab"}
        assert sides["a"] == sides["b"] == {"tensors.position-is-length-plus-depth", "run.engine-checks"}
    else:
        assert done.code == 0


def test_the_pair_with_the_fault_is_what_the_readme_says() -> None:
    verdict = diff_traces(EAGER, FAULTY)
    assert (verdict.roots[0].difference.phase, verdict.roots[0].difference.field) == ("tensors", "positions")
    assert verdict.roots[0].place.step_b == 0


def test_they_are_small_and_carry_text() -> None:
    for path in (EAGER, FUSED, FAULTY):
        assert path.stat().st_size < 400_000
        assert '"texts"' in path.read_text(encoding="utf-8")
        accepted = [
            line["accept"]["accepted_length"]
            for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())
            if line["kind"] == "step"
        ]
        assert max(accepted) >= 2
