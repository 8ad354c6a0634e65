"""vLLM, recorded by the adapter: sound by itself, and the same decisions as ours.

The recordings were made by ``python -m benchmarks.conformance_vllm`` with vLLM's CPU build. vLLM is not here, so what
is touched of it is played by a stand-in as well.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.eagle_stand_in import following
from support.traces import EAGER, Lines, store
from support.vllm_stand_in import LLM, Detokenizer, Runner, params

from specscope.adapters import record_vllm, recorded_drafts
from specscope.adapters.vllm_plugin import VARIABLE, record_where_asked
from specscope.adapters.vllm_replay import RecordedDrafts
from specscope.engine import decode
from specscope.engine.run.prompts import Prompt
from specscope.engine.tree.policy import chain_policy
from specscope.schemas import TurnEnd
from specscope.tracer.compare import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.recorder import Recorder
from specscope.tracer.oracle.check import check_trace

PROMPTS = [[4, 7, 1], [9, 9, 2, 5, 11, 3, 8], [3]]


def text_of(start: int, length: int) -> list[int]:
    """What the toy teacher says after ``start``."""
    tokens = [following(start)]
    while len(tokens) < length:
        tokens.append(following(tokens[-1]))
    return tokens


def ends_of(trace: Path) -> list[TurnEnd]:
    """What the turns came to, in the order of their names."""
    with TraceReader(trace) as reader:
        named = sorted(reader.turns, key=lambda entry: entry.prompt_id)
        return [end for entry in named if (end := reader.turn_end(entry)) is not None]


def put_in_place(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Vllm's modules, of which the packages are there as well."""
    for module in modules:
        parts = module.__name__.split(".")
        for num in range(1, len(parts)):
            package = ".".join(parts[:num])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, ModuleType(package))
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def with_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's modules of texts."""
    tokenizers, detokenizer = ModuleType("vllm.tokenizers"), ModuleType("vllm.v1.engine.detokenizer")
    tokenizers.cached_tokenizer_from_config = lambda _model: None  # type: ignore[attr-defined]
    detokenizer.IncrementalDetokenizer = Detokenizer  # type: ignore[attr-defined]
    put_in_place(monkeypatch, tokenizers, detokenizer)


def sound(trace: Path) -> None:
    report = check_trace(trace)
    assert (report.num_violations, report.failures, report.end_reason) == (0, [], "complete"), report


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_every_request_becomes_a_turn_and_the_engine_is_as_it_was(tmp_path: Path, rows: int) -> None:
    llm, trace = LLM(rows), tmp_path / "run.jsonl"
    plain, before = llm.generate(PROMPTS, params()), dict(vars(llm.runner))
    with record_vllm(llm, trace, prompt_ids=["mine"]):
        assert llm.generate(PROMPTS, params()) == plain
    assert vars(llm.runner).keys() == before.keys(), "nothing is left behind"
    sound(trace)
    ends = ends_of(trace)
    assert [(end.output_ids, end.reason) for end in ends] == [(output, "length") for output in plain]
    assert [end.output_ids for end in ends] == [text_of(prompt[-1], 8) for prompt in PROMPTS]
    assert 0 < sum(end.num_accepted for end in ends) < sum(end.num_drafted for end in ends)
    with TraceReader(trace) as reader:
        assert {entry.prompt_id for entry in reader.turns} == {"mine", "prompt-1", "prompt-2"}
        assert (reader.manifest.batch_size, reader.manifest.attention) == (rows, "TOY")


def test_what_is_judged_of_such_a_trace(tmp_path: Path) -> None:
    llm, trace = LLM(), tmp_path / "run.jsonl"
    with record_vllm(llm, trace):
        llm.generate(PROMPTS, params())
    judged = {name for name, tally in check_trace(trace).invariants.items() if tally.passed}
    assert set(MUTANTS) <= judged


@pytest.mark.parametrize(
    ("setting", "length", "reason"),
    [
        ({"max_tokens": 1}, 1, "length"),
        ({"max_tokens": 2}, 2, "length"),
        ({"eos_token_id": text_of(1, 3)[-1]}, 3, "eos"),
        ({"stop_token_ids": [text_of(1, 5)[-1]]}, 5, "eos"),
        ({"max_tokens": None, "eos_token_id": text_of(1, 4)[-1]}, 4, "eos"),
    ],
)
def test_turns_end_where_the_requests_do(tmp_path: Path, setting: dict[str, Any], length: int, reason: str) -> None:
    llm, trace = LLM(), tmp_path / "run.jsonl"
    with record_vllm(llm, trace):
        llm.generate(PROMPTS[:1], params(**setting))
    sound(trace)
    assert [(end.output_ids, end.reason) for end in ends_of(trace)] == [(text_of(1, length), reason)]


@pytest.mark.usefixtures("with_text")
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8])
def test_a_turn_ends_with_the_token_that_completes_its_stop_string(tmp_path: Path, length: int) -> None:
    llm, trace = LLM(1), tmp_path / "run.jsonl"
    with record_vllm(llm, trace):
        outputs = llm.generate(PROMPTS[:1], params(stop=[f"<{text_of(1, length)[-1]}>"]))
    sound(trace)
    assert [(end.output_ids, end.reason) for end in ends_of(trace)] == [(text_of(1, length), "stop_string")]
    assert outputs == [text_of(1, length)]


@pytest.mark.usefixtures("with_text")
def test_a_stop_token_is_no_part_of_the_text(tmp_path: Path) -> None:
    llm, trace = LLM(1), tmp_path / "run.jsonl"
    last = text_of(1, 4)[-1]
    with record_vllm(llm, trace):
        llm.generate(PROMPTS[:1], params(stop=[f"<{last}>"], eos_token_id=last))
    assert [(end.output_ids, end.reason) for end in ends_of(trace)] == [(text_of(1, 4), "eos")]


@pytest.mark.usefixtures("with_text")
@pytest.mark.parametrize("stop", [[], ["what it never says"]])
def test_a_request_that_is_withdrawn_was_cancelled_and_the_run_went_on(tmp_path: Path, stop: list[str]) -> None:
    whole, trace = tmp_path / "whole.jsonl", tmp_path / "run.jsonl"
    for path, withdrawn_at in ((whole, None), (trace, 4)):
        with record_vllm(llm := LLM(), path):
            outputs = llm.generate(PROMPTS, params(stop=stop, withdrawn_at=withdrawn_at), *[params(stop=stop)] * 2)
        sound(path)
    ends = ends_of(trace)
    assert [end.reason for end in ends] == ["cancelled", "length", "length"]
    assert [end.output_ids for end in ends] == outputs
    assert diff_traces(whole, trace).verdict == "equal"


def test_a_stop_string_in_a_text_that_is_not_known_is_not_claimed(tmp_path: Path) -> None:
    llm, trace = LLM(1), tmp_path / "run.jsonl"
    with record_vllm(llm, trace):
        llm.generate(PROMPTS[:1], params(stop=[f"<{text_of(1, 3)[-1]}>"]))
    assert [end.reason for end in ends_of(trace)] == ["cancelled"]


def test_what_is_still_running_at_the_end_was_interrupted(tmp_path: Path) -> None:
    llm, trace = LLM(), tmp_path / "run.jsonl"
    with record_vllm(llm, trace):
        llm.generate(PROMPTS[:2], params(stop=["no"]), most_forwards=4)
    sound(trace)
    assert [end.reason for end in ends_of(trace)] == ["interrupted", "interrupted"]


def test_what_was_in_the_cache_already_is_reused(tmp_path: Path) -> None:
    llm, trace = LLM(reuse=2), tmp_path / "run.jsonl"
    with record_vllm(llm, trace):
        llm.generate(PROMPTS[:2], params())
    sound(trace)
    with TraceReader(trace) as reader:
        assert [reader.turn_start(entry).reused_length for entry in reader.turns] == [2, 2]


def test_a_request_that_is_scheduled_after_its_end_has_no_further_step(tmp_path: Path) -> None:
    llm, trace = LLM(late=True), tmp_path / "run.jsonl"
    with record_vllm(llm, trace):
        outputs = llm.generate(PROMPTS, params())
    sound(trace)
    assert [end.output_ids for end in ends_of(trace)] == outputs


def test_drawn_tokens_are_recorded_with_their_path_alone(tmp_path: Path) -> None:
    llm, trace = LLM(), tmp_path / "run.jsonl"
    with record_vllm(llm, trace):
        llm.generate(PROMPTS, params(temperature=0.7, top_k=5))
    sound(trace)
    with TraceReader(trace) as reader:
        sampling = reader.manifest.sampling
        assert (sampling.rule, sampling.temperature, sampling.top_k) == ("sampling", 0.7, 5)
        assert "accept" not in reader.manifest.capabilities


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (params(temperature=0.5), "sampling is .*, and was .* before: a trace is of one setting"),
        (params(max_tokens=9), "stop_rules is"),
        (params(max_tokens=None, eos_token_id=text_of(9, 3)[-1]), "stop_rules is not set, and was {'max_new"),
        (params(min_p=0.1), "min_p changes"),
        (params(repetition_detection=object()), "repetition_detection may end it"),
        (params(repetition_penalty=1.2), "repetition_penalty changes the logits that decide"),
        (params(logit_bias={3: 1.0}), "logit_bias changes"),
    ],
)
def test_a_request_that_cannot_be_recorded_is_named_and_the_others_are_there(
    tmp_path: Path, other: Any, words: str
) -> None:
    llm, trace = LLM(), tmp_path / "run.jsonl"
    with pytest.raises(UsageError, match=f"left out: request 1: {words}"), record_vllm(llm, trace):
        outputs = llm.generate(PROMPTS, params(), other, params())
    sound(trace)
    assert [end.output_ids for end in ends_of(trace)] == [outputs[0], outputs[2]]


def test_a_request_with_a_length_after_one_without_is_left_out(tmp_path: Path) -> None:
    llm, trace = LLM(), tmp_path / "run.jsonl"
    unlimited = params(max_tokens=None, eos_token_id=text_of(1, 4)[-1])
    with (
        pytest.raises(UsageError, match=r"left out: request 1: stop_rules is {'max_new.*, and was not set before"),
        record_vllm(llm, trace),
    ):
        outputs = llm.generate(PROMPTS[:2], unlimited, params())
    sound(trace)
    assert [end.output_ids for end in ends_of(trace)] == outputs[:1]


def test_of_many_that_are_left_out_the_first_are_named(tmp_path: Path) -> None:
    llm, trace = LLM(), tmp_path / "run.jsonl"
    wanted = r"request 1: bad_words [^;]*; request 2: [^;]*; request 3: [^;]*; 4 more\. The others"
    with pytest.raises(UsageError, match=wanted), record_vllm(llm, trace):
        llm.generate([[4]] * 8, params(), *[params(bad_words=["no"])] * 7)
    sound(trace)


@pytest.mark.parametrize(("world_size", "not_known"), [(1, None), (2, ["tensor_parallel"])])
def test_how_several_workers_share_a_model_is_not_known(
    tmp_path: Path, world_size: int, not_known: list[str] | None
) -> None:
    llm, trace = LLM(), tmp_path / "run.jsonl"
    llm.runner.vllm_config.parallel_config.world_size = world_size
    with record_vllm(llm, trace):
        llm.generate(PROMPTS[:1], params())
    sound(trace)
    with TraceReader(trace) as reader:
        assert reader.manifest.not_known == not_known


def test_a_token_that_is_appended_and_was_not_accepted_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Runner._sample

    def sample(runner: Runner, logits: torch.Tensor, metadata: Any) -> Any:
        output = plain(runner, logits, metadata)
        if metadata is not None:
            output.sampled_token_ids[0, 0] = 31
        return output

    monkeypatch.setattr(Runner, "_sample", sample)
    llm, trace = LLM(), tmp_path / "run.jsonl"
    with record_vllm(llm, trace):
        llm.generate(PROMPTS, params())
    assert check_trace(trace).invariants["stop.emitted"].failed


def test_a_failure_of_the_recording_is_told_at_the_end_and_does_not_reach_the_engine(tmp_path: Path) -> None:
    llm, trace = LLM(), tmp_path / "run.jsonl"
    plain = llm.generate(PROMPTS, params())
    del llm.runner.attn_groups[0][0].backend.get_name
    with pytest.raises(UsageError, match=r"the recording was given up: .*get_name"), record_vllm(llm, trace):
        assert llm.generate(PROMPTS, params()) == plain


def test_the_first_failure_is_the_one_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("no such buffer")

    monkeypatch.setattr("specscope.adapters.vllm.rows_of", fail)
    llm, trace = LLM(), tmp_path / "run.jsonl"
    with pytest.raises(UsageError, match="the recording was given up: no such buffer"), record_vllm(llm, trace):
        llm.generate(PROMPTS, params())


def test_a_failure_of_the_engine_ends_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, trace = LLM(), tmp_path / "run.jsonl"

    def generate() -> None:
        llm.generate(PROMPTS[:1], params())
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"), record_vllm(llm, trace):
        generate()
    report = check_trace(trace)
    assert (report.num_violations, report.end_reason, report.num_turns) == (0, "failed", 1)


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    with pytest.raises(UsageError, match=r"got dict, wanted a vllm\.LLM"), record_vllm({}, trace):
        pass
    elsewhere = LLM()
    elsewhere.llm_engine.engine_core = object()
    with pytest.raises(UsageError, match="set VLLM_ENABLE_V1_MULTIPROCESSING=0"), record_vllm(elsewhere, trace):
        pass
    newer = LLM()
    del newer.runner.requests
    with pytest.raises(UsageError, match="set VLLM_USE_V2_MODEL_RUNNER=0"), record_vllm(newer, trace):
        pass
    with pytest.raises(UsageError, match=r"call llm\.generate inside"), record_vllm(LLM(), trace):
        pass
    assert not trace.exists()


# What vLLM itself decided.

RECORDINGS = Path(__file__).with_name("recordings")
EAGLE3 = RECORDINGS / "vllm-eagle3.jsonl.gz"


def lines_of(recording: Path) -> Lines:
    """Its records as plain objects."""
    return [json.loads(line) for line in gzip.decompress(recording.read_bytes()).splitlines()]


def accepting(lines: Lines) -> dict[str, Any]:
    """A step that accepted two drafts and more."""
    return next(line for line in lines if line["kind"] == "step" and line["accept"]["accepted_length"] > 1)


def shift_a_position(lines: Lines) -> None:
    accepting(lines)["tensors"]["positions"][2] += 1


def feed_another_token(lines: Lines) -> None:
    accepting(lines)["tensors"]["token_ids"][1] += 1


def forget_a_token_of_the_cache(lines: Lines) -> None:
    accepting(lines)["tensors"]["committed_length"] -= 1


def accept_less(lines: Lines) -> None:
    step = accepting(lines)
    step["accept"]["path"].pop()
    step["accept"]["accepted_length"] -= 1


def append_another_token(lines: Lines) -> None:
    accepting(lines)["stop"]["emitted"][0] += 1


def prefer_another_token(lines: Lines) -> None:
    accepting(lines)["verify"]["argmax"][0] += 1


def begin_with_another_root(lines: Lines) -> None:
    accepting(lines)["tree"]["tokens"][0] += 1


MUTANTS: dict[str, Callable[[Lines], None]] = {
    "tensors.position-is-length-plus-depth": shift_a_position,
    "tensors.tokens-are-the-trees": feed_another_token,
    "sequence.length-continues": forget_a_token_of_the_cache,
    "accept.walk": accept_less,
    "stop.emitted": append_another_token,
    "verify.argmax-is-top": prefer_another_token,
    "sequence.root-is-last-bonus": begin_with_another_root,
}


def test_what_vllm_did_is_sound() -> None:
    report = check_trace(EAGLE3)
    assert (report.num_violations, report.num_steps, report.end_reason) == (0, 59, "complete")
    assert set(MUTANTS) <= {name for name, tally in report.invariants.items() if tally.passed}


@pytest.mark.parametrize("invariant", MUTANTS)
def test_a_mistake_in_it_is_found(invariant: str, tmp_path: Path) -> None:
    lines = lines_of(EAGLE3)
    MUTANTS[invariant](lines)
    report = check_trace(store(lines, tmp_path / "mutant.jsonl"))
    assert invariant in {name for name, tally in report.invariants.items() if tally.failed}


@pytest.mark.numbers
@pytest.mark.slow
def test_this_engine_decides_as_vllm_did(tmp_path: Path) -> None:
    with TraceReader(EAGLE3) as reader:
        starts = [reader.turn_start(entry) for entry in reader.turns]
    prompts = [Prompt(start.prompt_id, ids=tuple(start.prompt_ids)) for start in starts]
    trace = tmp_path / "ours.jsonl"
    decode(prompts, policy=chain_policy(5), max_new_tokens=48, device="cpu", trace=trace)
    verdict = diff_traces(EAGLE3, trace)
    assert (verdict.verdict, verdict.impact.num_steps_a) == ("equal", 59)


# The plugin.


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """vLLM's modules, in which the toy's runner stands; calls what was to be called at the end of the process."""
    runner, ranks = ModuleType("vllm.v1.worker.gpu_model_runner"), ModuleType("vllm.distributed.parallel_state")
    runner.GPUModelRunner = Runner  # type: ignore[attr-defined]
    ranks.get_tp_group = lambda: SimpleNamespace(rank_in_group=0)  # type: ignore[attr-defined]
    put_in_place(monkeypatch, runner, ranks)
    monkeypatch.setattr(Runner, "_sample", Runner._sample)
    last: list[Callable[[], None]] = []
    monkeypatch.setattr(
        multiprocessing.util, "Finalize", lambda _obj, call, args, exitpriority: last.append(lambda: call(*args))
    )

    def end() -> None:
        for call in last:
            call()

    return end


def test_the_plugin_records_where_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    trace, plain = tmp_path / "served.jsonl", Runner._sample
    monkeypatch.delenv(VARIABLE, raising=False)
    record_where_asked()
    assert Runner._sample is plain, "nobody asked"
    monkeypatch.setenv(VARIABLE, str(trace))
    record_where_asked()
    record_where_asked()  # as vLLM may do
    llm = LLM()
    outputs = llm.generate(PROMPTS, params(), params(max_tokens=5), params(bad_words=["no"]))
    assert "specscope: left out: request 2: bad_words" in capsys.readouterr().err, "at once"
    ended()
    sound(trace)
    assert [end.output_ids for end in ends_of(trace)] == outputs[:2]
    with TraceReader(trace) as reader:
        assert [entry.prompt_id for entry in reader.turns] == ["0", "1"]
        assert reader.manifest.stop_rules is None, "each request has its own"
    assert "specscope: left out: request 2: bad_words" in capsys.readouterr().err


def test_what_is_not_recorded_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "served.jsonl"
    trace.touch()
    monkeypatch.setenv(VARIABLE, str(trace))
    record_where_asked()
    LLM().generate(PROMPTS, params())
    assert "specscope: the recording is given up: " in (told_at_once := capsys.readouterr().err)
    assert str(trace) in told_at_once
    assert trace.read_bytes() == b""
    ended()
    assert "specscope: the recording was given up: " in capsys.readouterr().err


#: A process that serves, in which vLLM's modules are as ``ended`` has them.
SERVING = """
import multiprocessing, sys
from types import ModuleType, SimpleNamespace
from support.vllm_stand_in import LLM, Runner, params
from specscope.adapters.vllm_plugin import record_where_asked

runner, ranks = ModuleType("vllm.v1.worker.gpu_model_runner"), ModuleType("vllm.distributed.parallel_state")
runner.GPUModelRunner, ranks.get_tp_group = Runner, lambda: SimpleNamespace(rank_in_group=0)
for module in (runner, ranks):
    sys.modules[module.__name__] = module

def serve():
    record_where_asked()
    LLM().generate([[4, 7, 1], [9]], params(), most_forwards=3)

if sys.argv[1] == "itself":
    serve()
else:
    child = multiprocessing.get_context(sys.argv[1]).Process(target=serve)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.slow
@pytest.mark.parametrize("process", ["itself", "fork"])
def test_the_trace_ends_with_its_process(tmp_path: Path, process: str) -> None:
    trace, tests = tmp_path / "served.jsonl", Path(__file__).parents[1]
    script = tmp_path / "serving.py"
    script.write_text(SERVING, encoding="utf-8")
    environment = os.environ | {VARIABLE: str(trace), "PYTHONPATH": str(tests)}
    subprocess.run([sys.executable, "-W", "ignore", script, process], env=environment, check=True, timeout=120)
    sound(trace)
    assert [end.reason for end in ends_of(trace)] == ["interrupted", "interrupted"]


def test_a_trace_that_cannot_be_ended_is_told_at_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Recorder) -> None:
        raise UsageError("the disk is full")

    monkeypatch.setenv(VARIABLE, str(tmp_path / "served.jsonl"))
    record_where_asked()
    LLM().generate(PROMPTS, params())
    monkeypatch.setattr(Recorder, "close", fail)
    ended()
    assert "specscope: the disk is full" in capsys.readouterr().err


def test_another_rank_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Callable[[], None]
) -> None:
    ranks: Any = sys.modules["vllm.distributed.parallel_state"]
    ranks.get_tp_group = lambda: SimpleNamespace(rank_in_group=1)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "served.jsonl"))
    record_where_asked()
    LLM().generate(PROMPTS, params())
    ended()
    assert not list(tmp_path.iterdir())


# Recorded drafts, verified once more.


def drafts_of(trace: Path) -> RecordedDrafts:
    """As vLLM makes its custom proposer."""
    arguments = recorded_drafts(trace)
    assert arguments["speculative_config"]["model"] == "specscope.adapters.vllm_replay.RecordedDrafts"
    drafts = RecordedDrafts(SimpleNamespace(additional_config=arguments["additional_config"]))
    drafts.load_model()
    return drafts


def test_recorded_drafts_are_verified_once_more(tmp_path: Path) -> None:
    first, again = tmp_path / "first.jsonl", tmp_path / "again.jsonl"
    with record_vllm(llm := LLM(), first):
        llm.generate(PROMPTS, params())
    with record_vllm(llm := LLM(drafter=drafts_of(first)), again):
        llm.generate(PROMPTS, params())
    verdict = diff_traces(first, again)
    assert (verdict.verdict, verdict.impact.num_steps_b) == ("equal", verdict.impact.num_steps_a)
    with TraceReader(again) as reader:
        assert reader.manifest.drafter.kind == "ngram", "as recorded"


def test_a_teacher_that_decides_otherwise_is_found_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = tmp_path / "first.jsonl", tmp_path / "again.jsonl"
    with record_vllm(llm := LLM(), first):
        llm.generate(PROMPTS, params())
    wrong = LLM(drafter=drafts_of(first))
    wrong.runner.wrong_after = text_of(1, 4)[-1]
    with record_vllm(wrong, again):
        wrong.generate(PROMPTS, params())
    root = diff_traces(first, again).roots[0]
    assert (root.difference.phase, root.difference.field) == ("verify", "argmax")


def test_nothing_is_drafted_after_another_text_or_within_a_prompt(tmp_path: Path) -> None:
    with record_vllm(llm := LLM(), trace := tmp_path / "run.jsonl"):
        llm.generate(PROMPTS[:1], params())
    texts = [[*PROMPTS[0], *text_of(1, 1)], [*PROMPTS[0], 31], [*PROMPTS[0], *text_of(1, 1)]]
    asked = [[1], [1], []]
    drafted = drafts_of(trace).propose(asked, np.array([4, 4, 4]), np.array(texts), slot_mappings=None)
    assert [len(drafts) for drafts in drafted] == [2, 0, 0]


def test_only_chains_can_be_verified_by_vllm() -> None:
    with pytest.raises(UsageError, match="got drafts of kind dynamic, wanted chains: vLLM verifies no trees"):
        recorded_drafts(EAGER)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"redaction": "0" * 16}, "got a redacted trace"),
        ({"capabilities": ["verify", "accept", "stop"]}, r"got a trace without tree\.tokens"),
        ({"capabilities": ["tree", "verify", "accept", "stop.emitted"]}, r"got a trace without stop\.kept"),
        ({"capabilities": ["lengths"], "level": "lengths"}, r"got a trace without tree\.tokens"),
    ],
)
def test_drafts_that_cannot_be_looked_up_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    lines = lines_of(EAGLE3)
    lines[0] |= changes
    with pytest.raises(UsageError, match=words):
        recorded_drafts(store(lines, tmp_path / "trace.jsonl"))
