"""``specscope run`` on the bundled models: output, traces, and one clear line for each mistake."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.called import specscope
from support.tiny_models import build_head, build_teacher

from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

PROMPT = "import os\nimport sys\n\n\ndef main(argv):\n"


def test_run_streams_text_then_a_summary(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    done = specscope("run", "--prompt", PROMPT, "--max-new-tokens", "24", "--trace", trace)
    assert (done.code, done.err) == (0, "")
    assert "24 tokens in" in done.out
    assert "tokens/s" in done.out
    assert "accepted length" in done.out
    assert "tokens per step" in done.out
    assert check_trace(trace).num_violations == 0


def test_json_is_one_object_a_turn(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    entries = [{"id": "two", "turns": [PROMPT, "\n\ndef other():\n"]}, {"id": "ids", "ids": [5, 6, 7]}]
    prompts.write_text("\n".join(map(json.dumps, entries)))
    done = specscope("run", "--prompts", prompts, "--max-new-tokens", "12", "--json")
    assert done.code == 0
    turns = [json.loads(line) for line in done.out.splitlines()]
    found = [(t["id"], t["turn"], t["prompt_turn"]) for t in turns]
    assert found == [("two", 0, 0), ("two", 1, 1), ("ids", 2, 0)], "turns are numbered in the run, from 0"
    for turn in turns:
        assert len(turn["output_ids"]) <= 12
        assert turn["metrics"]["num_tokens"] == len(turn["output_ids"])
        assert turn["metrics"]["tokens_per_step"] == pytest.approx(turn["metrics"]["accepted_length"] + 1, abs=1e-3)


def test_all_modes_give_the_same_tokens() -> None:
    outputs = []
    for flags in (["fused"], ["eager"], ["baseline"], ["eager", "--drafter", "none"]):
        done = specscope("run", "--prompt", PROMPT, "--mode", *flags, "--max-new-tokens", "20", "--json")
        outputs.append(json.loads(done.out)["output_ids"])
    assert all(output == outputs[0] for output in outputs)


def test_a_batch_prints_whole_turns_and_the_same_text(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    entries = [{"id": name, "prompt": PROMPT + name} for name in ("    pass", "    return 1", "    x = {}")]
    prompts.write_text("\n".join(map(json.dumps, entries)))
    flags = ("--prompts", prompts, "--max-new-tokens", "12")
    alone = [json.loads(line) for line in specscope("run", *flags, "--json").out.splitlines()]
    trace = tmp_path / "batch.jsonl"
    done = specscope("run", *flags, "--batch-size", "2", "--trace", trace)
    assert (done.code, done.err) == (0, "")
    assert [(turn["turn"], turn["prompt_turn"]) for turn in alone] == [(0, 0), (1, 0), (2, 0)]
    for turn in alone:
        assert f"[turn {turn['turn']} (prompt {turn['id']})]" in done.out
        assert turn["text"] in done.out
    assert check_trace(trace).num_violations == 0


def test_the_shards_of_a_run_are_merged_into_the_whole_run(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": text}) for text in ("def f(x):", "import os", "class A:")))
    flags = ("--prompts", prompts, "--max-new-tokens", "6", "--device", "cpu", "--trace")
    parts = [tmp_path / f"{number}.jsonl" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        assert specscope("run", *flags, part, "--shard", f"{number}/2").code == 0
    assert specscope("run", *flags, tmp_path / "single.jsonl").code == 0
    assert specscope("merge", *parts, "-o", tmp_path / "whole.jsonl").code == 0
    done = specscope("diff", tmp_path / "single.jsonl", tmp_path / "whole.jsonl")
    assert (done.code, "3 turns" in done.out, "EQUAL" in done.out) == (0, True, True)


def test_a_lossy_rule_says_so_and_a_lossless_one_does_not() -> None:
    flags = ("run", "--prompt", PROMPT, "--max-new-tokens", "8", "--temperature", "0.7", "--seed", "4")
    lossy, lossless = specscope(*flags, "--typical"), specscope(*flags)
    assert "typical acceptance is lossy" in lossy.out
    assert "lossy" not in lossless.out
    assert lossless.out.splitlines()[:-3] == specscope(*flags).out.splitlines()[:-3]  # the same seed, the same text


def test_a_stop_string_ends_the_turn() -> None:
    whole = json.loads(specscope("run", "--prompt", PROMPT, "--max-new-tokens", "40", "--json").out)
    stop = whole["text"][10:14]
    cut = json.loads(specscope("run", "--prompt", PROMPT, "--max-new-tokens", "40", "--stop", stop, "--json").out)
    assert cut["reason"] == "stop_string"
    assert stop in cut["text"]
    assert whole["output_ids"][: len(cut["output_ids"])] == cut["output_ids"]


def test_an_existing_trace_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    trace = tmp_path / "precious.jsonl"
    trace.write_text("precious")
    done = specscope("run", "--prompt", "x = 1", "--trace", trace)
    assert done.code == 2
    assert "exists already" in done.err
    assert trace.read_text() == "precious"
    failed = specscope("run", "--prompt", "x = 1", "--trace", trace, "--overwrite", "--teacher", str(tmp_path / "none"))
    assert failed.code == 2
    assert trace.read_text() == "precious", "a run that never began replaces nothing"
    for wrong in (("--max-new-tokens", "0"), ("--inject", "F99"), ("--stop", "")):
        assert specscope("run", "--prompt", "x = 1", "--trace", trace, "--overwrite", *wrong).code == 2
        assert trace.read_text() == "precious", wrong
    assert specscope("run", "--prompt", "x = 1", "--trace", trace, "--overwrite", "--max-new-tokens", "3").code == 0
    assert check_trace(trace).num_turns == 1


MISTAKES = {
    "no prompt": ([], "give either --prompt TEXT or --prompts FILE"),
    "two prompts": (["--prompt", "a", "--prompts", "b"], "give either"),
    "empty prompt": (["--prompt", ""], "is empty"),
    "shard": (["--prompt", "a", "--shard", "3/2"], "got --shard '3/2', wanted i/N with i of 1..N"),
    "empty shard": (["--prompt", "a", "--shard", "2/2"], "no prompt in this shard: 2/2 of a list of 1"),
    "missing prompt file": (["--prompts", "none.jsonl"], "no prompt file at none.jsonl"),
    "missing model": (["--prompt", "a", "--teacher", "none/at/all"], "no teacher at 'none/at/all'"),
    "missing head": (["--prompt", "a", "--drafter", "eagle3:none"], "no EAGLE-3 head at none"),
    "unknown drafter": (["--prompt", "a", "--drafter", "magic"], "wanted eagle3, "),
    "no head named": (["--prompt", "a", "--teacher", "TINY"], "give --drafter eagle3:PATH"),
    "wrong head": (["--prompt", "a", "--drafter", "eagle3:HEAD"], "fc.weight wants features of 3 x 32"),
    "long prompt": (["--prompt", "a b c " * 2000], "positions: shorten it"),
    "empty stop string": (["--prompt", "a", "--stop", ""], "got an empty stop string"),
    "bytes for text": (["--prompt", "a\udcff"], "is no text"),
    "no budget": (["--prompt", "a", "--budget", "0"], "got budget 0, wanted 1 to 4096"),
    "no tokens": (["--prompt", "a", "--max-new-tokens", "0"], "got 0 new tokens, wanted at least 1"),
    "trace nowhere": (["--prompt", "a", "--trace", "no/folder/t.jsonl"], "does not exist"),
    "trace is a folder": (["--prompt", "a", "--trace", ".", "--overwrite"], "it is a folder"),
    "no cuda": (["--prompt", "a", "--device", "cuda"], "sees no cuda device"),
    "no npu": (["--prompt", "a", "--device", "npu"], "needs torch_npu"),
    "unknown fault": (["--prompt", "a", "--inject", "F99"], "got fault 'F99', wanted one of"),
    "no rows": (["--prompt", "a", "--batch-size", "0"], "got batch size 0, wanted 1 to 1024"),
    "drawn dynamic tree": (["--prompt", "a", "--temperature", "1", "--draft-sampling"], "give --tree chain"),
    "no tokenizer": (["--prompt", "a", "--teacher", "TINY", "--drafter", "none"], "has no tokenizer: give prompts as"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_clear_line_and_code_2(tmp_path: Path, mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    if mistake == "no cuda" and __import__("torch").cuda.is_available():
        pytest.skip("this machine has CUDA")
    if any("TINY" in a for a in arguments):
        build_teacher(tmp_path / "TINY")
    if any("HEAD" in a for a in arguments):
        build_head(tmp_path / "HEAD")
    done = specscope("run", *arguments, cwd=tmp_path)
    assert done.code == 2, done
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert not list(tmp_path.glob("*.jsonl"))


HEAVY = ("torch", "transformers", "numpy")
#: Mistakes that only loaded models show.
SEEN_LATE = {"wrong head", "long prompt", "no cuda", "no npu", "unknown fault", "no tokenizer"}


@pytest.mark.parametrize("mistake", sorted(MISTAKES.keys() - SEEN_LATE))
def test_a_mistake_is_answered_before_torch_is_imported(tmp_path: Path, mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    if any("TINY" in a for a in arguments):
        build_teacher(tmp_path / "TINY")
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
        f"sys.argv = {['specscope', 'run', *arguments]!r}\n"
        "from specscope.tracer.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_terminal_is_told_what_takes_its_time_before_the_first_token() -> None:
    script = (
        "import io\nfrom rich.console import Console\nfrom specscope.tracer.cli import console as module\n"
        "page = io.StringIO()\n"
        "module.Console = lambda **_: Console(file=page, force_terminal=True, width=80)\n"
        "with module.working('loading the teacher'):\n    pass\n"
        "assert 'loading the teacher' in page.getvalue()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_interrupt_ends_the_trace_properly(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    command = [str(Path(sys.executable).with_name("specscope")), "run", "--prompt", PROMPT]
    child = subprocess.Popen(
        [*command, "--max-new-tokens", "1500", "--trace", str(trace)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with the signal ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and (not trace.exists() or trace.read_bytes().count(b"\n") < 8):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=240)
    assert child.returncode == 130
    assert err.strip() == f"interrupted; the trace {trace} is kept up to here"
    report = check_trace(trace)
    assert report.end_reason == "interrupted"
    assert report.num_violations == 0
    with TraceReader(trace) as reader:
        end = reader.turn_end(reader.turns[0])
        assert end is not None
        assert end.reason == "interrupted"


@pytest.mark.numbers
@pytest.mark.slow
def test_bfloat16_ties_are_told_from_a_fault(tmp_path: Path) -> None:
    prompts = Path(__file__).parents[2] / "sample_traces" / "prompts.jsonl"
    common = ("--prompts", prompts, "--max-new-tokens", "24", "--dtype", "bfloat16", "--device", "cpu")
    for name, flags in (("eager", ("eager",)), ("fused", ("fused",)), ("broken", ("fused", "--inject", "F16"))):
        assert specscope("run", *common, "--mode", *flags, "--trace", tmp_path / f"{name}.jsonl").code == 0
    honest = specscope("diff", tmp_path / "eager.jsonl", tmp_path / "fused.jsonl")
    assert honest.code == 0, honest.out
    broken = specscope("diff", tmp_path / "eager.jsonl", tmp_path / "broken.jsonl", "--format", "json")
    assert broken.code == 1
    assert json.loads(broken.out)["roots"][0]["difference"]["field"] == "positions"
