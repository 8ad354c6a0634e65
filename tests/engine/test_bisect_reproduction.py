"""A bisection runs what the recording ran, and never acquits what it did not reproduce."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from support.bisections import AT, Inject, as_if, bisected, put_in
from support.recorded_runs import IDS, TALKS, TinyRuns
from support.tiny_models import HIDDEN, VOCAB
from support.traces import load, store
from torch import nn

from specscope.engine.cli.bisect import bisect
from specscope.engine.drafters.base import Draft
from specscope.engine.drafters.early_exit.head import ExitHead, ExitHeadConfig, save_exit_head
from specscope.engine.lab.bisect.operations import Captured, Captures, Operation
from specscope.engine.lab.bisect.schedule import Add, Begin, Drop, Together, plan_batch
from specscope.engine.lab.bisect.whole import find_departure
from specscope.engine.lab.faults import FaultTarget
from specscope.engine.lab.faults.base import changing_drafts
from specscope.engine.run.prompts import Prompt
from specscope.schemas.bisection import Bisection
from specscope.tracer.errors import EXIT_EQUAL, EXIT_NOT_REPRODUCED
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.places import StepPlace

EXIT_LAYER = 3
PROMPTS = [*IDS, Prompt("one", ids=(44,)), Prompt("middling", ids=tuple(range(50, 30, -1)))]


@pytest.fixture(scope="module")
def runs(teacher_folder: Path, head_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    return TinyRuns(teacher_folder, head_folder, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exit_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exit")
    torch.manual_seed(4)
    save_exit_head(
        ExitHead(
            ExitHeadConfig(
                exit_layer=EXIT_LAYER, hidden_size=HIDDEN, vocab_size=VOCAB, intermediate_size=24, rms_norm_eps=1e-6
            )
        ),
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def batch(runs: TinyRuns) -> Path:
    return runs("batch", mode="eager", prompts=PROMPTS, batch_size=3)


def in_fused(module: Callable[[FaultTarget], nn.Module], change: Callable[[torch.Tensor], torch.Tensor]) -> Inject:
    """A change of what one module gives, where the attention is fused."""

    def inject(target: FaultTarget) -> FaultTarget:
        if "fused" in target.models.teacher.attention_name:
            module(target).register_forward_hook(lambda _, __, output: change(output))
        return target

    return inject


def mlp_of(number: int) -> Callable[[FaultTarget], nn.Module]:
    return lambda target: target.models.teacher.layer(number).get_submodule("mlp")


def rows_mixed(output: torch.Tensor) -> torch.Tensor:
    """Each row gets a little of the next one; a row alone is as it should be."""
    return output + 0.01 * (output.roll(1, dims=0) - output)


class StaleBuffer:
    """Gives what it gave last, where that has the same shape."""

    def __init__(self) -> None:
        self._last: torch.Tensor | None = None

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        last, self._last = self._last, output
        return last if last is not None and last.shape == output.shape else output


class Unrepeatable:
    """Adds something else each time."""

    def __init__(self, share: float) -> None:
        self._share, self._calls = share, 0

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        return output * (1 + self._share * (self._calls % 7))


def card(a: Path, b: Path, place: StepPlace) -> str:
    done = CliRunner().invoke(bisect, [str(a), str(b), "--at", f"{place.turn}/{place.step}"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


def edited(trace: Path, to: Path, change: Callable[[dict[str, Any]], None], place: StepPlace = AT) -> Path:
    """A copy in which the record of one step is another."""
    lines = load(trace)
    change(next(line for line in lines if (line["kind"], line.get("turn"), line.get("step")) == ("step", *place)))
    return store(lines, to / "edited.jsonl")


def other_logits(step: dict[str, Any]) -> None:
    step["verify"]["top_logits"] = [[a + 0.5, b] for a, b in step["verify"]["top_logits"]]


def test_a_difference_that_does_not_come_back_is_not_called_equal(runs: TinyRuns, tmp_path: Path) -> None:
    trace = runs("plain", mode="eager")
    honest = bisected(trace, as_if(trace, tmp_path, mode="fused", attention="fused"))
    assert (honest.outcome, honest.exit_code) == ("equal", EXIT_EQUAL)
    assert honest.recordings is not None
    assert honest.recordings.as_recorded
    other = edited(trace, tmp_path, other_logits)
    found = bisected(trace, other)
    assert (found.outcome, found.exit_code, found.culprit, found.difference) == (
        "not-reproduced", EXIT_NOT_REPRODUCED, None, None
    )  # fmt: skip
    assert found.recordings is not None
    assert found.recordings.difference is not None
    assert found.recordings.difference.field == "top_logits[0]"
    assert (found.recordings.baseline, found.recordings.candidate is None) == (None, False)
    said = card(trace, other, AT)
    assert said.startswith("not reproduced alone: the recordings differ in verify, top_logits[0];")
    assert "the candidate's recording is not what this build computes: verify, top_logits[0]" in said
    assert "equal:" not in said


def test_two_recordings_that_agree_but_not_with_this_build_are_not_acquitted(runs: TinyRuns, tmp_path: Path) -> None:
    other = edited(runs("plain", mode="eager"), tmp_path, other_logits)
    found = bisected(other, other)
    assert (found.outcome, found.exit_code) == ("not-reproduced", EXIT_NOT_REPRODUCED)
    assert found.recordings is not None
    assert found.recordings.difference is None
    assert found.recordings.baseline is not None
    assert "run again, the two sides agree, but not with what was recorded" in card(other, other, AT)


def test_what_was_found_but_not_recorded_is_told_apart(runs: TinyRuns, tmp_path: Path) -> None:
    trace = runs("plain", mode="eager")
    found = bisected(trace, as_if(trace, tmp_path, mode="fused", attention="fused", fault="F19.mlp"))
    assert (found.outcome, found.exit_code) == ("operation", 1)
    assert found.recordings is not None
    assert (found.recordings.difference, found.recordings.candidate is None) == (None, False)


def test_a_stop_is_nothing_that_a_rerun_decides(runs: TinyRuns, tmp_path: Path) -> None:
    trace = runs("plain", mode="eager")

    def cut(step: dict[str, Any]) -> None:
        step["stop"]["reason"] = "eos"

    found = bisected(trace, edited(trace, tmp_path, cut))
    assert (found.outcome, found.exit_code) == ("not-reproduced", EXIT_NOT_REPRODUCED)
    said = card(trace, tmp_path / "edited.jsonl", AT)
    assert said.startswith("not reproduced alone: the recordings differ in stop, reason, which a re-run is forced to")


def test_a_violated_invariant_is_not_acquitted(runs: TinyRuns, tmp_path: Path) -> None:
    trace = runs("plain", mode="eager")
    dispatched = runs("dispatched", fault="F31.fused-is-eager")
    again = bisected(trace, dispatched)
    assert (again.outcome, again.exit_code, again.difference) == ("violation", 1, None)
    said = card(trace, dispatched, AT)
    assert said.startswith("different: the candidate violates verify.dispatch, recorded and run again")

    def undo(step: dict[str, Any]) -> None:
        step["commit"]["written_checksums"][0] = "0" * 32

    edited(trace, tmp_path, undo)
    once = bisected(trace, tmp_path / "edited.jsonl")
    assert (once.outcome, once.exit_code) == ("not-reproduced", EXIT_NOT_REPRODUCED)
    assert "; run again, it does not" in card(trace, tmp_path / "edited.jsonl", AT).splitlines()[0]


def test_the_first_step_begins_with_what_the_prompt_gave(runs: TinyRuns, tmp_path: Path) -> None:
    trace = runs("plain", mode="eager")
    lines = load(trace)
    start = next(line for line in lines if line["kind"] == "turn_start")
    start["prefill"]["top_logits"][0] += 0.5
    found = bisected(trace, store(lines, tmp_path / "prefill.jsonl"), StepPlace(0, 0))
    assert (found.outcome, found.exit_code) == ("not-reproduced", EXIT_NOT_REPRODUCED)
    assert found.recordings is not None
    assert found.recordings.difference is not None
    assert found.recordings.difference.field == "prefill.top_logits"


def test_where_the_candidate_has_no_such_step_nothing_is_acquitted(runs: TinyRuns, tmp_path: Path) -> None:
    trace = runs("plain", mode="eager")
    lines = load(trace)
    shorter = [line for line in lines if line["kind"] != "step" or (line["turn"], line["step"]) < AT]
    found = bisected(trace, store(shorter, tmp_path / "shorter.jsonl"))
    assert (found.outcome, found.exit_code) == ("not-reproduced", EXIT_NOT_REPRODUCED)
    assert "no step after the same tokens" in card(trace, tmp_path / "shorter.jsonl", AT)


@pytest.mark.parametrize("place", [StepPlace(0, 1), StepPlace(1, 3), StepPlace(3, 2)])
def test_a_batch_is_run_again_as_it_was(batch: Path, tmp_path: Path, place: StepPlace) -> None:
    found = bisected(batch, as_if(batch, tmp_path, mode="fused", attention="fused"), place)
    assert (found.outcome, found.exit_code, found.culprit, found.grafts) == ("equal", 0, None, [])
    assert found.neighbours in (1, 2)


def test_what_rows_do_to_each_other_is_found_in_the_batch(
    runs: TinyRuns, batch: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fault = put_in(monkeypatch, in_fused(mlp_of(3), rows_mixed))
    faulty = runs("mixed", prompts=PROMPTS, batch_size=3, fault=fault)
    found = bisected(batch, faulty, StepPlace(1, 0))
    assert (found.outcome, found.exit_code, found.neighbours) == ("operation", 1, 2)
    assert found.culprit is not None
    assert (found.culprit.layer, found.culprit.operation, found.culprit.in_place) == (3, "MLP", True)
    assert all(operation.error <= operation.floor for operation in found.operations), "each is right by itself"
    assert found.grafts == []
    assert "layer 3 MLP, seen in the whole forward" in card(batch, faulty, StepPlace(1, 0))
    alone = runs("alone", mode="eager")
    asleep = bisected(alone, as_if(alone, tmp_path, mode="fused", attention="fused", fault=fault))
    assert (asleep.outcome, asleep.neighbours) == ("equal", 0)


def test_a_candidate_that_alone_ran_in_a_batch_has_its_rows_beside_it(
    runs: TinyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = runs("one-by-one", mode="eager", prompts=PROMPTS)
    fault = put_in(monkeypatch, in_fused(mlp_of(3), rows_mixed))
    found = bisected(alone, runs("mixed", prompts=PROMPTS, batch_size=3, fault=fault), StepPlace(1, 0))
    assert (found.outcome, found.neighbours) == ("operation", 2)
    assert found.culprit is not None
    assert (found.culprit.layer, found.culprit.operation) == (3, "MLP")
    honest = bisected(alone, runs("fused-batch", prompts=PROMPTS, batch_size=3), StepPlace(1, 0))
    assert (honest.outcome, honest.neighbours) == ("equal", 2)


def test_rows_that_cannot_be_told_apart_are_said_to_be_missing(runs: TinyRuns, batch: Path, tmp_path: Path) -> None:
    lines = load(batch)
    for line in lines:
        line.pop("row", None)  # as if every turn had run in row 0
    unplaced = store(lines, tmp_path / "unplaced.jsonl")
    edited(unplaced, tmp_path, other_logits, StepPlace(1, 0))
    found = bisected(unplaced, tmp_path / "edited.jsonl", StepPlace(1, 0))
    assert (found.outcome, found.exit_code, found.neighbours) == ("not-reproduced", EXIT_NOT_REPRODUCED, 0)
    assert found.recordings is not None
    assert "the baseline ran in a batch of 3, its re-run has no rows beside it" in found.recordings.lacking
    placed = bisected(batch, edited(batch, tmp_path, other_logits, StepPlace(1, 0)), StepPlace(1, 0))
    assert placed.recordings is not None
    assert not [text for text in placed.recordings.lacking if "batch" in text]
    said = card(batch, tmp_path / "edited.jsonl", StepPlace(1, 0))
    assert said.startswith("not reproduced with 2 rows beside it: the recordings differ in verify, top_logits[0];")


def test_what_a_drafters_rows_do_to_each_other(runs: TinyRuns, batch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = put_in(monkeypatch, in_fused(lambda target: target.eagle3.head.midlayer.mlp, rows_mixed))
    faulty = runs("mixed-drafts", prompts=PROMPTS, batch_size=3, fault=fault)
    found = bisected(batch, faulty, StepPlace(1, 1))
    assert (found.outcome, found.phase, found.grafts) == ("operation", "draft", [])
    assert found.culprit is not None
    assert (found.culprit.operation, found.culprit.in_place) == ("MLP", True)


def test_the_rows_of_a_batch_are_read_off_its_records(runs: TinyRuns) -> None:
    trace = runs("talks", prompts=[*TALKS, *PROMPTS], batch_size=2, tokens=6)
    with TraceReader(trace) as reader:
        last = reader.turns[-1]
        plan = plan_batch(reader, last.turn, len(last.steps) - 1)
        assert plan is not None
        assert sum(isinstance(action, Add) for action in plan.actions) == 2
        begun = [action for action in plan.actions if isinstance(action, Begin)]
        assert sorted(action.entry.turn for action in begun) == [entry.turn for entry in reader.turns]
        talking = [action.is_new for action in begun if action.entry.prompt_turn > 0]
        assert talking == [False] * len(talking) != []
        rows = [len(action.members) for action in plan.actions if isinstance(action, Together)]
        drops = [action for action in plan.actions if isinstance(action, Drop)]
        assert set(rows) <= {1, 2}
        assert len(plan.members) == 2 - len(drops)
        assert plan_batch(reader, 99, 0) is None


@pytest.mark.parametrize("drafter", ["eagle3", "ngram", "model"])
def test_every_step_of_a_batch_comes_back_bit_by_bit(runs: TinyRuns, drafter: str) -> None:
    trace = runs(f"bits-{drafter}", drafter=drafter, prompts=[*TALKS, *IDS], batch_size=2, tokens=5)
    with TraceReader(trace) as reader:
        places = [StepPlace(entry.turn, len(entry.steps) - 1) for entry in reader.turns if entry.steps]
    for place in (places[1], places[-1]):
        found = bisected(trace, trace, place)
        assert found.recordings is not None
        assert found.recordings.as_recorded
        assert found.outcome == "equal"


def test_a_hand_over_that_spoils_what_it_hands_over(
    runs: TinyRuns, exit_head: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def spoil(draft: Draft) -> Draft:
        assert draft.shared is not None
        hidden = draft.shared.hidden.clone()
        hidden[:, -1] *= 1.1
        return replace(draft, shared=replace(draft.shared, hidden=hidden))

    def inject(target: FaultTarget) -> FaultTarget:
        return changing_drafts(target, spoil) if "fused" in target.models.teacher.attention_name else target

    trace = runs("exit", drafter=f"early-exit:{exit_head}", mode="eager")
    faulty = runs("spoilt", drafter=f"early-exit:{exit_head}", fault=put_in(monkeypatch, inject))
    found = bisected(trace, faulty, StepPlace(0, 0))
    assert (found.outcome, found.phase, found.exit_code) == ("operation", "verify", 1)
    assert found.culprit is not None
    assert (found.culprit.layer, found.culprit.operation) == (EXIT_LAYER, "input of the input norm")
    assert found.culprit.in_place
    honest = bisected(trace, runs("handed", drafter=f"early-exit:{exit_head}"), StepPlace(0, 0))
    assert (honest.outcome, honest.exit_code) == ("equal", 0)


def test_a_stale_buffer_is_named_although_every_operation_by_itself_is_right(
    runs: TinyRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = runs("plain", mode="eager")
    fault = put_in(monkeypatch, in_fused(mlp_of(4), StaleBuffer()))
    faulty = runs("stale", fault=put_in(monkeypatch, in_fused(mlp_of(4), StaleBuffer())))
    put_in(monkeypatch, in_fused(mlp_of(4), StaleBuffer()), fault)  # a new process has not filled it yet
    found = bisected(trace, faulty, StepPlace(1, 1))
    assert found.culprit is not None
    assert (found.culprit.layer, found.culprit.operation, found.culprit.in_place) == (4, "MLP", True)
    assert (found.outcome, found.exit_code, found.unsteady, found.grafts) == ("operation", 1, [], [])
    assert all(operation.error < 1e-6 for operation in found.operations), "each is right by itself"
    later = bisected(trace, faulty, StepPlace(1, 3))
    assert later.culprit is not None
    assert (later.culprit.layer, later.culprit.operation) == (4, "MLP"), "before the attention that reads what it left"


def test_a_kernel_that_does_not_repeat_itself(runs: TinyRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = runs("plain", mode="eager")
    for share, outcome in ((0.01, "unsteady"), (1e-8, "equal")):
        fault = put_in(monkeypatch, in_fused(mlp_of(5), Unrepeatable(share)))
        candidate = as_if(trace, tmp_path, mode="fused", attention="fused", fault=fault)
        found = bisected(trace, candidate)
        assert found.outcome == outcome
        if outcome == "unsteady":
            assert [(own.side, own.layer, own.operation) for own in found.unsteady] == [("candidate", 5, "MLP")]
            assert found.exit_code == 1
            said = card(trace, candidate, AT)
            assert said.startswith("unsteady: the candidate's layer 5 MLP does not repeat itself")
    steady: Bisection = bisected(trace, as_if(trace, tmp_path, mode="fused", attention="fused"))
    assert steady.unsteady == []


DRAFT_FAULTS = [
    ("F02.no-fc", 1, "fc", False),
    ("F03", 2, "hidden state handed on", True),
    ("F06.absolute", 2, "proposed tokens", True),
    ("F09", 2, "attention", True),
    ("F11.hidden", 1, "output head", False),
]


@pytest.mark.parametrize(("fault", "level", "operation", "in_place"), DRAFT_FAULTS, ids=[f[0] for f in DRAFT_FAULTS])
def test_a_drafter_is_narrowed_level_by_level(
    runs: TinyRuns, fault: str, level: int, operation: str, in_place: bool
) -> None:
    found = bisected(runs("plain", mode="eager"), runs(fault, fault=fault), StepPlace(0, 0))
    assert (found.outcome, found.phase, found.exit_code, found.grafts) == ("operation", "draft", 1, [])
    assert found.culprit is not None
    assert (found.culprit.level, found.culprit.operation, found.culprit.in_place) == (level, operation, in_place)
    assert all(own.level is not None for own in found.operations), "no operation of the teacher is run for it"
    assert found.recordings is not None
    assert (found.recordings.baseline, found.recordings.candidate) == (None, None)


PARTS = [
    ("eagle3", "fc", 1),
    ("eagle3", "hidden norm", 1),
    ("eagle3", "value projection", 1),
    ("eagle3", "MLP", 1),
    ("eagle3", "final norm", 1),
    ("model", "layer 2 MLP", 1),
    ("early-exit", "exit head", 1),
]


@pytest.mark.parametrize(("drafter", "part", "level"), PARTS)
def test_a_parameter_that_was_loaded_wrongly_is_named(
    runs: TinyRuns, exit_head: Path, monkeypatch: pytest.MonkeyPatch, drafter: str, part: str, level: int
) -> None:
    def inject(target: FaultTarget) -> FaultTarget:
        if "fused" in target.models.teacher.attention_name:
            with torch.no_grad():
                for parameter in target.models.drafter.parts()[part].parameters():
                    parameter.mul_(1.2)
        return target

    name = f"early-exit:{exit_head}" if drafter == "early-exit" else drafter
    trace = runs(f"sound-{drafter}", drafter=name, mode="eager")
    found = bisected(trace, runs("loaded", drafter=name, fault=put_in(monkeypatch, inject)), StepPlace(0, 0))
    assert (found.outcome, found.phase) == ("operation", "draft")
    assert found.culprit is not None
    assert (found.culprit.level, found.culprit.operation) == (level, part)


def captures_of(*values: float) -> Captures:
    """A layer each: what its MLP was fed, and what it gave."""
    return {
        Operation(number, "MLP"): Captured(torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), value))
        for number, value in enumerate(values)
    }


def test_a_departure_is_what_the_values_before_it_do_not_explain() -> None:
    sound, floor = captures_of(1, 1, 1), 1e-6
    assert find_departure(sound, captures_of(1, 1 + 4e-6, 1 + 2e-5), floor, None) is None
    found = find_departure(sound, captures_of(1, 1.5, 1.5), floor, None)
    assert found is not None
    assert (found.layer, found.operation, found.in_place) == (1, "MLP", True)
    assert find_departure(sound, {}, floor, None) is None
