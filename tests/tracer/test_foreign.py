"""Traces of writers that know nothing of our code: from the format's document alone, its examples and its snippet.

Nothing here writes with ``specscope``; what is read and judged goes through the real commands or what they call.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from support.called import specscope
from support.pipeline_mutants import PIPELINE_MUTANTS
from support.silent import ABOUT_CUSTODY, ABOUT_DRAWS, ABOUT_ROWS, NOT_HERE
from support.traces import ROOT, Lines, load, store

from specscope.schemas import AnyRecord, Step, decode_record
from specscope.tracer.compare import diff_traces
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.invariants import ALL_INVARIANTS
from specscope.tracer.oracle.invariants.run import RUN_RULES
from specscope.tracer.oracle.report import OracleReport

DOCUMENT = (ROOT / "docs" / "trace-format.md").read_text(encoding="utf-8")
TABLES = runpy.run_path(str(ROOT / "docs" / "format_tables.py"))


def block(language: str) -> str:
    """The document's one example in that language, verbatim."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return str(found)


# The document and the code.


def test_the_documents_tables_are_those_of_the_code() -> None:
    assert TABLES["filled"](DOCUMENT) == DOCUMENT, "run: python docs/format_tables.py"


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and every section below it."""
    yield model
    for field in model.model_fields.values():
        todo = [field.annotation]
        while todo:
            part = todo.pop()
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from models(part)
            todo += get_args(part)


def test_every_model_has_its_table_and_every_invariant_its_row() -> None:
    records = get_args(get_args(AnyRecord)[0])
    wanted = {model.__name__ for record in records for model in models(record)} | {"invariants"}
    assert {name for name, _ in TABLES["MARKED"].findall(DOCUMENT)} == wanted
    for name in [invariant.id for invariant in ALL_INVARIANTS] + list(RUN_RULES):
        assert f"| `{name}` |" in DOCUMENT
    links = set(re.findall(r"\]\(#([a-z-]+)\)", DOCUMENT))
    headings = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", DOCUMENT, re.MULTILINE)}
    assert links <= headings


def test_the_worked_example_of_the_mask_is_right() -> None:
    assert namespace()["mask_row"]([0, 2, 5, 9], 10) == "2502"
    assert '"2502"' in DOCUMENT


# The document's examples, verbatim.


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    """The document's trace as it stands there."""
    path = tmp_path / "minimal.jsonl"
    path.write_text(block("jsonl"), encoding="utf-8")
    return path


def tallies(report: OracleReport) -> dict[str, set[str]]:
    """Invariants by what became of them."""
    return {
        word: {name for name, tally in report.invariants.items() if getattr(tally, word)}
        for word in ("passed", "failed", "skipped")
    }


def test_the_minimal_trace_is_read_judged_compared_and_shown(minimal: Path) -> None:
    done = specscope("check", minimal)
    assert done.code == 0, done
    assert re.search(r"\d+ of 102 invariants were not judged .*\n +not recorded: .*\btensors,", done.out)
    verbose = specscope("check", minimal, "--verbose")
    assert re.search(r"tensors\.mask-is-ancestors .*\(skipped; not recorded: tensors\)", verbose.out)
    assert specscope("diff", minimal, minimal).code == 0
    assert "bonus" in specscope("show", minimal, "--step", "0").out
    found = tallies(check_trace(minimal))
    assert not found["failed"]
    assert found["passed"] >= {
        *("tree.parent-before-child", "tree.siblings-distinct", "tree.tokens-in-vocabulary", "tree.shape-is-policy"),
        *("accept.walk", "accept.bonus", "accept.path-connected", "stop.emitted", "sequence.root-is-last-bonus"),
        *("turn.output-is-sum", "turn.metrics", "run.digest", "run.counts", "run.capabilities"),
    }
    assert not found["passed"] & found["skipped"]
    assert {name.split(".")[0] for name in found["skipped"]} == {
        *("tensors", "draft", "tree", "verify", "commit", "sequence", "turn", "rows", "run")
    }


def full_step() -> dict[str, Any]:
    step: dict[str, Any] = json.loads(block("json"))
    return step


def with_full_step(minimal: Path) -> Lines:
    """The minimal trace with its first step as the document shows it in full."""
    lines = load(minimal)
    assert lines[2]["tree"]["tokens"] == full_step()["tree"]["tokens"]
    lines[2] = full_step()
    lines[0]["drafter"]["hidden_state_indices"] = [2, 5, 7]
    lines[0]["cache_strategy"] = "in-place"
    lines[1]["prefill"]["features_digest"] = full_step()["draft"]["inputs"]["hidden_digest"]
    return lines


def test_the_full_step_is_judged_by_everything(minimal: Path, tmp_path: Path) -> None:
    lines = with_full_step(minimal)
    del lines[3]
    for number, line in enumerate(lines):
        line["seq"] = number
    lines[2]["stop"]["reason"] = "length"
    lines[0]["stop_rules"] = {"max_new_tokens": 4, "eos_token_ids": [0], "stop_strings": []}
    lines[0]["capabilities"] = [name for name in Step.model_fields if name in lines[2]][4:]
    lines[1]["prefill"] |= {"top_tokens": [7, 3], "top_logits": [2.5, 1.0], "dispatch": {"paged": 2}}
    lines[3] |= {"output_ids": [7, 4, 8, 2], "num_steps": 1, "num_drafted": 2}
    lines[4]["counts"]["step"] = 1
    report = check_trace(store(lines, tmp_path / "full.jsonl"))
    found = tallies(report)
    assert lines[0]["capabilities"] == list(full_step())[4:]
    assert (found["failed"], found["skipped"]) == (set(), ABOUT_ROWS | {"commit.prefix-kept"})
    others = {"draft.frontier-is-best", "tree.best-of-candidates", "run.tensor-files", "sequence.pairs-continue"}
    silent = ABOUT_DRAWS | ABOUT_CUSTODY | ABOUT_ROWS | NOT_HERE | PIPELINE_MUTANTS.keys() | others
    assert set(report.invariants) - found["passed"] <= silent


# A writer in plain Python, the document's own.


def namespace() -> dict[str, Any]:
    """What the document's snippet defines."""
    code = block("python")
    assert set(re.findall(r"^import (\w+)$", code, re.MULTILINE)) <= {"json", "struct", "xxhash"}
    assert "from " not in code
    defined: dict[str, Any] = {}
    exec(compile(code, "trace-format.md", "exec"), defined)
    return defined


def fields(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in ("seq", "kind", "counts", "digest")}


def write(lines: Lines, path: Path) -> Path:
    """Writes all but the last of ``lines`` with the document's writer, which ends the trace itself."""
    writer = namespace()["Writer"](path)
    for line in lines[:-1]:
        writer.write(line["kind"], **fields(line))
    writer.finish()
    return path


def test_the_documents_writer_writes_the_documents_trace(minimal: Path, tmp_path: Path) -> None:
    written = write(load(minimal), tmp_path / "written.jsonl")
    assert written.read_bytes() == minimal.read_bytes()
    with pytest.raises(FileExistsError):
        namespace()["Writer"](written)


def test_its_helpers_give_what_the_full_step_shows() -> None:
    helpers, step = namespace(), full_step()
    ancestors = [[0], [0, 1], [0, 1, 2]]
    assert [helpers["mask_row"](row, 3) for row in ancestors] == step["tensors"]["mask_rows"]
    visible = [[column in row for column in range(3)] for row in ancestors]
    given = helpers["input_digest"](step["tensors"]["token_ids"], step["tensors"]["positions"], visible)
    assert given == step["tensors"]["input_digest"] == step["verify"]["input_digest"]
    values = (float("nan"), float("inf"), -float("inf"), 1.5)
    assert [helpers["number"](value) for value in values] == ["NaN", "Infinity", "-Infinity", 1.5]


def test_the_helpers_digest_as_the_engine_does() -> None:
    torch = pytest.importorskip("torch")
    from specscope.engine.digests import digest_tensors

    ids, positions, visible = [9, 4, 61], [3, 4, 4], [[True, False, False], [True, True, False], [True, False, True]]
    ours = digest_tensors(torch.tensor(ids), torch.tensor(positions), torch.tensor(visible))
    assert namespace()["input_digest"](ids, positions, visible) == ours


def test_a_fuller_trace_is_judged_by_more(minimal: Path, tmp_path: Path) -> None:
    bare, fuller = check_trace(minimal), check_trace(write(with_full_step(minimal), tmp_path / "fuller.jsonl"))
    assert (bare.num_violations, fuller.num_violations) == (0, 0)
    more = tallies(fuller)["passed"] - tallies(bare)["passed"]
    assert more >= {"tensors.mask-is-ancestors", "commit.length-equation", "draft.pair-tokens", "verify.argmax-is-top"}


Change = Callable[[Lines], Any]
BREAKS: dict[str, Change] = {
    "tree.parent-before-child": lambda lines: lines[2]["tree"].update(parents=[0, 2, 1]),
    "tree.depth-follows-parent": lambda lines: lines[2]["tree"].update(depths=[0, 1, 1]),
    "tree.tokens-in-vocabulary": lambda lines: lines[2]["tree"].update(tokens=[7, 4, 32]),
    "tree.shape-is-policy": lambda lines: lines[0]["tree_policy"].update(budget=1),
    "accept.walk": lambda lines: lines[2]["verify"].update(argmax=[4, 9, 2]),
    "accept.bonus": lambda lines: lines[3]["verify"].update(argmax=[5, 0]),
    "accept.length": lambda lines: lines[2]["accept"].update(accepted_length=1),
    "stop.emitted": lambda lines: lines[2]["stop"].update(emitted=[4, 8, 3]),
    "sequence.root-is-last-bonus": lambda lines: lines[3]["tree"].update(tokens=[4, 6]),
    "turn.output-is-sum": lambda lines: lines[4].update(output_ids=[7, 4, 8, 2]),
    "turn.metrics": lambda lines: lines[4].update(num_drafted=4),
    "turn.prefill": lambda lines: lines[1]["prefill"].update(num_tokens=2),
    "run.capabilities": lambda lines: lines[3].pop("stop"),
    "run.counts": lambda lines: lines[5]["counts"].update(step=3),
    "tensors.mask-is-ancestors": lambda lines: lines[2]["tensors"].update(mask_rows=["01", "03", "05"]),
    "tensors.position-is-length-plus-depth": lambda lines: lines[2]["tensors"].update(positions=[3, 4, 6]),
    "verify.input-digest": lambda lines: lines[2]["verify"].update(input_digest="0" * 16),
    "verify.logits-finite": lambda lines: lines[2]["verify"].update(nonfinite_slots=[1]),
    "commit.destinations-contiguous": lambda lines: lines[2]["commit"].update(destination_rows=[3, 4, 6]),
    "draft.pair-tokens": lambda lines: lines[2]["draft"]["inputs"].update(tokens=[5, 9, 8]),
}


@pytest.mark.parametrize("invariant", BREAKS)
def test_a_wrong_field_is_named(minimal: Path, tmp_path: Path, invariant: str) -> None:
    lines = with_full_step(minimal)
    BREAKS[invariant](lines)
    report = check_trace(store(lines, tmp_path / "broken.jsonl"))
    assert report.invariants[invariant].failed, tallies(report)["failed"]


# Capabilities.


@pytest.mark.parametrize(
    ("capability", "drop"),
    [
        ("verify", lambda lines: lines[2].pop("verify")),
        ("verify.top_logits", lambda lines: lines[2]["verify"].pop("top_logits")),
        ("verify.top_logits", lambda lines: lines[2].pop("verify")),
        ("commit.source_checksums", lambda lines: lines[2]["commit"].pop("source_checksums")),
    ],
)
def test_listed_and_absent_is_violated_and_not_listed_is_skipped(
    minimal: Path, tmp_path: Path, capability: str, drop: Change
) -> None:
    lines = with_full_step(minimal)
    lines[3] |= {"verify": lines[2]["verify"] | lines[3]["verify"], "commit": dict(lines[2]["commit"])}
    for name in ("top_tokens", "top_logits", "logsumexp", "entropy"):
        lines[3]["verify"][name] = lines[3]["verify"][name][:2]
    drop(lines)
    lines[0]["capabilities"] = ["tree", "accept", "stop", "verify.invented", "dreams", capability]
    listed = check_trace(store(lines, tmp_path / "listed.jsonl"))
    first = listed.invariants["run.capabilities"].first
    assert first is not None
    assert (first.step, first.witness) == (0, f"promised and absent: {capability}")
    lines[0]["capabilities"].remove(capability)
    assert check_trace(store(lines, tmp_path / "unlisted.jsonl")).invariants["run.capabilities"].failed == 0


def sampled(minimal: Path, capabilities: list[str]) -> Lines:
    """The minimal trace of a server that draws, and records no coins."""
    lines = load(minimal)
    lines[0] |= {"sampling": {"rule": "sampling", "temperature": 0.8}, "capabilities": capabilities}
    for line in lines[2:4]:
        line["accept"]["rule"] = "sampling"
    return lines


def test_a_server_that_draws_need_not_record_its_coins(minimal: Path, tmp_path: Path) -> None:
    about_draws = {"accept.walk", "accept.bonus", "accept.trials", "accept.thresholds"}
    fields_alone = ["tree", "verify", "accept.path", "stop"]
    report = check_trace(store(sampled(minimal, fields_alone), tmp_path / "fields.jsonl"))
    assert report.num_violations == 0
    assert about_draws <= tallies(report)["skipped"]
    assert report.invariants["accept.bonus"].why_skipped == "not recorded: accept.bonus_draw"
    whole = check_trace(store(sampled(minimal, ["tree", "verify", "accept", "stop"]), tmp_path / "whole.jsonl"))
    assert about_draws <= tallies(whole)["failed"], "the whole section was promised"


# Comparing.


def as_ours(lines: Lines) -> Lines:
    """The same run by an engine that knows more of the models."""
    lines[0] |= {"engine": "our-engine 1.0", "run_id": "ours", "seed": 0}
    lines[0] |= {"stop_rules": {"max_new_tokens": 5, "eos_token_ids": [0], "stop_strings": []}}
    lines[0]["teacher"] |= {"num_layers": 2, "hidden_size": 8, "weights_digest": "0123456789abcdef"}
    return lines


def test_two_engines_are_compared_by_what_both_know(minimal: Path, tmp_path: Path) -> None:
    ours = store(as_ours(load(minimal)), tmp_path / "ours.jsonl")
    verdict = diff_traces(minimal, ours)
    assert (verdict.verdict, verdict.incomparable) == ("equal", [])
    assert any("weights_digest: absent -> 0123456789abcdef" in line for line in verdict.axis)


def test_what_both_know_and_is_not_equal_is_incomparable(minimal: Path, tmp_path: Path) -> None:
    theirs, ours = as_ours(load(minimal)), as_ours(load(minimal))
    theirs[0]["engine"], theirs[0]["teacher"]["weights_digest"] = "other-engine 3.1", "f" * 16
    paths = store(theirs, tmp_path / "theirs.jsonl"), store(ours, tmp_path / "ours.jsonl")
    assert any("weights_digest" in line for line in diff_traces(*paths).incomparable)


def test_another_acceptance_is_a_root(minimal: Path, tmp_path: Path) -> None:
    lines = load(minimal)
    lines[2]["verify"]["argmax"] = [4, 9, 2]
    lines[2]["accept"] |= {"path": [1], "accepted_length": 1, "bonus_token": 9, "bonus_slot": 1}
    lines[2]["stop"] |= {"emitted": [4, 9], "kept": 2}
    verdict = diff_traces(minimal, store(lines, tmp_path / "other.jsonl"))
    assert verdict.verdict == "different"
    assert (verdict.roots[0].difference.phase, verdict.roots[0].difference.field) == ("verify", "argmax")


def test_every_line_of_the_document_is_a_record(minimal: Path) -> None:
    kinds = [decode_record(line).kind for line in minimal.read_bytes().splitlines()]
    assert kinds == ["manifest", "turn_start", "step", "step", "turn_end", "run_end"]
