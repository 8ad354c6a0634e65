"""``benchmarks/pairs.py``: the pairs are sound traces of their own, and only the wrong ones differ."""

from __future__ import annotations

import pytest

from benchmarks.pairs import WRONG, write_pairs
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.fleet.table import Pair, read_pairs
from specscope.tracer.oracle.check import check_trace


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    return read_pairs(write_pairs(tmp_path_factory.mktemp("pairs"), WRONG))


def test_each_trace_is_a_sound_run_of_its_own(pairs: list[Pair]) -> None:
    assert len(pairs) == WRONG
    ids = set()
    for pair in pairs[:4]:
        for path in (pair.baseline, pair.candidate):
            report = check_trace(path)
            assert (report.num_violations, report.num_turns, report.end_reason) == (0, 1, "complete")
            assert report.num_steps >= 10
            with TraceReader(path) as reader:
                ids.add(reader.manifest.run_id)
    assert len(ids) == 8


def test_pairs_are_equal_but_for_the_wrong_one(pairs: list[Pair]) -> None:
    for pair in pairs[:4]:
        verdict = diff_traces(pair.baseline, pair.candidate)
        assert (verdict.verdict, verdict.remarks) == ("equal", [])
    verdict = diff_traces(pairs[-1].baseline, pairs[-1].candidate)
    first = verdict.roots[0]
    assert (verdict.verdict, first.difference.field, first.wrong) == ("different", "positions", "candidate")
