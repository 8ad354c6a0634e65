"""A teacher divided among ranks: equal to one process, every rank's decisions compared, and rows dealt among them.

Ranks are processes of a real gloo group. One launch of two serves all tests of runs; see ``support.parallel_rank``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from support.commands import specscope
from support.gloo_ranks import run_ranks
from support.parallel_rank import PROMPTS, SCENARIOS, settings_of
from support.rank_mutants import one_rank_parts, ranks_agree
from support.reports import violated
from support.tiny_models import tiny_models
from support.traces import FUSED, load, store

from specscope.engine.lab.faults import find_fault, injecting
from specscope.engine.lab.faults.ranks import RANK_FAULTS
from specscope.engine.load.models import load_models
from specscope.engine.loop.agreement import RanksDifferError
from specscope.engine.record.manifest import settings_of as settings_of_manifest
from specscope.engine.run.runner import RunRequest, TraceTarget, Workings, open_trace, run_turns
from specscope.engine.settings import Settings
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

HONEST = [name for name, (_, more) in SCENARIOS.items() if "fault" not in more]
FAULTY = [name for name in SCENARIOS if name not in HONEST]


class Recorded(NamedTuple):
    """What two ranks recorded of a scenario, and a process alone."""

    ranks: Callable[[str], Path]
    alone: Callable[[str], Path]
    ended: list[dict[str, str]]  # by rank, what each scenario ended with


@pytest.fixture(scope="module")
def recorded(teacher_folder: Path, head_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks("parallel_rank.py", 2, folder / "store", teacher_folder, head_folder, folder)
    models = tiny_models(teacher_folder, head_folder)

    def alone(name: str) -> Path:
        settings = settings_of(name, str(teacher_folder), str(head_folder), 1)
        path = folder / f"alone-{name}.jsonl"
        if not path.exists():
            honest = Settings(choice=settings.choice, max_new_tokens=settings.max_new_tokens, seed=settings.seed)
            request = RunRequest(honest, PROMPTS, TraceTarget(path))
            for _ in run_turns(request, models, open_trace(request, models)):
                pass
        return path

    ended = [json.loads((folder / f"ended-{rank}.json").read_text()) for rank in range(2)]
    return Recorded(lambda name: folder / f"{name}.jsonl", alone, ended)


@pytest.mark.parametrize("name", HONEST)
def test_two_ranks_decide_as_one_process_and_agree(recorded: Recorded, name: str) -> None:
    report = check_trace(recorded.ranks(name))
    assert (violated(report), report.end_reason) == (set(), "complete")
    for invariant in ("ranks.agree", "ranks.recorded"):
        assert report.invariants[invariant].passed == report.num_steps > 0
    verdict = diff_traces(recorded.alone(name), recorded.ranks(name))
    assert verdict.verdict == "equal", "the prompts were chosen so that no choice is near a tie"
    assert verdict.exit_code == 0
    assert any("tensor_parallel: one process -> 2 ranks" in line for line in verdict.axis)


def test_the_manifest_says_how_the_teacher_is_divided(recorded: Recorded) -> None:
    for name in HONEST:
        with TraceReader(recorded.ranks(name)) as reader:
            manifest = reader.manifest
        parallel = manifest.tensor_parallel
        assert parallel is not None
        assert (parallel.world_size, parallel.backend) == (2, "gloo")
        assert parallel.acceptance == ("sharded" if name == "sharded" else "replicated")
        assert parallel.plan["model.layers.*.self_attn.q_proj"] == "colwise"
        assert "ranks" in manifest.capabilities


def test_whole_parameters_are_digested_whoever_has_which_part(recorded: Recorded) -> None:
    with TraceReader(recorded.ranks("greedy")) as divided, TraceReader(recorded.alone("greedy")) as alone:
        assert divided.manifest.teacher.parameters == alone.manifest.teacher.parameters


def test_what_ranks_recorded_is_run_again_in_one_process(recorded: Recorded) -> None:
    with TraceReader(recorded.ranks("sharded")) as reader:
        settings = settings_of_manifest(reader.manifest)
    assert (settings.choice.num_ranks, settings.acceptance) == (1, "replicated")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("F40.generator", "emitted other tokens"),
        ("F40.tie", "emitted other tokens"),
        ("F40.draft", "drafted another tree"),
    ],
)
def test_a_rank_that_parts_ends_the_run_and_is_blamed(recorded: Recorded, name: str, says: str) -> None:
    assert [f"rank 1 of 2 {says} than rank 0 in step 0 of row 0" in ended[name] for ended in recorded.ended] == [
        True,
        True,
    ]
    report = check_trace(recorded.ranks(name))
    assert violated(report) == {"ranks.agree"}
    first = report.invariants["ranks.agree"].first
    assert first is not None
    assert f"rank 1 of 2 {says}" in first.witness
    assert report.end_reason == "failed"


@pytest.mark.parametrize("name", ["F40.generator", "F40.tie"])
def test_diff_places_and_blames_ranks_that_parted(recorded: Recorded, name: str) -> None:
    verdict = diff_traces(recorded.alone(name), recorded.ranks(name))
    assert verdict.exit_code == 1
    root = verdict.roots[0]
    assert (root.place.turn, root.place.step_b, root.wrong) == (0, 0, "candidate")
    assert [blame.invariant for blame in root.blame] == ["ranks.agree"]


def test_every_fault_of_ranks_is_tried() -> None:
    assert {fault.id for fault in RANK_FAULTS} == set(FAULTY)


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_of_ranks_is_refused_in_one_process(teacher_folder: Path, head_folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="goes into one of several ranks: use --tensor-parallel"):
        injecting(find_fault(name))(Workings(tiny_models(teacher_folder, head_folder)))


def test_rows_dealt_among_one_two_and_four_ranks_are_accepted_as_by_one(tmp_path: Path) -> None:
    """Odd batches too: no rank waits for one that has no row. Whatever a share accepts, generators stay equal."""
    run_ranks("dealt_rank.py", 4, tmp_path / "store", tmp_path / "problems.json")
    assert json.loads((tmp_path / "problems.json").read_text()) == {"problems": [], "counts": [[0]] * 4}


class Echo:
    """Stands for two ranks in one process: the other says what this one says, but for the call number ``parts_at``."""

    def __init__(self, parts_at: int | None = None) -> None:
        self.parts_at, self.num_calls = parts_at, 0

    def __call__(self, numbers: list[int]) -> list[list[int]]:
        self.num_calls += 1
        other = [*numbers[:-1], numbers[-1] ^ 1] if self.num_calls == self.parts_at else list(numbers)
        return [numbers, other]


@pytest.mark.parametrize(
    ("parts_at", "says"),
    [
        (None, None),
        (1, "drafted another tree than rank 0 in step 0"),
        (4, "emitted other tokens than rank 0 in step 1"),
    ],
)
def test_the_loop_ends_where_the_ranks_part_and_nowhere_else(
    teacher_folder: Path, head_folder: Path, tmp_path: Path, parts_at: int | None, says: str | None
) -> None:
    models, echo = tiny_models(teacher_folder, head_folder), Echo(parts_at)
    settings = settings_of("greedy", str(teacher_folder), str(head_folder), 1)
    settings = replace(settings, batch_size=1)
    request = RunRequest(settings, PROMPTS[:1], TraceTarget(tmp_path / "run.jsonl"))

    def change(workings: Workings) -> Workings:
        return replace(workings, phases=replace(workings.phases, exchange=echo))

    turns = run_turns(request, models, open_trace(request, models), change=change)
    if says is None:
        assert len(list(turns)) == 1
    else:
        with pytest.raises(RanksDifferError, match=says):
            list(turns)
    report = check_trace(tmp_path / "run.jsonl")
    assert (report.invariants["ranks.agree"].failed > 0) == (says is not None)
    assert report.invariants["ranks.agree"].passed or parts_at == 1
    if parts_at == 4:  # after the step, which no failure is of
        out = specscope("check", tmp_path / "run.jsonl").out
        assert "the run failed, and what is violated may be why" in out


def test_of_several_ranks_all_that_part_are_named(tmp_path: Path) -> None:
    lines = ranks_agree(load(FUSED), count=4)
    step = next(line for line in lines if line["kind"] == "step")
    for rank in (1, 3):
        step["ranks"][rank]["emitted_digest"] = "0123456789abcdef"
    first = check_trace(store(lines, tmp_path / "parted.jsonl")).invariants["ranks.agree"].first
    assert first is not None
    assert first.witness.startswith("ranks 1, 3 of 4 emitted other tokens than rank 0")


def test_a_rank_that_is_missing_in_the_record_is_seen_and_honest_ones_pass(tmp_path: Path) -> None:
    lines = ranks_agree(load(FUSED))
    assert not violated(check_trace(store(lines, tmp_path / "honest.jsonl")))
    next(line for line in lines if line["kind"] == "step")["ranks"].pop()
    assert violated(check_trace(store(lines, tmp_path / "missing.jsonl"))) == {"ranks.agree"}
    parted = load(FUSED)
    one_rank_parts(parted)
    assert violated(check_trace(store(parted, tmp_path / "parted.jsonl"))) == {"ranks.agree"}


@pytest.mark.parametrize(
    ("field", "recorded"),
    [("tree", "tree"), ("path", "accept.path"), ("emitted", "accepted tokens with the bonus token")],
)
def test_what_all_ranks_say_is_held_against_the_record(tmp_path: Path, field: str, recorded: str) -> None:
    """The ranks agree, and the trace holds another decision than they took."""
    lines = ranks_agree(load(FUSED))
    step = [line for line in lines if line["kind"] == "step"][2]
    honest = step["ranks"][0][f"{field}_digest"]
    for decided in step["ranks"]:
        decided[f"{field}_digest"] = "0123456789abcdef"
    report = check_trace(store(lines, tmp_path / "other.jsonl"))
    assert violated(report) == {"ranks.recorded"}
    first = report.invariants["ranks.recorded"].first
    assert first is not None
    assert first.witness == f"rank 0 decided 0123456789abcdef, and the recorded {recorded} has the digest {honest}"


def test_what_a_record_lacks_or_redacts_is_skipped_and_not_held_against_the_ranks(tmp_path: Path) -> None:
    lines = ranks_agree(load(FUSED))
    step = next(line for line in lines if line["kind"] == "step")
    for decided in step["ranks"]:
        decided["tree_digest"] = decided["emitted_digest"] = "0123456789abcdef"
    lines[0]["redaction"] = "0" * 32
    redacted = check_trace(store(lines, tmp_path / "redacted.jsonl"))
    assert not violated(redacted)
    judged = redacted.invariants["ranks.recorded"]
    assert (judged.passed, judged.skipped) == (0, redacted.num_steps)
    del lines[0]["redaction"], step["tree"]
    without = check_trace(store(lines, tmp_path / "without.jsonl"))
    assert not {"ranks.agree", "ranks.recorded"} & violated(without)
    assert without.invariants["ranks.recorded"].skipped == 1


MISTAKES = {
    "too many": (["--tensor-parallel", "3"], "got --tensor-parallel 3 for a teacher with num_attention_heads 4"),
    "graphs": (["--tensor-parallel", "2", "--graph"], "got --graph with --tensor-parallel 2"),
    "packed": (["--tensor-parallel", "2", "--products", "packed"], "got --products packed with --tensor-parallel 2"),
    "measured": (["--tensor-parallel", "2", "--budget", "auto"], "got --budget auto without --costs with"),
    "one device": (["--tensor-parallel", "2", "--device", "cuda:1"], "got device cuda:1 with --tensor-parallel 2"),
    "a pipeline": (
        ["--tensor-parallel", "2", "--engine", "ppsd", "--stages", "2"],
        "got --tensor-parallel 2 with --engine ppsd",
    ),
    "no ranks": (["--acceptance", "sharded"], "got acceptance sharded and one process"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_clear_line_and_code_2(mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    done = specscope("run", "--prompt", "a", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("F40.tie", (), "goes into one of several ranks: use --tensor-parallel"),
        ("F40.generator", ("--tensor-parallel", "2", "--acceptance", "sharded"), "use --acceptance replicated"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_before_a_trace_is_written_over(
    tmp_path: Path, name: str, flags: tuple[str, ...], words: str
) -> None:
    trace = tmp_path / "kept.jsonl"
    trace.write_text("kept")
    done = specscope("run", "--prompt", "a", *flags, "--inject", name, "--trace", trace, "--overwrite")
    assert done.code == 2
    assert words in done.err
    assert trace.read_text() == "kept"


def test_ranks_are_refused_in_a_process_that_is_not_one(teacher_folder: Path, head_folder: Path) -> None:
    choice = settings_of("greedy", str(teacher_folder), str(head_folder), 2).choice
    with pytest.raises(UsageError, match="got 2 ranks in a process that is not one of them"):
        load_models(choice)
