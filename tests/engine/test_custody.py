"""What is written over between two steps is found at a later one, and the side that did it is blamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.recorded_runs import TALKS, TinyRuns

from specscope.engine.loop.session import Session
from specscope.tracer.compare import diff_traces
from specscope.tracer.oracle.check import check_trace


@pytest.fixture
def runs(teacher_folder: Path, head_folder: Path, tmp_path: Path) -> TinyRuns:
    return TinyRuns(teacher_folder, head_folder, tmp_path)


def spoil_between(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Session], None]) -> None:
    """From here on, ``spoil`` runs before every step of a turn but the first."""
    step = Session.step

    def spoilt(session: Session, meanwhile: Any = None) -> Any:
        if all(row.turn is not None and row.turn.step > 0 for row in session.rows):
            with torch.inference_mode():
                spoil(session)
        return step(session, meanwhile)

    monkeypatch.setattr(Session, "step", spoilt)


def scaled_layer(session: Session) -> None:
    """One layer's keys, a thousandth too large."""
    session.cache.buffer[3, 0] *= 1.001


def zeroed_position(session: Session) -> None:
    session.cache.buffer[:, :, 0, :, 1] = 0


def swapped_positions(session: Session) -> None:
    session.cache.buffer[:, :, 0, :, [0, 2]] = session.cache.buffer[:, :, 0, :, [2, 0]].clone()


def scaled_drafter(session: Session) -> None:
    kept = session.drafter.kept(0)
    assert kept is not None
    kept *= 1.001


DAMAGES: dict[str, tuple[Callable[[Session], None], str]] = {
    "one layer scaled": (scaled_layer, "commit.prefix-kept"),
    "a position zeroed": (zeroed_position, "commit.prefix-kept"),
    "two positions swapped": (swapped_positions, "commit.prefix-kept"),
    "the drafter's cache scaled": (scaled_drafter, "draft.cache-kept"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_written_over_between_two_steps_is_found_and_blamed(
    runs: TinyRuns, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    spoil, invariant = DAMAGES[damage]
    spoil_between(monkeypatch, spoil)
    damaged = runs("damaged", mode="eager", tokens=24)
    tally = check_trace(damaged).invariants[invariant]
    assert tally.first is not None
    assert tally.first.step == 1, "at the very next step"


@pytest.mark.parametrize("drafter", ["eagle3", "model", "ngram"])
@pytest.mark.parametrize("strategy", ["in-place", "fast-reorder", "full-reorder", "replicate"])
def test_honest_caches_are_kept(runs: TinyRuns, drafter: str, strategy: str) -> None:
    trace = runs("honest", drafter, cache_strategy=strategy, batch_size=2, tokens=16)
    talk = runs("talk", drafter, prompts=TALKS, cache_strategy=strategy, tokens=12)
    for path in (trace, talk):
        report = check_trace(path)
        assert not report.num_violations
        assert report.invariants["commit.prefix-kept"].passed
        kept = report.invariants["draft.cache-kept"]
        assert kept.skipped if drafter == "ngram" else kept.passed


def test_the_side_that_wrote_over_its_cache_is_the_wrong_one(runs: TinyRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = runs("honest", mode="eager", tokens=16)
    spoil_between(monkeypatch, scaled_layer)
    verdict = diff_traces(honest, runs("damaged", mode="eager", tokens=16))
    assert verdict.exit_code == 1
    assert {blame.side for blame in verdict.violations} == {"b"}
    assert "commit.prefix-kept" in {blame.invariant for blame in verdict.violations}
