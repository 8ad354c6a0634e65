"""What engines call otherwise, or leave out: compared as far as both say it, or refused in words."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.recorder_calls import ABOUT
from support.toy_engine import PROMPTS, VOCAB, changed, decode
from support.traces import EAGER, FUSED, Lines, load, store

from specscope.schemas.verdict import Verdict
from specscope.tracer import Recorder
from specscope.tracer.compare import diff_traces
from specscope.tracer.compare.diff import DiffOptions
from specscope.tracer.compare.roundings import epsilon_of
from specscope.tracer.errors import TraceError
from specscope.tracer.oracle.check import check_trace


def renamed(path: Path, field: str, value: Any) -> Path:
    """A copy of the trace by an engine that calls a thing otherwise."""
    section, _, name = field.partition(".")
    return changed(path, lambda lines: lines[0][section].__setitem__(name, value))


@pytest.mark.parametrize(
    ("field", "ours", "theirs"),
    [
        ("teacher.architecture", "LlamaForCausalLM", "llama"),
        ("teacher.architecture", "Qwen2MoeForCausalLM", "qwen2moe"),
        ("teacher.architecture", "GPT2LMHeadModel", "gpt2"),
        ("teacher.architecture", "LlamaForCausalLM", "llama_for_causal_lm"),
        ("drafter.kind", "eagle3", "EAGLE-3"),
    ],
)
def test_names_that_engines_write_in_their_own_way_are_one(tmp_path: Path, field: str, ours: str, theirs: str) -> None:
    recorded = renamed(decode(tmp_path / "a.jsonl"), field, ours)
    same = decode(tmp_path / "b.jsonl")
    verdict = diff_traces(recorded, renamed(same, field, theirs))
    assert (verdict.verdict, verdict.remarks) == ("equal", [])
    other = diff_traces(recorded, renamed(same, field, f"other-{theirs}"))
    assert (other.verdict, other.incomparable) == ("incomparable", [f"{field}: {ours} -> other-{theirs}"])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("通义", "智谱"), ("naïve", "nave"), ("---", "___x"), ("ForCausalLM", "LMHeadModel"), ("a.1", "a1")],
)
def test_other_names_in_any_script_are_others(tmp_path: Path, ours: str, theirs: str) -> None:
    recorded = renamed(decode(tmp_path / "a.jsonl"), "teacher.architecture", ours)
    verdict = diff_traces(recorded, renamed(decode(tmp_path / "b.jsonl"), "teacher.architecture", theirs))
    assert verdict.incomparable == [f"teacher.architecture: {ours} -> {theirs}"]


@pytest.mark.parametrize(
    ("digests", "outcome", "remarked"),
    [
        ((None, None), "equal", 1),
        (("a" * 32, None), "equal", 1),
        (("a" * 32, "a" * 32), "equal", 0),
        (("a" * 32, "b" * 32), "incomparable", 0),
    ],
)
def test_a_teachers_name_is_for_people_and_its_digests_decide(
    tmp_path: Path, digests: tuple[str | None, str | None], outcome: str, remarked: int
) -> None:
    paths = [decode(tmp_path / "a.jsonl"), renamed(decode(tmp_path / "b.jsonl"), "teacher.name", "my-teacher")]
    paths = [renamed(path, "teacher.weights_digest", digest) for path, digest in zip(paths, digests, strict=True)]
    verdict = diff_traces(paths[0], paths[1])
    assert verdict.verdict == outcome
    assert sum("teachers' names differ (affine -> my-teacher)" in line for line in verdict.remarks) == remarked


def test_a_padded_vocabulary_is_refused_with_the_option_that_lets_it_pass(tmp_path: Path) -> None:
    plain = decode(tmp_path / "a.jsonl")
    padded = renamed(plain, "teacher.vocab_size", VOCAB + 31)
    refused = diff_traces(plain, padded)
    assert (refused.verdict, refused.incomparable) == ("incomparable", ["teacher.vocab_size: 97 -> 128"])
    assert refused.next[0].endswith("--allow teacher.vocab_size")
    assert diff_traces(plain, padded, DiffOptions(allowed=frozenset({"teacher.vocab_size"}))).verdict == "equal"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda manifest: manifest.pop("mode"), "mode"),
        (lambda manifest: manifest.pop("tree_policy"), "tree_policy"),
        (lambda manifest: manifest["tree_policy"].update(kind="heuristic"), "tree_policy.kind"),
    ],
)
def test_what_a_manifest_must_say_is_named_with_what_it_may_be(tmp_path: Path, change: Any, field: str) -> None:
    bad = changed(decode(tmp_path / "a.jsonl"), lambda lines: change(lines[0]))
    with pytest.raises(TraceError, match=rf"line 1, field {field}: (Field required|Input should be 'dynamic')"):
        check_trace(bad)


@pytest.mark.parametrize(("dtype", "remarked"), [("float8_e4m3fn", True), ("bf16", False), ("float16", False)])
def test_a_dtype_whose_roundings_nobody_knows_is_remarked_on(tmp_path: Path, dtype: str, remarked: bool) -> None:
    def narrow(lines: Lines) -> None:
        lines[0]["dtype"] = dtype

    plain = decode(tmp_path / "a.jsonl")
    options = DiffOptions(allowed=frozenset({"dtype"}))
    verdict = diff_traces(plain, changed(decode(tmp_path / "b.jsonl"), narrow), options)
    says = f"the candidate computes in {dtype}, whose roundings are not known: noise is counted in those of float32"
    assert any(line.startswith(says) for line in verdict.remarks) == remarked


@pytest.mark.parametrize(("short", "full"), [("bf16", "bfloat16"), ("fp16", "float16"), ("fp32", "float32")])
def test_a_short_name_of_a_dtype_rounds_as_the_dtype(short: str, full: str) -> None:
    assert epsilon_of(short) == epsilon_of(full)


def test_a_part_of_a_run_is_compared_as_far_as_it_goes_and_the_rest_is_named(tmp_path: Path) -> None:
    whole = decode(tmp_path / "whole.jsonl")
    part = decode(tmp_path / "part.jsonl", prompts={"a": PROMPTS["a"]})
    verdict = diff_traces(whole, part)
    assert (verdict.verdict, verdict.exit_code, verdict.num_turns) == ("uncovered", 4, 1)
    assert verdict.uncovered == ["only in the baseline: turn 1 (prompt b)"]


# Trees without what was drafted for them.


def without_drafts(lines: Lines) -> None:
    lines[0]["capabilities"].remove("draft")
    for step in (line for line in lines if line["kind"] == "step"):
        del step["draft"]


def with_another_leaf(lines: Lines, gap: float, at: int = 0) -> None:
    """In a step a token that nobody proposed stands in the worst leaf's place, scored ``gap`` apart."""
    step = [line for line in lines if line["kind"] == "step"][at]
    tree = step["tree"]
    worst = min(range(1, len(tree["scores"])), key=lambda slot: tree["scores"][slot])
    assert worst not in [*step["accept"]["path"], *tree["parents"]]
    token = next(token for token in range(3000, 3100) if token not in tree["tokens"])
    tree["tokens"][worst] = step["tensors"]["token_ids"][worst] = token
    tree["scores"][worst] += gap
    tree["logprobs"][worst] += gap


#: A step whose worst node is the least of the siblings that were proposed, all of which are kept: another token may as
#: well have been among them. In step 0 better siblings of the worst node were left out.
ALL_KEPT = 7


def judged(folder: Path, gap: float, *, at: int, sides: tuple[int, ...]) -> Verdict:
    """The verdict on two runs of which these sides record no drafts, and of which the first has another leaf."""
    pair = [load(EAGER), load(FUSED)]
    for side in sides:
        without_drafts(pair[side])
    with_another_leaf(pair[0], gap, at)
    return diff_traces(store(pair[0], folder / "a.jsonl"), store(pair[1], folder / "b.jsonl"))


@pytest.mark.parametrize(
    ("gap", "outcome"), [(0.0, "ties"), (1e-6, "ties"), (-1e-6, "ties"), (0.5, "different"), (-0.5, "different")]
)
@pytest.mark.parametrize("sides", [(0,), (0, 1)], ids=["one side", "both sides"])
def test_a_tied_node_is_a_tie_by_the_trees_scores_where_drafts_are_not_recorded(
    tmp_path: Path, sides: tuple[int, ...], gap: float, outcome: str
) -> None:
    verdict = judged(tmp_path, gap, at=ALL_KEPT, sides=sides)
    root = verdict.roots[0].difference
    assert (root.phase, root.field, verdict.verdict) == ("tree", "nodes", outcome)


def test_such_a_tie_is_described_by_both_nodes_with_their_scores(tmp_path: Path) -> None:
    root = judged(tmp_path, 0.0, at=ALL_KEPT, sides=(0,)).roots[0].difference
    ours, theirs = root.contenders or []
    assert None not in (ours.a, theirs.b)
    assert (ours.b, theirs.a) == (None, None), "neither tree has the other's node"
    assert root.margin_a is not None
    assert root.floor is not None
    assert root.margin_a <= 2 * root.floor


@pytest.mark.parametrize(("sides", "outcome"), [((0,), "different"), ((1,), "different"), ((0, 1), "ties")])
def test_what_one_side_recorded_as_proposed_refutes_a_tie(tmp_path: Path, sides: tuple[int, ...], outcome: str) -> None:
    assert judged(tmp_path, 0.0, at=0, sides=sides).verdict == outcome


SMALL: dict[str, Any] = {
    **ABOUT,
    "dtype": "float32",
    "tree_policy": {"kind": "dynamic", "depth": 2, "top_k": 2, "budget": 2},
    "stop_rules": {"max_new_tokens": 2, "eos_token_ids": [], "stop_strings": []},
    "sections": ["tree", "verify", "accept", "stop"],
}


def small_tree(path: Path, tokens: list[int], scores: list[float]) -> Path:
    """The trace of an engine that records a chain below the root and no drafts."""
    logprobs = [0.0, *(below - above for above, below in pairwise(scores))]
    tree = {"scores": scores, "logprobs": logprobs}
    with Recorder(path, **SMALL) as trace:
        turn = trace.turn("p", [5, 9, 2], pending_token=tokens[0])
        turn.step(tokens=tokens, parents=[0, 0, 1], path=[], bonus_token=3, argmax=[3, 50, 51], tree=tree, emitted=[3])
        turn.end("length")
    return path


LIKELY = math.log(0.95)


@pytest.mark.parametrize(
    ("ours", "theirs", "scores", "outcome"),
    [
        ([7, 10, 11], [7, 10, 12], [0.0, -0.3, -1.2], "ties"),
        ([7, 10, 11], [7, 10, 12], [0.0, LIKELY, 2 * LIKELY], "different"),  # siblings of 0.95 each
        ([7, 10, 11], [7, 20, 21], [0.0, -0.8, -1.6], "different"),  # no node is shared
        ([7, 10, 11], [7, 10, 12], [0.0, 0.0, 0.0], "different"),  # scores that rank nothing
    ],
)
def test_scores_that_prove_no_tie_are_none(
    tmp_path: Path, ours: list[int], theirs: list[int], scores: list[float], outcome: str
) -> None:
    verdict = diff_traces(
        small_tree(tmp_path / "a.jsonl", ours, scores), small_tree(tmp_path / "b.jsonl", theirs, scores)
    )
    assert verdict.verdict == outcome
