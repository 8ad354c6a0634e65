"""What other engines dump becomes a trace of lengths. The dumps are small, made by hand in the engines' shapes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.commands import Outcome

from specscope.adapters.cli.convert import NO_IDLE_STEPS
from specscope.schemas import TurnEnd
from specscope.tracer.files.reader import TraceReader

DUMPS = Path(__file__).with_name("dumps")
AIPERF = DUMPS / "aiperf-profile-export.jsonl"
VLLM, SGLANG, LLAMA = (
    DUMPS / "vllm-detailed.jsonl",
    DUMPS / "sglang-server-info.json",
    DUMPS / "llama-server-debug.log",
)
#: Fields of the manifest that are the trace's own, and arguments of what writes it.
NOT_OF_THE_RUN = (
    *("level", "sections", "overwrite", "path", "self", "schema", "seq", "capabilities", "not_known", "kind", "counts"),
    *("warn", "run_id", "created", "redaction", "replay_of", "conventions"),
)
Lengths = list[list[tuple[int | None, int]]]


def lengths_of(path: Path) -> Lengths:
    """Per turn, its steps as (drafted, accepted)."""
    with TraceReader(path) as reader:
        turns = [list(reader.steps(entry)) for entry in reader.turns]
    return [[(s.lengths.drafted, s.lengths.accepted) for s in steps if s.lengths is not None] for steps in turns]


def ends_of(path: Path) -> list[TurnEnd]:
    with TraceReader(path) as reader:
        return [end for entry in reader.turns if (end := reader.turn_end(entry)) is not None]


def converted(form: str, dump: Path, out: Path, *more: str) -> Outcome:
    """Converts, and has the oracle judge the trace."""
    done = specscope("convert", form, dump, "-o", out, *more)
    assert done.code == 0, done.err
    checked = specscope("check", out)
    assert checked.code == 0, checked.out
    return done


def test_vllm(tmp_path: Path) -> None:
    out = tmp_path / "vllm.jsonl"
    assert "2 turns, 7 steps, lengths only" in converted("vllm", VLLM, out).out
    assert lengths_of(out) == [[(3, 3), (3, 0), (3, 2), (3, 1)], [(3, 0), (3, 0), (3, 3)]]
    first, second = ends_of(out)
    assert (first.num_output_tokens, first.num_drafted, first.num_accepted, first.reason) == (11, 12, 6, "length")
    assert (second.accepted_by_depth, second.reason) == ([1, 1, 1], "unknown"), "stop is a text's end, or a string's"
    with TraceReader(out) as reader:
        manifest = reader.manifest
        assert [reader.turn_start(entry).num_prompt_tokens for entry in reader.turns] == [5, 9]
    assert (manifest.teacher.name, manifest.tree_policy.budget, manifest.sampling.rule) == ("toy", 3, "unknown")
    assert manifest.knows("teacher.name")
    assert not manifest.knows("dtype")


def test_aiperf(tmp_path: Path) -> None:
    out = tmp_path / "aiperf.jsonl"
    done = converted("aiperf", AIPERF, out)
    assert "2 turns, 7 steps, lengths only" in done.out
    assert "left out: record 2 has no spec_decode_acceptance" in done.err
    with TraceReader(told_by_vllm(tmp_path)) as vllm, TraceReader(out) as aiperf:
        assert aiperf.manifest.engine == vllm.manifest.engine
        assert aiperf.manifest.tree_policy.budget == vllm.manifest.tree_policy.budget
    assert lengths_of(out) == lengths_of(told_by_vllm(tmp_path))
    first, second = ends_of(out)
    assert (first.num_output_tokens, first.num_drafted, first.num_accepted) == (11, 12, 6)
    assert (first.duration_ns, first.accepted_by_depth) == (12_000_000, [3, 2, 1])
    assert (second.duration_ns, second.accepted_by_depth) == (0, [1, 1, 1])


def told_by_vllm(folder: Path) -> Path:
    """What vLLM itself told of the requests in AIPerf's file."""
    out = folder / "vllm.jsonl"
    if not out.exists():
        converted("vllm", VLLM, out)
    return out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"per_step_drafted": [3]}, "record 0: wanted per_step_accepted and per_step_drafted of the same length"),
        ({"per_step_accepted": "3"}, "record 0: wanted per_step_accepted and per_step_drafted as lists"),
        ({"per_step_accepted": [3, -1, 2, 1]}, "record 0: per_step_accepted: got '-1', wanted a count"),
        ({"acceptance_histogram": [1]}, "record 0: got an acceptance_histogram that is no object"),
        ({"acceptance_histogram": {"x": 1}}, "record 0: got the bucket 'x' of acceptance_histogram, wanted a count"),
        ({"num_spec_steps": 1.5}, "record 0: num_spec_steps: got '1.5', wanted a count"),
    ],
)
def test_a_malformed_record_of_aiperf_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    record = json.loads(AIPERF.read_text().splitlines()[0])
    record["spec_decode_acceptance"] |= changes
    (tmp_path / "dump").write_text(json.dumps(record))
    done = specscope("convert", "aiperf", tmp_path / "dump", "-o", tmp_path / "t.jsonl")
    assert (done.code, words in done.err) == (2, True), done.err


@pytest.mark.parametrize(("form", "dump"), [("vllm", VLLM), ("llama-server", LLAMA), ("aiperf", AIPERF)])
def test_what_reports_drafts_alone_says_that_other_steps_are_missing(tmp_path: Path, form: str, dump: Path) -> None:
    out = tmp_path / "t.jsonl"
    assert "steps that verified no draft are not reported" in converted(form, dump, out).err
    with TraceReader(out) as reader:
        assert reader.manifest.omits_idle_steps
    checked = specscope("check", out)
    assert "lengths only, of steps that verified a draft" in checked.out


def test_sglangs_record_has_every_step(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    assert "verified no draft" not in converted("sglang", SGLANG, out).err
    with TraceReader(out) as reader:
        assert not reader.manifest.omits_idle_steps


def test_sglang_counts_the_root_and_mixes_requests(tmp_path: Path) -> None:
    out = tmp_path / "sglang.jsonl"
    converted("sglang", SGLANG, out)
    assert lengths_of(out) == [[(3, 3), (3, 0), (3, 2)], [(3, 0), (1, 1)]]


def test_sglang_requests_that_ran_when_the_record_begins_are_marked_and_not_compared(tmp_path: Path) -> None:
    whole: dict[str, Any] = {
        "gamma": 3,
        "records": [sglang_record(at, accepted) for at, accepted in enumerate([3, 1, 2])],
    }
    late = {**whole, "records": [*whole["records"][1:], sglang_record(3, 1, "b")]}
    stated = ["sampling.rule=greedy", "dtype=float32", "drafter.name=d", "teacher.name=t", "tree_policy.kind=chain"]
    traces = []
    for name, record in (("whole", whole), ("late", late)):
        dump, out = tmp_path / name, tmp_path / f"{name}.jsonl"
        dump.write_text(json.dumps({"dspark_info_record": record}))
        done = converted("sglang", dump, out, *(part for field in stated for part in ("--set", field)))
        traces.append((out, done.err))
    assert [(lacking(out), "may lack" in err) for out, err in traces] == [([None], False), ([True, None], True)]
    done = specscope("diff", traces[0][0], traces[1][0])
    assert (done.code, "the candidate may lack its first steps" in done.out) == (4, True), done.out


def sglang_record(forward: int, accepted: int, name: str = "a") -> dict[str, Any]:
    return {"forward_ct": forward, "reqs": [{"rid": name, "verify_len": 4, "correct_drafts": accepted}]}


def lacking(path: Path) -> list[bool | None]:
    """Per turn, whether its first steps may be missing."""
    with TraceReader(path) as reader:
        return [reader.turn_start(entry).lacks_beginning for entry in reader.turns]


def test_task_numbers_that_begin_again_are_other_requests(tmp_path: Path) -> None:
    log, out = tmp_path / "twice.log", tmp_path / "twice.jsonl"
    log.write_text(LLAMA.read_text() * 2)
    converted("llama-server", log, out)
    once = [[(3, 3), (3, 0), (3, 2)], [(None, 1)]]
    assert (lengths_of(out), lacking(out)) == (once * 2, [None] * 4)
    tail = "".join(LLAMA.read_text().splitlines(keepends=True)[2:])
    log.write_text(LLAMA.read_text() + tail)
    converted("llama-server", log, out, "--overwrite")
    assert (lengths_of(out), lacking(out)) == (once * 2, [None, None, True, None])


def names_of(path: Path) -> list[str]:
    with TraceReader(path) as reader:
        return [entry.prompt_id for entry in reader.turns]


@pytest.mark.parametrize("kind", ["text_completion", "chat.completion.chunk"])
def test_a_stream_is_one_request_however_many_chunks_it_has(tmp_path: Path, kind: str) -> None:
    responses = [{**json.loads(line), "object": kind} for line in VLLM.read_text().splitlines()]
    dump, out = tmp_path / "stream", tmp_path / "stream.jsonl"
    for num_chunks in (0, 1, 3):
        events = [{**r, "metrics": None, "usage": None} for r in responses for _ in range(num_chunks)] + responses[::-1]
        dump.write_text("".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n")
        done = converted("vllm", dump, out, "--overwrite", "--by-order")
        assert names_of(out) == ["request-0", "request-1"]
        assert done.err == f"{NO_IDLE_STEPS}\n", "nothing of a chunk that was not understood"
        assert [len(steps) for steps in lengths_of(out)] == ([4, 3] if num_chunks else [3, 4])


def test_requests_of_vllm_are_named_by_their_ids_in_whatever_order_they_ended(tmp_path: Path) -> None:
    dump, out = tmp_path / "turned", tmp_path / "turned.jsonl"
    dump.write_text("\n".join(VLLM.read_text().splitlines()[::-1]))
    converted("vllm", dump, out)
    assert names_of(out) == ["cmpl-1", "cmpl-0"]


def test_lines_end_with_a_newline_alone_and_may_begin_with_a_mark(tmp_path: Path) -> None:
    responses = [{**json.loads(line), "text": "a\u2028b\x85c"} for line in VLLM.read_text().splitlines()]
    dump, out = tmp_path / "separators", tmp_path / "separators.jsonl"
    text = "\r\n".join(json.dumps(response, ensure_ascii=False) for response in responses)
    dump.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert "2 turns, 7 steps" in converted("vllm", dump, out).out
    for form, source in (("sglang", SGLANG), ("llama-server", LLAMA)):
        dump.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
        converted(form, dump, out, "--overwrite")


def test_llama_server_restores_a_checkpoint_and_that_is_one_step(tmp_path: Path) -> None:
    out = tmp_path / "llama.jsonl"
    converted("llama-server", LLAMA, out)
    assert lengths_of(out) == [[(3, 3), (3, 0), (3, 2)], [(None, 1)]]
    ends = ends_of(out)
    assert [(end.num_drafted, end.num_accepted, end.num_output_tokens) for end in ends] == [(9, 5, 9), (3, 1, 4)]
    assert ends[0].duration_ns == 12_000_000


def test_llama_server_traced_says_how_many_were_drafted_before_a_restore(tmp_path: Path) -> None:
    line = "I slot   operator(): id  1 | task 3 | accepted  1/ 3 draft tokens (restore checkpoint)\n"
    log, out = tmp_path / "traced.log", tmp_path / "traced.jsonl"
    at = "0.01.100.005"
    log.write_text(LLAMA.read_text().replace(at, line + at))
    converted("llama-server", log, out)
    assert lengths_of(out)[1] == [(3, 1)]


def test_a_log_that_begins_within_a_request_is_no_violation(tmp_path: Path) -> None:
    log, out = tmp_path / "tail.log", tmp_path / "tail.jsonl"
    log.write_text("".join(LLAMA.read_text().splitlines(keepends=True)[3:]))
    done = converted("llama-server", log, out)
    assert lengths_of(out) == [[(None, 1)], [(3, 0), (3, 2)]], "in the order in which they are named first"
    assert "may lack its first steps, and is not compared: request-1" in done.err
    assert lacking(out) == [None, True]


def test_a_dump_whose_totals_are_not_those_of_its_steps_is_a_violation(tmp_path: Path) -> None:
    response = json.loads(VLLM.read_text().splitlines()[0])
    response["metrics"]["speculative_decoding"]["num_accepted_draft_tokens"] = 5
    dump, out = tmp_path / "off.jsonl", tmp_path / "off-trace.jsonl"
    dump.write_text(json.dumps(response))
    assert specscope("convert", "vllm", dump, "-o", out).code == 0
    checked = specscope("check", out)
    assert (checked.code, "num_accepted: got 5, the steps give 6" in checked.out) == (1, True)


def test_the_shapes_of_a_file_of_vllm_hold_the_same(tmp_path: Path) -> None:
    responses = [json.loads(line) for line in VLLM.read_text().splitlines()]
    for response in responses:
        del response["id"]
    unmeasured = {**responses[0], "metrics": None}
    shapes = {
        "gap": json.dumps([responses[0], unmeasured, responses[1]]),
        "list": json.dumps(responses),
        "batch": "\n".join(
            json.dumps({"custom_id": f"c{n}", "response": {"body": r}}) for n, r in enumerate(responses)
        ),
        "stream": "".join(f"data: {json.dumps(response)}\n\n" for response in responses) + "data: [DONE]\n",
    }
    for name, text in shapes.items():
        dump, out = tmp_path / f"{name}.in", tmp_path / f"{name}.jsonl"
        dump.write_text(text)
        converted("vllm", dump, out)
        assert [len(steps) for steps in lengths_of(out)] == [4, 3], name
    with TraceReader(tmp_path / "batch.jsonl") as reader:
        assert [entry.prompt_id for entry in reader.turns] == ["c0", "c1"]
    with TraceReader(tmp_path / "gap.jsonl") as reader:
        assert [entry.prompt_id for entry in reader.turns] == ["request-0", "request-2"], "names keep their places"


def test_two_builds_are_compared_where_both_are_greedy(tmp_path: Path) -> None:
    responses = [json.loads(line) for line in VLLM.read_text().splitlines()]
    metrics = responses[1]["metrics"]["speculative_decoding"]
    metrics |= {"per_step_accepted": [0, 1, 3], "num_accepted_draft_tokens": 4, "acceptance_histogram": [1, 1, 0, 1]}
    worse = tmp_path / "worse.jsonl"
    worse.write_text("\n".join(map(json.dumps, responses)))
    traces = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    stated = ["sampling.rule=greedy", "dtype=bfloat16", "drafter.kind=ngram", "tree_policy.kind=chain"]
    for dump, out in zip((VLLM, worse), traces, strict=True):
        converted("vllm", dump, out, *(part for field in stated for part in ("--set", field)))
    done = specscope("diff", *traces)
    assert (done.code, "turn 1 (prompt cmpl-1), step 1" in done.out) == (1, True)
    same = specscope("diff", traces[0], shutil.copy(traces[0], tmp_path / "copy.jsonl"))
    assert (same.code, "EQUAL" in same.out) == (4, False)


@pytest.mark.parametrize(
    ("form", "text", "wanted"),
    [
        ("vllm", '{"usage": {}}', "--per-request-spec-decode-metrics detailed"),
        ("vllm", '{"metrics": {"speculative_decoding": {"num_spec_steps": 3}}}', "no per_step_accepted"),
        ("vllm", "not json", "line 1 is not JSON"),
        (
            "vllm",
            '{"metrics": {"speculative_decoding": {"per_step_accepted": [1], "per_step_drafted": []}}}',
            "of the same length",
        ),
        (
            "vllm",
            '{"metrics": {"speculative_decoding": {"per_step_accepted": [-1], "per_step_drafted": [3]}}}',
            "got '-1', wanted a count",
        ),
        ("vllm", '{"id": 5}', "got id '5', wanted text"),
        (
            "vllm",
            '{"model": ["a"], "metrics": {"speculative_decoding": {"per_step_accepted": [], "per_step_drafted": []}}}',
            "response 0: got model",
        ),
        ("sglang", '{"records": [{"forward_ct": 1, "reqs": 5}]}', "got reqs '5', wanted a list"),
        ("sglang", "{}", "no dspark_info_record"),
        ("sglang", '{"records": [{"forward_ct": 1}]}', "no record has reqs"),
        ("sglang", '{"records": [{"forward_ct": 1, "reqs": [{"verify_len": 3}]}]}', "has no rid"),
        ("sglang", '{"records": [{"reqs": []}]}', "forward_ct: got 'None'"),
        ("llama-server", "slot print_timing: id  0 | task 0 | hello\n", "-lv 5"),
    ],
)
def test_what_is_no_dump_is_refused_in_words(tmp_path: Path, form: str, text: str, wanted: str) -> None:
    dump, out = tmp_path / "dump", tmp_path / "out.jsonl"
    dump.write_text(text)
    done = specscope("convert", form, dump, "-o", out)
    assert (done.code, wanted in done.err) == (2, True), done.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["--set", "dtype"], "wanted FIELD=VALUE"),
        (["--set", "teacher.colour=blue"], "the format has no field"),
        (["--set", "sampling.rule=fair"], "manifest record, field sampling.rule"),
        (["--set", "dtype.x=1"], "is no section"),
        *((["--set", f"{name}=1"], "wanted a field of the run, in one of") for name in NOT_OF_THE_RUN),
        (["--set", "=1"], "wanted FIELD=VALUE"),
        (["--set", "mode="], "without a value"),
        (["--set", "mode= "], "without a value"),
        (["--set", 'teacher={"name": "", "architecture": "a", "vocab_size": 1}'], "--set teacher.name= without"),
        (["--set", "sampling.temperature=NaN"], "wanted a finite number"),
        (["--set", "sampling.temperature=Infinity"], "wanted a finite number"),
        (["--set", "sampling.temperature=-1"], "wanted a finite number"),
        (["--set", 'sampling={"rule": "sampling", "temperature": -1}'], "wanted a finite number"),
        (["--set", 'dtype="\\ud800"'], "is not valid Unicode"),
    ],
)
def test_what_is_stated_must_be_a_field(tmp_path: Path, more: list[str], wanted: str) -> None:
    done = specscope("convert", "vllm", VLLM, "-o", tmp_path / "out.jsonl", *more)
    assert (done.code, wanted in done.err) == (2, True), done.err
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_what_is_replaced_is_replaced_only_when_the_trace_is_whole(tmp_path: Path) -> None:
    dump, out = tmp_path / "dump.jsonl", tmp_path / "out.jsonl"
    out.write_text("mine")
    responses = [json.loads(line) for line in VLLM.read_text().splitlines()]
    huge = json.loads(json.dumps(responses))
    huge[1]["metrics"]["speculative_decoding"]["per_step_accepted"][2] = 1 << 22
    surrogate = [responses[0], {**responses[1], "id": "\ud800"}]
    for broken, wanted in ((huge, "lengths.accepted"), (surrogate, "is not valid Unicode")):
        dump.write_text("\n".join(map(json.dumps, broken)))
        done = specscope("convert", "vllm", dump, "-o", out, "--overwrite")
        assert (done.code, wanted in done.err, "bug in" in done.err) == (2, True, False), done.err
        assert out.read_text() == "mine"
        assert {path.name for path in tmp_path.iterdir()} == {"dump.jsonl", "out.jsonl"}
    converted("vllm", VLLM, out, "--overwrite")


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    refused = specscope("convert", "vllm", VLLM, "-o", out)
    assert (refused.code, out.read_text()) == (2, "mine")
    assert specscope("convert", "vllm", VLLM, "-o", out, "--overwrite").code == 0
    dump: Any = shutil.copy(VLLM, tmp_path / "dump.jsonl")
    itself = specscope("convert", "vllm", dump, "-o", dump, "--overwrite")
    assert (itself.code, "is the dump itself" in itself.err) == (2, True)


def test_two_requests_of_one_name_are_named_by_their_order_where_asked(tmp_path: Path) -> None:
    line = {"custom_id": "same", "response": {"body": json.loads(VLLM.read_text().splitlines()[0])}}
    dump, out = tmp_path / "twice.jsonl", tmp_path / "out.jsonl"
    dump.write_text("\n".join([json.dumps(line)] * 2))
    refused = specscope("convert", "vllm", dump, "-o", out)
    assert (refused.code, "--by-order" in refused.err) == (2, True)
    converted("vllm", dump, out, "--by-order")
