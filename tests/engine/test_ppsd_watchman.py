"""What the launcher's watchman ends, and how soon: a hung rank, then those that do not end by themselves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.local_pipeline import load_stages, local_pipeline

from specscope.engine.loop.stopping import StopRules
from specscope.engine.ppsd.choice import PipelineChoice
from specscope.engine.ppsd.message import Message
from specscope.engine.ranks import launch, lifeline
from specscope.engine.ranks.lifeline import LastWords, SignOfLife, Watch

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that hear of no signal, as in a long forward."""
    ranks = [subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for rank in ranks:
            assert rank.stdout is not None
            rank.stdout.readline()
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


def sign(folder: Path, rank: int, pid: int, busy_s: float) -> None:
    lifeline._write(lifeline._life_file(folder, rank), SignOfLife(pid, 1, "decoding", busy_s))


def test_a_hung_rank_is_ended_and_one_that_does_not_hear_of_it_follows_soon(
    tmp_path: Path, deaf: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "LOOK_S", 0.05)
    watchman = launch._Watchman(Watch(tmp_path), launch.Ranks(2, "stage"), hung_after_s=60.0)
    sign(tmp_path, 0, deaf[0].pid, busy_s=0.0)
    sign(tmp_path, 1, deaf[1].pid, busy_s=61.0)
    watchman.start()
    try:
        deaf[1].wait(60)
        begun = time.monotonic()
        deaf[0].wait(60)
        waited = time.monotonic() - begun
    finally:
        watchman.stop()
    assert [rank.returncode for rank in deaf] == [-9, -9]
    assert waited > launch.SHUTDOWN_OF_HUNG_S / 2, "it had the time to end by itself"
    assert str(watchman.verdict({0: 9})).startswith("stage 1 (rank 1 of 2) was stuck in one piece of work for 60 s")


def test_ranks_that_work_or_have_said_why_they_end_are_left_alone(
    tmp_path: Path, deaf: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "LOOK_S", 0.01)
    monkeypatch.setattr(launch, "SHUTDOWN_OF_HUNG_S", 0.0)
    sign(tmp_path, 0, deaf[0].pid, busy_s=59.0)
    sign(tmp_path, 1, deaf[1].pid, busy_s=61.0)
    lifeline._write(lifeline._end_file(tmp_path, 1), LastWords("done", 0, is_common=False, is_echo=False))
    watchman = launch._Watchman(Watch(tmp_path), launch.Ranks(2, "stage"), hung_after_s=60.0)
    watchman.start()
    time.sleep(0.3)
    watchman.stop()
    assert [rank.poll() for rank in deaf] == [None, None]
    assert not watchman.has_found_hung


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([("no file", 2, True), ("", 0, False)], "error: no file"),  # a user's mistake is no rank's
        ([("parted", 1, True), ("parted", 1, True)], "error: parted"),
        ([("", 0, False), ("slot 2 sees slot 1", 1, True)], "error: stage 1 (rank 1 of 2): slot 2 sees slot 1"),
        ([("", 141, False), ("lost", 2, False)], "141"),  # nobody reads the output: the run ends so, in silence
    ],
)
def test_the_rank_is_named_where_not_all_met_the_same(
    tmp_path: Path, words: list[tuple[str, int, bool]], says: str
) -> None:
    for rank, (message, code, is_common) in enumerate(words):
        last = LastWords(message, code, is_common=is_common, is_echo=message == "lost")
        lifeline._write(lifeline._end_file(tmp_path, rank), last)
    verdict = launch._Watchman(Watch(tmp_path), launch.Ranks(2, "stage"), hung_after_s=60.0).verdict({})
    if isinstance(verdict, SystemExit):
        assert verdict.code == int(says)
    else:
        assert f"error: {verdict}" == says


def test_what_a_hung_rank_may_take_in_all_is_within_the_promised_ten_seconds() -> None:
    """Its last sign may be a beat old, each look may come just too early, and a deaf rank is given its time."""
    noticed = PipelineChoice(num_stages=2).patience_s + lifeline.BEAT_S + launch.LOOK_S
    assert noticed + launch.SHUTDOWN_OF_HUNG_S + launch.LOOK_S < 10


def test_a_rank_is_busy_from_when_it_looked_for_work_and_never_while_others_keep_it_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lifeline.FOLDER_VARIABLE, str(tmp_path))
    rank = lifeline.Lifeline(0)

    def busy_s() -> float:
        rank._sign(tmp_path)
        life = Watch(tmp_path).life(0)
        assert life is not None
        return life.busy_s

    assert busy_s() == 0.0, "it has not begun"
    rank.looked()
    time.sleep(0.05)
    assert busy_s() >= 0.05
    with rank.elsewhere():
        time.sleep(0.05)
        assert busy_s() == 0.0, "who reads its output may be slow"
    assert busy_s() < 0.05


def test_the_first_rank_looks_for_work_between_all_pieces_of_it(teacher_folder: Path) -> None:
    """So one that is stuck in a piece of work, or in sending it on, is told from one that decodes."""
    looks: list[int] = []
    with local_pipeline(load_stages(teacher_folder, 4, 2), None) as pipeline:
        pipeline.conductor._idle = lambda: looks.append(pipeline.conductor.schedule.num_in_flight)
        turn = pipeline.decode([5, 9, 2], StopRules(6, [], []))
    assert len(looks) > len(turn.output_ids)
    assert 0 in looks, "before an item is run"
    assert 1 in looks, "while it is under way"


def test_while_a_buffer_is_held_up_by_another_stage_the_first_is_elsewhere(
    teacher_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would be named before the stage that hangs."""
    inside: list[bool] = [False]
    waited: list[bool] = []

    @contextmanager
    def elsewhere() -> Iterator[None]:
        inside[0] = True
        yield
        inside[0] = False

    with local_pipeline(load_stages(teacher_folder, 4, 2), None) as pipeline:
        following = pipeline.conductor.following
        honest = following.free

        def free() -> Message:
            waited.append(inside[0])
            return honest()

        monkeypatch.setattr(following, "free", free)
        monkeypatch.setattr(pipeline.conductor, "_elsewhere", elsewhere)
        turn = pipeline.decode([5, 9, 2], StopRules(6, [], []))
    assert waited[: len(turn.output_ids)] == [True] * len(turn.output_ids), "one item for each token"
