"""What is said of a run in the list of runs, and what is said of a file that is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
from support.traces import EAGER, FAULTY, FUSED, SAMPLES, load, store

from specscope.schemas import Step
from specscope.tracer.files.index import has_index, sidecar_path
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import counted
from specscope.tracer.oracle.check import check_trace
from specscope.viewer.drawing.labels.manifest import created_text
from specscope.viewer.drawing.labels.numbers import about_seconds, size_text
from specscope.viewer.runs.catalogue import Run
from specscope.viewer.runs.summary import Checked, NoTrace, RunSummary, checked, glance, suggest_pair, summarise

TraceMaker = Callable[..., Path]


def summary_of(path: Path) -> RunSummary:
    """Of a file that is a trace."""
    found = summarise(Run(path.name, path))
    assert isinstance(found, RunSummary), found
    return found


def health_of(path: Path) -> list[tuple[str, str]]:
    """The marks of its health."""
    return [(mark.tone, mark.words) for mark in summary_of(path).health]


@pytest.mark.parametrize("path", [EAGER, FUSED, FAULTY], ids=lambda path: path.stem)
def test_counts_agree_with_the_records(path: Path) -> None:
    lengths = [line["accept"]["accepted_length"] for line in load(path) if line["kind"] == "step"]
    outcome = summary_of(path).outcome
    assert outcome is not None
    assert (outcome.num_turns, outcome.num_steps) == (3, len(lengths))
    assert outcome.accepted_length == pytest.approx(fmean(lengths))
    ends = [line for line in load(path) if line["kind"] == "turn_end"]
    seconds = sum(end["duration_ns"] for end in ends) / 1e9
    assert outcome.tokens_per_second == pytest.approx(sum(len(end["output_ids"]) for end in ends) / seconds)


def test_an_honest_run_is_complete_and_a_broken_one_says_why() -> None:
    assert health_of(FUSED) == [("info", "complete, not checked")]
    assert health_of(FAULTY) == [
        ("bad", "the engine reported violations in 53 steps"),
        ("warn", "fault F16 injected"),
        ("info", "complete, not checked"),
    ]


def test_only_what_the_oracle_has_seen_is_called_good(make_trace: TraceMaker) -> None:
    def judged(path: Path, found: Checked) -> list[tuple[str, str]]:
        return [(mark.tone, mark.words) for mark in summary_of(path)._replace(checked=found).health]

    assert judged(FUSED, Checked(2413, 0)) == [("good", "complete, 2,413 checks hold")]
    assert judged(FUSED, Checked(1, 0)) == [("good", "complete, 1 check holds")]
    assert judged(FUSED, Checked(9, 1)) == [("bad", "complete, 1 invariant violated")]
    assert judged(FUSED, Checked(9, 3)) == [("bad", "complete, 3 invariants violated")]
    assert judged(FAULTY, Checked(9, 0))[-1] == ("info", "complete, 9 checks hold"), "it was broken on purpose"
    cut = make_trace("cut.jsonl", run_end=False)
    assert judged(cut, Checked(9, 2)) == [
        ("bad", "2 invariants violated"),
        ("warn", "truncated, or still in progress"),
    ]


def test_the_oracles_report_in_two_numbers(make_trace: TraceMaker) -> None:
    report = check_trace(make_trace())
    assert checked(report) == Checked(sum(tally.passed for tally in report.invariants.values()), 0)
    found = checked(check_trace(FAULTY))
    assert found.num_violated >= 1
    assert found.num_holding > 0


def test_ends_that_are_missing_or_early(make_trace: TraceMaker, tmp_path: Path) -> None:
    assert health_of(make_trace("cut.jsonl", run_end=False)) == [("warn", "truncated, or still in progress")]
    for reason, tone in (("interrupted", "warn"), ("failed", "bad")):
        lines = load(make_trace())
        lines[-1]["reason"] = reason
        assert health_of(store(lines, tmp_path / "early.jsonl")) == [(tone, reason)]


def test_failures_replays_redaction_and_older_formats(make_trace: TraceMaker, tmp_path: Path) -> None:
    lines = load(make_trace())
    lines[0] |= {"replay_of": "another", "redaction": "0" * 16, "original_schema": "specscope.trace/0.9"}
    failure = {"seq": 9, "kind": "failure", "phase": "verify", "error": "E", "message": "m", "inputs": {}}
    words = [words for _, words in health_of(store([*lines[:-1], failure], tmp_path / "odd.jsonl"))]
    assert words == [
        "1 failure record",
        "truncated, or still in progress",
        "replay of another",
        "redacted",
        "upgraded from an older format",
    ]


def test_lengths_that_were_not_recorded_are_not_zero(make_trace: TraceMaker, tmp_path: Path) -> None:
    def bare(step: Step) -> Step:
        return step.model_copy(update={"accept": None})

    lines = load(make_trace(change=bare))
    lines[0]["capabilities"].remove("accept")
    outcome = summary_of(store(lines, tmp_path / "bare.jsonl")).outcome
    assert outcome is not None
    assert outcome.num_steps == 3
    assert outcome.accepted_length is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b'{"prompt":"x"}\n', "line 1, field kind: got no manifest"),
        (b"\xff\xfe\n", "line 1: got a line that is not JSON"),
        (b'{"kind":"manifest","schema":"specscope.trace/9.0"}\n', "upgrade specscope"),
    ],
    ids=["empty", "prompts", "bytes", "newer"],
)
def test_files_that_are_no_traces_say_why(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_bytes(content)
    for found in (summarise(Run("odd.jsonl", path)), glance(Run("odd.jsonl", path))):
        assert isinstance(found, NoTrace)
        assert words in found.reason
        assert str(tmp_path) not in found.reason, "the name stands beside it"


def test_a_file_that_breaks_further_down_is_no_trace(make_trace: TraceMaker) -> None:
    path = make_trace()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"{nonsense}\n", *lines[3:]]))
    found = summarise(Run(path.name, path))
    assert isinstance(found, NoTrace)
    assert found.reason.startswith("line 4: ")


def test_a_folder_and_a_file_that_is_not_there_are_no_traces(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "it is no regular file"), (tmp_path / "gone.jsonl", "no such file")):
        found = summarise(Run(path.name, path))
        assert isinstance(found, NoTrace)
        assert words in found.reason


def test_a_glance_reads_no_records(make_trace: TraceMaker) -> None:
    path = make_trace()
    found = glance(Run(path.name, path))
    assert isinstance(found, RunSummary)
    assert found.outcome is None
    assert [mark.words for mark in found.health] == ["not indexed yet"]
    assert not sidecar_path(path).exists(), "no index was built"


def test_an_index_is_there_only_while_it_fits(make_trace: TraceMaker) -> None:
    path = make_trace()
    assert not has_index(path)
    with TraceReader(path) as reader:
        assert reader.index
    assert has_index(path)
    with path.open("ab") as file:
        file.write(b'{"kind":"step"')
    assert not has_index(path), "the trace has grown"
    sidecar_path(path).write_bytes(b"")
    assert not has_index(path)
    assert not has_index(path.with_name("gone.jsonl"))


def test_lengths_beyond_floats_are_no_number(make_trace: TraceMaker, tmp_path: Path) -> None:
    lines = load(make_trace())
    next(line for line in lines if line["kind"] == "step")["accept"]["accepted_length"] = 10**400
    outcome = summary_of(store(lines, tmp_path / "huge.jsonl")).outcome
    assert outcome is not None
    assert outcome.accepted_length is None


def test_a_pair_is_suggested_where_eager_and_fused_are_alike(tmp_path: Path) -> None:
    eager, fused, faulty = (summary_of(path) for path in (EAGER, FUSED, FAULTY))
    pair = suggest_pair([faulty, fused, eager])
    assert pair is not None
    assert [one.run.name for one in pair] == ["eager.jsonl", "fused.jsonl"], "the broken run is none of them"
    assert suggest_pair([eager, faulty]) is None
    assert suggest_pair([eager, fused, fused]) is None, "which of the two fused runs is meant?"
    lines = load(FUSED)
    lines[0]["seed"] = 1
    assert suggest_pair([eager, summary_of(store(lines, tmp_path / "other-seed.jsonl"))]) is None
    shutil.copy(FUSED, tmp_path / "copy.jsonl")
    text = (tmp_path / "copy.jsonl").read_text(encoding="utf-8").replace('"prompt_id":"class"', '"prompt_id":"other"')
    (tmp_path / "copy.jsonl").write_text(text, encoding="utf-8")
    assert suggest_pair([eager, summary_of(tmp_path / "copy.jsonl")]) is None, "other prompts"


def test_words_find_a_run() -> None:
    found = summary_of(FAULTY)
    for word in ("fused-f16", "float32", "eagle3", "dynamic", "f16 injected", "2026-11"):
        assert word in found.words, json.dumps(found.words)


def test_sizes_and_times_for_people() -> None:
    assert [size_text(n) for n in (0, 999, 1000, 228_283, 36_281_902, 1_200_000_000)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "228 kB",
        "36 MB",
        "1.2 GB",
    ]
    assert [counted(n, "step") for n in (0, 1, 2_000)] == ["0 steps", "1 step", "2,000 steps"]
    assert [about_seconds(n) for n in (None, 0.2, 3.4)] == ["about 1 s", "about 1 s", "about 3 s"]
    assert created_text("2026-11-21T13:08:46+00:00") == "2026-11-21 13:08 UTC"
    assert created_text("2026-11-21T13:08:46+02:00") == "2026-11-21 11:08 UTC"
    assert created_text("yesterday " * 9).startswith("yesterday")
    assert created_text("0001-01-01T00:00:00+14:00") == "0001-01-01T00:00:00+14:00"


def test_the_samples_hold_one_file_that_is_no_trace() -> None:
    found = summarise(Run("prompts.jsonl", SAMPLES / "prompts.jsonl"))
    assert isinstance(found, NoTrace)
