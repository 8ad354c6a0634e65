"""What engines that are not ours do otherwise: it can be written, the oracle judges it, and a diff compares it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.toy_engine import LENGTH, PROMPTS, VOCAB, changed, decode, teacher
from support.traces import Lines, load, store

from specscope.tracer.compare import diff_traces
from specscope.tracer.compare.diff import DiffOptions
from specscope.tracer.errors import TraceError, UsageError
from specscope.tracer.export.perfetto import perfetto_trace
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace


def failed(path: Path) -> set[str]:
    return {name for name, tally in check_trace(path).invariants.items() if tally.failed}


def steps(lines: Lines, turn: int = 0) -> Lines:
    return [line for line in lines if line["kind"] == "step" and line["turn"] == turn]


# An engine that drafts before its first token.


def test_drafts_may_hang_below_the_prompts_last_token(tmp_path: Path) -> None:
    early = decode(tmp_path / "early.jsonl", first_token=False)
    start, first = load(early)[1], steps(load(early))[0]
    assert "pending_token" not in start["prefill"]
    assert (start["prefill"]["num_tokens"], first["tree"]["tokens"][0]) == (len(PROMPTS["a"]) - 1, PROMPTS["a"][-1])
    assert failed(early) == set()
    verdict = diff_traces(decode(tmp_path / "usual.jsonl"), early)
    assert (verdict.verdict, verdict.impact.tokens_equal, verdict.impact.num_tokens_b) == ("equal", True, 2 * LENGTH)
    assert verdict.num_steps > 0


@pytest.mark.parametrize(
    ("invariant", "change"),
    [
        ("sequence.root-is-last-bonus", lambda lines: steps(lines)[0]["tree"]["tokens"].__setitem__(0, 7)),
        ("turn.output-is-sum", lambda lines: lines[-2]["output_ids"].insert(0, 1)),
        ("turn.prefill", lambda lines: lines[1]["prefill"].update(num_tokens=3)),
    ],
)
def test_a_turn_without_a_pending_token_is_judged(tmp_path: Path, invariant: str, change: Any) -> None:
    early = decode(tmp_path / "early.jsonl", first_token=False)
    assert invariant in failed(changed(early, change))


def test_another_first_token_is_a_root_at_the_prompt(tmp_path: Path) -> None:
    def elsewhere(lines: Lines) -> None:
        lines[1]["prefill"]["pending_token"] = lines[2]["tree"]["tokens"][0] = 50

    early = decode(tmp_path / "early.jsonl", first_token=False, prompts={"a": PROMPTS["a"]})
    usual = decode(tmp_path / "usual.jsonl", prompts={"a": PROMPTS["a"]})
    root = diff_traces(changed(usual, elsewhere), early).roots[0].difference
    assert (root.field, root.a, root.b) == ("prefill.pending_token", "50", str(teacher(PROMPTS["a"][-1])))


def test_a_turn_with_neither_prompt_nor_pending_token_is_no_record(tmp_path: Path) -> None:
    early = decode(tmp_path / "early.jsonl", first_token=False)
    bad = changed(early, lambda lines: lines[1].update(prompt_ids=[]))
    with pytest.raises(TraceError, match=r"wanted prefill.pending_token, or a prompt"):
        check_trace(bad)


# Drafts that end where no more tokens may be emitted.


def test_a_capped_draft_is_compared_as_far_as_both_could_draft(tmp_path: Path) -> None:
    on, capped = decode(tmp_path / "on.jsonl"), decode(tmp_path / "capped.jsonl", capped=True)
    assert failed(capped) == set()
    verdict = diff_traces(on, capped)
    assert (verdict.verdict, verdict.roots, verdict.uncovered) == ("equal", [], [])
    assert any("no deeper than tokens could still be emitted" in remark for remark in verdict.remarks)
    assert diff_traces(capped, on).verdict == "equal"


def without_limits(lines: Lines) -> None:
    for step in lines[2:-2]:
        step.get("tree", {}).pop("depth_limit", None)


def test_a_shorter_draft_without_a_limit_is_another_draft(tmp_path: Path) -> None:
    on, capped = decode(tmp_path / "on.jsonl"), decode(tmp_path / "capped.jsonl", capped=True)
    verdict = diff_traces(on, changed(capped, without_limits))
    assert (verdict.verdict, verdict.roots[0].difference.phase) == ("different", "tree")


def test_within_the_limit_another_draft_is_found(tmp_path: Path) -> None:
    on, capped = decode(tmp_path / "on.jsonl"), decode(tmp_path / "capped.jsonl", capped=True)

    def other_draft(lines: Lines) -> None:
        step = next(s for s in steps(lines) if len(s["tree"]["tokens"]) == 3)
        assert (step["tree"]["depth_limit"], step["accept"]["path"]) == (2, [1])
        step["tree"]["tokens"][2] += 1  # rejected on both sides

    root = diff_traces(on, changed(capped, other_draft)).roots[0].difference
    assert (root.phase, root.field) == ("tree", "nodes")


def test_a_limit_that_the_length_does_not_explain_hides_no_lost_draft(tmp_path: Path) -> None:
    """The first draft lost its last node, and says that it was not allowed any: ``diff`` would believe it."""
    capped = decode(tmp_path / "capped.jsonl", capped=True, depth=2)

    def claims(lines: Lines) -> None:
        step = next(step for step in steps(lines) if len(step["tree"]["tokens"]) == 3)
        for name in ("tokens", "parents", "depths"):
            step["tree"][name].pop()
        step["verify"]["argmax"].pop()
        step["tree"]["depth_limit"] = 1

    assert "turn.depth-limits" not in failed(capped)
    broken = changed(capped, claims)
    assert "turn.depth-limits" in failed(broken)
    assert diff_traces(capped, broken).exit_code == 1


def test_a_draft_deeper_than_its_limit_is_named(tmp_path: Path) -> None:
    capped = decode(tmp_path / "capped.jsonl", capped=True)
    broken = changed(capped, lambda lines: steps(lines)[0]["tree"].update(depth_limit=2))
    assert failed(broken) == {"tree.shape-is-policy", "turn.depth-limits"}


def test_a_limit_excuses_what_lies_below_it_and_nothing_above(tmp_path: Path) -> None:
    policy = {"kind": "chain", "depth": 4, "top_k": 1, "budget": 4, "adaptive": False}
    capped = decode(tmp_path / "capped.jsonl", capped=True, tree_policy=policy)
    assert failed(capped) == set()
    assert failed(changed(capped, without_limits)) == {"tree.shape-is-policy"}


# Draw and match.


def as_match(path: Path) -> Path:
    """The run as one that drew the teacher's best token everywhere."""

    def change(lines: Lines) -> None:
        lines[0]["sampling"] = {"rule": "match"}
        for step in lines:
            if step["kind"] == "step":
                step["accept"] |= {"rule": "match", "drawn": step["verify"]["argmax"]}

    return changed(path, change)


def test_draw_and_match_is_walked_by_what_was_drawn(tmp_path: Path) -> None:
    drew = as_match(decode(tmp_path / "a.jsonl"))
    report = check_trace(drew)
    assert report.num_violations == 0
    assert report.invariants["accept.walk"].passed == report.num_steps
    assert failed(changed(drew, lambda lines: steps(lines)[1]["accept"]["drawn"].__setitem__(0, 96))) >= {"accept.walk"}
    assert failed(changed(drew, lambda lines: steps(lines)[1]["accept"].pop("drawn"))) >= {"accept.walk"}

    def unknown(lines: Lines) -> None:
        lines[0]["capabilities"] = ["tree", "verify", "accept.path", "stop"]
        for step in lines[2:]:
            step.get("accept", {}).pop("drawn", None)

    silent = check_trace(changed(drew, unknown))
    assert (silent.num_violations, silent.invariants["accept.walk"].passed) == (0, 0)
    assert silent.invariants["accept.walk"].why_skipped == "not recorded: accept.drawn"


def test_two_runs_that_drew_otherwise_are_different(tmp_path: Path) -> None:
    drew = as_match(decode(tmp_path / "a.jsonl", prompts={"a": PROMPTS["a"]}))
    other = drew.with_name("other.jsonl")
    assert diff_traces(drew, store(load(drew), other)).verdict == "equal"

    def bonus(lines: Lines) -> None:
        step = steps(lines)[1]
        last = step["accept"]["bonus_slot"]
        step["accept"]["drawn"][last] = step["accept"]["bonus_token"] = step["stop"]["emitted"][-1] = 96

    verdict = diff_traces(drew, changed(other, bonus))
    assert (verdict.verdict, verdict.roots[0].difference.field) == ("different", "bonus_token")


# Log-probabilities in place of logits.


def with_numbers(path: Path, shift: float, *, known_sum: bool = True) -> Path:
    """Two best logits per slot, whose sum of exponentials is e to the power of ``shift``."""

    def change(lines: Lines) -> None:
        for step in steps(lines) + steps(lines, 1):
            best = step["verify"]["argmax"]
            step["verify"]["top_tokens"] = [[token, (token + 1) % 97] for token in best]
            step["verify"]["top_logits"] = [[shift - 0.5, shift - 1.25] for _ in best]
            step["verify"] |= {"logsumexp": [shift for _ in best]} if known_sum else {}

    return changed(path, change)


def test_log_probabilities_are_compared_with_logits(tmp_path: Path) -> None:
    logits, logprobs = (decode(tmp_path / f"{name}.jsonl") for name in ("logits", "logprobs"))
    logits, logprobs = with_numbers(logits, 7.25), with_numbers(logprobs, 0.0)
    assert failed(logits) == failed(logprobs) == set()
    assert diff_traces(logits, logprobs).verdict == "equal"

    def moved(lines: Lines) -> None:
        steps(lines)[1]["verify"]["top_logits"][0][1] -= 0.25

    root = diff_traces(logits, changed(logprobs, moved)).roots[0].difference
    assert (root.phase, root.field) == ("verify", "top_logits[1]")


def test_logits_without_their_sum_are_not_held_against_log_probabilities(tmp_path: Path) -> None:
    logits, logprobs = (decode(tmp_path / f"{name}.jsonl") for name in ("logits", "logprobs"))
    assert diff_traces(with_numbers(logits, 7.25, known_sum=False), with_numbers(logprobs, 0.0)).verdict == "equal"


# Names and settings of others.


def test_a_mode_of_its_own_and_a_mask_by_flag_are_read(tmp_path: Path) -> None:
    def flagged(lines: Lines) -> None:
        base = 0
        for step in lines:
            if step["kind"] == "turn_start":
                base = len(step["prompt_ids"])
            if step["kind"] != "step":
                continue
            tokens = step["tree"]["tokens"]
            step["tensors"] = {
                "committed_length": base,
                "num_slots": len(tokens),
                "padded_slots": len(tokens),
                "mask_rows": [f"{(1 << row + 1) - 1:02x}" for row in range(len(tokens))],
                "mask_from": "causal",
                "prefix_visible": [base] * len(tokens),
                "positions": [base + slot for slot in range(len(tokens))],
                "token_ids": tokens,
                "index_tensors": {},
            }
            base += step["accept"]["accepted_length"] + 1

    paged = changed(decode(tmp_path / "a.jsonl", mode="paged"), flagged)
    report = check_trace(paged)
    assert (report.manifest.mode, report.num_violations) == ("paged", 0)
    assert report.invariants["tensors.mask-is-ancestors"].passed == report.num_steps


@pytest.mark.parametrize("field", ["kv_dtype", "teacher.quantization"])
def test_other_number_formats_make_runs_incomparable_where_both_are_known(tmp_path: Path, field: str) -> None:
    def lossy(lines: Lines) -> None:
        section = lines[0]["teacher"] if field.startswith("teacher") else lines[0]
        section[field.rpartition(".")[2]] = "q8_0"

    plain = decode(tmp_path / "a.jsonl")
    q8 = changed(plain, lossy)
    assert diff_traces(plain, q8).verdict == "equal"  # absent is not known
    q4 = store(load(q8), tmp_path / "q4.jsonl")
    assert diff_traces(changed(q4, lambda lines: lossy(lines)), q8).verdict == "equal"
    q4.write_text(q4.read_text().replace('"q8_0"', '"f16"', 1))
    verdict = diff_traces(q8, store(load(q4), q4))
    assert (verdict.verdict, verdict.incomparable) == ("incomparable", [f"{field}: q8_0 -> f16"])


def with_logits(path: Path, cache: str | None, moved: float = 0.0) -> Path:
    """A recorded run whose caches have that dtype, and whose logits are known; the first best one is moved."""

    def add(lines: Lines) -> None:
        lines[0] |= {} if cache is None else {"kv_dtype": cache}
        for step in (line for line in lines if line["kind"] == "step"):
            best = step["verify"]["argmax"]
            step["verify"]["top_tokens"] = [[token, (token + 1) % VOCAB] for token in best]
            step["verify"]["top_logits"] = [[16.0, 8.0] for _ in best]
        steps(lines)[0]["verify"]["top_logits"][0][0] += moved

    return changed(decode(path), add)


@pytest.mark.parametrize(
    ("caches", "moved", "outcome"),
    [
        (("float32", "float16"), 0.1, "equal"),
        (("float32", "f16"), 0.1, "equal"),
        ((None, "float16"), 0.1, "equal"),
        (("float32", "bf16"), 1.0, "equal"),
        (("float32", "float16"), 1.0, "different"),
        (("float32", "bf16"), 7.0, "different"),
        (("float32", "float32"), 0.1, "different"),
        (("float16", "float16"), 0.1, "different"),  # both round alike
        (("float16", "f16"), 0.1, "different"),  # by another name
        (("half", "fp16"), 0.1, "different"),
        ((None, None), 0.1, "different"),
        (("float32", "q8_0"), 0.1, "different"),  # nobody knows its roundings
    ],
)
def test_caches_that_round_otherwise_explain_as_much_as_their_dtype_can(
    tmp_path: Path, caches: tuple[str | None, str | None], moved: float, outcome: str
) -> None:
    plain = with_logits(tmp_path / "a.jsonl", caches[0])
    other = with_logits(tmp_path / "b.jsonl", caches[1], moved)
    verdict = diff_traces(plain, other, DiffOptions(allowed=frozenset({"kv_dtype"})))
    assert (check_trace(other).num_violations, verdict.verdict) == (0, outcome)


def test_a_verdict_says_where_a_cache_widened_what_counts_as_noise(tmp_path: Path) -> None:
    silent, half = with_logits(tmp_path / "a.jsonl", None), with_logits(tmp_path / "b.jsonl", "float16")
    assert not any("roundings" in remark for remark in diff_traces(half, half).remarks)
    assert diff_traces(silent, half).remarks == [
        "noise is counted in roundings of float16, not of float32, because of the caches: the baseline does not say "
        "and the candidate has float16"
    ]


def test_a_noise_run_of_another_format_than_the_candidates_is_refused(tmp_path: Path) -> None:
    plain, half = with_logits(tmp_path / "a.jsonl", "float32"), with_logits(tmp_path / "b.jsonl", "float16", 0.1)
    for cache, fits in (("q8_0", False), ("f16", True)):
        noise = with_logits(tmp_path / f"{cache}.jsonl", cache, 0.1)
        options = DiffOptions(allowed=frozenset({"kv_dtype"}), noise=noise)
        if fits:
            assert diff_traces(plain, half, options).verdict == "equal"
        else:
            with pytest.raises(UsageError, match=r"its kv_dtype is q8_0, that of the candidate, .* is float16"):
                diff_traces(plain, half, options)


def test_the_noise_of_a_format_without_roundings_is_measured(tmp_path: Path) -> None:
    plain = with_logits(tmp_path / "a.jsonl", "float32")
    honest = with_logits(tmp_path / "honest.jsonl", "q8_0", 0.1)
    for moved, outcome in ((0.12, "equal"), (1.0, "different")):
        other = with_logits(tmp_path / f"{moved}.jsonl", "q8_0", moved)
        options = DiffOptions(allowed=frozenset({"kv_dtype"}), noise=honest)
        assert diff_traces(plain, other, options).verdict == outcome


def test_prompts_of_other_names_are_paired_by_their_tokens(tmp_path: Path) -> None:
    ours = decode(tmp_path / "ours.jsonl")
    renamed = decode(
        tmp_path / "theirs.jsonl", prompts={f"req-{n}": ids for n, ids in enumerate(reversed(PROMPTS.values()))}
    )
    verdict = diff_traces(ours, renamed)
    assert (verdict.verdict, verdict.num_turns) == ("equal", 2)
    assert any("paired by equal prompts" in remark for remark in verdict.remarks)
    other = decode(tmp_path / "other.jsonl", prompts={"req": [1, 2, 3]})
    assert diff_traces(ours, other).verdict == "uncovered"
    some = decode(tmp_path / "some.jsonl", prompts={"a": PROMPTS["a"], "req": PROMPTS["b"]})
    assert diff_traces(ours, some).num_turns == 1  # names that match are meant


def test_a_timeline_begins_each_step_where_it_began(tmp_path: Path) -> None:
    def timed(lines: Lines) -> None:
        for step in steps(lines):
            zeros = dict.fromkeys(("draft_ns", "tensorize_ns", "check_ns", "accept_ns", "commit_ns"), 0)
            step["timing"] = {"begun_ns": 5_000_000 * (1 + step["step"]), "verify_ns": 1_000_000, **zeros}
            step["timing"]["synchronised"] = True

    path = changed(decode(tmp_path / "a.jsonl"), timed)
    with TraceReader(path) as reader:
        events = [event for event in perfetto_trace(reader)["traceEvents"] if event.get("name") == "verify"]
    assert [event["ts"] for event in events[:3]] == [5_000.0, 10_000.0, 15_000.0]
