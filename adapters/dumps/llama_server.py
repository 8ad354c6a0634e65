"""The debug log of llama-server (llama.cpp), as ``--log-verbosity`` of debug prints it, to a file or to a pipe.

Read are the lines of a request's start, of each verified draft, and of its timings. Where a context cannot drop single
tokens, the server restores a checkpoint and runs the accepted tokens again: the two passes are one step, and how many
tokens were drafted in it is known only with ``LLAMA_TRACE``. Of a step without a draft the log has no line at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from specscope.adapters.dumps.requests import DRAFTING_STEPS, MOST_LENGTH, Dump, Request, StepLengths
from specscope.tracer.errors import UsageError

TASK = re.compile(r"\| task (\d{1,9}) \| (.*)")
BEGINS = re.compile(r"new prompt, .*task\.n_tokens = (\d{1,9})")
VERIFIED = re.compile(r"add accepted tokens: sampled=-?\d+, ids\.size=(\d{1,9}), n_draft=(\d{1,9})")
RESTORED = re.compile(r"restoring speculative checkpoint|accepted +\d+/ *\d+ draft tokens \(restore checkpoint\)")
RESTORED_OF = re.compile(r"accepted +\d+/ *(\d{1,9}) draft tokens \(restore checkpoint\)")
TOTALS = re.compile(r"draft acceptance(?: rate)? = +?[\d.]+ \( *(\d{1,9}) accepted / *(\d{1,9}) generated\)")
EVALUATED = re.compile(r"^ *eval time = +[\d.]+ ms / +(\d{1,9}) tokens")
TOOK = re.compile(r"^ *total time = +(\d{1,12}\.\d+) ms")
WANTED = "run llama-server with --log-verbosity high enough for its debug lines (-lv 5)"


@dataclass(kw_only=True)
class _Task:
    """A request while its lines come by."""

    request: Request
    number: str  # in the log
    whole: bool = False  # its first line was seen
    ended: bool = False  # its totals were printed
    restored: bool = False  # a checkpoint was restored, so that the next pass runs the accepted tokens again
    restored_of: int | None = None

    def is_over(self, line: str) -> bool:
        """Whether a line of the same number is of another request, since a server that starts again counts from 0."""
        if BEGINS.search(line):
            return self.whole or bool(self.request.steps) or self.ended
        return self.ended and VERIFIED.search(line) is not None

    def add(self, line: str) -> None:
        """Takes in one of its lines, without what stands before it."""
        request = self.request
        if begins := BEGINS.search(line):
            self.whole, request.num_prompt_tokens = True, int(begins[1])
        elif RESTORED.search(line):
            drafted = RESTORED_OF.search(line)
            self.restored_of = int(drafted[1]) if drafted else self.restored_of
            self.restored = True
        elif verified := VERIFIED.search(line):
            self._add_step(int(verified[1]) - 1, int(verified[2]))
        else:
            self._add_timing(line)

    def _add_timing(self, line: str) -> None:
        """Takes in what is printed when the request has ended."""
        request = self.request
        if totals := TOTALS.search(line):
            request.num_accepted, request.num_drafted = int(totals[1]), int(totals[2])
            self.ended = True
        elif evaluated := EVALUATED.search(line):
            request.num_output_tokens = int(evaluated[1])
        elif took := TOOK.search(line):
            request.duration_ns = int(min(float(took[1]), MOST_LENGTH) * 1e6)

    def _add_step(self, accepted: int, drafted: int) -> None:
        if self.restored:
            self.request.steps.append(StepLengths(max(0, accepted - 1), self.restored_of))
        else:
            self.request.steps.append(StepLengths(max(0, accepted), drafted))
        self.restored, self.restored_of = False, None


def read_llama_server(path: Path) -> Dump:
    """The requests in the log at ``path``.

    Raises:
        UsageError: where it has no line of a verified draft.
    """
    drafting = [task for task in _tasks(path) if task.request.steps]
    if not drafting:
        raise UsageError(f"{path} has no line of a verified draft; {WANTED}")
    requests, left_out = [], []
    for task in drafting:
        if not task.whole:  # the log begins within it, so that its totals count steps that are not there
            task.request.num_accepted = task.request.num_drafted = None
            task.request.lacks_beginning = True
        if task.request.drafted_at_all is None:
            left_out.append(f"{task.request.name}, task {task.number}: how many tokens it drafted is not in the log")
        else:
            requests.append(task.request)
    return Dump({"engine": "llama-server", **DRAFTING_STEPS}, requests, left_out)


def _tasks(path: Path) -> list[_Task]:
    """Every request of the log, in the order in which they are named first."""
    tasks: list[_Task] = []
    running: dict[str, _Task] = {}  # by the server's number
    with path.open(encoding="utf-8-sig", errors="replace") as log:
        for line in log:
            of_task = TASK.search(line)
            if of_task is None:
                continue
            number, text = of_task[1], of_task[2]
            if number not in running or running[number].is_over(text):
                request = Request(name=f"request-{len(tasks)}", place=len(tasks), steps=[])
                running[number] = _Task(request=request, number=number)
                tasks.append(running[number])
            running[number].add(text)
    return tasks
