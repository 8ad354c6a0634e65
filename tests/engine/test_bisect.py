"""A bisection names the operation that is off, in the layer where it is, and nothing in an honest pair."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from support.bisections import AT, QUIET, as_if, bisected, put_in
from support.called import specscope
from support.recorded_runs import IDS, TinyRuns
from support.tiny_models import build_teacher
from support.traces import EAGER, load, store
from torch import nn

from specscope.engine.cli import bisect as command
from specscope.engine.cli.bisect import bisect, first_root
from specscope.engine.drafters.base import Draft, DraftPairs
from specscope.engine.lab.bisect import narrow, operations, sides
from specscope.engine.lab.bisect.floors import Floors, relative_error
from specscope.engine.lab.bisect.narrow import Bisect, BisectRequest
from specscope.engine.lab.bisect.operations import IN_LAYER, LAYER_OUTPUT, Operation
from specscope.engine.lab.faults import FaultTarget
from specscope.engine.lab.faults.base import changing_drafts
from specscope.engine.lab.rerun.recorded_run import Overrides
from specscope.engine.loop.phases import HandOver, hand_over
from specscope.schemas.verdict import Root, Verdict
from specscope.tracer.cli.options import STEP_PLACE
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.errors import CoverageError, IncomparableError, UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.places import StepPlace

LAYERS = 8


@pytest.fixture(scope="module")
def runs(teacher_folder: Path, head_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    return TinyRuns(teacher_folder, head_folder, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def eager(runs: TinyRuns) -> Path:
    return runs("eager", mode="eager")


@pytest.fixture(scope="module")
def fused(runs: TinyRuns) -> Path:
    return runs("fused")


def as_tie(root: Root) -> Root:
    """The same root, had it been one."""
    return root.model_copy(update={"difference": root.difference.model_copy(update={"kind": "exact-tie"})})


def in_layer(number: int, module: str, share: float = 0.01) -> Callable[[FaultTarget], FaultTarget]:
    """A fault in one module of one layer, where the attention is fused."""

    def spoil(own: nn.Module, _: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] * (1 + share), *output[1:])
        return output * (1 + share)

    def inject(target: FaultTarget) -> FaultTarget:
        teacher = target.models.teacher
        if "fused" in teacher.attention_name:
            teacher.layer(number).get_submodule(module).register_forward_hook(spoil)
        return target

    return inject


FAULTY = [
    (0, "self_attn", "attention"),
    (3, "self_attn", "attention"),
    (7, "self_attn", "attention"),
    (2, "mlp", "MLP"),
    (5, "input_layernorm", "input norm"),
    (4, "post_attention_layernorm", "post-attention norm"),
    (6, "", "layer output"),
]


@pytest.mark.parametrize(("layer", "module", "name"), FAULTY, ids=[f"{n}-{layer}" for layer, _, n in FAULTY])
def test_the_operation_that_is_off_is_named(
    eager: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: int, module: str, name: str
) -> None:
    fault = put_in(monkeypatch, in_layer(layer, module))
    candidate = as_if(eager, tmp_path, mode="fused", attention="fused", fault=fault)
    found = bisected(eager, candidate)
    assert found.culprit is not None
    assert (found.culprit.layer, found.culprit.operation) == (layer, name)
    assert (found.outcome, found.phase, found.exit_code, found.also) == ("operation", "verify", 1, 0)
    assert found.culprit.error == pytest.approx(0.01, rel=0.01)
    assert found.culprit.sample_size == LAYERS - 1
    assert found.inputs_equal
    grafts = {graft.what.split(" + ")[-1]: graft for graft in found.grafts}
    assert grafts[f"layer {layer} {name}"].heals
    control = grafts["layer {} {}".format(layer, "attention" if name in ("MLP", "post-attention norm") else "MLP")]
    assert not control.heals
    assert control.after > 100 * control.floor
    if layer < LAYERS - 1 and module:  # a layer's whole output is scaled back by the next one's norm
        assert found.prefix is not None
        # Its own keys and values are wrong where what they are made from is.
        assert found.prefix.first_layer == (layer if name == "input norm" else layer + 1)
        assert (found.prefix.first_position, found.prefix.committed_by) == (0, None)
        assert not grafts["committed prefix"].heals, "the fault is in the step as well"


@pytest.mark.parametrize("fault", ["F19.attention", "F19.mlp", "F19.norm"])
def test_the_catalogues_kernel_faults(eager: Path, tmp_path: Path, fault: str) -> None:
    found = bisected(eager, as_if(eager, tmp_path, mode="fused", attention="fused", fault=fault))
    assert found.culprit is not None
    wanted = {"F19.attention": "attention", "F19.mlp": "MLP", "F19.norm": "input norm"}[fault]
    assert (found.culprit.layer, found.culprit.operation) == (3, wanted)
    asleep = bisected(eager, as_if(eager, tmp_path, cache_strategy="replicate", fault=fault))
    assert (asleep.outcome, asleep.exit_code, asleep.culprit, asleep.grafts) == ("equal", 0, None, [])


@pytest.mark.parametrize("place", [StepPlace(0, 0), StepPlace(1, 0), StepPlace(1, 4)])
def test_a_fault_is_found_at_any_step(
    eager: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: StepPlace
) -> None:
    fault = put_in(monkeypatch, in_layer(3, "mlp"))
    found = bisected(eager, as_if(eager, tmp_path, attention="fused", mode="fused", fault=fault), place)
    assert found.culprit is not None
    assert (found.culprit.layer, found.culprit.operation) == (3, "MLP")
    assert (found.turn, found.step) == place


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "fused", "attention": "fused"},
        {},
        {"cache_strategy": "full-reorder"},
        {"cache": "paged", "block_size": 8},
        {"mode": "fused", "attention": "fused", "dtype": "bfloat16"},
    ],
    ids=["fused", "same", "strategy", "paged", "dtype"],
)
@pytest.mark.parametrize("place", [StepPlace(0, 0), AT])
def test_an_honest_pair_has_no_culprit(eager: Path, tmp_path: Path, settings: dict[str, Any], place: StepPlace) -> None:
    found = bisected(eager, as_if(eager, tmp_path, **settings), place)
    assert found.culprit is None
    assert found.also == 0
    assert len(found.operations) == 4 + LAYERS * 5
    if "dtype" not in settings:  # in bfloat16 the drafter may well find something else
        assert (found.outcome, found.exit_code, found.difference, found.grafts) == ("equal", 0, None, [])


def test_an_honest_pair_in_bfloat16(runs: TinyRuns, tmp_path: Path) -> None:
    trace = runs("bfloat16", mode="eager", dtype="bfloat16")
    found = bisected(trace, as_if(trace, tmp_path, mode="fused", attention="fused"))
    assert found.culprit is None
    assert found.prefix is not None
    assert found.prefix.first_layer is None


def test_the_first_root_is_where_it_looks(runs: TinyRuns, eager: Path, fused: Path) -> None:
    assert first_root(diff_traces(eager, fused)) is None
    faulty = runs("faulty", fault="F16")
    verdict = diff_traces(eager, faulty)
    place = first_root(verdict)
    assert place is not None
    found = bisected(eager, faulty, place)
    assert (found.outcome, found.phase, found.culprit, found.inputs_equal) == ("phase", "tensors", None, False)
    assert found.difference is not None
    assert found.difference.field == "positions"
    (graft,) = found.grafts
    assert (graft.what, graft.heals) == ("verify inputs", True)
    assert graft.before > 100 * graft.floor > graft.after
    tied = as_tie(verdict.roots[0])
    assert first_root(verdict.model_copy(update={"roots": [tied, *verdict.roots[1:]]})) != place
    elsewhere = tied.model_copy(update={"place": tied.place.model_copy(update={"step_a": place.step + 1})})
    assert first_root(verdict.model_copy(update={"roots": [elsewhere, *verdict.roots]})) == place, (
        "ties are passed over"
    )


def test_other_architectures(runs: TinyRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qwen = TinyRuns(build_teacher(tmp_path / "qwen", "qwen3"), runs.head, tmp_path)
    trace = qwen("qwen", mode="eager", prompts=IDS[:1])
    fault = put_in(monkeypatch, in_layer(5, "self_attn"))
    found = bisected(trace, as_if(trace, tmp_path, attention="fused", mode="fused", fault=fault), StepPlace(0, 1))
    assert found.culprit is not None
    assert (found.culprit.layer, found.culprit.operation) == (5, "attention")
    honest = bisected(trace, as_if(trace, tmp_path, attention="fused", mode="fused"), StepPlace(0, 1))
    assert honest.outcome == "equal"


def test_a_fault_in_every_layer_meets_the_ceiling(eager: Path, tmp_path: Path) -> None:
    found = bisected(eager, as_if(eager, tmp_path, attention="fused", mode="fused", fault="F19.bf16"))
    assert found.culprit is not None
    assert (found.culprit.layer, found.culprit.operation, found.also) == (0, "attention", LAYERS - 1)
    assert found.culprit.at_ceiling
    heals = {graft.what: graft.heals for graft in found.grafts}
    assert heals["committed prefix + all 8 above their floors"]
    assert not heals["committed prefix + layer 0 attention"]


def test_the_ends_of_the_model(eager: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, name in (
        ("model.norm", "final norm"),
        ("lm_head", "output head"),
        ("model.embed_tokens", "embedding"),
        ("model.rotary_emb", "rotation"),
    ):

        def inject(target: FaultTarget, path: str = path) -> FaultTarget:
            module = target.models.teacher.model.get_submodule(path)
            module.register_forward_hook(
                lambda _, __, out: tuple(o * 1.01 for o in out) if isinstance(out, tuple) else out * 1.01
            )
            return target

        found = bisected(eager, as_if(eager, tmp_path, fault=put_in(monkeypatch, inject)))
        assert found.culprit is not None
        assert (found.culprit.layer, found.culprit.operation, found.also) == (None, name, 0)
        assert [g.heals for g in found.grafts if g.what.endswith(name)] == [True]


def test_what_earlier_commits_left_is_told_from_the_step(runs: TinyRuns, tmp_path: Path) -> None:
    trace = runs("accepting", drafter="model", prompts=IDS[:1], tokens=24)
    found = bisected(trace, as_if(trace, tmp_path, fault="F25.row"), StepPlace(0, 3))
    assert (found.outcome, found.exit_code, found.culprit) == ("prefix", 1, None)
    assert found.prefix is not None
    assert found.prefix.first_layer == 0
    with TraceReader(trace) as reader:
        steps = list(reader.steps(reader.turns[0]))
    commit = steps[found.prefix.committed_by or 0].commit
    assert commit is not None
    assert commit.committed_before <= (found.prefix.first_position or 0) < commit.committed_after
    assert [(graft.what, graft.heals) for graft in found.grafts] == [("committed prefix", True)]
    assert found.next == [f"specscope bisect {found.baseline} {found.candidate} --at 0/{found.prefix.committed_by}"]
    earlier = bisected(trace, as_if(trace, tmp_path, fault="F25.row"), StepPlace(0, found.prefix.committed_by or 0))
    assert (earlier.outcome, earlier.phase) == ("phase", "commit")
    longer = bisected(trace, as_if(trace, tmp_path, fault="F24.rejected"), StepPlace(0, 3))
    assert (longer.outcome, longer.phase, longer.inputs_equal) == ("phase", "tensors", False)
    assert [(graft.what, graft.heals) for graft in longer.grafts] == [("verify inputs + committed prefix", True)]


def wrong_features(committed: HandOver) -> DraftPairs:
    pairs = hand_over(committed)
    return replace(pairs, features=pairs.features * 1.5) if committed.phase == "step" else pairs


def damaged_head(target: FaultTarget) -> FaultTarget:
    with torch.no_grad():
        for parameter in target.eagle3.head.parameters():
            parameter.mul_(1.05)
    return target


def test_a_drafters_fault_is_told_from_that_of_what_it_was_fed(
    fused: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = put_in(monkeypatch, lambda target: target.with_phases(pairs=wrong_features))
    found = bisected(fused, as_if(fused, tmp_path, fault=fed), StepPlace(1, 3))
    assert (found.outcome, found.phase, found.culprit) == ("phase", "draft", None)
    assert found.difference is not None
    assert found.difference.field.startswith("inputs.hidden_norms")
    (graft,) = found.grafts
    assert (graft.what, graft.heals) == ("draft pairs", True)
    assert graft.after < graft.floor / 10
    head = put_in(monkeypatch, damaged_head)
    found = bisected(fused, as_if(fused, tmp_path, fault=head), StepPlace(1, 1))
    assert (found.outcome, found.phase) == ("operation", "draft")
    assert found.culprit is not None
    assert (found.culprit.level, found.culprit.operation) == (1, "fc")
    assert found.grafts == [], "it was fed the same pairs"


@pytest.mark.parametrize("drafter", ["eagle3", "ngram"])
def test_a_tree_that_was_chosen_wrongly_is_seen_although_the_recorded_one_is_run(
    runs: TinyRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drafter: str
) -> None:
    def without_the_last(draft: Draft) -> Draft:
        tree = draft.tree
        cut = replace(
            tree,
            **{name: getattr(tree, name)[:, :-1] for name in ("tokens", "parents", "depths", "logprobs", "scores")},
            num_slots=[count - 1 for count in tree.num_slots],
        )
        return replace(draft, tree=cut)

    trace = runs(f"chosen-{drafter}", drafter=drafter)
    with TraceReader(trace) as reader:
        wide = next(s.step for s in reader.steps(reader.turns[1]) if s.tree is not None and len(s.tree.tokens) > 3)
    fault = put_in(monkeypatch, lambda target: changing_drafts(target, without_the_last))
    found = bisected(trace, as_if(trace, tmp_path, fault=fault), StepPlace(1, wide))
    assert (found.outcome, found.phase, found.inputs_equal) == ("phase", "tree", True)


def test_models_with_other_names_are_narrowed_to_the_phase(
    eager: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = put_in(monkeypatch, in_layer(3, "mlp", share=0.5))
    monkeypatch.setitem(operations.BEHIND, "final norm", "model.last_norm")
    found = bisected(eager, as_if(eager, tmp_path, fault=fault, mode="fused", attention="fused"), StepPlace(1, 0))
    assert (found.culprit, found.operations, found.exit_code) == (None, [], 1)
    assert any("other names than a Llama's" in note for note in found.notes)


class Interruption:
    """Counts the layers that are run, and interrupts before the one of a number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: int | None) -> None:
        self.layers: list[int] = []
        whole = operations.run_layer

        def counted(parts: Any, number: int, **others: Any) -> Any:
            if number == before:
                raise KeyboardInterrupt
            self.layers.append(number)
            return whole(parts, number, **others)

        monkeypatch.setattr(narrow, "run_layer", counted)


def test_it_goes_on_where_it_was_left(eager: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = put_in(monkeypatch, in_layer(6, "mlp"))
    candidate = as_if(eager, tmp_path, mode="fused", attention="fused", fault=fault)
    wanted, state = bisected(eager, candidate), tmp_path / "state.json"
    beside = tmp_path / "state.json.part"
    beside.write_text("the user's")
    with monkeypatch.context() as patched:
        first = Interruption(patched, before=5)
        with pytest.raises(KeyboardInterrupt):
            bisected(eager, candidate, state=state)
        assert first.layers == [0, 1, 2, 3, 4]
    with monkeypatch.context() as patched:
        second = Interruption(patched, before=None)
        assert bisected(eager, candidate, state=state) == wanted
        assert second.layers == [5, 6, 7]
    with monkeypatch.context() as patched:
        third = Interruption(patched, before=None)
        patched.setattr(sides, "load_recorded", None)  # no model is loaded for an answer that is there
        assert bisected(eager, candidate, state=state) == wanted
        assert third.layers == []
    assert beside.read_text() == "the user's"


def test_the_state_of_another_bisection_is_refused_and_kept(eager: Path, fused: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    bisected(eager, fused, state=state)
    before = state.read_bytes()
    for a, b, place, message in (
        (eager, fused, StepPlace(1, 3), "its step is not this one's"),
        (eager, eager, AT, "its candidate is not this one's"),
        (fused, eager, AT, "its baseline, candidate is not this one's"),
    ):
        with pytest.raises(UsageError, match=message):
            bisected(a, b, place, state)
    with pytest.raises(UsageError, match="its settings is not this one's"):
        Bisect(BisectRequest(baseline=eager, candidate=fused, place=AT, overrides=Overrides(device="cpu"), state=state))
    assert state.read_bytes() == before
    state.write_text("{}")
    with pytest.raises(UsageError, match="is no state file"):
        bisected(eager, fused, state=state)
    assert state.read_text() == "{}"
    state.write_bytes(before.replace(b"bisection-state/2.0", b"bisection-state/9.0"))
    with pytest.raises(UsageError, match=r"wanted specscope\.bisection-state/2\.0"):
        bisected(eager, fused, state=state)


def test_what_cannot_be_bisected(eager: Path, tmp_path: Path, runs: TinyRuns) -> None:
    redacted = as_if(eager, tmp_path, redaction="0123456789abcdef")
    for a, b in ((eager, redacted), (redacted, eager)):
        with pytest.raises(UsageError, match="is redacted"):
            bisected(a, b)
    with pytest.raises(UsageError, match="got turn 7"):
        bisected(eager, eager, StepPlace(7, 0))
    with pytest.raises(UsageError, match="got step 99"):
        bisected(eager, eager, StepPlace(0, 99))
    for text in ("", "1", "1/", "-1/2", "1/2/3", "a/b"):
        with pytest.raises(UsageError, match="wanted TURN/STEP"):
            STEP_PLACE.convert(text, None, None)
    assert STEP_PLACE.convert("1/20", None, None) == StepPlace(1, 20)
    other = build_teacher(tmp_path / "qwen", "qwen3")
    with pytest.raises(IncomparableError), Bisect(
        BisectRequest(baseline=eager, candidate=eager, place=AT, overrides=Overrides(teacher=str(other)))
    ) as run:  # fmt: skip
        run.run(QUIET)


def test_a_baseline_run_against_one_that_drafts(runs: TinyRuns, fused: Path, tmp_path: Path) -> None:
    alone = runs("alone", mode="baseline")
    assert bisected(fused, alone, StepPlace(1, 1)).exit_code == 0
    assert bisected(alone, fused, StepPlace(1, 1)).exit_code == 0


def test_floors_are_those_of_the_other_layers() -> None:
    errors = {Operation(layer, name): 5e-7 for layer in range(4) for name in (*IN_LAYER, LAYER_OUTPUT)}
    errors[Operation(2, "attention")] = 1e-2
    floors = Floors(errors, "float32")
    assert floors.of(Operation(2, "attention")).value == pytest.approx(4e-6)
    assert floors.of(Operation(1, "attention")).value == pytest.approx(4e-6), "one faulty layer moves no median"
    assert floors.above == [Operation(2, "attention")]
    least = Floors(dict.fromkeys(errors, 0.0) | {Operation(2, "attention"): 1.1e-7}, "float32")
    assert least.above == [], "less than one rounding is none"
    everywhere = Floors(dict.fromkeys(errors, 0.001), "float32")
    assert everywhere.of(Operation(0, "MLP")).at_ceiling
    assert everywhere.above[0] == Operation(0, "input norm")
    alone = Floors({Operation(0, "MLP"): 1e-2}, "float32")
    assert alone.above == [Operation(0, "MLP")], "one layer alone has roundings to be held against"


def test_errors_of_what_is_not_finite() -> None:
    one = torch.ones(3)
    assert relative_error(one, one * 1.5) == pytest.approx(0.5)
    assert relative_error(one * 0, one * 0) == 0
    assert relative_error(one * 0, one) == float("inf")
    assert relative_error(one, one / 0) == float("inf")
    assert relative_error(one / 0, one / 0) == 0


def on_the_command_line(*arguments: str | Path) -> Result:
    return CliRunner().invoke(bisect, list(map(str, arguments)))


def test_the_card_and_the_report(eager: Path, fused: Path, tmp_path: Path) -> None:
    candidate = as_if(eager, tmp_path, mode="fused", attention="fused", fault="F19.norm")
    done = on_the_command_line(eager, candidate, "--at", "1/2", "--state", tmp_path / "state.json")
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0] == "different: layer 3 input norm"
    assert lines[1] == "  step       turn 1 step 2, 20 tokens committed"
    assert "fused attention, float32, cpu, in-place, fault F19.norm" in lines[3]
    assert [line.split()[0] for line in lines if re.match(" +[0-9] ", line)] == ["1", "2", "3", "4", "5"]
    assert "+ layer 3 input norm: logits error" in done.output
    again = on_the_command_line(eager, candidate, "--at", "1/2", "--state", tmp_path / "state.json", "--format", "json")
    report = json.loads(again.output)
    assert (again.exit_code, report["schema"], report["outcome"]) == (1, "specscope.bisection/1.1", "operation")
    assert (report["culprit"]["layer"], report["culprit"]["operation"]) == (3, "input norm")
    none = on_the_command_line(eager, fused)
    assert (none.exit_code, none.output.split(":")[0]) == (0, "equal")
    assert json.loads(on_the_command_line(eager, fused, "--format", "json").output)["outcome"] == "equal"
    looked = on_the_command_line(eager, fused, "--at", "0/0")
    assert (looked.exit_code, looked.output.split("\n")[0]) == (0, "equal: every operation is within its noise floor")


def test_traces_that_the_diff_cannot_compare_are_not_called_equal(eager: Path, fused: Path, tmp_path: Path) -> None:
    other = as_if(fused, tmp_path, dtype="bfloat16")
    refused = on_the_command_line(eager, other)
    assert isinstance(refused.exception, IncomparableError)
    assert "incomparable: dtype: float32 -> bfloat16; let it differ with --allow dtype" in str(refused.exception)
    allowed = on_the_command_line(eager, other, "--allow", "dtype")
    assert (allowed.exit_code, allowed.output.split(":")[0]) == (0, "equal")
    cut = store(load(fused)[:-1], tmp_path / "cut.jsonl")
    uncovered = on_the_command_line(eager, cut)
    assert isinstance(uncovered.exception, CoverageError)
    assert "truncated" in str(uncovered.exception)


def test_a_violation_without_a_root_is_not_called_equal(runs: TinyRuns, eager: Path, tmp_path: Path) -> None:
    faulty = runs("violated", fault="F16")
    found = on_the_command_line(faulty, faulty)
    assert found.exit_code == 1
    headline, *notes, at, next_a, next_b = found.output.splitlines()
    assert headline.startswith("different: the diff of the two traces has no root, but")
    for line, side in zip(notes, ("baseline", "candidate"), strict=True):
        assert f"the {side} violates tensors.position-is-length-plus-depth and 1 more: slot 2:" in line
    assert at == "  note       look at that step with --at 0/0"
    assert (next_a, next_b) == (f"  next       specscope check {faulty}", f"{'':13}specscope check {faulty}")
    edited = tmp_path / "edited.jsonl"
    *body, end = eager.read_text().splitlines(keepends=True)
    edited.write_text("".join([*body, json.dumps(json.loads(end) | {"digest": "0" * 32}) + "\n"]))
    of_the_file = on_the_command_line(eager, edited)
    assert of_the_file.exit_code == 1
    assert "the candidate violates run.digest" in of_the_file.output
    assert "--at" not in of_the_file.output
    report = json.loads(on_the_command_line(faulty, faulty, "--format", "json").output)
    assert (report["outcome"], report["exit_code"], report["notes"][0]) == ("violation", 1, headline)


def test_ties_are_called_ties(
    runs: TinyRuns, eager: Path, fused: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = diff_traces(eager, runs("tied", fault="F16"))
    tie = as_tie(verdict.roots[0])
    asked: list[DiffOptions] = []

    def tied(a: Path, b: Path, options: DiffOptions) -> Verdict:
        asked.append(options)
        return verdict.model_copy(update={"verdict": "ties", "roots": [tie], "violations": []})

    monkeypatch.setattr(command, "diff_traces", tied)
    done = on_the_command_line(
        eager, fused, "--tolerance", "0.5", "--noise", eager, "--allow", "dtype", "--allow", "seed"
    )
    assert done.exit_code == 0
    assert done.output.startswith("ties: the diff of the two traces has no root but ties, 1 of them.")
    assert asked == [DiffOptions(tolerance=0.5, allowed=frozenset({"dtype", "seed"}), noise=eager)]


@pytest.mark.slow
def test_bisect_as_a_process(tmp_path: Path) -> None:
    candidate = as_if(EAGER, tmp_path, mode="fused", attention="fused", fault="F19.mlp")
    done = specscope("bisect", EAGER, candidate, "--at", "0/1", "--teacher", "demo", "--drafter", "eagle3")
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith("different: layer 3 MLP\n")
    assert "layer 3 MLP: logits error" in done.out
    wrong = specscope("bisect", EAGER, candidate, "--at", "1")
    assert (wrong.code, wrong.out, wrong.err) == (
        2, "", "error: got --at '1', wanted TURN/STEP, such as 0/7: both count from 0\n"
    )  # fmt: skip
