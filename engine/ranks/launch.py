"""Starts the processes of a run, watches them, and says in one line why they ended.

The ranks run the very command that the user gave; torch's launcher starts them and tells each which rank it is. A rank
that dies ends the others. One that gives no sign of life is killed, and so ends like one that died.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from specscope.engine.ranks.lifeline import FOLDER_VARIABLE, SignOfLife, Watch
from specscope.tracer.errors import EXIT_USAGE, EngineError

LOOK_S = 0.5  # between two looks at the ranks' signs of life
START_S = 20.0  # for a rank's first sign: a process that is only slow must not count as hung
SHUTDOWN_S = 4  # that ranks have to end by themselves before they are killed
#: The same where a rank was hung, which took as long to notice: a rank deep in a forward hears of no signal, and the
#: launcher can end the trace as well.
SHUTDOWN_OF_HUNG_S = 1.0
#: Set for the ranks unless the user set them. Gloo connects over the loopback interface only.
RANK_VARIABLES = {"GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
DOING = {
    "starting": "while it started",
    "waiting": "while it served",
    "prefill": "in prefill",
    "decoding": "while it decoded",
}


class RankError(EngineError):
    """A rank ended before the run did.

    Args:
        rank: which; None where the mistake is not one rank's.
    """

    def __init__(self, message: str, exit_code: int = EngineError.exit_code, *, rank: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.rank = rank


class Ranks(NamedTuple):
    """The processes of a run."""

    size: int
    called: Literal["rank", "stage"] = "rank"  # what each of them is to the user

    def name(self, rank: int) -> str:
        """Of one of them, for a message."""
        whole = f"rank {rank} of {self.size}"
        return whole if self.called == "rank" else f"{self.called} {rank} ({whole})"


def launch(command: Sequence[str], ranks: Ranks, *, hung_after_s: float) -> None:
    """Runs ``command``, arguments of this interpreter, once per rank, and waits until all have ended.

    Raises:
        RankError: naming the rank that ended first, and why.
        KeyboardInterrupt: where this process was interrupted; the ranks have ended then.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with _quiet(), _folder(ranks.size) as folder:
        watchman = _Watchman(Watch(folder), ranks, hung_after_s)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks.size,
            run_id="specscope",
            rdzv_backend="c10d",
            rdzv_endpoint=str(folder / "rendezvous"),
            rdzv_configs={"store_type": "file"},
            max_restarts=0,
            local_addr="127.0.0.1",
            logs_specs=DefaultLogsSpecs(local_ranks_filter={0}),  # what the others have to say goes another way
            shutdown_timeout=SHUTDOWN_S,
        )
        watchman.start()
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            signals = {rank: -failure.exitcode for rank, failure in error.failures.items() if failure.exitcode < 0}
            raise watchman.verdict(signals) from None
        except SignalException as stop:
            if watchman.has_found_hung:
                raise watchman.verdict({}) from None
            if stop.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise RankError(f"ended by {signal.Signals(stop.sigval).name}", 128 + int(stop.sigval)) from None
        finally:
            watchman.stop()


@contextmanager
def _folder(num_ranks: int) -> Iterator[Path]:
    """Where the ranks meet and leave word; it is named in their environment."""
    cores = os.cpu_count() or 1
    variables = RANK_VARIABLES | {"OMP_NUM_THREADS": str(max(1, cores // num_ranks))}
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    with TemporaryDirectory(prefix="specscope-ranks-", ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[FOLDER_VARIABLE]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the launcher's own reports: what matters of them becomes one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


class _Watchman:
    """Looks at the ranks' signs of life, and ends those that give none."""

    def __init__(self, watch: Watch, ranks: Ranks, hung_after_s: float) -> None:
        self._watch, self._ranks, self._hung_after_s = watch, ranks, hung_after_s
        self._begun_s = time.monotonic()
        self._seen: dict[int, tuple[SignOfLife, float]] = {}
        self._hung: dict[int, str] = {}  # how each of them was hung
        self._ended_s: float | None = None  # when the first of them was ended
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watchman", daemon=True)

    @property
    def has_found_hung(self) -> bool:
        """Whether it ended a rank."""
        return bool(self._hung)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            if self._ended_s is not None and time.monotonic() - self._ended_s > SHUTDOWN_OF_HUNG_S:
                self._end_the_others()
            for rank in range(self._ranks.size):
                life = self._watch.life(rank)
                if rank not in self._hung and self._watch.last_words(rank) is None:
                    self._judge(rank, life)

    def _judge(self, rank: int, life: SignOfLife | None) -> None:
        now = time.monotonic()
        if life is None:
            if now - self._begun_s > START_S:
                self._hung[rank] = f"gave no sign of life within {START_S:g} s of its start"
                os.kill(os.getpid(), signal.SIGTERM)  # the launcher knows its process; we do not yet
            return
        last = self._seen.get(rank)
        if last is None or last[0].beat != life.beat:
            last = self._seen[rank] = (life, now)
        if now - last[1] > self._hung_after_s:
            self._end(rank, life, f"gave no sign of life for {self._hung_after_s:g} s")
        elif life.busy_s > self._hung_after_s:
            self._end(rank, life, f"was stuck in one piece of work for {self._hung_after_s:g} s")

    def _end(self, rank: int, life: SignOfLife, how: str) -> None:
        self._hung[rank] = how
        if self._ended_s is None:
            self._ended_s = time.monotonic()
        _kill(life)

    def _end_the_others(self) -> None:
        for rank in range(self._ranks.size):
            life = self._watch.life(rank)
            if life is not None and rank not in self._hung and self._watch.last_words(rank) is None:
                _kill(life)

    def verdict(self, signals: dict[int, int]) -> RankError | SystemExit:
        """What to say of a run in which the ranks in ``signals`` were killed by these signals: a hung rank first, then
        a killed one, what all ranks met alike, any other error, and last what only came of another rank's end. A rank
        that left without a message had nothing to say."""
        for rank, how in self._hung.items():
            return RankError(f"{self._ranks.name(rank)} {how} and was ended {self._doing(rank)}", rank=rank)
        for rank, number in signals.items():
            if number != signal.SIGTERM:  # the launcher's own, for those that are left
                name = signal.Signals(number).name
                return RankError(f"{self._ranks.name(rank)} was killed by {name} {self._doing(rank)}", rank=rank)
        words = {rank: self._watch.last_words(rank) for rank in range(self._ranks.size)}
        ended = [(rank, last) for rank, last in words.items() if last is not None and last.exit_code]
        for rank, last in sorted(ended, key=lambda pair: (not pair[1].is_common, pair[1].is_echo)):
            if not last.message:
                return SystemExit(last.exit_code)
            is_of_all = len(ended) == self._ranks.size and all(other.message == last.message for _, other in ended)
            is_nobodys = last.is_common and (is_of_all or last.exit_code == EXIT_USAGE)
            message = last.message if is_nobodys else f"{self._ranks.name(rank)}: {last.message}"
            return RankError(message, last.exit_code, rank=rank)
        return RankError(f"a {self._ranks.called} ended without a word, and nothing is known of it")

    def _doing(self, rank: int) -> str:
        life = self._watch.life(rank)
        return DOING[life.activity if life is not None else "starting"]


def _kill(life: SignOfLife) -> None:
    with suppress(ProcessLookupError):
        os.kill(life.pid, signal.SIGKILL)


def is_rank() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ
