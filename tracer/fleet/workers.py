"""Worker processes that judge pairs. One that dies takes its pair down with it, and no other.

A pool of the standard library gives up all its work when one process dies; so each worker here has its own pipe.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Generator, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Protocol

from specscope.schemas.pair_result import PairResult
from specscope.tracer.fleet.compare_pair import Task, error_result, judge_pair


class Judge(Protocol):
    """What a worker does with a task; a function of a module, since workers import it."""

    def __call__(self, task: Task) -> PairResult:
        """The result of ``task``."""
        ...


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """An interrupt reaches the whole group. A child that is started inside inherits the block, so that only the parent
    decides. Windows has no signal masks: there a child may end by itself, and its pair is an error."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """One process, its pipe, and the task that it has."""

    def __init__(self, judge: Judge) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=serve, args=(end, judge), daemon=True)
        with _interrupts_blocked():
            self.process.start()
        end.close()
        self.task: Task | None = None
        self.stamp = ""
        self.begun = 0.0

    def give(self, task: Task) -> None:
        """Hands over the next task."""
        self.task, self.stamp, self.begun = task, task.stamp, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it is dead; the wait for its answer says so
            self.pipe.send(task)

    def answer(self) -> PairResult:
        """Its result, or an error in its name where it died. To be called once its pipe is ready."""
        assert self.task is not None
        task, self.task = self.task, None
        try:
            result: PairResult = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return error_result(task, self.stamp, self._death(), time.monotonic() - self.begun)
        return result

    def _death(self) -> str:
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"the worker was killed by {signal.Signals(-code).name}; out of memory?"
        return f"the worker ended with code {code}"

    @property
    def alive(self) -> bool:
        """Whether it can take another task."""
        return self.process.is_alive()

    def end(self) -> None:
        """Ends the process, in the middle of a task if need be."""
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def judge_all(tasks: Iterable[Task], num_workers: int, judge: Judge = judge_pair) -> Generator[PairResult, None, None]:
    """Judges every task in ``num_workers`` processes; gives results as they come, in no order of the tasks. Closing it
    ends the workers."""
    waiting = iter(tasks)
    workers: list[_Worker] = []
    try:
        for task in waiting:
            workers.append(_Worker(judge))
            workers[-1].give(task)
            if len(workers) == num_workers:
                break
        while busy := {worker.pipe: worker for worker in workers if worker.task is not None}:
            ready = wait(list(busy))
            for worker in (worker for pipe, worker in busy.items() if pipe in ready):
                result = worker.answer()
                following = next(waiting, None)
                if following is not None:
                    _pass_on(workers, worker, following, judge)
                yield result
    finally:
        for worker in workers:
            worker.end()


def _pass_on(workers: list[_Worker], worker: _Worker, task: Task, judge: Judge) -> None:
    """Gives ``task`` to ``worker``, or to a new one in place of a dead one."""
    if not worker.alive:
        worker.end()
        workers[workers.index(worker)] = worker = _Worker(judge)
    worker.give(task)


def serve(pipe: Connection, judge: Judge) -> None:
    """What a worker runs: answers tasks until the parent is gone."""
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        result = judge(task)
        try:
            pipe.send(result)
        except OSError:  # it has gone meanwhile
            return
