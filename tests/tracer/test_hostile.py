"""Files that were damaged, or made to hurt: an error with file, line and field, or a violation; never a traceback, a
hang, or a clean verdict.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from support.toy_run import Toy, toy_lines
from support.traces import Lines, first_step, store

from specscope.schemas import AnyRecord, decode_record, encode_record, parse_line
from specscope.tracer.cli.check import check
from specscope.tracer.cli.diff import diff
from specscope.tracer.cli.show import show
from specscope.tracer.errors import SpecScopeError, TraceError
from specscope.tracer.files.index import sidecar_path
from specscope.tracer.files.reader import TraceReader

CLEAN = 0


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trace that passes everything."""
    path = store(toy_lines(Toy(num_steps=3)), tmp_path_factory.mktemp("honest") / "honest.jsonl")
    assert verdict(check, path) == CLEAN
    return path


def verdict(command: object, *arguments: Path | str) -> int:
    """The exit code of a command in this process; an exception that a user would see as a traceback is one here too."""
    result = CliRunner().invoke(command, list(map(str, arguments)))  # type: ignore[arg-type]
    if result.exception is None or isinstance(result.exception, SystemExit):
        return result.exit_code
    if isinstance(result.exception, SpecScopeError):
        return result.exception.exit_code
    raise result.exception


def judge_all(path: Path, honest: Path) -> int:
    """What ``check`` says, having seen that no other command trips over ``path``."""
    for arguments in ((show, path), (show, path, "--step", "1"), (diff, honest, path), (diff, path, honest)):
        verdict(*arguments)
    return verdict(check, path)


# Bytes.


def whole_lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "line-deleted": lambda c: b"".join(line for n, line in enumerate(whole_lines(c)) if n != 3),
    "line-doubled": lambda c: b"".join(line * (1 + (n == 3)) for n, line in enumerate(whole_lines(c))),
    "lines-swapped": lambda c: b"".join([*(lines := whole_lines(c))[:3], lines[4], lines[3], *lines[5:]]),
    "manifest-last": lambda c: b"".join((lines := whole_lines(c))[1:] + lines[:1]),
    "byte-order-mark": lambda c: b"\xef\xbb\xbf" + c,
    "mark-in-a-line": lambda c: c.replace(b"\n{", b"\n\xef\xbb\xbf{", 1),
    "crlf": lambda c: c.replace(b"\n", b"\r\n"),
    "utf-16": lambda c: c.decode().encode("utf-16"),
    "no-utf-8": lambda c: c.replace(b"prompt-0", b"prompt-\xff", 1),
    "lone-surrogate": lambda c: c.replace(b"prompt-0", rb"prompt-\ud800", 1),
    "nul-byte": lambda c: c.replace(b"prompt-0", b"prompt-\x00", 1),
    "nul-tail": lambda c: c + b"\x00" * 4096,
    "blank-line": lambda c: c.replace(b"\n", b"\n\n", 1),
    "no-newline": lambda c: c[:-1],
    "one-byte": lambda c: c[:1],
    "empty": lambda c: b"",
    "newlines": lambda c: b"\n" * 100,
    "gzip-damaged": lambda c: (g := gzip.compress(c))[:200] + b"?" * 9 + g[209:],
    "binary": lambda c: random.Random(0).randbytes(5000),
    "twice": lambda c: c + c,
    "carriage-returns": lambda c: c.replace(b"\n", b"\r"),
    "deep-list": lambda c: c.replace(b"\n", b"\n" + b"[" * 100_000 + b"\n", 1),
    "deep-object": lambda c: c.replace(b"\n", b"\n" + b'{"kind":' * 100_000 + b"\n", 1),
    "deep-unknown-field": lambda c: c.replace(b'"draft"', b'"x": ' + b"[" * 500 + b"]" * 500 + b', "draft"', 1),
    "bare-nan": lambda c: c.replace(b'"scores": [', b'"scores": [NaN, ', 1),
    "long-digits": lambda c: c.replace(b'"seq": 3', b'"seq": ' + b"9" * 5000, 1),
    "trailing-comma": lambda c: c.replace(b"]}", b",]}", 1),
    "single-quotes": lambda c: c.replace(b'"', b"'"),
    "a-comment": lambda c: c.replace(b"\n", b"\n# hello\n", 1),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_bytes_are_refused_or_reported(tmp_path: Path, honest: Path, name: str) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(DAMAGES[name](honest.read_bytes()))
    assert path.read_bytes() != honest.read_bytes()
    assert judge_all(path, honest) != CLEAN


# Values. ``store`` makes the digest fit again, so that nothing but the value can give a damage away.


def put(section: str, field: str, value: object) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        step = first_step(lines)
        (step[section] if section else step)[field] = value

    return change


def put_item(section: str, field: str, value: object) -> Callable[[Lines], None]:
    return lambda lines: first_step(lines)[section][field].__setitem__(1, value)


VALUES: dict[str, Callable[[Lines], None]] = {
    "seq-of-4300-digits": put("", "seq", int("9" * 4300)),
    "turn-of-4300-digits": put("", "turn", int("9" * 4300)),
    "step-of-4300-digits": put("", "step", int("9" * 4300)),
    "turn-negative": put("", "turn", -1),
    "step-2-to-63": put("", "step", 2**63),
    "token-10-to-30": put_item("tree", "tokens", 10**30),
    "token-negative": put_item("tree", "tokens", -(2**63) - 1),
    "parent-far-off": put_item("tree", "parents", 2**63),
    "depth-huge": put_item("tree", "depths", 10**4000),
    "score-huge": put_item("tree", "scores", 1e308),
    "score-text": put_item("tree", "scores", "Infinity"),
    "logit-nan": put_item("verify", "logsumexp", "NaN"),
    "argmax-huge": put_item("verify", "argmax", 10**30),
    "position-huge": put_item("tensors", "positions", 10**4000),
    "committed-huge": put("tensors", "committed_length", 10**4000),
    "committed-huge-everywhere": put("commit", "committed_before", 10**4299),
    "slots-huge": put("tensors", "num_slots", 2**62),
    "padding-huge": put("tensors", "padded_slots", 10**12),
    "mask-too-wide": put_item("tensors", "mask_rows", "ff" * 100_000),
    "mask-no-hex": put_item("tensors", "mask_rows", "zz"),
    "mask-odd": put_item("tensors", "mask_rows", "f"),
    "index-negative": put("tensors", "index_tensors", {"parents": [-1]}),
    "no-slots": put("tree", "tokens", []),
    "path-out-of-range": put("accept", "path", [10**9]),
    "path-negative": put("accept", "path", [-1]),
    "path-endless": put("accept", "path", [1] * 100_000),
    "length-of-4300-digits": put("accept", "accepted_length", int("9" * 4300)),
    "bonus-slot-negative": put("accept", "bonus_slot", -1),
    "visits-circle": put("accept", "visited", [{"slot": 0, "wanted": 1, "child": 0}] * 5_000),
    "kept-huge": put("stop", "kept", 10**4000),
    "drafter-huge": put("draft", "kv_after", 10**12),
    "frontier-out-of-range": lambda lines: first_step(lines)["draft"]["levels"][1].update(frontier=[10**9] * 3),
    "frontier-endless": lambda lines: first_step(lines)["draft"]["levels"][1].update(frontier=[0] * 10_000),
    "levels-empty": put("draft", "levels", []),
    "section-null": put("", "tree", None),
    "section-list": put("", "tree", []),
    "number-for-text": put("commit", "strategy", 3),
    "true-for-number": put("accept", "accepted_length", True),
    "float-for-integer": put("accept", "accepted_length", 1.0),
    "prompt-endless": lambda lines: lines[1].update(prompt_ids=[1] * 100_000),
    "vocabulary-zero": lambda lines: lines[0]["teacher"].update(vocab_size=0),
    "policy-chain-of-10-to-12": lambda lines: lines[0].update(
        tree_policy={"kind": "chain", "depth": 10**12, "top_k": 1, "budget": 10**12}
    ),
    "policy-nodes-wrong": lambda lines: lines[0]["tree_policy"].update(choices=[[-1], [10**30]]),
    "batch-of-0": lambda lines: lines[0].update(batch_size=0),
    "counts-wrong": lambda lines: lines[-1]["counts"].update(step=10**30),
    "end-of-a-turn-unknown": lambda lines: lines.insert(-1, {**lines[-2], "turn": 10**30}),
    "file-outside": put("", "tensor_files", {"file": "/etc/passwd", "digest": "0" * 32, "names": []}),
    "file-above": put("", "tensor_files", {"file": "../honest.jsonl", "digest": "0" * 32, "names": []}),
    "file-with-nul": put("", "tensor_files", {"file": "a\x00b", "digest": "0" * 32, "names": []}),
    "file-name-endless": put("", "tensor_files", {"file": "a" * 100_000, "digest": "0" * 32, "names": []}),
    "file-is-the-folder": put("", "tensor_files", {"file": ".", "digest": "0" * 32, "names": []}),
}


@pytest.mark.parametrize("name", VALUES)
def test_hostile_values_are_refused_or_reported(tmp_path: Path, honest: Path, name: str) -> None:
    lines = toy_lines(Toy(num_steps=3))
    VALUES[name](lines)
    path = store(lines, tmp_path / "hostile.jsonl")
    assert judge_all(path, honest) != CLEAN


@pytest.mark.parametrize(("literal", "is_float"), [("1e400", True), ("-1e400", True), ("1" + "0" * 400, False)])
def test_numbers_beyond_floats_are_not_clean(tmp_path: Path, honest: Path, literal: str, is_float: bool) -> None:
    content = honest.read_bytes()
    name = b'"logsumexp": [' if is_float else b'"argmax": ['
    start = content.index(name) + len(name)
    path = tmp_path / "huge.jsonl"
    path.write_bytes(content[:start] + literal.encode() + content[content.index(b",", start) :])
    assert judge_all(path, honest) != CLEAN


def test_a_key_that_stands_twice_is_not_clean(tmp_path: Path, honest: Path) -> None:
    path = tmp_path / "twice.jsonl"
    path.write_bytes(honest.read_bytes().replace(b'"accept": {', b'"turn": 1, "accept": {', 1))
    assert judge_all(path, honest) != CLEAN


# Any damage at all.


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Cuts, insertions, flips and moved pieces, a few at once."""
    pieces = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "cut", "insert", "move", "digit"]),
                st.floats(0, 1, exclude_max=True),
                st.integers(1, 60),
                st.binary(min_size=1, max_size=6)
                | st.sampled_from([b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"-", b"0"]),
            ),
            min_size=1,
            max_size=3,
        )
    )

    def change(content: bytes) -> bytes:
        for kind, where, length, new in pieces:
            at = int(where * len(content))
            if kind == "flip":
                content = content[:at] + bytes([content[at] ^ 1 << length % 8]) + content[at + 1 :]
            elif kind == "cut":
                content = content[:at] + content[at + length :]
            elif kind == "insert":
                content = content[:at] + new + content[at:]
            elif kind == "move":
                content = (
                    content[:at]
                    + content[at + length : at + 2 * length]
                    + content[at : at + length]
                    + content[at + 2 * length :]
                )
            else:
                digits = [n for n in range(at, min(at + 200, len(content))) if content[n : n + 1].isdigit()]
                content = content[: digits[0]] + b"7" + content[digits[0] + 1 :] if digits else content
        return content

    return change


def same_meaning(a: bytes, b: bytes) -> bool:
    """Whether two traces have equal lines but for how they are written, or but for what no other line vouches for."""
    try:
        ours, theirs = ([parse_line(line) for line in whole_lines(content)] for content in (a, b))
        if ours[:-1] == theirs[:-1] and b.endswith(b"\n"):
            return decode_record(whole_lines(b)[-1]).kind == "run_end"
    except ValueError:
        return False
    return False


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(change=mutations())
def test_any_mutation_is_refused_or_reported(
    tmp_path_factory: pytest.TempPathFactory, honest: Path, change: Callable[[bytes], bytes]
) -> None:
    content = honest.read_bytes()
    damaged = change(content)
    path = honest.with_name("mutated.jsonl")
    sidecar_path(path).unlink(missing_ok=True)
    path.write_bytes(damaged)
    code = judge_all(path, honest)
    assert code != CLEAN or same_meaning(content, damaged)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(change=mutations(), compact=st.booleans())
def test_reading_a_step_quickly_and_as_any_record_agree(
    honest: Path, change: Callable[[bytes], bytes], compact: bool
) -> None:
    step = whole_lines(honest.read_bytes())[3]
    line = change(json.dumps(json.loads(step), separators=(",", ":")).encode() if compact else step)
    assert outcome_of(lambda: decode_record(line)) == outcome_of(lambda: as_any_record(line))


def outcome_of(read: Callable[[], object]) -> str:
    try:
        return repr(read())
    except ValueError as error:
        return str(error)


def as_any_record(line: bytes) -> AnyRecord:
    if b"NaN" in line or b"Infinity" in line:
        parse_line(line)
    return TypeAdapter[AnyRecord](AnyRecord).validate_json(line)


@pytest.mark.parametrize("section", [None, "tree", "accept"])
def test_unknown_fields_are_kept_as_they_are(section: str | None) -> None:
    step = first_step(toy_lines(Toy()))
    (step if section is None else step[section])["news"] = [10**30, -(2**64)]
    again = json.loads(encode_record(decode_record(json.dumps(step).encode())))
    assert (again if section is None else again[section])["news"] == [10**30, -(2**64)]
    (step if section is None else step[section])["news"] = json.loads("[" * 300 + "]" * 300)
    with pytest.raises(ValueError, match="recursion"):
        decode_record(json.dumps(step).encode())


@pytest.mark.parametrize("kind", [None, "turn_end", 3])
def test_no_other_record_is_taken_for_a_step(kind: object) -> None:
    step = first_step(toy_lines(Toy())) | {"kind": kind}
    line = json.dumps({name: value for name, value in step.items() if value is not None}).encode()
    if kind is not None:
        line = b'{"seq":2,"kind":"step",' + line[1:]
    with pytest.raises(ValueError, match=r"kind|Field required"):
        decode_record(line)


# Things that are no files.


def test_what_is_no_file_is_refused(tmp_path: Path, honest: Path) -> None:
    fifo, loop, dangling = tmp_path / "fifo.jsonl", tmp_path / "loop.jsonl", tmp_path / "dangling.jsonl"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    dangling.symlink_to(tmp_path / "nothing")
    for path in (tmp_path, fifo, loop, dangling, Path("/dev/null"), tmp_path / "none", tmp_path / ("a" * 300)):
        assert judge_all(path, honest) == 2


def test_the_index_of_another_is_not_trusted(tmp_path: Path, honest: Path) -> None:
    """A sidecar whose stamp fits, and whose places do not."""
    path = tmp_path / "run.jsonl"
    path.write_bytes(honest.read_bytes())
    with TraceReader(path) as reader:
        wanted = [turn.steps for turn in reader.turns]
    kept = json.loads(sidecar_path(path).read_bytes())
    for field, value in (("start", -1), ("end", 10**15), ("steps", [10**15]), ("steps", [-(2**62)])):
        hostile = json.loads(json.dumps(kept))
        hostile["turns"][0][field] = value
        sidecar_path(path).write_text(json.dumps(hostile))
        with TraceReader(path) as reader:
            assert [turn.steps for turn in reader.turns] == wanted
    shifted = json.loads(json.dumps(kept))
    shifted["turns"][0]["steps"][0] += 1
    sidecar_path(path).write_text(json.dumps(shifted))
    with TraceReader(path) as reader, pytest.raises(TraceError, match=r"run\.jsonl"):
        list(reader.steps(reader.turns[0]))


# Text.


def test_hostile_text_reaches_no_terminal(tmp_path: Path) -> None:
    bad = "\u202e\u001b[31m[red]\u0007\u2066 "
    lines = toy_lines(Toy(num_steps=2))
    lines[0] |= {"engine": bad, "dtype": bad, "attention": bad}
    lines[0]["device"] |= {"backend": bad, "name": bad}
    for line in lines:
        if "prompt_id" in line:
            line["prompt_id"] += bad
    first_step(lines)["commit"] |= {"strategy": bad}
    first_step(lines)["invariants"]["failed"] = [{"id": bad, "witness": bad}]
    first_step(lines)["texts"] = {"1": bad}
    failure = {"seq": 0, "kind": "failure", "phase": "draft", "error": bad, "message": bad, "inputs": {bad: bad}}
    lines.insert(-1, failure)
    path = store(lines, tmp_path / f"name{bad[:-1].replace('/', '')}.jsonl")
    for command, *more in (
        (check, path),
        (check, path, "--format", "json"),
        (show, path),
        (show, path, "--step", "0"),
        (diff, path, path),
    ):
        result = CliRunner().invoke(command, list(map(str, more)))
        assert result.exception is None or isinstance(result.exception, SystemExit | SpecScopeError), result.exception
        assert not set("\u202e\u2066\u0007") & set(result.output)
        assert "\u001b[31m[red]" not in result.output
