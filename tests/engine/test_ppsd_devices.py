"""Stages on devices: what is brought to them, when their work counts as done, and where their rows lie.

The device of the runs is a stand-in of the kind ``card``, in the processor's memory. Nothing here ran on another one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import stand_in_device
from support.commands import specscope
from support.local_pipeline import load_stages, local_pipeline, perfect_draft
from support.traces import load

from specscope.engine.loop.stopping import StopRules
from specscope.engine.ppsd import hop
from specscope.engine.ppsd.carrier import Carrier
from specscope.engine.ppsd.message import Field, Kind, Message, Shape
from specscope.engine.ppsd.placement import Landing, StageDevice
from specscope.engine.ppsd.rank import message_shapes
from specscope.tracer.oracle.check import check_trace

CPU = torch.device("cpu")
PROMPT = "import os\nimport sys\n\n\ndef main(argv):\n"


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kind ``card`` is there for the commands that are run; where they count how often they waited."""
    path = os.pathsep.join(
        filter(None, (str(stand_in_device.install(tmp_path / "card")), os.environ.get("PYTHONPATH")))
    )
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("CARD_WAITS", str(tmp_path / "waits"))
    return tmp_path / "waits"


@pytest.mark.slow
def test_stages_take_a_device_each_and_say_so(cards: Path, tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    flags = ("--prompt", PROMPT, "--max-new-tokens", "12")
    alone = specscope("run", *flags, "--mode", "baseline", "--json")
    done = specscope("run", "--engine", "ppsd", "--stages", "2", *flags, "--device", "card", "--trace", trace)
    assert (done.code, done.err) == (0, "")
    assert "stage 0 on card:0: layers 0 to 3" in done.out
    assert "stage 1 on card:1: layers 4 to 9" in done.out
    assert "hidden states carried by gloo through the host's memory" in done.out
    (end,) = (line for line in load(trace) if line["kind"] == "turn_end")
    assert end["output_ids"] == json.loads(alone.out)["output_ids"]
    pipeline = load(trace)[0]["pipeline"]
    assert [stage["device"] for stage in pipeline["stages"]] == ["card:0", "card:1"]
    assert (pipeline["backend"], pipeline["staged"]) == ("gloo", True)
    ran = [
        interval
        for line in load(trace)
        for interval in (line.get("pipeline") or {}).get("intervals", [])
        if interval["activity"] in ("prefill", "verify")
    ]
    for stage in (0, 1):
        waits = len(Path(f"{cards}.{stage}").read_text())
        assert waits == sum(interval["stage"] == stage for interval in ran), "each interval is of finished work"
    shown = specscope("show", trace).out
    assert "layers 0 to 3 on card:0, 4 to 9 on card:1; hidden states carried by gloo through the host's memory" in shown


@pytest.mark.slow
def test_stages_share_the_one_device_that_there_is(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARD_COUNT", "1")
    trace = tmp_path / "run.jsonl"
    flags = ("--prompt", PROMPT, "--max-new-tokens", "4", "--trace", trace)
    done = specscope("run", "--engine", "ppsd", "--stages", "2", *flags, "--device", "card")
    assert (done.code, done.err) == (0, "")
    assert [f"stage {number} on card:0: " in done.out for number in (0, 1)] == [True, True]
    assert check_trace(trace).num_violations == 0


def test_what_a_stage_is_brought_lies_in_memory_of_its_own(teacher_folder: Path) -> None:
    """What stands in a message may be written over as soon as it is brought; the tokens are the teacher's own."""
    whole = [5, 9, 2, 33, 8]
    stages = load_stages(teacher_folder, 4, 3)
    rules = StopRules(8, [], [])
    with local_pipeline(stages, None) as pipeline:
        wanted = pipeline.decode(whole, rules).output_ids
    finished: list[int] = []
    staged = load_stages(teacher_folder, 4, 3)
    for number, stage in enumerate(staged):
        landing = Landing(256, stage.part.hidden_size, torch.float32, CPU)

        def bring_and_spoil(rows: torch.Tensor, landing: Landing = landing) -> torch.Tensor:
            landed = landing.bring(rows)
            rows.fill_(torch.nan)
            return landed

        stage.bring, stage._finish = bring_and_spoil, partial(finished.append, number)
    with local_pipeline(staged, perfect_draft([*whole, *wanted])) as pipeline:
        assert pipeline.decode(whole, rules).output_ids == wanted
    assert set(finished) == {0, 1, 2}


def test_a_landing_is_allocated_once() -> None:
    landing = Landing(4, 3, torch.float32, CPU)
    first, second = torch.ones(1, 2, 3), torch.full((1, 4, 3), 2.0)
    landed = landing.bring(first)
    assert torch.equal(landed, first)
    assert landed.data_ptr() != first.data_ptr()
    assert landing.bring(second).data_ptr() == landed.data_ptr()


def test_a_stage_is_done_when_its_device_is(teacher_folder: Path) -> None:
    """No row leaves and no time is taken before: what the stage gave is complete when ``run`` returns."""
    (stage, *_) = load_stages(teacher_folder, 4, 3)
    lengths: list[int] = []
    stage._finish = lambda: lengths.append(stage.length)
    stage.run(stage.embed([5, 9]))
    stage.run(stage.embed([2]))
    assert lengths == [2, 3], "once for each piece of work, after it"


def test_rows_of_a_direct_carrier_lie_apart_from_what_the_host_reads(teacher_folder: Path) -> None:
    (stage, *_) = load_stages(teacher_folder, 4, 3)
    onward, back = message_shapes(stage, Carrier("nccl"), num_stages=3, recording=True)
    staged, _ = message_shapes(stage, Carrier("gloo", is_staged=True), num_stages=3, recording=True)
    assert (onward.rows_on, back.rows_on, staged.rows_on) == (stage.part.device, None, None)
    assert back.max_rows == 0, "what the last stage says has no rows"
    hidden = torch.randn(1, 3, stage.part.hidden_size)
    for shape, apart in ((onward, True), (staged, False)):
        message = Message(shape, torch.float32).begin(Kind.ITEM, position=7)
        assert message.rows_apart() is None, "none are there"
        message.put_rows(hidden)
        rows = message.rows_apart()
        assert (rows is not None) == apart
        assert torch.equal(message.rows(), hidden)
        assert len(message.content()) == shape.head_bytes + (0 if apart else 3 * shape.row_bytes)
        assert message.get(Field.POSITION) == 7
        if rows is not None:
            assert rows.is_contiguous()
            assert rows.untyped_storage().data_ptr() != message.buffer.untyped_storage().data_ptr()
    empty = Message(Shape(max_rows=2, row_bytes=8, max_events=0, extra_bytes=0, rows_on=CPU), torch.float32)
    assert len(empty.buffer) == empty.begin(Kind.ITEM).content().numel(), "no room is kept for rows that lie elsewhere"


def test_what_arrives_on_a_device_has_a_stream_of_its_own_and_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[Any] = []

    class Stream:
        def __init__(self, device: Any) -> None:
            happened.append(device.type)

        def __enter__(self) -> Stream:
            happened.append("begins")
            return self

        def __exit__(self, *_: object) -> None:
            happened.append("ends")

        def synchronize(self) -> None:
            happened.append("waits")

    monkeypatch.setattr(torch, "Stream", Stream)
    device: Any = SimpleNamespace(type="cuda")
    with hop.beside_the_work(device):
        happened.append("receives")
    assert happened == ["cuda", "begins", "receives", "ends", "waits"]
    happened.clear()
    with hop.beside_the_work(CPU):
        happened.append("receives")
    assert happened == ["receives"]


def test_a_stage_with_a_direct_carrier_waits_for_its_own_stream_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    device = torch.device("cuda:1")
    streams = {device: SimpleNamespace(synchronize=lambda: waited.append("its stream"))}
    monkeypatch.setattr(torch.accelerator, "current_stream", streams.__getitem__)
    backend: Any = SimpleNamespace(synchronise=lambda asked: waited.append(("all of", asked)))
    place = StageDevice("cuda:1", device, backend)
    place.finish_stream()
    place.finish()
    assert waited == ["its stream", ("all of", device)]


@contextmanager
def selecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    chosen: list[int] = []
    module = SimpleNamespace(set_device=chosen.append)
    monkeypatch.setattr(torch, "get_device_module", lambda name: module)
    yield chosen


def test_a_rank_makes_its_device_current(monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = None
    with selecting(monkeypatch) as chosen:
        StageDevice("cuda:3", torch.device("cuda:3"), backend).make_current()
        StageDevice("cpu", CPU, backend).make_current()
    assert chosen == [3]
