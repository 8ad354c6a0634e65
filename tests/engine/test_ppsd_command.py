"""``specscope run --engine ppsd`` as a user runs it: the teacher's own tokens, and no end without a word."""

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

from specscope.engine.settings import DEMO_MODELS
from specscope.tracer.oracle.check import check_trace

PROMPT = "import os\nimport sys\n\n\ndef main(argv):\n"
PIPELINED = ("--engine", "ppsd")
LONG = "def parse(line):\n    return line\n\n" * 110  # a prefill that takes a while


def outputs(*arguments: str | Path) -> list[dict[str, Any]]:
    done = specscope("run", *arguments, "--json")
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.mark.slow
def test_the_command_gives_the_teachers_own_tokens(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    entries = [{"id": "two", "turns": [PROMPT, "\n\ndef other():\n"]}, {"id": "ids", "ids": [5, 6, 7]}]
    prompts.write_text("\n".join(map(json.dumps, entries)))
    flags = ("--prompts", prompts, "--max-new-tokens", "24")
    alone = outputs(*flags, "--mode", "baseline")
    for engine in (
        ("--stages", "2"),
        ("--stages", "3", "--drafter", "early-exit:untrained", "--exit-layer", "5"),
        ("--stages", "2", "--mode", "baseline"),
    ):
        turns = outputs(*flags, "--engine", "ppsd", *engine)
        for turn, wanted in zip(turns, alone, strict=True):
            same = ("id", "turn", "prompt_turn", "output_ids", "text", "reason")
            assert {name: turn[name] for name in same} == {name: wanted[name] for name in same}
            metrics = turn["metrics"]
            assert metrics["num_tokens"] == len(turn["output_ids"])
            assert (metrics["num_drafted"] > 0) == ("baseline" not in engine)


@pytest.mark.slow
def test_what_is_drawn_is_what_one_process_draws() -> None:
    flags = ("--prompt", PROMPT, "--max-new-tokens", "24", "--temperature", "0.8", "--top-p", "0.9", "--seed", "3")
    (alone,) = outputs(*flags, "--mode", "baseline")
    (drawn,) = outputs(*flags, "--engine", "ppsd", "--stages", "2")
    assert drawn["output_ids"] == alone["output_ids"]


@pytest.mark.slow
def test_torchrun_starts_the_ranks_as_well() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "specscope", "run"]
    flags = ["--engine", "ppsd", "--stages", "2", "--prompt", PROMPT, "--max-new-tokens", "8", "--json"]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (alone,) = outputs("--prompt", PROMPT, "--max-new-tokens", "8", "--mode", "baseline")
    assert json.loads(done.stdout)["output_ids"] == alone["output_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("activity", "words"),
    [("starting", "while it started"), ("prefill", "in prefill"), ("decoding", "while it decoded")],
)
def test_a_killed_rank_ends_the_run_with_its_name(tmp_path: Path, rank: int, activity: str, words: str) -> None:
    trace = tmp_path / "run.jsonl"
    with running(
        tmp_path, *PIPELINED, "--stages", "2", "--prompt", LONG, "--max-new-tokens", "900", "--trace", str(trace)
    ) as run:
        run.await_activity(rank if activity == "starting" else 0, activity)
        life = run.life(rank)
        assert life is not None
        os.kill(life["pid"], signal.SIGKILL)
        code, errors, seconds = run.end()
    assert code == 2
    when = words if rank == 0 or activity == "starting" else "while it served"
    assert errors == f"error: stage {rank} (rank {rank} of 2) was killed by SIGKILL {when}\n"
    assert seconds < 10
    assert trace.exists() == (activity != "starting")
    if trace.exists():
        report = check_trace(trace)
        assert (report.end_reason, report.num_violations, len(report.failures)) == ("failed", 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_hung_rank_ends_the_run_with_its_name(tmp_path: Path, rank: int) -> None:
    with running(
        tmp_path, *PIPELINED, "--stages", "2", "--prompt", PROMPT, "--max-new-tokens", "1500", "--stage-timeout", "2"
    ) as run:
        run.await_activity(0, "decoding")
        life = run.life(rank)
        assert life is not None
        os.kill(life["pid"], signal.SIGSTOP)
        code, errors, seconds = run.end()
    assert code == 2
    assert errors.startswith(f"error: stage {rank} (rank {rank} of 2) gave no sign of life for 2 s and was ended")
    assert errors.count("\n") == 1
    assert seconds < 10


@pytest.mark.slow
@pytest.mark.parametrize("activity", ["starting", "decoding"])
def test_an_interrupt_ends_all_ranks(tmp_path: Path, activity: str) -> None:
    trace = tmp_path / "run.jsonl"
    flags = ("--stages", "2", "--prompt", PROMPT, "--max-new-tokens", "1500", "--trace", str(trace))
    with running(tmp_path, *PIPELINED, *flags) as run:
        run.await_activity(0, activity)
        run.process.send_signal(signal.SIGINT)
        code, errors, seconds = run.end()
    if activity == "decoding":
        report = check_trace(trace)
        assert (report.end_reason, report.num_violations, report.failures) == ("interrupted", 0, [])
    assert (code, errors) == (130, "\ninterrupted\n")
    assert seconds < 10


@pytest.mark.slow
def test_ranks_do_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    with running(tmp_path, *PIPELINED, "--stages", "2", "--prompt", PROMPT, "--max-new-tokens", "1500") as run:
        run.await_activity(0, "decoding")
        run.process.kill()
        run.end()


MISTAKES = {
    "no stages": ([], "got --engine ppsd without --stages"),
    "one stage": (["--stages", "1"], "got 1 stages, wanted at least 2"),
    "too many stages": (["--stages", "9"], "got 9 stages, wanted at most 7: 6 layers follow exit layer 4"),
    "no head there": (["--stages", "2", "--exit-layer", "3"], "no exit head trained after that layer, only after"),
    "another exit": (
        ["--stages", "2", "--exit-layer", "3", "--drafter", f"early-exit:{DEMO_MODELS / 'exit_head'}"],
        "was trained after layer 4",
    ),
    "no exit": (["--stages", "2", "--drafter", "early-exit:untrained"], "give --exit-layer E"),
    "another drafter": (["--stages", "2", "--drafter", "ngram"], "got drafter ngram with --engine ppsd"),
    "a batch": (["--stages", "2", "--batch-size", "2"], "got batch size 2 with --engine ppsd"),
    "processors": (["--stages", "2", "--no-repeat-ngram", "3"], "got logits processors with --engine ppsd"),
    "no device": (
        ["--stages", "2", "--device", "tpu"],
        "got device tpu, but this torch sees no tpu device; there is cpu",
    ),
    "a carrier": (
        ["--stages", "2", "--device", "cpu", "--carrier", "nccl"],
        "got --carrier nccl with stages on device",
    ),
    "typical": (["--stages", "2", "--temperature", "1", "--typical"], "got typical acceptance with --engine ppsd"),
    "no window": (["--stages", "2", "--window", "0"], "got a window of 0"),
    "no patience": (["--stages", "2", "--stage-timeout", "0"], "got a stage timeout of 0 s"),
    "no teacher": (["--stages", "2", "--teacher", "none/at/all"], "no teacher at 'none/at/all'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_clear_line_and_code_2(mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    done = specscope("run", "--engine", "ppsd", "--prompt", "a", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


def test_options_of_the_pipeline_need_it() -> None:
    done = specscope("run", "--prompt", "a", "--stages", "2")
    assert done.code == 2
    assert "got --stages without --engine ppsd" in done.err


@pytest.mark.slow
def test_a_stage_that_cannot_start_is_named(tmp_path: Path) -> None:
    head = tmp_path / "head"
    head.mkdir()
    shape = {"kind": "specscope-exit-head", "exit_layer": 4, "hidden_size": 8, "vocab_size": 8}
    (head / "config.json").write_text(json.dumps(shape | {"intermediate_size": 8, "rms_norm_eps": 1e-6}))
    done = specscope("run", "--engine", "ppsd", "--stages", "2", "--prompt", "a", "--drafter", f"early-exit:{head}")
    assert done.code == 2
    assert done.err == f"error: no exit head at {head}: model.safetensors is missing\n"
