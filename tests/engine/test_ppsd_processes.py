"""Stages as processes of a real group: rows with their header or apart from it, and prompts of many messages."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support.traces import ROOT

from specscope.engine.drafters.base import NoDrafter
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.ppsd import hop
from specscope.engine.ppsd.message import Field, Kind, Message
from specscope.engine.ppsd.rank import NEWS_SHAPE
from specscope.engine.teacher.files import TeacherOptions
from specscope.engine.teacher.model import Teacher

PROGRAM = ROOT / "tests" / "support" / "pipeline_rank.py"
NUM_STAGES, TOKENS = 3, 12
#: More messages than all buffers on the way hold.
LONG = [3 + number % 50 for number in range(90)]


def decode_alone(teacher: Path, prompt: list[int]) -> list[int]:
    options = TeacherOptions(dtype=torch.float32, device=torch.device("cpu"), attention="eager")
    session = Session(Teacher.load(str(teacher), options), NoDrafter())
    for _ in session.decode(prompt, StopRules(TOKENS, [], [])):
        pass
    return session.result.output_ids


@pytest.mark.parametrize("apart", [False, True], ids=["with their header", "apart"])
@pytest.mark.parametrize(("prompt", "chunk"), [([5, 9, 2, 33, 8], 256), (LONG, 1)], ids=["short", "many messages"])
def test_processes_give_the_teachers_own_tokens(
    teacher_folder: Path, tmp_path: Path, prompt: list[int], chunk: int, apart: bool
) -> None:
    wanted = decode_alone(teacher_folder, prompt)
    task = {"teacher": str(teacher_folder), "prompt": prompt, "following": wanted, "chunk": chunk, "apart": apart}
    output = tmp_path / "output.json"
    (tmp_path / "task.json").write_text(json.dumps({**task, "output": str(output)}))
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), str(tmp_path / "task.json")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(NUM_STAGES)
    ]
    try:
        ended = [(rank.communicate(timeout=150)[1], rank.returncode) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [code for _, code in ended] == [0] * NUM_STAGES, ended
    output_ids, num_dropped = json.loads(output.read_text())
    assert output_ids == wanted
    assert num_dropped > 0, "rows of items that are not run were received as well"


def test_every_free_buffer_awaits_a_message_before_the_first_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that finds none waiting travels only after a reply, which the sender may be too busy to read."""
    posted: queue.SimpleQueue[Receiving] = queue.SimpleQueue()

    def receive(buffer: torch.Tensor, source: int, tag: int) -> Receiving:
        begun = Receiving(buffer)
        posted.put(begun)
        return begun

    monkeypatch.setattr(dist, "irecv", receive)
    inbox = hop.Inbox({1: NEWS_SHAPE}, torch.float32)
    waiting = [posted.get(timeout=30) for _ in range(hop.NUM_BUFFERS)]
    assert posted.empty()
    for epoch, receiving in enumerate(waiting):
        receiving.arrive(Message(NEWS_SHAPE, torch.float32).begin(Kind.EPOCH, epoch=epoch))
    arrivals = [inbox.take(30) for _ in waiting]
    assert [arrival.message.get(Field.EPOCH) for arrival in arrivals if arrival is not None] == [0, 1, 2, 3]
    assert posted.empty(), "their buffers are still being read"
    for arrival in arrivals:
        assert arrival is not None
        inbox.give_back(arrival)
    again = [posted.get(timeout=30) for _ in range(hop.NUM_BUFFERS)]
    again[0].arrive(Message(NEWS_SHAPE, torch.float32).begin(Kind.LEAVE))
    inbox.hear_out(lambda: None)


class Receiving:
    """A buffer that waits for a message, as a group of ranks would fill it."""

    def __init__(self, buffer: torch.Tensor) -> None:
        self._buffer, self._here = buffer, threading.Event()

    def arrive(self, message: Message) -> None:
        self._buffer.copy_(message.content())
        self._here.set()

    def wait(self) -> None:
        assert self._here.wait(30)
