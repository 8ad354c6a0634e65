"""``specscope bench --suite batch``: every load in every way, continued where it was interrupted, and its report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from click.testing import CliRunner
from support.shape_tables import BUSH, CHAIN, NONE, falling
from support.tiny_models import tiny_models

from specscope.engine.cli.bench import bench
from specscope.engine.lab.bench.batch.measure import measure
from specscope.engine.lab.bench.batch.plan import DISPATCHED, OFF, SweepPlan
from specscope.engine.lab.bench.batch.record import BatchMeasure
from specscope.engine.lab.bench.batch.report import SweepFacts, SweepReport
from specscope.engine.load.models import Models
from specscope.engine.loop.session import Session
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import ModelChoice, Settings
from specscope.engine.tree.policy import auto_policy
from specscope.tracer.errors import UsageError
from specscope.tracer.shapes import Load

PROMPTS = [Prompt("a", ids=tuple(3 + n % 50 for n in range(90)))]


@pytest.fixture(scope="module")
def models(teacher_folder: Path, head_folder: Path) -> Models:
    return tiny_models(teacher_folder, head_folder)


@pytest.fixture
def plan(teacher_folder: Path, head_folder: Path) -> SweepPlan:
    drafter = f"eagle3:{head_folder}"
    choice = ModelChoice(teacher=str(teacher_folder), drafter=drafter, device="cpu", policy=auto_policy(falling()))
    settings = Settings(choice=choice)
    return SweepPlan(
        settings=settings, prompts=PROMPTS, texts="these", rows=[1, 3], contexts=[6, 40], tokens=8, rounds=2
    )


def test_every_load_is_decoded_in_every_way_and_the_order_rotates(plan: SweepPlan, models: Models) -> None:
    rounds = list(measure(plan, models))
    assert len(rounds) == 2 * 2 * 2
    assert sum(map(len, rounds)) == plan.num_measures
    assert [(ways[0].context, ways[0].rows, ways[0].round) for ways in rounds] == [
        (context, rows, number) for context in (6, 40) for rows in (1, 3) for number in (0, 1)
    ]
    first, second = ([m.way for m in ways] for ways in rounds[:2])
    assert sorted(first) == sorted(second) == sorted([OFF, CHAIN, BUSH, DISPATCHED])
    assert first != second
    for way in (measured for ways in rounds for measured in ways):
        assert way.num_tokens >= plan.tokens * way.rows
        assert way.goodput == pytest.approx(1e3 * way.rows / way.token_ms)
        if way.way == OFF:
            assert (way.tokens_per_step, way.shapes) == (1, {})
        else:
            wanted = way.way if way.way != DISPATCHED else {1: BUSH, 3: NONE}[way.rows]
            assert way.shapes == {wanted: way.num_steps}


def test_the_rows_of_a_load_begin_at_its_context_and_all_ways_of_a_round_decode_the_same(
    plan: SweepPlan, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[list[list[int]]] = []
    honest = Session.abandon

    def abandon(self: Session, reason: Any) -> None:
        decoded.append([row.turn.watch.output_ids for row in self.rows if row.turn is not None])
        honest(self, reason)

    monkeypatch.setattr(Session, "abandon", abandon)
    for _ in measure(replace(plan, rows=[3], contexts=[40]), models):
        pass
    assert len(decoded) == len(plan.ways) * plan.rounds
    count = len(plan.ways)
    rounds = [decoded[start : start + count] for start in range(0, len(decoded), count)]
    for first, *others in rounds:
        for way in others:
            for row, other in zip(first, way, strict=True):
                common = min(len(row), len(other))
                assert common > 1
                assert row[:common] == other[:common]
    assert rounds[0][0] != rounds[1][0], "a round has texts of its own"


def test_an_interrupted_sweep_goes_on_where_it_was(plan: SweepPlan, models: Models, tmp_path: Path) -> None:
    keeping = replace(plan, keep=tmp_path / "kept")
    sweep = measure(keeping, models)
    begun = [next(sweep) for _ in range(3)]
    sweep.close()
    done: list[str] = []
    whole = list(measure(keeping, models, done.append))
    assert whole[:3] == begun
    assert len(done) == plan.num_measures - 3 * len(plan.ways)
    assert list(measure(keeping, models, done.append)) == whole
    assert len(done) == plan.num_measures - 3 * len(plan.ways), "nothing was measured again"
    eager = replace(plan.settings, choice=replace(plan.settings.choice, mode="eager"))
    texts = [Prompt("b", ids=tuple(4 + n % 40 for n in range(90)))]
    for others in (
        {"tokens": 4},
        {"prompts": texts},
        {"settings": eager},
        {"settings": replace(plan.settings, seed=7)},
    ):
        again = len(done)
        next(measure(replace(keeping, **others), models, done.append))
        assert len(done) == again + len(plan.ways), "another measurement is not taken for this one"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows": [2, 1]}, "wanted ascending numbers"),
        ({"contexts": []}, "wanted ascending numbers"),
        ({"contexts": [240]}, "the teacher has 256 positions"),
        ({"settings": Settings()}, "without --tree auto"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    plan: SweepPlan, models: Models, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        next(measure(replace(plan, **changes), models))


FACTS = SweepFacts(
    texts="these",
    tokens=8,
    rounds=3,
    clock="wall",
    teacher="t",
    drafter="d",
    device="cpu",
    dtype="float32",
    num_threads=1,
    rule="greedy",
    profile="0" * 32,
    hysteresis=0.05,
    versions={},
)


def measured(rows: int, way: str, speeds: list[float]) -> list[BatchMeasure]:
    """One measurement a round, of so many tokens per second."""
    return [
        BatchMeasure(
            rows=rows,
            context=10,
            round=number,
            way=way,
            num_tokens=100 * rows,
            num_steps=50,
            duration_ns=round(100 * rows / speed * 1e9),
            shapes={} if way == OFF else {way if way != DISPATCHED else CHAIN: 50},
        )
        for number, speed in enumerate(speeds)
    ]


def sweep_report() -> SweepReport:
    """The machine halves its speed in the second round: no ratio sees that. With 8 rows no shape pays."""
    measures = [
        *measured(1, OFF, [100, 50, 100]),
        *measured(1, CHAIN, [150, 75, 160]),
        *measured(1, BUSH, [140, 60, 120]),
        *measured(1, DISPATCHED, [148, 74, 150]),
        *measured(8, OFF, [400, 200, 400]),
        *measured(8, CHAIN, [300, 150, 300]),
        *measured(8, BUSH, [200, 100, 200]),
        *measured(8, DISPATCHED, [384, 194, 380]),
    ]
    return SweepReport(facts=FACTS, ways=[OFF, CHAIN, BUSH, DISPATCHED], measures=measures, expected=len(measures))


def test_ratios_are_of_the_same_round() -> None:
    alone, crowded = sweep_report().loads
    assert (alone.load, crowded.load) == (Load(1, 10), Load(8, 10))
    assert alone.over_off[CHAIN] == pytest.approx(1.5)
    assert alone.best == CHAIN
    assert alone.over_best == pytest.approx(median([148 / 150, 74 / 75, 150 / 160]))
    assert not alone.speculation_loses
    assert crowded.best == OFF
    assert crowded.speculation_loses
    assert crowded.over_best == crowded.over_off[DISPATCHED] == pytest.approx(0.96)
    assert alone.tokens_per_step[CHAIN] == 2
    assert crowded.token_ms[OFF] == pytest.approx(1e3 * 8 / 400)


def test_what_is_reached_and_what_is_not_is_said() -> None:
    remarks = sweep_report().remarks
    assert (
        "dispatched: 0.960 of the best static way, 0.95 wanted, at its worst load (8 x 10); 0 of 2 loads below"
        in remarks
    )
    assert "dispatched: 0.960 of no speculation, 0.97 wanted, at its worst load (8 x 10); 1 of 2 loads below" in remarks
    assert "no shape pays at 8 x 10" in remarks
    partial = replace(sweep_report(), expected=40)
    assert partial.remarks[0].startswith("PARTIAL: 24 of 40 measurements")


def test_from_calibration_to_a_sweep(tmp_path: Path, teacher_folder: Path, head_folder: Path) -> None:
    """The commands as a user gives them, with every kind of file."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(json.dumps({"id": "a", "ids": PROMPTS[0].ids}))
    common = ["--teacher", str(teacher_folder), "--drafter", f"eagle3:{head_folder}", "--device", "cpu"]
    common += ["--prompts", str(prompts), "--rounds", "1", "--rows", "1,2", "--contexts", "8,40"]
    profile = str(tmp_path / "profile.json")
    assert CliRunner().invoke(bench, [*common, "--calibrate", profile]).exit_code == 0
    command = [*common, "--suite", "batch", "--tree", "auto", "--profile", profile, "--max-new-tokens", "4"]
    files = {"--json": "s.json", "--markdown": "s.md", "--plots": "s.html"}
    paths = [part for option, name in files.items() for part in (option, str(tmp_path / name))]
    done = CliRunner().invoke(bench, [*command, *paths, "--keep", str(tmp_path / "kept")], catch_exceptions=False)
    assert done.exit_code == 0
    report = json.loads((tmp_path / "s.json").read_text())
    assert [load["load"]["rows"] for load in report["loads"]] == [1, 2, 1, 2]
    for text in (done.output, (tmp_path / "s.md").read_text()):
        assert f"{report['loads'][0]['over_best']:.3f}" in text
    page = (tmp_path / "s.html").read_text()
    assert "Context 8: times as many tokens per second" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    for arguments, says in (
        ([*command, "--compare", "trees"], "got --compare with --suite batch"),
        ([*common, "--suite", "batch"], "without --tree auto"),
        ([*common, "--keep", str(tmp_path)], "which is of --suite batch and ppsd"),
    ):
        refused = CliRunner().invoke(bench, arguments)
        assert isinstance(refused.exception, UsageError), refused.output
        assert says in str(refused.exception)
