"""Verify forwards that are captured and replayed decide what uncaptured ones do, and a trace shows what a graph read.

The machines of the tests have no graphs: an emulated one replays the operations that it was captured with, on the same
tensors. Torch's own is run here against a torch whose graphs are emulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from support.called import specscope
from support.drafting import PROMPTS, choice_of
from support.host_reads import HostReads
from support.tiny_models import POLICY
from support.traces import load

from specscope.engine.backends.cpu import Cpu
from specscope.engine.backends.cuda import Cuda
from specscope.engine.backends.graphs import CaptureError, EmulatedGraph, GraphPolicy, Graphs
from specscope.engine.lab.faults import FAULTS, injecting
from specscope.engine.load.models import Models, load_models
from specscope.engine.loop import graphs as captured
from specscope.engine.loop.phases import Decoding
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import TurnRequest
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import QUIET, RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import ModelChoice, SamplingRule, Settings
from specscope.engine.tree import grow
from specscope.engine.tree.policy import TreePolicy
from specscope.tracer.compare import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.oracle.check import check_trace

CPU = torch.device("cpu")
EAGLE3 = "eagle3"
FEW, TOKENS = PROMPTS[:2], 12


class Run(NamedTuple):
    """What a run gave."""

    output_ids: dict[str, list[int]]
    trace: Path
    warnings: list[str]

    @property
    def graphs(self) -> list[dict[str, Any]]:
        """What each step says of its graph."""
        return [line["verify"]["graph"] for line in load(self.trace) if line["kind"] == "step"]


class Runner:
    """Decodes all prompts with tiny models."""

    def __init__(self, teacher: Path, head: Path, folder: Path) -> None:
        self._teacher, self._head, self._folder = teacher, head, folder
        self._loaded: dict[ModelChoice, Models] = {}

    def __call__(
        self, name: str, drafter: str = EAGLE3, *, batch_size: int = 1, prompts: Sequence[Prompt] = FEW, **changes: Any
    ) -> Run:
        fault = FAULTS[changes.pop("fault")] if "fault" in changes else None
        full = f"eagle3:{self._head}" if drafter == EAGLE3 else drafter
        choice = choice_of(self._teacher, full, **changes)
        alike = replace(choice, graph="auto")
        models = self._loaded.get(alike) or self._loaded.setdefault(alike, load_models(alike))
        settings = Settings(
            choice=choice,
            max_new_tokens=TOKENS,
            batch_size=batch_size,
            seed=3,
            fault=fault.id if fault is not None else None,
        )
        trace, warnings = self._folder / f"{name}.jsonl", list[str]()
        request = RunRequest(settings, list(prompts), TraceTarget(trace, overwrite=True))
        writer = open_trace(request, models)
        reports = run_turns(request, models, writer, QUIET._replace(warn=warnings.append), change=injecting(fault))
        return Run({report.prompt_id: report.result.output_ids for report in reports}, trace, warnings)


@pytest.fixture(scope="module")
def runs(teacher_folder: Path, head_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(teacher_folder, head_folder, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def small_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """So short a cache and so few columns that a run of the tiny models outgrows them."""
    monkeypatch.setattr(captured, "LEAST_COLUMNS", 16)
    monkeypatch.setattr("specscope.engine.teacher.model.CACHE_CAPACITY", 20)
    monkeypatch.setattr("specscope.engine.cache.buffer.GROWTH", 8)


@pytest.mark.usefixtures("small_shapes")
@pytest.mark.parametrize(
    ("drafter", "changes"),
    [
        (EAGLE3, {}),
        (EAGLE3, {"mode": "eager"}),
        (EAGLE3, {"batch_size": 3}),
        (EAGLE3, {"batch_size": 2, "rule": SamplingRule("sampling", temperature=0.8)}),
        ("ngram", {"batch_size": 2}),
        ("none", {}),
    ],
    ids=["alone", "eager", "batch", "drawn", "lookup", "teacher-only"],
)
def test_the_tokens_are_those_without_a_graph(runs: Runner, drafter: str, changes: dict[str, Any]) -> None:
    changes = {"prompts": PROMPTS, **changes}
    with_graphs = runs("graphs", drafter, graph="on", **changes)
    without = runs("plain", drafter, graph="off", **changes)
    assert with_graphs.output_ids == without.output_ids
    assert not with_graphs.warnings
    report = check_trace(with_graphs.trace)
    assert not report.num_violations
    assert report.invariants["verify.graph-length"].passed == report.num_steps
    assert diff_traces(without.trace, with_graphs.trace).exit_code == 0
    replays = [graph["replays"] for graph in with_graphs.graphs]
    assert max(replays) > 2
    if drafter == EAGLE3:
        assert replays.count(1) < len(replays) / 2, "a graph serves many steps"
        assert len({graph["columns"] for graph in with_graphs.graphs}) > 1, "the run outgrew a shape"


def test_what_the_host_waits_for_is_what_it_waits_for_without_a_graph(
    teacher_folder: Path, head_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("grow", "loop.step"):
        name = grow.__name__ if module == "grow" else f"specscope.engine.{module}"
        monkeypatch.setattr(f"{name}.lies_on_host", lambda tensor: False)
    models = load_models(choice_of(teacher_folder, f"eagle3:{head_folder}"))
    policy = GraphPolicy(graphs=Graphs("emulated", EmulatedGraph), warn=pytest.fail)
    session = Session(models.teacher, models.drafter, Decoding(checks="deferred", graphs=policy))
    session.begin(0, TurnRequest(list(PROMPTS[0].ids), StopRules(60, [], [])))
    session.step()  # captures
    for _ in range(3):
        with HostReads() as reads:
            session.step()
        assert dict(+reads.seen) == {"tolist": 1}


def test_a_graph_is_captured_once_for_each_shape_and_no_more_often_than_allowed(
    runs: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[EmulatedGraph] = []

    class Counted(EmulatedGraph):
        def capture(self, work: Callable[[], Any]) -> Any:
            numbers.append(self)
            return super().capture(work)

    monkeypatch.setattr(Cpu, "graphs", lambda self, device: Graphs("emulated", Counted))
    first = runs("shapes", "ngram", graph="on", batch_size=2)
    shapes = {(graph["slots"], graph["columns"]) for graph in first.graphs}
    assert {slots for slots, _ in shapes} <= {1, 8, 16}, "slots are rounded up, but for a root alone"
    assert len(shapes) <= len(numbers) <= 2 * len(shapes), "two numbers of rows"
    monkeypatch.setattr(captured, "MOST_GRAPHS", 1)
    second = runs("few", "ngram", graph="on", batch_size=2)
    assert second.output_ids == first.output_ids
    assert {graph.get("fallback") for graph in second.graphs} == {None, "1 graphs are kept"}


@pytest.mark.parametrize("fault", [name for name in FAULTS if name.startswith("F18.graph")])
def test_a_buffer_that_is_not_refreshed_is_found_in_the_trace_and_blamed(runs: Runner, fault: str) -> None:
    honest = runs("honest", graph="off", batch_size=2)
    stale = runs("stale", graph="on", batch_size=2, fault=fault)
    expected = FAULTS[fault].expect
    first = check_trace(stale.trace).invariants[str(expected.invariant)].first
    assert first is not None
    verdict = diff_traces(honest.trace, stale.trace)
    assert verdict.exit_code == 1
    assert verdict.roots[0].difference.phase in {phase for phase, _ in expected.places}
    assert {blame.side for blame in verdict.roots[0].blame} == {"b"}


class Refused(EmulatedGraph):
    """A device that cannot capture."""

    def capture(self, work: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")


class Wrong(EmulatedGraph):
    """A device whose replays compute something else."""

    def replay(self) -> None:
        super().replay()
        head = [operation for operation in self._operations if "linear" in str(operation.function)][-1]
        head.outputs[0].neg_()


@pytest.mark.parametrize(
    ("graph", "says"),
    [(Refused, "RuntimeError: operation not permitted"), (Wrong, "its first replay gave other logits")],
)
def test_a_graph_that_cannot_be_trusted_is_done_without_and_the_trace_says_why(
    runs: Runner, monkeypatch: pytest.MonkeyPatch, graph: type[EmulatedGraph], says: str
) -> None:
    monkeypatch.setattr(Cpu, "graphs", lambda self, device: Graphs("emulated", graph))
    plain, fallen = runs("plain", graph="off"), runs("fallen", graph="on")
    assert fallen.output_ids == plain.output_ids
    assert all(says in use["fallback"] and len(use) == 1 for use in fallen.graphs)
    assert ["it runs without a graph" in warning for warning in fallen.warnings] == [True], "once a run"
    assert not check_trace(fallen.trace).num_violations


def test_without_the_self_check_a_wrong_graph_runs_and_changes_the_output(
    runs: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cpu, "graphs", lambda self, device: Graphs("emulated", Wrong))
    wrong = runs("wrong", graph="on", self_check=False)
    assert wrong.output_ids != runs("plain", graph="off").output_ids
    assert not wrong.warnings


def test_what_a_device_cannot_capture_the_emulated_graph_refuses() -> None:
    values = torch.arange(4.0)
    for work in (
        lambda: values.sum().item(),
        lambda: values.nonzero(),
        lambda: values[values > 1],
        lambda: values + torch.tensor([1.0, 2, 3, 4]),
    ):
        with pytest.raises(CaptureError, match="cannot be captured"):
            EmulatedGraph().capture(work)


def test_an_emulated_graph_reads_and_writes_where_it_lay() -> None:
    read, written = torch.arange(6.0).reshape(2, 3), torch.zeros(3)
    graph = EmulatedGraph()

    def work() -> tuple[torch.Tensor, torch.Tensor]:
        halves = (read * 2).T[1:].reshape(-1)  # a view of a new tensor, and a copy of it
        written.add_(read[0])
        return halves, read.view(-1)[4:]

    with torch.inference_mode():
        copied, seen = graph.capture(work)
        written.zero_()
        read += 10
        graph.replay()
    assert copied.tolist() == [22, 28, 24, 30]
    assert seen.tolist() == [14, 15]
    assert written.tolist() == [10, 11, 12]
    kept = copied.clone()
    read.fill_(0)
    assert torch.equal(copied, kept), "nothing happens before the replay"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A ``torch.cuda`` whose streams note in what order they are used and whose graphs are emulated."""
    happened: list[str] = []

    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = name if isinstance(name, str) else "side"

        def wait_stream(self, other: Stream) -> None:
            happened.append(f"{self.name} waits for {other.name}")

    class Recorded(EmulatedGraph):
        def replay(self) -> None:
            happened.append("replay")
            super().replay()

    @contextmanager
    def graph(recorded: Recorded, stream: Stream) -> Iterator[None]:
        happened.append(f"capture on {stream.name}")
        from specscope.engine.backends.graphs import _Notes

        with _Notes() as notes:
            yield
        recorded._operations = notes.operations

    def on(stream: Stream) -> Any:
        happened.append(f"run on {stream.name}")
        return nullcontext()

    module = SimpleNamespace(
        CUDAGraph=Recorded, Stream=Stream, current_stream=lambda device: Stream("current"), stream=on, graph=graph
    )
    for name, value in vars(module).items():
        monkeypatch.setattr(torch.cuda, name, value)
    return happened


def test_torchs_own_graph_is_warmed_up_and_captured_on_a_stream_of_its_own(
    runs: Runner, monkeypatch: pytest.MonkeyPatch, stand_in: list[str]
) -> None:
    assert Cuda().captures
    monkeypatch.setattr(Cpu, "graphs", lambda self, device: Cuda().graphs(device))
    plain, run = runs("plain", graph="off"), runs("cuda", graph="on")
    assert run.output_ids == plain.output_ids
    assert load(run.trace)[0]["graph"] == "cuda-graph"
    assert stand_in[:6] == [
        "side waits for current",
        "run on side",
        "current waits for side",
        "capture on side",
        "replay",  # compared with the forward uncaptured
        "replay",
    ]
    assert set(stand_in[6:10]) == {"replay"}


def test_a_device_without_graphs_is_said_where_they_are_asked_for(
    runs: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cpu, "graphs", lambda self, device: None)
    with pytest.raises(UsageError, match="got --graph on device cpu, whose backend captures no graphs"):
        runs("refused", graph="on")
    assert load(runs("auto").trace)[0]["graph"] == "none"


def test_a_backend_that_captures_by_itself_can_be_told_not_to(runs: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cpu, "captures", True)
    for choice, kind in (("auto", "emulated"), ("off", "none")):
        assert load(runs(choice, graph=choice).trace)[0]["graph"] == kind


def test_layers_that_the_drafter_has_run_are_not_captured(tmp_path: Path) -> None:
    choice = ModelChoice(drafter="early-exit", device="cpu", graph="on", policy=POLICY)
    models, trace = load_models(choice), tmp_path / "trace.jsonl"
    request = RunRequest(Settings(choice=choice, max_new_tokens=4), [PROMPTS[0]], TraceTarget(trace))
    list(run_turns(request, models, open_trace(request, models)))
    steps = [line for line in load(trace) if line["kind"] == "step"]
    assert {step["verify"]["graph"]["fallback"] for step in steps} == {"the drafter has run the first layers"}


def test_the_command_captures_where_it_is_told_and_a_replay_never_does(tmp_path: Path) -> None:
    prompt = ("--prompt", "def parse(line):", "--max-new-tokens", "8")
    tracing = tmp_path / "on.jsonl"
    done = specscope("run", *prompt, "--graph", "--trace", tracing)
    assert done.code == 0, done.err
    manifest, _, step, *_ = load(tracing)
    assert manifest["graph"] == "emulated"
    assert (step["verify"]["graph"]["slots"], step["verify"]["graph"]["replays"]) == (24, 1)
    refused = specscope("run", *prompt, "--graph", "--cache-strategy", "full-reorder")
    assert (refused.code, "in-place" in refused.err) == (2, True)
    replayed = tmp_path / "replayed.jsonl"
    done = specscope("replay", tracing, "--out", replayed)
    assert done.code == 0, done.err
    assert load(replayed)[0]["graph"] == "none"
    done = specscope("diff", tracing, replayed)
    assert (done.code, "graph: emulated -> none" in done.out) == (0, True), done.out


def test_a_tree_wider_than_a_byte_is_captured(runs: Runner) -> None:
    wide = TreePolicy(kind="dynamic", depth=4, top_k=8, budget=40)
    with_graphs, without = (runs(name, graph=graph, policy=wide) for name, graph in (("on", "on"), ("off", "off")))
    assert with_graphs.output_ids == without.output_ids
    assert {graph["slots"] for graph in with_graphs.graphs} == {48}
