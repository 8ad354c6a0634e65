"""``specscope run --tensor-parallel`` as a user runs it: the teacher's own tokens, and no end without a word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import specscope
from support.running_ranks import running
from support.traces import ROOT

from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.oracle.check import check_trace

PROMPT = "import os\nimport sys\n\n\ndef main(argv):\n"
DIVIDED = ("--tensor-parallel", "2")
FLAGS = ("--prompt", PROMPT, "--max-new-tokens", "24")
ENDLESS = ("--prompt", PROMPT, "--max-new-tokens", "1500")


def output_of(*arguments: str | Path) -> dict[str, Any]:
    done = specscope("run", *arguments, "--json")
    assert (done.code, done.err) == (0, "")
    turn: dict[str, Any] = json.loads(done.out)
    return turn


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trace of one process."""
    path = tmp_path_factory.mktemp("alone") / "alone.jsonl"
    output_of(*FLAGS, "--trace", path)
    return path


@pytest.mark.slow
def test_the_command_gives_the_teachers_own_tokens_and_one_trace(alone: Path, tmp_path: Path) -> None:
    output_of(*FLAGS, *DIVIDED, "--trace", tmp_path / "ranks.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["ranks.jsonl"]
    assert check_trace(tmp_path / "ranks.jsonl").num_violations == 0
    verdict = diff_traces(alone, tmp_path / "ranks.jsonl")
    assert verdict.exit_code == 0, "partial sums add up in another order, which is noise"


EARLY_EXIT = (*FLAGS, "--drafter", "early-exit")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("--tree", "chain", "--temperature", "0.8", "--draft-sampling", "--seed", "3", "--mode", "eager")]
)
def test_the_teachers_first_layers_draft_on_divided_weights_too(tmp_path: Path, more: tuple[str, ...]) -> None:
    tokens = [
        output_of(*EARLY_EXIT, *more, *ranks, "--trace", tmp_path / f"{len(ranks)}.jsonl")["output_ids"]
        for ranks in ((), DIVIDED)
    ]
    assert tokens[0] == tokens[1]
    assert check_trace(tmp_path / "2.jsonl").num_violations == 0
    assert diff_traces(tmp_path / "0.jsonl", tmp_path / "2.jsonl").exit_code == 0


@pytest.mark.slow
def test_they_draft_for_two_rows_side_by_side(tmp_path: Path) -> None:
    """Of other lengths, so that one is padded."""
    prompts, trace = tmp_path / "prompts.jsonl", tmp_path / "rows.jsonl"
    prompts.write_text("".join(json.dumps({"id": text, "prompt": text}) + "\n" for text in (PROMPT, "class A:\n")))
    tokens = []
    for more in (
        ("--drafter", "early-exit", *DIVIDED, "--batch-size", "2", "--trace", trace),
        ("--drafter", "none"),  # the teacher's own, in one process and one row after another
    ):
        done = specscope("run", "--prompts", prompts, "--max-new-tokens", "16", *more, "--json")
        assert (done.code, done.err) == (0, "")
        tokens.append({turn["id"]: turn["output_ids"] for turn in map(json.loads, done.out.splitlines())})
    assert len(tokens[0]) == 2
    assert tokens[0] == tokens[1]
    records = map(json.loads, trace.read_text(encoding="utf-8").splitlines())
    assert [record["turn"] for record in records if record["kind"] == "step"][:4] == [0, 1, 0, 1]
    assert check_trace(trace).num_violations == 0


@pytest.mark.slow
def test_ranks_whose_first_layers_drafted_other_trees_are_named(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    done = specscope("run", *EARLY_EXIT, *DIVIDED, "--inject", "F40.draft", "--trace", trace)
    assert (done.code, done.err) == (1, "error: rank 1 of 2 drafted another tree than rank 0 in step 0 of row 0\n")
    assert check_trace(trace).invariants["ranks.agree"].failed == 1


@pytest.mark.slow
def test_torchrun_starts_the_ranks_as_well(alone: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "specscope", "run"]
    done = subprocess.run(
        [*command, *FLAGS, *DIVIDED, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    (end,) = (json.loads(line) for line in alone.read_text().splitlines() if '"kind":"turn_end"' in line)
    assert json.loads(done.stdout)["output_ids"] == end["output_ids"]


@pytest.mark.slow
def test_torchrun_with_another_number_of_ranks_is_refused() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "specscope", "run"]
    done = subprocess.run(
        [*command, *FLAGS, *DIVIDED], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert "error: got --tensor-parallel 2 and 1 ranks" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_with_its_name(tmp_path: Path, rank: int) -> None:
    trace = tmp_path / "run.jsonl"
    with running(tmp_path, *DIVIDED, *ENDLESS, "--trace", str(trace)) as run:
        run.await_activity(0, "decoding")
        os.kill(run.await_activity(rank, "decoding"), signal.SIGKILL)
        code, errors, _ = run.end()
    assert (code, errors) == (2, f"error: rank {rank} of 2 was killed by SIGKILL while it decoded\n")
    report = check_trace(trace)
    assert (report.end_reason, report.num_violations) == ("failed", 0)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_hung_rank_ends_the_run_with_its_name(tmp_path: Path, rank: int) -> None:
    with running(tmp_path, *DIVIDED, *ENDLESS) as run:
        run.await_activity(0, "decoding")
        os.kill(run.await_activity(rank, "decoding"), signal.SIGSTOP)
        code, errors, _ = run.end()
    assert (code, errors) == (
        2,
        f"error: rank {rank} of 2 gave no sign of life for 7 s and was ended while it decoded\n",
    )


@pytest.mark.slow
def test_an_interrupt_ends_all_ranks(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    with running(tmp_path, *DIVIDED, *ENDLESS, "--trace", str(trace)) as run:
        run.await_activity(0, "decoding")
        run.process.send_signal(signal.SIGINT)
        code, errors, _ = run.end()
    assert (code, errors) == (130, "\ninterrupted\n")
    assert check_trace(trace).end_reason == "interrupted"


@pytest.mark.slow
def test_what_no_rank_can_load_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    done = specscope("run", *FLAGS, *DIVIDED, "--teacher", tmp_path, "--drafter", "none")
    assert done.code == 2
    assert done.err.startswith("error: cannot load a teacher from")
    assert done.err.count("\n") == 1


@pytest.mark.slow
def test_ranks_that_part_end_the_run_with_exit_code_1(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    done = specscope("run", *FLAGS, *DIVIDED, "--inject", "F40.tie", "--trace", trace)
    assert (done.code, done.err) == (1, "error: rank 1 of 2 emitted other tokens than rank 0 in step 0 of row 0\n")
    assert check_trace(trace).invariants["ranks.agree"].failed == 1
