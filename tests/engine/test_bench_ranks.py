"""``specscope bench`` on several ranks, as processes of their own that meet in a folder: all of them, one killed, one
that never begins, and through torchrun."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from click.testing import CliRunner
from support.drafting import choice_of

from specscope.engine.cli.bench import bench
from specscope.engine.lab.bench.measure import Plan, load_variants, measure
from specscope.engine.lab.bench.ranks import RankFile, gather, merge
from specscope.engine.lab.bench.shards import Rank
from specscope.engine.lab.bench.suites import load_files, load_suite
from specscope.engine.lab.bench.variants import variants_of
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import Settings
from specscope.tracer.errors import UsageError

NUM_PROMPTS = 7
MAIN = "from specscope.tracer.cli.main import main; main()"
#: Ends the process as the kernel would, after the second turn, where its rank is the one named.
KILLED = """
import os, signal
from specscope.engine.lab.bench import measure as module
measure = module.measure
def killed(*arguments):
    for number, turn in enumerate(measure(*arguments)):
        yield turn
        if number == 1 and os.environ["RANK"] == "{rank}":
            os.kill(os.getpid(), signal.SIGKILL)
module.measure = killed
"""
#: Rank 1 begins when rank 0 is where it should be interrupted.
WAITING = """
import time
from pathlib import Path
ready = Path(__file__).with_name("ready")
def wait_for_rank_0():
    while os.environ["RANK"] == "1" and not ready.exists():
        time.sleep(0.05)
"""
#: A second per turn of rank 0.
SLOW_TURNS = (
    WAITING
    + """
fast = module.measure
def slow(*given):
    wait_for_rank_0()
    for turn in fast(*given):
        yield turn
        if os.environ["RANK"] == "0":
            ready.touch()
            time.sleep(1)
module.measure = slow
"""
)
#: Rank 0 loads nothing before it is asked to end.
SLOW_START = (
    WAITING
    + """
from specscope.engine.cli import bench
end, asked, prompts_of = bench._Termination._end, [], bench._prompts
bench._Termination._end = lambda *given: asked.append(True) or end(*given)
def slow(options):
    wait_for_rank_0()
    ready.touch()
    while os.environ["RANK"] == "0" and not asked:
        time.sleep(0.05)
    return prompts_of(options)
bench._prompts = slow
"""
)


@pytest.fixture
def options(tmp_path: Path, teacher_folder: Path, head_folder: Path) -> list[str]:
    """Two variants of one round, with four tokens per turn."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("\n".join(json.dumps({"id": f"p{n}", "ids": [5, 9, n + 3]}) for n in range(NUM_PROMPTS)))
    models = ["--teacher", str(teacher_folder), "--drafter", f"eagle3:{head_folder}", "--device", "cpu"]
    command = ["bench", "--compare", "analysis", "--rounds", "1", "--max-new-tokens", "4", "--prompts", str(prompts)]
    return [*command, *models, "--ranks", str(tmp_path / "ranks"), "--json", str(tmp_path / "r.json")]


class Outcome:
    """How a rank ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.out, self.err = process.communicate(timeout=300)
        self.code = process.returncode


def start(options: list[str], number: int, size: int, code: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "RANK": str(number), "WORLD_SIZE": str(size)}
    command = [sys.executable, "-c", code + MAIN, *options]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run_ranks(options: list[str], size: int, code: str = "") -> list[Outcome]:
    return [Outcome(process) for process in [start(options, number, size, code) for number in range(size)]]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def turns(path: Path) -> list[tuple[str, str]]:
    """What a file has measured, in its order."""
    return [(line["prompt_id"], line["variant"]) for line in lines(path) if line["kind"] == "turn"]


def test_prompts_are_shared_out_by_id_whatever_their_order() -> None:
    prompts = load_suite("demo240")
    parts = [Rank(number, 3).part_of(prompts) for number in range(3)]
    assert sorted(len(part) for part in parts) == [53, 53, 54]
    assert sorted(p.id for part in parts for p in part) == sorted(p.id for p in prompts)
    for part, number in zip(parts, range(3), strict=True):
        assert {p.id for p in Rank(number, 3).part_of(prompts[::-1])} == {p.id for p in part}


@pytest.mark.parametrize("variables", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x"}, {"WORLD_SIZE": "0"}])
def test_a_rank_that_cannot_be_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="wanted a number below the world size"):
        Rank.of(variables)
    assert Rank.of({}) == Rank(0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_together_measure_what_one_process_would(tmp_path: Path, options: list[str], size: int) -> None:
    ended = run_ranks(options, size)
    assert [rank.code for rank in ended] == [0] * size, ended[0].err
    assert all(rank.out == "" for rank in ended[1:]), "rank 0 reports for all"
    assert f"{size} ranks measured at the same time" in ended[0].out
    names = ["baseline, eager", "eager"]
    everything = [(f"p{n}", name) for n in range(NUM_PROMPTS) for name in names]
    folder = tmp_path / "ranks"
    assert turns(folder / "merged.jsonl") == everything, "sorted"
    parts = [set(turns(folder / f"rank-{number}-of-{size}.jsonl")) for number in range(size)]
    assert sum(map(len, parts)) == len(everything)
    assert set().union(*parts) == set(everything)
    assert all(len(part) >= 4 for part in parts)

    prompts = load_files([tmp_path / "p.jsonl"])
    value = {name: options[options.index(f"--{name}") + 1] for name in ("teacher", "drafter")}
    plan = Plan(
        variants_of("analysis", choice_of(value["teacher"], value["drafter"])), prompts, Settings(max_new_tokens=4), 1
    )
    alone = {turn.variant_turn: turn.output_digest for turn in measure(plan, load_variants(plan.variants))}
    report = json.loads((tmp_path / "r.json").read_text())
    assert {
        (t["variant"], t["round"], t["prompt_id"], t["prompt_turn"]): t["output_digest"] for t in report["turns"]
    } == alone
    assert (report["state"], report["missing"], report["run"]["num_ranks"]) == ("complete", [], size)


@pytest.mark.slow
def test_a_killed_rank_is_reported_and_its_turns_are_listed(tmp_path: Path, options: list[str]) -> None:
    ended = run_ranks(options, 2, KILLED.format(rank=1))
    assert [rank.code for rank in ended] == [4, -9]
    (line,) = [line for line in ended[0].out.splitlines() if line.startswith("rank 1")]
    assert line == "rank 1: it ended early, 4 of 6 measurements are missing: p3/0, p5/0"
    assert "PARTIAL: 10 of 14 measurements" in ended[0].out
    assert "1 of 2 ranks did not end" in ended[0].err
    missing = [
        (turn["prompt_id"], turn["variant"]) for turn in json.loads((tmp_path / "r.json").read_text())["missing"]
    ]
    assert missing == [(name, variant) for name in ("p3", "p5") for variant in ("baseline, eager", "eager")]
    merged = tmp_path / "ranks" / "merged.jsonl"
    assert set(turns(merged)) | set(missing) == {
        (f"p{n}", v) for n in range(NUM_PROMPTS) for v in ("baseline, eager", "eager")
    }
    assert sum(line["kind"] == "missing" for line in lines(merged)) == 4

    for number in ("0", "1"):
        command = options[1 : options.index("--json")]
        again = CliRunner(env={"RANK": number, "WORLD_SIZE": "2"}).invoke(bench, command)
        assert "exists already: name an empty folder" in str(again.exception), "nothing is measured over"


@pytest.mark.slow
def test_a_rank_that_never_begins_is_waited_for_and_then_reported(options: list[str]) -> None:
    code = "from specscope.engine.cli import bench; bench.WAIT_S = 1\n"
    ended = Outcome(start(options, 0, 2, code))
    assert ended.code == 4
    assert "rank 1: it never began, 6 of 6 measurements are missing: p1/0, p3/0, p5/0" in ended.out


def test_what_a_rank_failed_of_is_in_the_report_and_other_settings_are_refused(
    tmp_path: Path, teacher_folder: Path
) -> None:
    prompts = [Prompt(f"p{n}", ids=(5, n)) for n in range(4)]
    plan = Plan(variants_of("analysis", choice_of(teacher_folder, "ngram")), prompts, Settings(), 1)
    RankFile(Rank(0, 3), tmp_path, {"rounds": 1}).close(None)
    RankFile(Rank(1, 3), tmp_path, {"rounds": 1}).close(UsageError("no such teacher"))
    RankFile(Rank(2, 3), tmp_path, {"rounds": 1}).close(KeyboardInterrupt())
    merged = merge(gather(3, tmp_path, {"rounds": 1}, wait_s=0), plan)
    assert merged.problems == [
        "rank 1: it failed (no such teacher), 2 of 2 measurements are missing: p1/0",
        "rank 2: it ended early, 2 of 2 measurements are missing: p2/0",
    ]
    with pytest.raises(UsageError, match="was measured with other settings"):
        gather(3, tmp_path, {"rounds": 2}, wait_s=0)


def test_a_rank_that_lives_is_waited_for(tmp_path: Path) -> None:
    living = RankFile(Rank(0, 1), tmp_path, {})
    ending = Timer(0.5, lambda: living.close(None))
    ending.start()
    (result,) = gather(1, tmp_path, {}, wait_s=0)
    assert result.problem is None
    ending.join()


def test_ranks_without_a_folder_are_refused(options: list[str]) -> None:
    first = options.index("--ranks")
    ended = Outcome(start(options[:first], 1, 2))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: got 2 ranks, wanted a folder that all of them see: pass --ranks FOLDER\n"


def torchrun(program: list[str], options: list[str]) -> Outcome:
    """Two ranks of the program, on this machine only."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command = [sys.executable, *launcher, "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1", *program]
    return Outcome(subprocess.Popen([*command, *options], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE))


@pytest.mark.slow
def test_through_torchrun(tmp_path: Path, options: list[str]) -> None:
    ended = torchrun(["-m", "specscope"], options)
    assert ended.code == 0, ended.err
    assert "2 ranks measured at the same time" in ended.out
    assert len(turns(tmp_path / "ranks" / "merged.jsonl")) == 2 * NUM_PROMPTS


@pytest.mark.slow
@pytest.mark.parametrize("slow", [SLOW_TURNS, SLOW_START], ids=["while it measures", "before it begins"])
def test_torchrun_ends_the_other_ranks_and_rank_0_still_reports(tmp_path: Path, options: list[str], slow: str) -> None:
    script = tmp_path / "main.py"
    script.write_text(KILLED.format(rank=1) + slow + MAIN)
    ended = torchrun([str(script)], options)
    assert ended.code != 0
    assert re.search(r"^rank 1: it ended early, 4 of 6 measurements are missing: p3/0, p5/0$", ended.out, re.MULTILINE)
    assert (tmp_path / "ranks" / "merged.jsonl").exists()
    assert json.loads((tmp_path / "r.json").read_text())["state"] == "partial"
