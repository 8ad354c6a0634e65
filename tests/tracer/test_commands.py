"""check, diff, show and schema as processes: output and exit codes. None of them may load torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support.called import specscope
from support.toy_run import Toy, toy_lines
from support.traces import EAGER, FAULTY, FUSED, accepts_at_least, first_step, load, store

from specscope.tracer.cli import main as command_line
from specscope.tracer.cli.sections import COMMAND_SECTIONS, SectionedCommand


def test_check_passes_honest_traces_and_counts(tmp_path: Path) -> None:
    done = specscope("check", FUSED, EAGER, store(toy_lines(Toy()), tmp_path / "toy.jsonl"))
    assert (done.code, done.err) == (0, "")
    assert done.out.count("ok  ") == 3
    assert done.out.count(" 0 failed, ") == 3
    assert "commit.kv_digests_before" in done.out, "custody, of which older formats and toys say nothing, is skipped"
    assert "\x1b" not in done.out, "piped output has no colours"


def test_check_names_the_violation_with_its_witness() -> None:
    done = specscope("check", FAULTY)
    assert done.code == 1
    assert "VIOLATED" in done.out
    assert "tensors.position-is-length-plus-depth" in done.out
    assert "step 0: slot 2: position" in done.out


def test_check_json_is_one_object_a_file() -> None:
    done = specscope("check", FUSED, FAULTY, "--format", "json")
    reports = [json.loads(line) for line in done.out.splitlines()]
    assert [r["exit_code"] for r in reports] == [0, 1]
    assert reports[1]["invariants"]["tensors.position-is-length-plus-depth"]["first"]["step"] == 0


def test_check_goes_on_past_a_bad_file_and_keeps_the_worst_code(tmp_path: Path) -> None:
    junk = tmp_path / "junk.jsonl"
    junk.write_bytes(b"\x00\x01junk\n")
    done = specscope("check", junk, FUSED)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert "ok  " in done.out
    assert specscope("check", junk, FAULTY).code == 1
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(FUSED.read_bytes()[:-30])
    assert specscope("check", junk, cut).code == 2, "ranked as diff-many ranks: what was not judged at all is worse"


def test_check_reports_truncation_with_code_4(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_bytes(FUSED.read_bytes()[:-30])
    done = specscope("check", path)
    assert done.code == 4
    assert "TRUNCATED" in done.out
    assert "torn record" in done.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "wanted a trace"),
        (b"hello\n", "not JSON"),
        (b'{"kind":"manifest","schema":"specscope.trace/9.0"}\n', "upgrade specscope"),
    ],
)
@pytest.mark.parametrize("command", ["check", "show", "diff", "view"])
def test_a_file_that_is_no_trace_gets_one_clear_line(
    tmp_path: Path, command: str, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    arguments = [path, FUSED] if command == "diff" else [path]
    done = specscope(command, *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    done = specscope("diff", FUSED, tmp_path / "none.jsonl")
    assert done.code == 2
    assert "none.jsonl: no such file" in done.err


def test_diff_prints_the_card_first_and_what_to_run_next() -> None:
    done = specscope("diff", EAGER, FAULTY)
    assert done.code == 1
    first = done.out.splitlines()[0]
    assert "DIFFERENT" in first
    for words in (
        "tensors: positions",
        "inputs equal",
        "the candidate violates",
        "accepted length",
        "inherited",
        "specscope show",
        "noise floor",
    ):
        assert words in done.out


def test_diff_json_is_the_verdict() -> None:
    done = specscope("diff", EAGER, FUSED, "--format", "json")
    verdict = json.loads(done.out)
    assert (done.code, verdict["verdict"], verdict["schema"]) == (0, "equal", "specscope.verdict/2.1")


def test_diff_exit_codes(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[0]["seed"] = 5
    other = store(lines, tmp_path / "seed.jsonl")
    done = specscope("diff", FUSED, other)
    assert done.code == 3
    assert "seed: 0 -> 5" in done.out
    assert specscope("diff", FUSED, other, "--allow", "seed").code == 0
    assert specscope("diff", FUSED).code == 2
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(FUSED.read_bytes()[:-30])
    assert specscope("diff", FUSED, cut).code == 4


def test_diff_takes_a_noise_file_and_refuses_one_of_another_kind(tmp_path: Path) -> None:
    lines = load(EAGER)
    lines[0]["run_id"] = "again"
    done = specscope("diff", EAGER, FUSED, "--noise", store(lines, tmp_path / "again.jsonl"))
    assert done.code == 0
    assert "measured between the baseline and the run of --noise" in done.out
    lines[0]["seed"] = 5
    done = specscope("diff", EAGER, FUSED, "--noise", store(lines, tmp_path / "seed.jsonl"))
    assert (done.code, done.out) == (2, "")
    assert "seed" in done.err
    assert specscope("diff", EAGER, FUSED, "--noise", tmp_path / "none.jsonl").code == 2


@pytest.mark.parametrize(
    ("out", "words"),
    [("pdf=x", "wanted FORMAT=FILE"), ("html=none/x", "does not exist"), ("html=.", "no regular file")],
)
def test_diff_refuses_a_report_that_it_could_not_write(tmp_path: Path, out: str, words: str) -> None:
    done = specscope("diff", EAGER, FUSED, "--out", out, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert not list(tmp_path.iterdir())


def test_show_draws_the_tree_with_its_accepted_path() -> None:
    step = first_step(load(FUSED), accepts_at_least(2))
    done = specscope("show", FUSED, "--turn", str(step["turn"]), "--step", str(step["step"]))
    assert done.code == 0
    assert done.out.count("✓") == step["accept"]["accepted_length"] + 1
    assert "bonus" in done.out
    assert f"committed {step['commit']['committed_before']} -> {step['commit']['committed_after']}" in done.out
    overview = specscope("show", FUSED)
    assert "accepted" in overview.out


def test_show_says_by_what_each_child_was_accepted(tmp_path: Path) -> None:
    lines = toy_lines(Toy("sampling", temperature=0.8))
    step = first_step(lines, accepts_at_least(1))
    path = store(lines, tmp_path / "sampling.jsonl")
    done = specscope("show", path, "--turn", str(step["turn"]), "--step", str(step["step"]))
    assert (done.code, done.err) == (0, "")
    assert "threshold" in done.out
    tried = [trial for visit in step["accept"]["visited"] for trial in visit["trials"]]
    for trial in tried:
        assert f"{trial['coin']:.4g}" in done.out
    assert done.out.count("rejected") == sum(not trial["accepted"] for trial in tried)
    assert f"drawn by coin {step['accept']['bonus_draw']['coin']:.6g}" in done.out
    assert "violated" not in done.out
    assert "lossy" not in done.out
    overview = specscope("show", path).out
    assert "acceptance rule: sampling, temperature 0.8, point-mass draft" in overview


def test_a_lossy_rule_says_so_wherever_it_is_named(tmp_path: Path) -> None:
    typical = store(toy_lines(Toy("typical")), tmp_path / "typical.jsonl")
    sampling = store(toy_lines(Toy("sampling")), tmp_path / "sampling.jsonl")
    label = "lossy (typical acceptance)"
    for arguments in (("check", typical), ("show", typical), ("show", typical, "--step", "1")):
        assert label in specscope(*arguments).out
    card = specscope("diff", typical, typical).out
    assert card.count(label) == 2, "in the card and below it"
    done = specscope("diff", sampling, typical)
    assert done.code == 3
    assert f"sampling.rule: sampling -> {label}" in done.out
    assert json.loads(specscope("diff", typical, typical, "--format", "json").out)["rule"].startswith(label)
    assert json.loads(specscope("check", typical, "--format", "json").out)["rule"].startswith(label)


def test_show_marks_a_violated_step() -> None:
    assert "violated tensors.position" in specscope("show", FAULTY, "--step", "0").out


@pytest.mark.parametrize("arguments", [("--step", "999"), ("--turn", "99")])
def test_show_refuses_a_place_that_is_not_there(arguments: tuple[str, str]) -> None:
    done = specscope("show", FUSED, *arguments)
    assert done.code == 2
    assert "wanted 0.." in done.err


def test_hostile_token_text_stays_text_in_the_terminal(tmp_path: Path) -> None:
    lines = load(FUSED)
    step = first_step(lines, accepts_at_least(1))
    evil = "\x1b[2J[bold]\u202e</b>"
    for name in step["texts"]:
        step["texts"][name] = evil
    path = store(lines, tmp_path / "evil.jsonl")
    done = specscope("show", path, "--turn", str(step["turn"]), "--step", str(step["step"]))
    assert done.code == 0
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out
    assert "\\u001b[2J[bold]\\u202e</b>" in done.out


def test_schema_prints_the_committed_schema() -> None:
    committed = json.loads((FUSED.parents[1] / "schemas" / "trace-v1.schema.json").read_text())
    assert json.loads(specscope("schema").out) == committed


def test_help_lists_every_command_and_the_exit_codes() -> None:
    done = specscope("--help")
    for command in ("bench", "check", "demo", "diff", "diff-many", "run", "schema", "show", "summary", "train", "view"):
        assert f"\n  {command} " in done.out
    assert "Exit codes" in done.out


def test_help_groups_the_commands_by_their_question_with_an_example_each() -> None:
    help_text = specscope("--help").out
    places = [help_text.index(f"\n{section.title}\n") for section in COMMAND_SECTIONS]
    assert places == sorted(places)
    for section, place in zip(COMMAND_SECTIONS, places, strict=True):
        part = help_text[place:].split("\n\n")[0]
        assert all(f"\n  {name} " in part for name in section.commands)
        assert f"\n  $ {section.example}" in part
        assert section.example.split()[1] in section.commands
    others = help_text[help_text.index("\nMore\n") :]
    assert all(f"\n  {name} " in others for name in ("bench", "schema", "selftest", "train"))


@pytest.mark.parametrize(("name", "titles"), [("run", 11), ("bench", 10), ("diff", 3), ("bisect", 4)])
def test_options_that_belong_together_stand_together(name: str, titles: int) -> None:
    command = command_line.cli.get_command(click.Context(command_line.cli), name)
    assert isinstance(command, SectionedCommand)
    names = [parameter.name for parameter in command.params]
    listed = [option for options in command.sections.values() for option in options]
    assert set(listed) <= set(names)
    assert len(set(listed)) == len(listed), "each stands once"
    help_text = specscope(name, "--help").out
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert re.search(rf" {parameter.opts[0]}[ ,\n]", help_text), parameter.opts[0]
    assert sum(line.endswith(":") and not line.startswith(" ") for line in help_text.splitlines()) == titles


def test_the_shell_completes_commands_and_options() -> None:
    def completed(words: str, number: int) -> str:
        command = str(Path(sys.executable).with_name("specscope"))
        asked = {"_SPECSCOPE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        done = subprocess.run([command], env={**os.environ, **asked}, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.stdout

    assert completed("specscope di", 1).split() == ["plain,diff", "plain,diff-many"]
    assert completed("specscope run --tr", 2).split() == [
        *("plain,--tree", "plain,--trace", "plain,--trace-level", "plain,--trace-text"),
    ]


def test_a_wrong_option_is_a_usage_error() -> None:
    done = specscope("check", "--colour", "blue")
    assert done.code == 2
    assert done.err == "error: no such option '--colour'; see  specscope check --help\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chekc"], "no such command 'chekc'"),
        (["check"], "missing argument 'FILES...'"),
        (["check", "x", "--format", "xml"], "invalid value for '--format': 'xml' is not one of 'text', 'json'"),
        (["run", "--depth", "deep"], "invalid value for '--depth': 'deep' is not a valid int"),
    ],
)
def test_a_mistake_in_the_command_line_is_one_line_like_any_other(arguments: list[str], message: str) -> None:
    done = specscope(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}")
    assert done.err.rstrip().endswith("--help")
    assert done.err.count("\n") == 1


def test_without_a_command_the_help_is_shown() -> None:
    done = specscope()
    assert "Usage: specscope" in done.out + done.err


def test_a_file_that_fails_is_never_called_ok(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(FUSED.read_bytes()[:-30])
    assert specscope("check", cut).out.startswith(f"TRUNCATED  {cut}")
    lines = load(FUSED)
    lines[-1]["reason"] = "failed"
    assert specscope("check", store(lines, tmp_path / "failed.jsonl")).out.startswith("FAILED RUN  ")
    cut.write_bytes(FAULTY.read_bytes()[:-30])
    assert specscope("check", cut).out.startswith("VIOLATED, TRUNCATED  ")
    assert specscope("check", FUSED).out.startswith("ok  ")


def test_a_turn_without_steps_says_so(tmp_path: Path) -> None:
    lines = [line for line in load(FUSED) if line["kind"] != "step"]
    done = specscope("show", store(lines, tmp_path / "t.jsonl"), "--step", "0")
    assert done.err == "error: got step 0, but turn 0 has no steps\n"
    empty = store(lines[:1], tmp_path / "empty.jsonl")
    assert specscope("show", empty).err == f"error: got turn 0, but {empty} has no turns\n"


def test_line_ends_that_a_transfer_changed_are_named(tmp_path: Path) -> None:
    path = tmp_path / "crlf.jsonl"
    path.write_bytes(FUSED.read_bytes().replace(b"\n", b"\r\n"))
    done = specscope("check", path)
    assert done.code == 1
    assert "only the line ends are others: a transfer made CRLF of LF" in done.out
    assert r"sed -i 's/\r$//' FILE" in done.out
    path.write_bytes(path.read_bytes().replace(b'"turn":0', b'"turn": 0', 1))
    assert "line ends" not in specscope("check", path).out, "more than the line ends has changed"


@pytest.mark.parametrize(
    "error", [RecursionError("too\ndeep"), KeyError("x"), ModuleNotFoundError("gone", name="gone")]
)
@pytest.mark.parametrize("traced", [False, True])
def test_an_unforeseen_error_is_no_difference(
    error: Exception, traced: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(command_line.cli, "main", fail)
    monkeypatch.setenv("SPECSCOPE_TRACEBACK", "1" if traced else "")
    with pytest.raises(SystemExit) as left:
        command_line.main()
    assert left.value.code == 2
    *before, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"error: this is a bug in specscope: {type(error).__name__}: ")
    assert last.endswith("(SPECSCOPE_TRACEBACK=1 shows where)")
    assert bool(before) == traced
    assert ("in fail" in "\n".join(before)) == traced


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

    monkeypatch.setattr(command_line.cli, "main", fail)
    with pytest.raises(SystemExit):
        command_line.main()
    assert "pip install 'specscope[engine]'" in capsys.readouterr().err
