"""A replay runs each recorded step from equal state, whatever the steps before it decided; the oracle judges it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.called import specscope
from support.recorded_runs import IDS, TALKS, TinyRuns
from support.tiny_models import build_teacher
from support.traces import FUSED, load, store

from specscope.engine.cli.replay import replay
from specscope.engine.drafters.eagle3.drafter import Eagle3Drafter
from specscope.engine.drafters.early_exit.drafter import EarlyExitDrafter
from specscope.engine.drafters.early_exit.head import ExitHead, ExitHeadConfig, save_exit_head
from specscope.engine.lab.rerun.forcing import ForcedSession
from specscope.engine.lab.rerun.recorded_run import Overrides
from specscope.engine.lab.rerun.replay import Replay, ReplayReport, ReplayRequest
from specscope.engine.settings import SamplingRule
from specscope.engine.tree.policy import TreePolicy, parse_policy
from specscope.schemas import Manifest, Step, StepCosts
from specscope.tracer.cli.main import cli as commands
from specscope.tracer.compare import diff_traces
from specscope.tracer.errors import IncomparableError, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.invariants.base import committed_path, next_root

STATIC = parse_policy("static:pair-6", depth=5, top_k=4, budget=16)
EAGER = Overrides(mode="eager")


@pytest.fixture
def run(teacher_folder: Path, head_folder: Path, tmp_path: Path) -> TinyRuns:
    return TinyRuns(teacher_folder, head_folder, tmp_path)


@pytest.fixture(scope="module")
def exit_drafter(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("exit")
    save_exit_head(
        ExitHead(ExitHeadConfig(exit_layer=3, hidden_size=32, vocab_size=61, intermediate_size=24, rms_norm_eps=1e-6)),
        folder,
    )
    return f"early-exit:{folder}"


def replayed(trace: Path, overrides: Overrides = Overrides(), **changes: Any) -> tuple[Path, ReplayReport]:  # noqa: B008
    out = trace.with_name("again.jsonl")
    request = ReplayRequest(trace=trace, out=out, overrides=overrides, overwrite=True, **changes)
    return out, Replay(request, warn=print).run(lambda _: None)


def violated(path: Path) -> dict[str, str]:
    return {name: t.first.witness for name, t in check_trace(path).invariants.items() if t.first is not None}


class Read:
    """A trace's records."""

    def __init__(self, path: Path) -> None:
        with TraceReader(path) as reader:
            self.manifest: Manifest = reader.manifest
            self.starts = [reader.turn_start(turn) for turn in reader.turns]
            self.ends = [reader.turn_end(turn) for turn in reader.turns]
            self.steps: list[Step] = [step for turn in reader.turns for step in reader.steps(turn)]
            self.end = reader.run_end()

    @property
    def outputs(self) -> list[list[int]]:
        return [end.output_ids for end in self.ends if end is not None]

    def places(self) -> list[tuple[int, int, int]]:
        """Turn, step and the position at which it begins."""
        return [(s.turn, s.step, s.commit.committed_before) for s in self.steps if s.commit is not None]


def assert_same_run(trace: Path, out: Path) -> None:
    """The replay stands where the run stood, step by step, and came to the same output."""
    was, now = Read(trace), Read(out)
    assert now.manifest.replay_of == was.manifest.run_id != now.manifest.run_id
    assert now.places() == was.places()
    assert now.outputs == was.outputs
    assert [s.reused_length for s in now.starts] == [s.reused_length for s in was.starts]
    assert [(s.turn, s.prompt_id, s.prompt_turn, s.prompt_ids) for s in now.starts] == [
        (s.turn, s.prompt_id, s.prompt_turn, s.prompt_ids) for s in was.starts
    ]
    assert [e.reason for e in now.ends if e] == [e.reason for e in was.ends if e]
    for before, after in zip(was.steps, now.steps, strict=True):
        assert after.forced is not None
        assert (after.forced.path, after.forced.bonus_token) == (committed_path(before), next_root(before))
        assert before.tree is not None
        assert after.tree is not None
        assert after.tree.tokens == before.tree.tokens
        assert after.stop == before.stop
    assert now.end is not None
    assert now.end.reason == "complete"


@pytest.mark.parametrize("drafter", ["eagle3", "eagle3+ngram", "ngram", "model", "none", "early-exit"])
def test_a_fused_run_in_eager_mode(run: TinyRuns, exit_drafter: str, drafter: str) -> None:
    trace = run(drafter=exit_drafter if drafter == "early-exit" else drafter)
    out, report = replayed(trace, EAGER)
    assert_same_run(trace, out)
    assert violated(out) == {}
    assert (report.num_turns, report.num_steps, report.num_others, report.notes) == (2, len(Read(out).steps), 0, [])
    assert (Read(out).manifest.mode, Read(out).manifest.attention) == ("eager", "eager")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "eager"},
        {"mode": "baseline"},
        {"drafter": "ngram"},
        {"rule": SamplingRule("sampling", temperature=0.8, top_k=30)},
        {"rule": SamplingRule("sampling", temperature=0.8, draft="sampled"), "policy": STATIC},
        {"rule": SamplingRule("typical", temperature=0.7)},
        {"cache_strategy": "replicate"},
        {"cache": "paged", "block_size": 4},
        {"dtype": "bfloat16"},
    ],
    ids=["greedy", "eager", "baseline", "ngram", "sampling", "drawn", "typical", "replicate", "paged", "bfloat16"],
)
def test_the_same_configuration_gives_the_same_bits(run: TinyRuns, changes: dict[str, Any]) -> None:
    trace = run(**changes)
    out, report = replayed(trace)
    assert_same_run(trace, out)
    assert violated(out) == {}
    assert (report.num_others, report.num_trees) == (0, 0)
    for was, now in zip(Read(trace).steps, Read(out).steps, strict=True):
        assert now.verify is not None
        assert was.verify is not None
        assert now.verify.argmax == was.verify.argmax
        assert now.verify.logits_digest == was.verify.logits_digest
        assert (now.draft, now.tree, now.accept) == (was.draft, was.tree, was.accept)
        assert now.commit is not None
        assert was.commit is not None
        assert now.commit.written_checksums == was.commit.written_checksums


def test_a_captured_run_and_one_whose_trees_are_sized_run_in_the_other_cache(run: TinyRuns) -> None:
    costs = StepCosts(fixed_ms=1.0, level_ms=1.0, verify_slots=[1, 8, 32], verify_ms=[4.0, 5.0, 8.0])
    sized = TreePolicy(kind="dynamic", depth=3, top_k=2, budget=6, sizing=costs)
    for trace in (run(graph="on"), run(policy=sized)):
        out, report = replayed(trace, Overrides(cache="paged"))
        assert (violated(out), report.num_others) == ({}, 0)
        assert Read(out).manifest.cache == "paged"


@pytest.mark.parametrize(("recorded", "wanted"), [("dense", "paged"), ("paged", "dense")])
def test_a_run_in_the_other_cache(run: TinyRuns, recorded: str, wanted: str) -> None:
    trace = run(cache=recorded)
    out, report = replayed(trace, Overrides(cache=wanted))
    assert_same_run(trace, out)
    assert (violated(out), report.num_others) == ({}, 0)
    assert (Read(out).manifest.cache, Read(out).manifest.block_size) == (wanted, 16 if wanted == "paged" else None)
    verdict = diff_traces(trace, out)
    assert (verdict.exit_code, verdict.axis[0]) == (0, f"cache: {recorded} -> {wanted}")


@pytest.mark.parametrize(
    ("rule", "batch_size"),
    [(SamplingRule("greedy"), 1), (SamplingRule("sampling", temperature=0.9), 2)],
    ids=["one by one", "drawn side by side"],
)
def test_the_turns_of_conversations_one_by_one_or_side_by_side(
    run: TinyRuns, rule: SamplingRule, batch_size: int
) -> None:
    trace = run(prompts=TALKS, batch_size=batch_size, rule=rule, tokens=7)
    assert max(start.reused_length for start in Read(trace).starts) > 0
    out, report = replayed(trace, EAGER)
    assert_same_run(trace, out)
    assert violated(out) == {}
    assert (report.num_others, report.num_turns) == (0, 5)
    assert Read(out).manifest.batch_size is None


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_turn_alone_goes_on_with_what_its_conversation_had(run: TinyRuns, batch_size: int) -> None:
    trace = run(prompts=TALKS, batch_size=batch_size, tokens=7)
    number = next(s.turn for s in Read(trace).starts if (s.prompt_id, s.prompt_turn) == ("talk", 1))
    out, report = replayed(trace, turn=number)
    (start,) = Read(out).starts
    (was,) = [s for s in Read(trace).starts if s.turn == number]
    assert (start.turn, start.prompt_turn, start.reused_length) == (number, 1, was.reused_length)
    assert violated(out) == {}
    assert report.num_turns == 1
    digests = [s.verify.logits_digest for s in Read(trace).steps if s.turn == number and s.verify]
    if batch_size == 1:
        assert [s.verify.logits_digest for s in Read(out).steps if s.verify] == digests


def test_steps_behind_a_faulty_one_stand_alone(run: TinyRuns) -> None:
    trace = run(drafter="model", prompts=IDS[1:], fault="F16", tokens=40)
    honest, report = replayed(trace)
    assert_same_run(trace, honest)
    assert violated(honest) == {}
    assert "tensors.position-is-length-plus-depth" in violated(trace)
    assert Read(honest).manifest.fault is None
    assert report.notes == ["fault F16 of the run was left out"]
    was, now = Read(trace).steps, Read(honest).steps
    wrong = [a.tensors is not None and b.tensors is not None and a.tensors.positions != b.tensors.positions
             for a, b in zip(was, now, strict=True)]  # fmt: skip
    assert sum(wrong) > 5, "every step has its own difference, beside one that it was given"
    assert [a.tensors.token_ids for a in was if a.tensors] == [b.tensors.token_ids for b in now if b.tensors]
    assert report.num_others > 0
    place = report.first_other
    assert place is not None
    first = next(s for s in now if (s.turn, s.step) == place)
    assert first.accept is not None
    assert first.forced is not None
    assert (first.accept.path, first.accept.bonus_token) != (first.forced.path, first.forced.bonus_token)


def test_the_fault_goes_in_again_where_it_is_wanted(run: TinyRuns) -> None:
    trace = run(fault="F16")
    out, report = replayed(trace, with_fault=True)
    assert_same_run(trace, out)
    assert Read(out).manifest.fault == "F16"
    assert report.num_others == 0
    assert violated(out).keys() == violated(trace).keys()


def test_a_fault_in_conversations_side_by_side_is_replayed_turn_by_turn(run: TinyRuns) -> None:
    trace = run(prompts=TALKS, batch_size=2, tokens=4, fault="F16")
    with pytest.raises(UsageError, match="interleaves conversations"):
        replayed(trace, with_fault=True)
    out, report = replayed(trace, with_fault=True, turn=len(Read(trace).starts) - 1)
    assert (report.num_turns, report.num_others) == (1, 0)
    assert "tensors.position-is-length-plus-depth" in violated(out)


@pytest.mark.parametrize("drafter", ["eagle3", "early-exit"])
@pytest.mark.parametrize("sampled", [False, True])
def test_the_recorded_tree_is_put_in_where_the_drafter_finds_another(
    run: TinyRuns, exit_drafter: str, monkeypatch: pytest.MonkeyPatch, drafter: str, sampled: bool
) -> None:
    rule = SamplingRule("sampling", temperature=0.8, draft="sampled" if sampled else "point-mass")
    policy = STATIC if sampled else parse_policy("dynamic", depth=4, top_k=3, budget=9)
    trace = run(drafter=exit_drafter if drafter == "early-exit" else drafter, rule=rule, policy=policy)
    owner, name = (EarlyExitDrafter, "_logits") if drafter == "early-exit" else (Eagle3Drafter, "_forward")
    whole = getattr(owner, name)

    def other(*arguments: Any) -> Any:
        found = whole(*arguments)
        return -found if drafter == "early-exit" else found._replace(logits=-found.logits)

    monkeypatch.setattr(owner, name, other)
    out, report = replayed(trace)
    assert_same_run(trace, out)
    assert report.num_trees >= report.num_steps - 1 > 3
    assert violated(out) == {}
    for was, now in zip(Read(trace).steps, Read(out).steps, strict=True):
        assert now.verify is not None
        assert was.verify is not None
        assert now.verify.argmax == was.verify.argmax


def test_a_replay_of_a_replay_follows_what_was_forced(run: TinyRuns) -> None:
    first, others = replayed(run(drafter="model", prompts=IDS[1:], fault="F16", tokens=40))
    assert others.num_others > 0
    moved = first.rename(first.with_name("first.jsonl"))
    second, report = replayed(moved)
    assert_same_run(moved, second)
    assert (report.num_others, report.num_trees) == (0, 0)


def test_an_interrupted_replay_ends_properly(run: TinyRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    trace, whole = run(), ForcedSession.step

    def interrupted(lane: ForcedSession, step: Step) -> Any:
        if (step.turn, step.step) == (1, 2):
            raise KeyboardInterrupt
        return whole(lane, step)

    monkeypatch.setattr(ForcedSession, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replayed(trace)
    out = trace.with_name("again.jsonl")
    now = Read(out)
    assert now.end is not None
    assert now.end.reason == "interrupted"
    assert [end.reason for end in now.ends if end] == ["length", "interrupted"]
    assert len([s for s in now.steps if s.turn == 1]) == 2
    assert violated(out) == {}


def test_what_fails_is_recorded(run: TinyRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = run(prompts=IDS[:1])
    monkeypatch.setattr(Eagle3Drafter, "_take_in", lambda *_: 1 / 0)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        replayed(trace)
    report = check_trace(trace.with_name("again.jsonl"))
    assert (report.end_reason, report.failures[0].phase) == ("failed", "draft")


def test_what_is_left_of_a_truncated_trace(run: TinyRuns) -> None:
    trace = run()
    lines = trace.read_text().splitlines(keepends=True)
    trace.write_text("".join(lines[:8]) + lines[8][:50])
    out, report = replayed(trace)
    steps = len(Read(out).steps)
    assert (report.num_steps, steps) == (6, 6)
    assert report.notes[:2] == [
        "the trace is truncated: it has no run_end; its 6 whole steps are replayed",
        "the trace ends in a torn record of 50 bytes",
    ]
    assert violated(out) == {}
    assert [end.reason for end in Read(out).ends if end] == ["interrupted"]


def edited(trace: Path, edit: Callable[[list[dict[str, Any]]], None]) -> Path:
    lines = load(trace)
    edit(lines)
    return store(lines, trace.with_name("edited.jsonl"))


def first_forced(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == "step" and len(line["forced"]["path"]) > 0)


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda s: s["forced"]["path"].pop(), "commit.sources-are-path"),
        (lambda s: s["forced"]["path"].append(1), "commit.length-equation"),
        (lambda s: s["forced"].__setitem__("bonus_token", s["forced"]["bonus_token"] + 1), "stop.emitted"),
        (lambda s: s["forced"].__setitem__("tree", True), "tree.nodes-were-proposed"),
        (lambda s: s.pop("forced"), "commit.sources-are-path"),
        (lambda s: s["stop"]["emitted"].pop(), "stop.emitted"),
    ],
    ids=["path", "longer", "bonus", "tree", "none", "emitted"],
)
@pytest.mark.parametrize(
    "policy", [parse_policy("dynamic", depth=4, top_k=3, budget=9), STATIC], ids=["dynamic", "static"]
)
def test_a_changed_forced_section_violates_something(
    run: TinyRuns, edit: Callable[[dict[str, Any]], None], found: str, policy: Any
) -> None:
    out, _ = replayed(run(drafter="model", prompts=IDS[:1], tokens=5, policy=policy))
    assert violated(out) == {}
    assert found in violated(edited(out, lambda lines: edit(first_forced(lines))))


def test_a_forced_section_in_a_run_that_is_no_replay(run: TinyRuns) -> None:
    out, _ = replayed(run(prompts=IDS[:1], tokens=8))
    assert "commit.sources-are-path" in violated(edited(out, lambda lines: lines[0].pop("replay_of")))


def test_models_that_are_not_the_runs(run: TinyRuns, tmp_path: Path) -> None:
    trace = run(prompts=IDS[:1], tokens=8)
    other = build_teacher(tmp_path / "qwen", "qwen3")
    with pytest.raises(IncomparableError, match="the teacher that was loaded is not the trace's"):
        replayed(trace, Overrides(teacher=str(other)))
    assert not trace.with_name("again.jsonl").exists(), "nothing is written before everything was loaded"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: lines[0].__setitem__("redaction", "0123456789abcdef"), "is redacted"),
        (lambda lines: lines[3].pop("accept"), "turn 0 step 1 does not record its tree, acceptance and stop"),
        (lambda lines: lines[3]["tree"]["parents"].__setitem__(2, 7), "step 1: the recorded tree and path fit neither"),
        (lambda lines: lines[3]["tree"]["tokens"].__setitem__(2, 61), "step 1: the recorded tree and path fit neither"),
        (lambda lines: lines[3]["accept"]["path"].append(99), "step 1: the recorded tree and path fit neither"),
        (lambda lines: lines[1]["prefill"].__setitem__("pending_token", 61), "token 61 is none of this teacher's"),
        (lambda lines: lines[1]["prompt_ids"].__setitem__(0, 61), "got token id 61"),
        (lambda lines: lines[0].__setitem__("fault", "F99"), None),
    ],
)
def test_records_that_cannot_be_followed(
    run: TinyRuns, edit: Callable[[list[dict[str, Any]]], None], message: str | None
) -> None:
    trace = edited(run(prompts=IDS[:1], tokens=8), edit)
    if message is None:
        replayed(trace)
        with pytest.raises(UsageError, match="got fault 'F99'"):
            replayed(trace, with_fault=True)
        return
    with pytest.raises(UsageError, match=message):
        replayed(trace)


def test_places_that_cannot_be_written(run: TinyRuns, tmp_path: Path) -> None:
    trace = run(prompts=IDS[:1], tokens=8)
    before = trace.read_bytes()
    for out, overwrite, message in (
        (trace, True, "is the trace that is to be replayed"),
        (tmp_path / "link.jsonl", True, "is the trace that is to be replayed"),
        (tmp_path / "there.jsonl", False, "exists already"),
        (tmp_path / "none" / "new.jsonl", False, "does not exist"),
    ):
        (tmp_path / "there.jsonl").touch()
        (tmp_path / "link.jsonl").unlink(missing_ok=True)
        (tmp_path / "link.jsonl").symlink_to(trace)
        with pytest.raises(UsageError, match=message):
            Replay(ReplayRequest(trace=trace, out=out, overrides=Overrides(), overwrite=overwrite), warn=print)
    with pytest.raises(UsageError, match="got turn 4"):
        replayed(trace, turn=4)
    assert trace.read_bytes() == before


def test_level_tensors_has_side_files_of_its_own(run: TinyRuns, tmp_path: Path) -> None:
    trace = run(prompts=IDS[:1], tokens=8, level="tensors")
    out, _ = replayed(trace)
    assert len(list((tmp_path / "again.tensors").iterdir())) == len(Read(out).steps)
    with pytest.raises(UsageError, match="exists already"):
        Replay(ReplayRequest(trace=trace, out=tmp_path / "again.jsonl", overrides=Overrides()), warn=print)


def test_the_next_command_that_is_printed_works(run: TinyRuns) -> None:
    trace = run(level="decisions")
    for number, arguments in enumerate((["--dtype", "bfloat16"], ["--turn", "1"], [])):
        out = trace.with_name(f"next-{number}.jsonl")
        done = CliRunner().invoke(replay, [str(trace), "--out", str(out), *arguments])
        assert done.exit_code == 0, done.output
        found = re.search(r"\(next: specscope (.*)\)$", done.output.strip())
        assert found is not None
        assert ("--allow dtype" in found[1]) == ("--dtype" in arguments)
        assert ("the other turns of the run are not in the replay" in done.output) == ("--turn" in arguments)
        verdict = CliRunner().invoke(commands, shlex.split(found[1]))
        assert verdict.exit_code in (0, 1), verdict.output


@pytest.mark.slow
def test_replay_as_a_process(tmp_path: Path) -> None:
    out = tmp_path / "new.jsonl"
    done = specscope("replay", FUSED, "--out", out, "--mode", "reference")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("replayed ")
    assert "eager attention, float32, cpu, in-place" in done.out
    assert "every step as recorded" in done.out
    assert f"specscope diff {FUSED} {out}" in done.out
    assert violated(out) == {}
    assert_same_run(FUSED, out)
    lines = FUSED.read_text().splitlines()
    trace = tmp_path / "redacted.jsonl"
    manifest = json.loads(lines[0]) | {"redaction": "0123456789abcdef"}
    trace.write_text("\n".join([json.dumps(manifest), *lines[1:]]) + "\n")
    redacted = specscope("replay", trace, "--out", tmp_path / "b.jsonl")
    assert (redacted.code, redacted.out) == (2, "")
    assert redacted.err.endswith("give the trace that it was made from\n")
    assert not (tmp_path / "b.jsonl").exists()
