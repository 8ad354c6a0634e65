"""``specscope bench``: every turn by every variant in turn, and what becomes of the measurements."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner
from support.drafting import PROMPTS, choice_of, teachers_own
from support.shape_tables import BUSH, CHAIN, falling

from specscope.engine.cli.bench import bench
from specscope.engine.lab.bench.clocks import clock_of
from specscope.engine.lab.bench.measure import Plan, load_variants, measure
from specscope.engine.lab.bench.summary import overheads
from specscope.engine.lab.bench.turns import TurnMeasure
from specscope.engine.lab.bench.variants import Variant, variants_of
from specscope.engine.loop.session import Session
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import Settings
from specscope.engine.tree.policy import auto_policy
from specscope.tracer.errors import UsageError

LEVELS = ("decisions", "scores", "tensors")


def run(variants: list[Variant], prompts: list[Prompt], rounds: int = 1, tokens: int = 6) -> list[TurnMeasure]:
    plan = Plan(variants, prompts, Settings(max_new_tokens=tokens), rounds)
    measures = list(measure(plan, load_variants(variants)))
    assert len(measures) == plan.num_measures
    return measures


def models(teacher_folder: Path, head_folder: Path) -> list[str]:
    return ["--teacher", str(teacher_folder), "--drafter", f"eagle3:{head_folder}", "--device", "cpu"]


def prompt_file(folder: Path, *entries: object) -> Path:
    path = folder / "p.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    return path


def test_every_level_is_measured_beside_the_untraced_run_of_its_mode(teacher_folder: Path, head_folder: Path) -> None:
    variants = variants_of("overhead", choice_of(teacher_folder, f"eagle3:{head_folder}"))
    names = [f"{mode}{suffix}" for mode in ("fused", "eager") for suffix in ("", *(f", {level}" for level in LEVELS))]
    assert [variant.name for variant in variants] == names
    measures = run(variants, PROMPTS[:2], rounds=2)
    order = [turn.variant for turn in measures]
    assert len(order) == 2 * 2 * 8
    assert order[:8] != order[8:16], "the order rotates"
    assert all(sorted(order[first : first + 8]) == sorted(names) for first in range(0, 32, 8)), "turn by turn"
    by_name = {name: sorted((t for t in measures if t.variant == name), key=lambda t: t.key) for name in names}
    costs = {cost.name: cost for cost in overheads(measures, names)}
    assert list(costs) == [name for name in names if "," in name]
    for mode in ("fused", "eager"):
        plain, *traced = (by_name[name] for name in names if name.startswith(mode))
        assert all(turn.trace_bytes == 0 for turn in plain)
        sizes = [sum(turn.trace_bytes for turn in turns) for turns in traced]
        assert 0 < sizes[0] < sizes[1] < sizes[2]
        for turns in traced:
            same = [(t.num_tokens, t.accepted_lengths, t.output_digest) for t in turns]
            assert same == [(t.num_tokens, t.accepted_lengths, t.output_digest) for t in plain]
            ratios = [a.duration_ns / b.duration_ns for a, b in zip(turns, plain, strict=True)]
            cost = costs[turns[0].variant].slowdown
            assert cost.num == 4
            assert cost.p50 == pytest.approx(median(ratios))


def test_a_turns_numbers_are_those_of_the_run(teacher_folder: Path, head_folder: Path) -> None:
    variants = variants_of("modes", choice_of(teacher_folder, f"eagle3:{head_folder}"))
    measures = run(variants, PROMPTS, tokens=16)
    own_text = teachers_own(teacher_folder)
    digests = {(turn.prompt_id, turn.output_digest) for turn in measures}
    assert len(digests) == len(PROMPTS), "every variant's tokens are the same"
    for turn in measures:
        assert turn.num_tokens == len(own_text[turn.prompt_id])
        assert turn.num_steps == len(turn.accepted_lengths)
        assert 0 < turn.prefill_ns < turn.duration_ns
        assert 0 < sum(turn.phase_ns.values()) < turn.duration_ns - turn.prefill_ns
        if turn.variant == "baseline":
            assert (turn.num_drafted, set(turn.accepted_lengths), turn.num_steps) == (0, {0}, 15)
        else:
            assert turn.num_drafted > 0
    assert {turn.variant for turn in measures if turn.trace_bytes} == {"fused, traced"}


def test_variants_that_differ_in_the_drafter_only_share_a_teacher_and_no_drafter(
    teacher_folder: Path, head_folder: Path
) -> None:
    variants = variants_of("cache-strategies", choice_of(teacher_folder, f"eagle3:{head_folder}"))
    loaded = list(load_variants(variants).values())
    assert len({id(models.teacher) for models in loaded}) == 1
    assert len({id(models.drafter) for models in loaded}) == len(variants) == 5
    assert [variant.cache for variant in variants] == [*["dense"] * 4, "paged"]
    digests = {(turn.prompt_id, turn.output_digest) for turn in run(variants, PROMPTS)}
    assert len(digests) == len(PROMPTS), "conversations beside each other do not touch each other"
    eager = variants_of("modes", choice_of(teacher_folder, f"eagle3:{head_folder}"))
    assert len({id(models.teacher) for models in load_variants(eager).values()}) == 2, "two kinds of attention"


def test_rows_side_by_side_are_measured_together(teacher_folder: Path, head_folder: Path) -> None:
    variants = variants_of("batch", choice_of(teacher_folder, f"eagle3:{head_folder}"))
    measures = run(variants, PROMPTS)
    assert [turn.variant for turn in measures] == [variant.name for variant in variants]
    assert {(turn.prompt_id, turn.num_turns, turn.num_tokens) for turn in measures} == {("short", 4, 24)}
    assert len({turn.output_digest for turn in measures}) == 1
    alone, together = (next(t for t in measures if t.variant == f"fused, {n} rows") for n in (1, 4))
    assert together.num_steps < alone.num_steps == len(together.accepted_lengths)


def test_where_each_step_has_a_shape_each_shape_is_also_measured_by_itself(
    teacher_folder: Path, head_folder: Path
) -> None:
    choice = replace(choice_of(teacher_folder, f"eagle3:{head_folder}"), policy=auto_policy(falling()))
    variants = variants_of("batch", choice)
    wanted = [f"{way}, {rows} rows" for way in ("baseline", CHAIN, BUSH, "auto") for rows in (1, 2, 3)]
    assert [variant.name for variant in variants] == wanted
    assert [variant.batch_size for variant in variants] == [1, 2, 3] * 4
    assert {v.choice.policy.name for v in variants if v.name.startswith(CHAIN)} == {CHAIN}


def test_a_sweep_has_a_variant_per_value_beside_the_baseline(teacher_folder: Path, head_folder: Path) -> None:
    choice = choice_of(teacher_folder, f"eagle3:{head_folder}")
    budgets = variants_of("budget", choice)
    assert [variant.name for variant in budgets] == ["baseline", "budget 4", "budget 8", "budget 16", "budget 32"]
    assert [variant.choice.policy.budget for variant in budgets[1:]] == [4, 8, 16, 32]
    windows = variants_of("drafter-window", choice, [3, None])
    assert [(v.name, v.choice.drafter_window) for v in windows[1:]] == [
        ("drafter-window 3", 3),
        ("drafter-window none", None),
    ]
    depths = variants_of("depth", choice, [1, 3])
    assert [(v.name, v.choice.policy.depth) for v in depths[1:]] == [("depth 1", 1), ("depth 3", 3)]
    longest = {
        v.name: max(n for t in run(depths, PROMPTS) if t.variant == v.name for n in t.accepted_lengths) for v in depths
    }
    assert longest["baseline"] == 0
    assert longest["depth 1"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "depth", "--values", "none"], "wanted a number"),
        (["--compare", "budget", "--values", "4,x"], "wanted whole numbers"),
        (["--compare", "budget", "--values", "4,4"], "got a value twice"),
        (["--compare", "trees", "--values", "4"], "which has none"),
        (["--compare", "guided"], "without a grammar"),
        (["--compare", "budget", "--tree", "static:pair-6"], "sweep it with --tree dynamic"),
        (["--suite", "demo240", "--prompts", "p.jsonl"], "pass only one of them"),
        (["--csv", "same", "--json", "same"], "give each its own"),
        (["--csv", "nowhere/x.csv"], "does not exist"),
        (["--limit", "0"], "0 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specscope.engine.lab.bench.measure.load_variants", None)  # a call would fail otherwise
    done = CliRunner().invoke(bench, arguments)
    assert done.exit_code != 0
    assert message in done.output or message in str(done.exception)
    assert isinstance(done.exception, UsageError | SystemExit)


def test_the_command_prints_a_ratio_and_bytes_for_each_level(
    tmp_path: Path, teacher_folder: Path, head_folder: Path
) -> None:
    prompts = prompt_file(tmp_path, {"ids": [5, 9, 2, 44]})
    options = ["--overhead", "--prompts", str(prompts), "--rounds", "2", "--max-new-tokens", "4"]
    done = CliRunner().invoke(bench, [*options, *models(teacher_folder, head_folder)], catch_exceptions=False)
    assert done.exit_code == 0
    for mode in ("fused", "eager"):
        for level in LEVELS:
            assert re.search(rf"^{mode}, {level} +[\d.]+x +[\d.]+ to [\d.]+ +\d+ *$", done.output, re.MULTILINE)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, teacher_folder: Path, head_folder: Path) -> Written:
    """One run with every kind of file."""
    folder = tmp_path_factory.mktemp("written")
    entries = [{"id": name, "ids": [5, 9, number + 3], "category": name[0]} for number, name in enumerate("abc")]
    prompts = prompt_file(folder, *entries, {"id": "a|2", "ids": [7], "category": "a"})
    options = ["--prompts", str(prompts), "--rounds", "2", "--max-new-tokens", "5"]
    options += models(teacher_folder, head_folder)
    for name, file in {"csv": "t.csv", "json": "t.json", "markdown": "t.md", "plots": "t.html"}.items():
        options += [f"--{name}", str(folder / file)]
    done = CliRunner().invoke(bench, options, catch_exceptions=False)
    assert done.exit_code == 0
    return Written(folder, options, done.output)


class Written(NamedTuple):
    folder: Path
    options: list[str]
    output: str

    @property
    def fused(self) -> Any:
        """The summary in the JSON file."""
        variants = json.loads((self.folder / "t.json").read_text())["variants"]
        return next(variant for variant in variants if variant["name"] == "fused")


def test_what_there_is_to_do_is_said_first(written: Written) -> None:
    assert written.output.splitlines()[0] == "4 turns x 4 variants x 2 rounds: at most 160 tokens"


def test_the_summaries_are_those_of_the_rows(written: Written) -> None:
    report = json.loads((written.folder / "t.json").read_text())
    assert (report["state"], report["missing"], len(report["turns"])) == ("complete", [], 32)
    with (written.folder / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    fused = [row for row in rows if row["variant"] == "fused"]
    ratios = [float(row["speed_up"]) for row in fused]
    assert mean(ratios) == pytest.approx(written.fused["speed_up"]["mean"], abs=1e-3)
    in_a = [float(row["speed_up"]) for row in fused if row["category"] == "a"]
    category = next(part for part in written.fused["categories"] if part["category"] == "a")
    assert len(in_a) == 4
    assert mean(in_a) == pytest.approx(category["speed_up"]["mean"], abs=1e-3)
    speeds = [int(row["num_tokens"]) / float(row["duration_s"]) for row in fused]
    assert median(speeds) == pytest.approx(written.fused["tokens_per_s"]["p50"], rel=1e-3)


def test_markdown_and_terminal_have_the_same_numbers_and_plots_fetch_nothing(written: Written) -> None:
    for text in ((written.folder / "t.md").read_text(), written.output):
        assert f"{written.fused['speed_up']['mean']:.2f}x" in text
        assert f"{written.fused['tokens_per_s']['p99']:.1f}" in text
    page = (written.folder / "t.html").read_text()
    assert "Speed over baseline, turn by turn" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)


def test_files_are_replaced_only_when_asked(written: Written) -> None:
    path = written.folder / "t.csv"
    before = path.read_bytes()
    again = CliRunner().invoke(bench, written.options)
    assert "exists already" in str(again.exception)
    assert path.read_bytes() == before
    assert CliRunner().invoke(bench, [*written.options, "--overwrite"], catch_exceptions=False).exit_code == 0
    assert path.read_bytes() != before


def test_plots_without_plotly_are_refused_with_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['plotly'] = None; from specscope.tracer.cli.main import main; main()"
    command = [sys.executable, "-c", code, "bench", "--plots", str(tmp_path / "x.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "this command needs plotly: install it with  pip install 'specscope[viewer]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_interrupted_it_keeps_what_was_measured(tmp_path: Path, teacher_folder: Path, head_folder: Path) -> None:
    prompts = prompt_file(tmp_path, *({"id": str(n), "ids": [5, 9, n + 3]} for n in range(40)))
    report = tmp_path / "r.json"
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "from specscope.engine.lab.bench import measure as module\n"
        "measure = module.measure\n"
        "def interrupted(*arguments):\n"
        "    for number, turn in enumerate(measure(*arguments)):\n"
        "        if number == 10:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        yield turn\n"
        "module.measure = interrupted\n"
        "from specscope.tracer.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "bench", "--prompts", str(prompts), "--json", str(report)]
    command += ["--max-new-tokens", "4", *models(teacher_folder, head_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "PARTIAL: 10 of 480 measurements" in done.stdout
    assert done.stderr.splitlines()[-1] == "interrupted; what was measured is kept, marked as partial"
    written = json.loads(report.read_text())
    assert (written["state"], len(written["turns"])) == ("partial", 10)


def test_it_fits_a_terminal_of_80_columns(tmp_path: Path, teacher_folder: Path, head_folder: Path) -> None:
    prompts = prompt_file(tmp_path, {"ids": [5, 9, 2], "category": "a"}, {"ids": [7], "category": "b"})
    command = [str(Path(sys.executable).with_name("specscope")), "bench", "--prompts", str(prompts), "--rounds", "1"]
    command += ["--compare", "trees", "--max-new-tokens", "4", *models(teacher_folder, head_folder)]
    printed = in_terminal(command, columns=80)
    assert "decoding" in printed, "a progress bar"
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("dynamic, budget 16") for line in lines), "names are whole"
    assert [line for line in lines if "…" in line and not line.startswith("decoding")] == [], "nothing is cut"


def in_terminal(command: list[str], columns: int) -> str:
    """What the command prints on a terminal."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # the terminal's end
        while part := os.read(ours, 65536):
            printed += part
    os.close(ours)
    assert process.wait() == 0, printed
    return printed.decode()


def test_by_the_processors_clock_waiting_does_not_count(
    tmp_path: Path, teacher_folder: Path, head_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is busy with something else is one that sleeps."""
    honest = Session.step

    def slept(self: Session, meanwhile: Any) -> Any:
        time.sleep(0.05)
        return honest(self, meanwhile)

    monkeypatch.setattr(Session, "step", slept)
    prompts = prompt_file(tmp_path, {"ids": [5, 9, 2, 44]})
    command = ["--prompts", str(prompts), "--rounds", "1", "--max-new-tokens", "6", "--compare", "analysis"]
    command += models(teacher_folder, head_folder)
    seconds = {}
    for clock in ("wall", "processor"):
        report = tmp_path / f"{clock}.json"
        done = CliRunner().invoke(bench, [*command, "--clock", clock, "--json", str(report)], catch_exceptions=False)
        assert done.exit_code == 0
        written = json.loads(report.read_text())
        turns = written["turns"]
        seconds[clock] = sum(turn["duration_ns"] - 50_000_000 * turn["num_steps"] for turn in turns) / 1e9
        assert bool(written["variants"][0]["stages"]) == (clock == "wall")
        assert ("processor time of this process" in done.output) == (clock == "processor")
    assert seconds["wall"] > 0 > seconds["processor"]


def test_the_processors_clock_is_refused_for_another_device() -> None:
    with pytest.raises(UsageError, match="got --clock processor on device cuda"):
        clock_of("processor", torch.device("cuda"))
