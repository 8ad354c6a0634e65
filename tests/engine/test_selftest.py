"""The selftest's own judgement: what is missed, misplaced, blamed on the wrong side or falsely reported is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from support.commands import specscope

from specscope.engine.backends.cpu import Cpu
from specscope.engine.cli.selftest import selftest
from specscope.engine.lab.faults import FAULTS, Expectation, Fault, FaultTarget, find_fault
from specscope.engine.lab.faults.pipeline import PIPELINE_FAULTS
from specscope.engine.lab.selftest import permute, suite
from specscope.engine.lab.selftest.controls import Control, all_controls, control_after_faults, honest_pair
from specscope.engine.lab.selftest.judge import judge, judge_verdict
from specscope.engine.lab.selftest.permute import digest_inputs, permute_slots
from specscope.engine.lab.selftest.runs import Runs
from specscope.engine.lab.selftest.scenarios import BEST, Scenario, find_scenario, scenarios
from specscope.engine.lab.selftest.score import Score
from specscope.engine.lab.selftest.stages import STAGE_FAULTS
from specscope.engine.lab.selftest.suite import Plan, run_selftest
from specscope.engine.load.models import Models, resolve_device
from specscope.engine.run.runner import RunRequest, TurnReport
from specscope.engine.settings import ModelChoice
from specscope.schemas import Step
from specscope.schemas.manifest import Mode
from specscope.schemas.verdict import Verdict
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

F16 = FAULTS["F16"]
CONTROLS = {control.name: control for control in (*all_controls(), control_after_faults())}


def unchanged(target: FaultTarget) -> FaultTarget:
    return target


def run_with(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> tuple[Result, dict[str, Any]]:
    """The command on ``fault`` in the place of F16, and the one fault of its report."""
    monkeypatch.setitem(FAULTS, "F16", fault)
    done = CliRunner().invoke(selftest, ["--fault", "F16", "--json"])
    found, in_half = json.loads(done.stdout)["faults"]
    assert (found["dtype"], in_half["dtype"]) == ("float32", "bfloat16")
    return done, found


def test_a_fault_that_does_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    done, found = run_with(monkeypatch, replace(F16, inject=unchanged))
    assert done.exit_code == 1
    assert (found["detected"], found["placed"], found["blamed"]) == (False, False, False)
    assert "0 of 2 faults detected" in json.loads(done.stdout)["score"]


def test_a_fault_that_cannot_be_run_here_is_never_counted_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAULTS, "F16", replace(F16, not_run="this machine has no such device"))
    done = CliRunner().invoke(selftest, ["--fault", "F16", "--json"])
    score = json.loads(done.stdout)
    assert score["faults"] == []
    assert score["not_run"] == [{"name": "F16", "why": "this machine has no such device"}]
    assert score["score"].startswith("0 of 0 faults detected")
    assert score["score"].endswith("1 not run")


def test_what_a_device_without_graphs_cannot_run_is_said_and_the_rest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cpu, "graphs", lambda self, device: None)
    done = CliRunner().invoke(selftest, ["--fault", "F16", "--fault", "F18.graph-mask", "--json"])
    score = json.loads(done.stdout)
    assert [fault["id"] for fault in score["faults"]] == ["F16", "F16"]
    why = "device cpu captures no graphs"
    assert score["not_run"] == [{"name": name, "why": why} for name in ("F18.graph-mask", "honest captured")]
    assert done.exit_code == 0
    assert all_objections(resolve_device("cpu")) == {"captured": why}


def all_objections(device: torch.device) -> dict[str, str]:
    objections = {name: scenario.objection(device) for name, scenario in scenarios().items()}
    return {name: why for name, why in objections.items() if why is not None}


def test_a_device_with_graphs_runs_every_scenario() -> None:
    assert all_objections(resolve_device("cpu")) == {}


def test_a_missed_edge_is_told_and_not_as_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    def selftest_with(edges: dict[str, bool]) -> Result:
        monkeypatch.setattr(
            suite,
            "run_selftest",
            lambda *_: Score(judgements=[], controls=[], not_run=[], edges=edges, unreached={}, seconds=0),
        )
        return CliRunner().invoke(selftest, [])

    missed = selftest_with({"chunk tail": True, "position 512": False})
    assert missed.exit_code == 1
    assert "missed edge  position 512: no honest run has been there" in missed.output
    assert "1 of 2 reached" in missed.output
    assert "chunk tail:" not in missed.output
    reached = selftest_with({"chunk tail": True, "position 512": True})
    assert (reached.exit_code, "missed" in reached.output) == (0, False)
    assert Score(judgements=[], controls=[], not_run=[], edges={}, unreached={}, seconds=0).as_expected, (
        "with --fault no edge is demanded"
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs whose honest traces the tests share."""
    return Runs(tmp_path_factory.mktemp("selftest"), "auto")


class Sharing(Runs):
    """Runs in a folder of their own that take their honest traces from others."""

    def __init__(self, honest: Runs, folder: Path) -> None:
        super().__init__(folder, "auto")
        self._shared = honest

    def honest(self, scenario: Scenario, mode: Mode) -> Path:
        """The trace of the others."""
        return self._shared.honest(scenario, mode)


@pytest.fixture(scope="module")
def broken(runs: Runs) -> Path:
    """The trace of a run with F16 in."""
    return runs.faulty(find_scenario("greedy"), F16).trace


@pytest.fixture(scope="module")
def verdict(runs: Runs, broken: Path) -> Verdict:
    """What diff makes of it."""
    return diff_traces(runs.baseline(find_scenario("greedy")), broken)


def test_a_root_at_another_place_is_misplaced(verdict: Verdict) -> None:
    elsewhere = replace(F16.expect, places=(("tensors", "mask"), ("verify", "argmax")))
    found = judge_verdict(replace(F16, expect=elsewhere), verdict)
    assert (found.detected, found.placed, found.blamed) == (True, False, True)
    assert "got the first root at tensors: positions" in found.wrong[0]
    assert not Score(judgements=[found], controls=[], not_run=[], edges={}, unreached={}, seconds=0).as_expected


@pytest.mark.parametrize("invariant", ["tensors.mask-is-ancestors", None], ids=["another", "none"])
def test_another_blame_is_reported(verdict: Verdict, invariant: str | None) -> None:
    found = judge_verdict(replace(F16, expect=replace(F16.expect, invariant=invariant)), verdict)
    assert (found.detected, found.placed, found.blamed) == (True, True, False)
    assert not Score(judgements=[found], controls=[], not_run=[], edges={}, unreached={}, seconds=0).as_expected


def test_blame_on_the_baseline_is_wrong_whatever_else_is_right(verdict: Verdict) -> None:
    assert judge_verdict(F16, verdict).blamed
    on_both = [*verdict.violations, verdict.violations[0].model_copy(update={"side": "a"})]
    found = judge_verdict(F16, verdict.model_copy(update={"violations": on_both}))
    assert (found.detected, found.placed, found.blamed) == (True, True, False)


def test_a_swapped_pair_blames_the_wrong_side(runs: Runs, broken: Path) -> None:
    swapped = diff_traces(broken, runs.baseline(find_scenario("greedy")))
    assert judge_verdict(F16, swapped).blamed is False


def test_a_violation_without_a_root_is_told_from_one_with(verdict: Verdict) -> None:
    fault = replace(F16, expect=replace(F16.expect, outcome="violation"))
    found = judge_verdict(fault, verdict)
    assert (found.detected, found.placed) == (True, False)
    assert not judge_verdict(fault, verdict.model_copy(update={"roots": []})).wrong
    silent = verdict.model_copy(update={"roots": [], "violations": []})
    assert not judge_verdict(fault, silent).detected


def refusing(error: Exception) -> Callable[[ModelChoice, Path], ModelChoice]:
    def damage(choice: ModelChoice, folder: Path) -> ModelChoice:
        raise error

    return damage


@pytest.mark.parametrize(
    ("error", "says", "answers"),
    [
        (UsageError("no tensor lm_head.weight"), "lm_head", (True, True)),
        (UsageError("no tensor lm_head.weight"), "fc.weight", (True, False)),
        (KeyError("lm_head.weight"), "lm_head", (False, False)),
    ],
    ids=["refused", "says-something-else", "traceback"],
)
def test_a_refusal_is_a_clean_error_that_says_why(
    runs: Runs, tmp_path: Path, error: Exception, says: str, answers: tuple[bool, bool]
) -> None:
    fault = Fault(id="F07", says="a missing key", expect=Expectation("refused", says=says), damage=refusing(error))
    found = judge(Sharing(runs, tmp_path), fault)
    assert (found.detected, found.placed) == answers
    assert bool(found.wrong) == (answers != (True, True))


def test_a_run_that_went_through_was_not_refused(runs: Runs, tmp_path: Path) -> None:
    found = judge(Sharing(runs, tmp_path), replace(F16, expect=Expectation("refused")))
    assert (found.detected, found.placed) == (False, None)
    assert found.wrong


def test_incomparable_names_the_field(runs: Runs, tmp_path: Path) -> None:
    def damage(choice: ModelChoice, folder: Path) -> ModelChoice:
        return replace(choice, rule=BEST)

    names_it = Expectation("incomparable", says="sampling.rule")
    fault = replace(F16, expect=names_it, inject=unchanged, damage=damage)
    found = judge(Sharing(runs, tmp_path), fault)
    assert (found.verdict, found.detected, found.placed, found.blamed) == ("incomparable", True, True, None)
    other = replace(fault, expect=replace(names_it, says="drafter.name"))
    verdict = diff_traces(runs.baseline(find_scenario("greedy")), tmp_path / "F16.jsonl")
    assert judge_verdict(other, verdict).placed is False


def test_a_run_that_crashes_is_no_detection(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(target: FaultTarget) -> FaultTarget:
        raise KeyError("slots")

    fault = replace(F16, inject=crash)
    monkeypatch.setitem(FAULTS, "F16", fault)
    found = judge(Sharing(runs, tmp_path), fault)
    assert (found.detected, found.placed, found.blamed) == (False, False, False)


class Leaky(Runs):
    """Runs in which every honest run but the first has F16 in it: what a control must notice."""

    num_asked = 0

    def _run(self, request: RunRequest, models: Models, fault: Fault | None = None) -> list[TurnReport]:
        self.num_asked += 1
        if self.num_asked > 1:
            fault = find_fault("F16")
            request = replace(request, settings=replace(request.settings, fault=fault.id))
        return super()._run(request, models, fault)


@pytest.mark.parametrize(
    "name",
    [
        "honest greedy",
        "same run twice, fused",
        "trace off, fused, decisions",
        "other steps, budget 4",
        "no drafter",
        "batch of 1",
        "after the faults",
    ],
)
def test_a_control_that_differs_is_reported(tmp_path: Path, name: str) -> None:
    score = run_selftest(Plan(faults=[], controls=[CONTROLS[name]], last=[]), Leaky(tmp_path, "auto"), lambda _: None)
    assert not score.as_expected
    assert score.words.startswith("0 of 0 faults detected")
    assert "0 of 1 controls silent" in score.words


def test_a_control_that_fails_is_no_silence(tmp_path: Path) -> None:
    bad = replace(find_scenario("greedy"), max_new_tokens=0)
    score = run_selftest(Plan(faults=[], controls=[honest_pair(bad)], last=[]), Runs(tmp_path, "auto"), lambda _: None)
    assert not score.as_expected


def test_permuted_slots_are_another_order_of_the_same_run(runs: Runs, tmp_path: Path) -> None:
    source, target = runs.honest(find_scenario("greedy"), "fused"), tmp_path / "permuted.jsonl"
    permute_slots(source, target, seed=3)
    assert check_trace(target).num_violations == 0
    before, after = steps_of(source), steps_of(target)
    moved = [one.tree != other.tree for one, other in zip(before, after, strict=True)]
    assert sum(moved) > len(moved) / 2
    for step in before:
        assert step.tensors is not None
        assert digest_inputs(step.tensors) == step.tensors.input_digest
    for one, other in zip(before, after, strict=True):
        assert one.tree is not None
        assert other.tree is not None
        assert sorted(one.tree.tokens) == sorted(other.tree.tokens)
        assert one.stop == other.stop


def test_a_mask_whose_columns_were_not_permuted_is_reported(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    control: Control = CONTROLS["slots permuted, fused"]
    assert control.outcome(runs).silent
    monkeypatch.setattr(permute.Renumbering, "bits", lambda _, row: row)
    assert control.outcome(runs).silent is False


def steps_of(trace: Path) -> list[Step]:
    with TraceReader(trace) as reader:
        return [step for turn in reader.turns for step in reader.steps(turn)]


def test_every_fault_names_a_scenario() -> None:
    for fault in FAULTS.values():
        assert fault.scenario in scenarios(), fault.id


def test_one_fault_as_a_user_tries_it(tmp_path: Path) -> None:
    done = specscope("selftest", "--fault", "F16", "--keep", tmp_path / "kept")
    assert done.code == 0, done
    assert "2 of 2 faults detected, 2 of 2 at the expected phase, 2 of 2 attributable ones blamed" in done.out
    assert "1 of 1 controls silent; 0 not run" in done.out
    names = [f"{name}{dtype}.jsonl" for name in ("F16", "greedy-eager", "greedy-fused") for dtype in ("", "-bfloat16")]
    assert {path.name for path in (tmp_path / "kept").glob("*.jsonl")} == set(names)


@pytest.mark.slow
def test_the_stages_faults_as_a_user_tries_them(tmp_path: Path) -> None:
    """One that breaks a rule, one that only moves numbers, one that only an honest pipeline beside it shows."""
    names = ("P03", "P05", "P08")
    done = specscope("selftest", *(word for name in names for word in ("--fault", name)), "--keep", tmp_path / "kept")
    assert done.code == 0, done
    assert "3 of 3 faults detected, 3 of 3 at the expected phase, 1 of 1 attributable ones blamed" in done.out
    assert "4 of 4 controls silent; 0 not run" in done.out


def test_every_fault_of_the_stages_has_its_expectation() -> None:
    assert list(STAGE_FAULTS) == [f"P{number:02}" for number in range(1, 9)]
    for fault in STAGE_FAULTS.values():
        assert fault.expect.places
        injected = PIPELINE_FAULTS[fault.id]
        assert (fault.expect.invariant is None) == (injected.shows != "oracle")


def test_what_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("something")
    for arguments in (["--keep", str(tmp_path)], ["--fault", "F99"]):
        done = CliRunner().invoke(selftest, arguments)
        assert isinstance(done.exception, UsageError)
    listed = CliRunner().invoke(selftest, ["--list", "--fault", "F16"])
    assert listed.exit_code == 0
    assert "tensors: positions" in listed.stdout


@pytest.mark.slow
@pytest.mark.timeout(2400)  # it takes some five minutes by itself, and a busy machine may have it run beside much else
def test_the_whole_selftest_comes_out_as_expected() -> None:
    done = specscope("selftest", "--json", timeout=2300)
    score = json.loads(done.out)
    assert done.code == 0, [score["score"], *(fault for fault in score["faults"] if fault["wrong"])]
    assert score["as_expected"]
    assert len({fault["id"].partition(".")[0] for fault in score["faults"]}) + len(score["not_run"]) >= 33
    assert all(score["edges"].values()), score["edges"]
