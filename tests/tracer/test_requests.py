"""What is said of requests that arrive, wait for rows, and are cancelled: in the terminal, and in numbers."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.called import specscope
from support.rank_mutants import one_rank_parts, ranks_agree
from support.row_mutants import of_kind, requests_waited
from support.traces import FUSED, load, store

from specscope.schemas import TurnEnd, TurnStart
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.tuning.requests import Stay, served_requests, stay_of
from specscope.tracer.tuning.summary import read_numbers


@pytest.fixture
def waited(tmp_path: Path) -> Path:
    return store(requests_waited(load(FUSED)), tmp_path / "waited.jsonl")


def test_show_says_when_a_request_came_and_went(waited: Path) -> None:
    says = [specscope("show", waited, "--turn", str(turn)).out for turn in range(3)]
    assert "request: arrived at step 0, waited 0 steps (0 ms), row 0 from step 0 on\n" in says[0]
    assert "request: arrived at step 2, waited 3 steps (1500 ms), row 1 from step 5 on\n" in says[1]
    steps = of_kind(load(FUSED), "turn_end")[2]["num_steps"]
    wanted = f"request: arrived at step 2 with its first turn, row 0 from step 18 on; cancelled after {steps} steps\n"
    assert wanted in says[2]


def test_where_nobody_could_wait_nothing_is_said(tmp_path: Path) -> None:
    lines = load(FUSED)
    for number, start in enumerate(of_kind(lines, "turn_start")):
        start["joined_at"] = 10 * number
    one_row = store(lines, tmp_path / "one.jsonl")
    for trace in (FUSED, one_row):
        assert "request" not in specscope("show", trace, "--turn", "1").out
        assert "waited" not in specscope("metrics", trace).out
        [run] = json.loads(specscope("metrics", trace, "--json").out)["runs"]
        assert run["requests"] is None


def test_a_cancelled_turn_is_called_so_even_where_no_arrival_was_recorded(tmp_path: Path) -> None:
    lines = load(FUSED)
    of_kind(lines, "turn_end")[0] |= {"reason": "cancelled", "num_steps": 1}
    assert "request: cancelled after 1 step\n" in specscope("show", store(lines, tmp_path / "cut.jsonl")).out


def test_show_says_whether_ranks_agree(tmp_path: Path) -> None:
    lines = ranks_agree(load(FUSED))
    agreeing = store(lines, tmp_path / "agree.jsonl")
    wanted = "3 ranks that divide the teacher, sums carried by gloo, acceptance replicated"
    assert wanted in specscope("show", agreeing).out
    assert "3 ranks decided the same" in specscope("show", agreeing, "--step", "1").out
    one_rank_parts(lines := load(FUSED))
    parted = specscope("show", store(lines, tmp_path / "parted.jsonl"), "--step", "1").out
    assert "rank 2 of 3 accepted another path than rank 0" in parted
    assert "ranks" not in specscope("show", FUSED, "--step", "1").out


def test_metrics_say_how_long_requests_waited(waited: Path) -> None:
    out = specscope("metrics", waited).out
    ends = of_kind(load(FUSED), "turn_end")
    together = sum(len(end["output_ids"]) for end in ends) / (5 + 13 + ends[2]["num_steps"])
    for name, value in {
        "requests": "2 took a row, 1 of them cancelled",
        "waited, in steps": "mean 1.50  p50 1.5  p95 3.0",
        "waited, in ms": "mean 750.00  p50 750.0  p95 1500.0",
        "tokens of all rows": f"{together:.2f} a step that they take together",
    }.items():
        assert f"{name}  " in out
        assert value in out
    [run] = json.loads(specscope("metrics", waited, "--json").out)["runs"]
    assert run["requests"]["waited_steps"] == {"mean": 1.5, "p50": 1.5, "p95": 3.0}
    assert run["requests"]["tokens_per_step"] == together


def test_all_requests_are_counted_where_only_some_turns_are_read(waited: Path) -> None:
    with TraceReader(waited) as reader:
        whole, part = read_numbers(reader), read_numbers(reader, most_steps=1)
    assert part.num_read < whole.num_read
    assert part.served == whole.served
    assert whole.served is not None
    assert (whole.served.num_requests, whole.served.num_cancelled) == (2, 1)


def stay(turn: int, times: tuple[int, int, int, int], first: dict[str, Any], ending: dict[str, Any]) -> Stay:
    """A turn that arrives, waits, runs and emits so much."""
    arrives, waits, steps, tokens = times
    start = {**first, "turn": turn, "prompt_id": str(turn), "prompt_turn": 0, "arrived_at": arrives}
    end = {**ending, "turn": turn, "num_steps": steps, "output_ids": [7] * tokens}
    in_its_row = stay_of(
        TurnStart.model_validate({**start, "joined_at": arrives + waits}), TurnEnd.model_validate(end), rows=4
    )
    assert in_its_row is not None
    return in_its_row


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 4), min_size=1, max_size=12))
def test_the_numbers_of_requests_are_those_of_a_slow_count(times: list[tuple[int, int, int, int]]) -> None:
    lines = load(FUSED)
    first, ending = of_kind(lines, "turn_start")[0], of_kind(lines, "turn_end")[0]
    stays = [stay(turn, each, first, ending) for turn, each in enumerate(times)]
    served = served_requests(stays)
    assert served is not None
    waits = sorted(waited for _, waited, _, _ in times)
    assert served.num_requests == len(times)
    assert served.waited_steps.mean == pytest.approx(fmean(waits))
    assert sum(wait <= served.waited_steps.p95 for wait in waits) >= ceil(0.95 * len(waits))
    busy = {arrives + waited + step for arrives, waited, steps, _ in times for step in range(steps)}
    wanted = sum(tokens for *_, tokens in times) / len(busy) if busy else None
    assert served.tokens_per_step == (wanted if wanted is None else pytest.approx(wanted))
