"""The tree dispatcher: shapes follow the load, tokens stay, and a profile fits what it was measured with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from click.testing import CliRunner, Result
from support.shape_tables import BUSH, CHAIN, NONE, falling, table
from support.tiny_models import POLICY, tiny_models
from support.traced import record

from specscope.engine.lab.bench.calibrate import CHAINS, CalibrationPlan, calibrate, named_shapes
from specscope.engine.load.models import Models, load_models
from specscope.engine.load.profiles import check_profile
from specscope.engine.loop.shapes import TreeDispatcher
from specscope.engine.record.manifest import settings_of
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import ModelChoice, SamplingRule, Settings
from specscope.engine.tree.policy import auto_policy, parse_policy
from specscope.schemas import Step
from specscope.schemas.profile import Profile
from specscope.schemas.published import PUBLISHED
from specscope.tracer.cli.main import cli as commands
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.profiles import read_profile
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.shapes import Load, choose_shape

PROMPTS = [Prompt(f"row {length}", ids=tuple(3 + n % 50 for n in range(length))) for length in (3, 40, 9, 21, 5)]


@pytest.fixture(scope="module")
def choice(teacher_folder: Path, head_folder: Path) -> ModelChoice:
    drafter = f"eagle3:{head_folder}"
    return ModelChoice(teacher=str(teacher_folder), drafter=drafter, device="cpu", policy=auto_policy(falling()))


def invoked(*arguments: str) -> Result:
    """What ``specscope`` does with them, in this process."""
    return CliRunner().invoke(commands, list(arguments))


def steps_of(trace: Path) -> list[Step]:
    """In the order in which they were written."""
    with TraceReader(trace) as reader:
        return [line.record for line in reader.numbered_lines() if isinstance(line.record, Step)]


@pytest.mark.parametrize("drafter", ["eagle3", "ngram", "model"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_shapes_follow_the_rows_and_change_no_token(
    choice: ModelChoice, teacher_folder: Path, tmp_path: Path, drafter: str, batch_size: int
) -> None:
    named = {"eagle3": choice.drafter, "ngram": "ngram", "model": f"model:{teacher_folder}"}
    choice = replace(choice, drafter=named[drafter])
    alone = record(replace(choice, mode="baseline"), PROMPTS, None)
    ran = record(choice, PROMPTS, tmp_path / "auto.jsonl", batch_size=batch_size)
    assert ran.output_ids == alone.output_ids
    report = check_trace(tmp_path / "auto.jsonl")
    assert report.num_violations == 0
    steps = steps_of(tmp_path / "auto.jsonl")
    assert report.invariants["draft.shape-pays"].passed == len(steps)
    shapes = [step.shape for step in steps if step.shape is not None]
    assert len(shapes) == len(steps)
    # Of five prompts, the last are decoded in fewer rows than the batch has.
    assert len({shape.rows for shape in shapes}) >= min(batch_size, 2)
    for step, shape in zip(steps, shapes, strict=True):
        assert shape == choose_shape(falling(), Load(shape.rows, shape.context), shape.before)
        assert shape.name == {1: BUSH, 2: CHAIN, 3: NONE}[shape.rows]
        assert step.tree is not None
        if shape.name == NONE:
            assert len(step.tree.tokens) == 1
        elif drafter != "ngram":
            assert len(step.tree.tokens) == 1 + {CHAIN: 3, BUSH: 16}[shape.name]


def test_hysteresis_keeps_the_shape_where_the_gain_is_small(choice: ModelChoice, tmp_path: Path) -> None:
    stubborn = replace(choice, policy=auto_policy(falling(hysteresis=0.95)))
    record(stubborn, PROMPTS, tmp_path / "kept.jsonl", batch_size=3)
    reasons = {step.shape.reason for step in steps_of(tmp_path / "kept.jsonl") if step.shape is not None}
    assert "kept" in reasons


def test_the_first_step_drafts_only_where_that_promises_more_than_the_hysteresis() -> None:
    """Two in a hundred is within what a profile is off by."""
    loads = {(1, 10): [10.0, 19.6]}
    for hysteresis, (name, reason) in {0.05: (NONE, "kept"), 0.01: (CHAIN, "better")}.items():
        dispatcher = TreeDispatcher(table=table(loads, [1.0, 2.0], hysteresis))
        choice = dispatcher.choose([10])
        assert (choice.name, choice.reason, choice.before) == (name, reason, NONE)
        assert choice.best == CHAIN


def test_a_replay_follows_the_recorded_shapes(choice: ModelChoice, tmp_path: Path) -> None:
    trace, again = tmp_path / "auto.jsonl", tmp_path / "again.jsonl"
    record(choice, PROMPTS, trace, batch_size=3)
    assert invoked("replay", str(trace), "--out", str(again)).exit_code == 0
    assert check_trace(again).num_violations == 0
    assert diff_traces(trace, again).exit_code == 0
    kept = {(step.turn, step.step): step.shape for step in steps_of(trace)}
    assert all(step.shape == kept[step.turn, step.step] for step in steps_of(again))


def test_the_policy_comes_back_from_the_manifest(choice: ModelChoice, tmp_path: Path) -> None:
    record(choice, PROMPTS[:1], tmp_path / "auto.jsonl", tokens=4)
    with TraceReader(tmp_path / "auto.jsonl") as reader:
        assert settings_of(reader.manifest).choice.policy == choice.policy
        assert reader.manifest.tree_policy.kind == "auto"


def test_drafts_may_be_drawn_on_fixed_shapes_and_on_no_other(choice: ModelChoice, tmp_path: Path) -> None:
    drawn = replace(choice, rule=SamplingRule("sampling", temperature=0.8, draft="sampled"))
    record(drawn, PROMPTS, tmp_path / "drawn.jsonl", batch_size=3)
    report = check_trace(tmp_path / "drawn.jsonl")
    assert report.num_violations == 0
    names = {step.shape.name for step in steps_of(tmp_path / "drawn.jsonl") if step.shape is not None}
    assert NONE in names
    assert len(names) > 1
    shapes = falling().shapes
    dynamic = shapes[2].model_copy(update={"kind": "dynamic", "choices": None})
    mixed = falling().model_copy(update={"shapes": [*shapes[:2], dynamic]})
    with pytest.raises(UsageError, match="not lossless"):
        load_models(replace(drawn, policy=auto_policy(mixed)))


def test_an_auto_tree_needs_a_profile() -> None:
    with pytest.raises(UsageError, match="--calibrate FILE, and pass it with --profile"):
        parse_policy("auto", 5, 4, 16)


@pytest.fixture(scope="module")
def models(teacher_folder: Path, head_folder: Path) -> Models:
    return tiny_models(teacher_folder, head_folder)


@pytest.fixture(scope="module")
def plan(choice: ModelChoice) -> CalibrationPlan:
    settings = Settings(choice=replace(choice, policy=POLICY))
    return CalibrationPlan(settings=settings, prompts=PROMPTS, texts="these", rows=[1, 3], contexts=[6, 40], rounds=2)


@pytest.fixture(scope="module")
def profile(plan: CalibrationPlan, models: Models) -> Profile:
    return calibrate(plan, models)


def test_a_calibration_measures_every_shape_at_every_load(
    profile: Profile, plan: CalibrationPlan, models: Models
) -> None:
    names = list(named_shapes(plan.settings))
    assert names[:2] == ["none", f"chain-{CHAINS[0]}"]
    assert f"dynamic-{POLICY.budget}" in names
    assert [shape.name for shape in profile.shapes] == names
    assert len(profile.steps) == len(names) * 4
    assert {step.rows for step in profile.steps} == {1, 3}
    assert len({step.context for step in profile.steps}) == 2
    assert {step.num_samples for step in profile.steps} == {plan.rounds}
    assert {shape.num_samples for shape in profile.shapes} == {plan.rounds * 2 * (1 + 3)}
    for step in profile.steps:
        assert 0 < step.step.low_ms <= step.step.median_ms <= step.step.high_ms
    assert models.drafter.policy == POLICY, "it is put back"
    validator = jsonschema.Draft202012Validator(PUBLISHED["profile"].json_schema())
    validator.validate(json.loads(profile.model_dump_json(by_alias=True, exclude_none=True)))


def test_acceptance_by_depth_and_rank_adds_up(profile: Profile) -> None:
    fixed = [shape for shape in profile.shapes if shape.kind in ("static", "chain")]
    assert [shape.tokens_per_step for shape in profile.shapes if shape.kind == "none"] == [1.0]
    accepted = sum(round((shape.tokens_per_step - 1) * shape.num_samples) for shape in fixed)
    assert sum(at.accepted for at in profile.acceptance) == accepted
    firsts = [at for at in profile.acceptance if at.depth == 1]
    assert firsts[0].tried == sum(shape.num_samples for shape in fixed)
    assert [at.rank for at in firsts] == list(range(max(shape.top_k for shape in fixed)))
    assert all(at.accepted <= at.tried for at in profile.acceptance)


def test_what_cannot_be_measured_is_refused(plan: CalibrationPlan, models: Models) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"contexts": [6, 250]}, "the teacher has 256 positions"),
        ({"contexts": []}, "wanted ascending numbers"),
        ({"rows": [2, 1]}, "wanted ascending numbers"),
        ({"rows": [0, 1]}, "wanted ascending numbers"),
        ({"settings": replace(plan.settings, choice=replace(plan.settings.choice, mode="baseline"))}, "drafts nothing"),
    ]
    for changes, words in cases:
        with pytest.raises(UsageError, match=words):
            calibrate(replace(plan, **changes), models)


def test_a_profile_fits_the_run_that_it_was_measured_with_and_no_other(
    profile: Profile, plan: CalibrationPlan, models: Models
) -> None:
    choice, teacher, drafter = plan.settings.choice, models.teacher, models.drafter
    check_profile(profile, choice, teacher, drafter)
    of_teacher = profile.teacher.model_copy(update={"weights_digest": "0" * 32})
    of_drafter = profile.drafter.model_copy(update={"kind": "ngram"})
    elsewhere = profile.device.model_copy(update={"backend": "cuda"})
    threads = profile.device.model_copy(update={"num_threads": torch.get_num_threads() + 1})
    cases: list[tuple[dict[str, Any], str]] = [
        ({"teacher": of_teacher}, "a teacher of weights 0000"),
        ({"drafter": of_drafter}, "drafter ngram, this run has eagle3"),
        ({"device": elsewhere}, "device cuda, this run has cpu"),
        ({"device": threads}, f"threads {torch.get_num_threads() + 1}"),
        ({"dtype": "bfloat16"}, "dtype bfloat16, this run has float32"),
        ({"products": "others"}, "matrix products others, this run has p"),
    ]
    for changes, words in cases:
        with pytest.raises(UsageError, match=words):
            check_profile(profile.model_copy(update=changes), choice, teacher, drafter)
    drawn = replace(choice, rule=SamplingRule("sampling", temperature=0.8), policy=plan.settings.choice.policy)
    with pytest.raises(UsageError, match="acceptance rule greedy, this run has sampling"):
        check_profile(profile, drawn, teacher, drafter)


def test_from_calibration_to_run_and_whatif(choice: ModelChoice, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": p.id, "ids": p.ids}) + "\n" for p in PROMPTS))
    file, trace, plain = (str(tmp_path / name) for name in ("profile.json", "auto.jsonl", "plain.jsonl"))
    of_models = ("--teacher", choice.teacher, "--drafter", choice.drafter, "--device", "cpu", "--no-self-check")
    measured = ("bench", *of_models, "--prompts", str(prompts), "--rounds", "1", "--rows", "1,2", "--contexts", "8,40")
    done = invoked(*measured, "--calibrate", file)
    assert done.exit_code == 0, done.output
    assert "tokens per step" in done.stdout
    assert read_profile(Path(file)).profile.rounds == 1
    run = ("run", *of_models, "--prompts", str(prompts), "--batch-size", "2", "--max-new-tokens", "12")
    assert invoked(*run, "--tree", "auto", "--profile", file, "--trace", trace).exit_code == 0
    assert check_trace(Path(trace)).num_violations == 0
    with TraceReader(Path(trace)) as reader:
        chosen_from = reader.manifest.tree_policy.shapes
    assert chosen_from == read_profile(Path(file)).table()
    shown = invoked("show", trace, "--turn", "0", "--step", "0")
    assert "tokens per second promised, " in " ".join(shown.stdout.split())
    assert invoked(*run, "--trace", plain).exit_code == 0
    priced = invoked("whatif", plain, "--profile", file)
    assert priced.exit_code == 0
    assert "tokens per second" in priced.stdout
    for arguments, words in (
        ((*measured, "--calibrate", file), "exists"),
        ((*run, "--profile", file), "wanted --tree auto with it"),
        ((*run, "--tree", "auto"), "measure one with specscope bench --calibrate"),
        ((*run, "--tree", "auto", "--profile", file, "--dtype", "float64"), "dtype float32, this run has float64"),
        ((*measured, "--calibrate", "x.json", "--compare", "trees"), "calibrate by itself"),
        ((*measured[:-4], "--rows", "1,x", "--calibrate", "x.json"), "whole numbers"),
    ):
        refused = invoked(*arguments)
        assert isinstance(refused.exception, UsageError), refused.output
        assert words in str(refused.exception)
