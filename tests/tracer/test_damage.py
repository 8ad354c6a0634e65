"""The oracle and damaged runs: cut, shuffled, doubled, or with monstrous numbers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.reports import violated
from support.traces import FUSED, first_step, load, store

from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import TraceError
from specscope.tracer.oracle.check import check_trace

Step = dict[str, Any]


def test_a_truncated_run_is_reported_as_such(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    content = FUSED.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    report = check_trace(path)
    assert report.truncated
    assert report.torn_bytes > 0
    assert not violated(report)


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_is_an_error_or_a_violation_and_never_clean(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    content = bytearray(FUSED.read_bytes())
    lines = bytes(content).splitlines(keepends=True)
    match seed % 4:
        case 0:
            lines.pop(rng.randrange(1, len(lines)))
        case 1:
            lines.insert(rng.randrange(1, len(lines)), lines[rng.randrange(1, len(lines))])
        case 2:
            a, b = rng.sample(range(1, len(lines)), 2)
            lines[a], lines[b] = lines[b], lines[a]
        case 3:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            lines = [bytes(content)]
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(b"".join(lines))
    if path.read_bytes() == FUSED.read_bytes():
        return
    try:
        report = check_trace(path)
    except TraceError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    assert violated(report) or report.truncated or report.torn_bytes


def test_duplicate_turns_and_records_behind_the_end_are_out_of_order(tmp_path: Path) -> None:
    lines = load(FUSED)
    twice = [*lines[:-1], lines[-1], lines[-1]]
    assert "run.order" in violated(check_trace(store(twice, tmp_path / "twice.jsonl")))
    lines = load(FUSED)
    starts = [line for line in lines if line["kind"] == "turn_start"]
    starts[1]["prompt_id"], starts[1]["prompt_turn"] = starts[0]["prompt_id"], starts[0]["prompt_turn"]
    assert "run.order" in violated(check_trace(store(lines, tmp_path / "double.jsonl")))


@pytest.mark.parametrize(
    "breaks",
    [
        lambda s: s["tree"]["depths"].__setitem__(3, 10**12),
        lambda s: s["draft"].__setitem__("kv_after", 10**12),
        lambda s: s["tensors"].__setitem__("padded_slots", 10**9),
        lambda s: s["tensors"]["mask_rows"].__setitem__(2, "ff" * 200_000),
        lambda s: s["tree"].update(tokens=[], parents=[], depths=[]),
        lambda s: s["verify"].update(argmax=[], top_logits=[]),
        lambda s: s["tree"]["parents"].__setitem__(2, 10**30),
    ],
)
@pytest.mark.timeout(20)
def test_monstrous_numbers_are_violations_and_neither_hang_nor_crash(
    tmp_path: Path, breaks: Callable[[Step], Any]
) -> None:
    lines = load(FUSED)
    breaks(first_step(lines, lambda step: step["step"] > 0))
    path = store(lines, tmp_path / "monster.jsonl")
    assert violated(check_trace(path))
    assert diff_traces(FUSED, path).exit_code == 1
