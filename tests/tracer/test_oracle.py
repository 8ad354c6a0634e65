"""The oracle passes honest runs, and every one of its invariants fires when its rule is broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.guided_mutants import GUIDED_MUTANTS
from support.lengths_runs import LENGTHS_MUTANTS
from support.paging_mutants import PAGING_MUTANTS
from support.pipeline_mutants import PIPELINE_MUTANTS
from support.proposer_mutants import PROPOSER_AND_SHAPE_MUTANTS
from support.rank_mutants import all_decide_otherwise, one_rank_parts
from support.reports import violated
from support.row_mutants import ROW_MUTANTS
from support.silent import ABOUT_CUSTODY, ABOUT_DRAWS, ABOUT_FEATURES, ABOUT_ROWS, NOT_HERE
from support.step_mutants import reorder_sources, swap_path
from support.structure_mutants import STRUCTURE_MUTANTS, put, see_one_too_many
from support.toy_run import Toy, toy_lines
from support.traces import EAGER, FUSED, WHERE_NO_LEVEL_PAYS, Lines, accepts_at_least, first_step, load, store

from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.invariants import ALL_INVARIANTS
from specscope.tracer.oracle.invariants.registry import STATEMENTS

Step = dict[str, Any]


#: A sampled run of the newest format, with drafts that were drawn.
NEWEST = Path(__file__).parents[1] / "schemas" / "traces" / "trace-1.4.jsonl"


@pytest.mark.parametrize("path", [FUSED, EAGER], ids=lambda p: p.stem)
def test_an_honest_run_passes_everything_and_skips_nothing(path: Path) -> None:
    report = check_trace(path)
    assert (violated(report), report.truncated) == (set(), False)
    unsaid = {"commit.strategy"} if report.manifest.cache_strategy is None else set()  # format 1.0 had no place for it
    unsaid |= ABOUT_FEATURES if b"features_digest" not in path.read_bytes() else set()
    unsaid |= ABOUT_ROWS if b'"held"' not in path.read_bytes() else set()
    unsaid |= ABOUT_CUSTODY if b"prefix_since" not in path.read_bytes() else set()
    assert {name for name, tally in report.invariants.items() if tally.skipped} == unsaid
    silent = unsaid | ABOUT_DRAWS | NOT_HERE | {"run.tensor-files", *PIPELINE_MUTANTS}
    assert {name for name, tally in report.invariants.items() if not tally.passed} == silent


def add(section: str, field: str, amount: int) -> Callable[[Step], None]:
    def change(step: Step) -> None:
        step[section][field] += amount

    return change


def draft_nan(step: Step) -> None:
    step["draft"]["levels"][1]["logprobs"][0] = "NaN"


def other_digest(section: str, field: str) -> Callable[[Step], None]:
    def change(step: Step) -> None:
        step[section][field] = "0123456789abcdef"

    return change


def feed_a_worse_one(step: Step) -> None:
    """The second level is fed the worst candidate of the first instead of the best, if it was not fed all of them."""
    levels = step["draft"]["levels"]
    first, frontier = len(levels[0]["tokens"]), levels[2]["frontier"]
    unfed = [n for n in range(first, first + len(levels[1]["tokens"])) if n not in frontier]
    frontier[0] = unfed[-1]


def leave_out_a_better_one(step: Step) -> None:
    """A candidate of the last level that was not kept gets the best score there is."""
    level, tree = step["draft"]["levels"][-1], step["tree"]
    at = next(n for n, token in enumerate(level["tokens"]) if token not in tree["tokens"])
    level["logprobs"][at] = 100.0


def keep_one_less(step: Step) -> None:
    step["stop"]["kept"] -= 1


ANY: Callable[[Step], bool] = lambda step: step["step"] > 0  # noqa: E731
TWO = accepts_at_least(2)

#: invariant -> which step to break, and how
MUTANTS: dict[str, tuple[Callable[[Step], bool], Callable[[Step], Any]]] = {
    **{invariant: (ANY, mutate) for invariant, mutate in STRUCTURE_MUTANTS.items()},
    "draft.scores-finite": (ANY, draft_nan),
    "draft.positions": (ANY, lambda s: s["draft"]["inputs"]["positions"].__setitem__(0, 3)),
    "draft.pair-tokens": (ANY, lambda s: s["draft"]["inputs"]["tokens"].__setitem__(0, 3)),
    "draft.source-rows": (ANY, lambda s: s["draft"]["inputs"]["source_rows"].__setitem__(0, 1)),
    "tree.nodes-were-proposed": (ANY, put("tree", "tokens", -1, 4)),
    "tensors.prefix-visible": (ANY, put("tensors", "prefix_visible", 1, 2)),
    "tensors.indices-are-the-trees": (ANY, lambda s: s["tensors"]["index_tensors"]["ancestors"].__setitem__(-1, 1)),
    "verify.logits-finite": (ANY, lambda s: s["verify"]["nonfinite_slots"].append(3)),
    "verify.argmax-is-top": (ANY, put("verify", "argmax", 1, 9)),
    "verify.input-digest": (ANY, other_digest("verify", "input_digest")),
    "verify.sizes": (ANY, lambda s: s["verify"]["top_tokens"].pop()),
    "tree.scores-add-up": (ANY, put("tree", "scores", 1, -3.5)),
    "run.capabilities": (ANY, lambda s: s.pop("timing")),
    "run.engine-checks": (ANY, lambda s: s["invariants"]["failed"].append({"id": "x", "witness": "seen"})),
    "verify.dispatch": (ANY, lambda s: s["verify"].__setitem__("dispatch", {"eager": 10})),
    "accept.walk": (TWO, lambda s: s["accept"]["path"].pop()),
    "accept.path-connected": (TWO, swap_path),
    "accept.rule": (ANY, lambda s: s["accept"].__setitem__("rule", "sampling")),
    "tree.shape-is-policy": (ANY, put("tree", "depths", -1, 9)),
    "accept.length": (ANY, add("accept", "accepted_length", 1)),
    "accept.bonus": (ANY, add("accept", "bonus_token", 1)),
    "sequence.root-is-last-bonus": (ANY, put("tree", "tokens", 0, 3)),
    "stop.emitted": (TWO, put("stop", "emitted", 0, 3)),
    "stop.cut": (TWO, keep_one_less),
    "commit.length-equation": (ANY, add("commit", "committed_after", 1)),
    "commit.sources-are-path": (TWO, reorder_sources),
    "commit.destinations-contiguous": (TWO, put("commit", "destination_rows", 1, 3)),
    "commit.content-moved": (ANY, put("commit", "written_checksums", 2, "0123456789abcdef")),
    "commit.prefix-unchanged": (ANY, other_digest("commit", "prefix_after")),
    "commit.drafter-length": (ANY, add("commit", "drafter_after", 1)),
    "draft.frontier-is-best": (ANY, feed_a_worse_one),
    "tree.best-of-candidates": (ANY, leave_out_a_better_one),
    "sequence.length-continues": (ANY, add("tensors", "committed_length", 1)),
    "sequence.pairs-continue": (ANY, add("draft", "kv_before", 1)),
    "sequence.committed-continues": (ANY, add("commit", "committed_before", 1)),
}


def coin_again(accept: dict[str, Any]) -> None:
    accept["bonus_draw"]["coin"] = accept["visited"][0]["trials"][0]["coin"]


#: those that need a run of another kind than the sample traces; test_sampling has many more
TOY_MUTANTS: dict[str, tuple[Toy, Callable[[Step], Any]]] = {
    "accept.trials": (Toy("sampling"), lambda s: s["accept"]["visited"][0]["trials"][0].pop("coin")),
    "accept.coins-distinct": (Toy("sampling"), lambda s: coin_again(s["accept"])),
    "accept.thresholds": (Toy("typical"), lambda s: s["accept"]["visited"][0]["trials"][0].update(threshold=0.31)),
    "accept.target-probs": (Toy("sampling"), lambda s: s["accept"]["visited"][0]["trials"][0].update(target_prob=0.99)),
    "draft.features-are-committed": (Toy(), lambda s: s["draft"]["inputs"].update(hidden_digest="fedcba9876543210")),
    "verify.feature-layers": (Toy(), lambda s: s["verify"].update(feature_layers=[1, 1, 0])),
    "commit.strategy": (Toy(), lambda s: s["commit"].__setitem__("strategy", "replicate")),
}


def first_trial(step: Step) -> dict[str, Any]:
    trial: dict[str, Any] = step["accept"]["visited"][0]["trials"][0]
    return trial


#: those that need fields that the sample traces do not have
NEWEST_MUTANTS: dict[str, Callable[[Step], Any]] = {
    "verify.graph-length": lambda s: s["verify"].update(graph={"committed_length": 1}),
    "draft.cache-kept": other_digest("draft", "kv_digest_before"),
    "commit.prefix-kept": put("commit", "kv_digests_before", 2, "0123456789abcdef"),
    "accept.probs-follow-logits": lambda s: first_trial(s).update(logit=first_trial(s)["logit"] - 1),
    "accept.draft-probs": lambda s: first_trial(s).update(draft_prob=first_trial(s)["draft_prob"] / 2),
}


@pytest.mark.parametrize("invariant", NEWEST_MUTANTS)
def test_a_broken_step_of_the_newest_format_fires_its_invariant(tmp_path: Path, invariant: str) -> None:
    assert not violated(check_trace(NEWEST))
    lines = load(NEWEST)
    step = first_step(lines, lambda one: one["step"] > 0)
    NEWEST_MUTANTS[invariant](step)
    first = check_trace(store(lines, tmp_path / "broken.jsonl")).invariants[invariant].first
    assert first is not None
    assert (first.turn, first.step) == (0, step["step"])


def test_the_first_token_has_the_share_that_its_logit_gives(tmp_path: Path) -> None:
    lines = load(NEWEST)
    end_of(lines, "turn_start")["prefill"]["draw"]["logit"] -= 1  # below the cut
    report = check_trace(store(lines, tmp_path / "broken.jsonl"))
    assert "its logit" in str(report.invariants["turn.prefill"].first)


def test_a_normaliser_that_is_not_the_logits_sum_is_found_where_nothing_is_cut(tmp_path: Path) -> None:
    lines = load(NEWEST)
    del lines[0]["sampling"]["temperature"], lines[0]["sampling"]["top_p"]
    report = check_trace(store(lines, tmp_path / "broken.jsonl"))
    assert "log-normaliser" in str(report.invariants["accept.probs-follow-logits"].first)


def goes_on_behind(lines: Lines, text: str) -> None:
    """Says that the turn had a stop string, and that one of its first tokens has that text."""
    lines[0]["stop_rules"]["stop_strings"] = [text]
    end = end_of(lines, "turn_end")
    for step in (line for line in lines if line["kind"] == "step" and line["turn"] == end["turn"]):
        tokens = [step["tree"]["tokens"][0], *step["stop"]["emitted"]]
        step["texts"] = {str(token): text if token == end["output_ids"][1] else "." for token in tokens}


def test_stop_strings_are_looked_for_only_where_every_text_is_known_and_whole(tmp_path: Path) -> None:
    for spoil in ("missing", "broken"):
        lines = load(FUSED)
        goes_on_behind(lines, "STOP")
        step = first_step(lines)
        token = str(step["stop"]["emitted"][0])
        for other in (line for line in lines if line["kind"] == "step" and token in line.get("texts", {})):
            if spoil == "missing":
                del other["texts"][token]
            else:
                other["texts"][token] = "\ufffd"
        report = check_trace(store(lines, tmp_path / f"{spoil}.jsonl"))
        assert not report.invariants["turn.stop-strings"].failed


def same_coin(lines: Lines) -> None:
    """Two turns whose seeds are not stated draw the same coin first."""
    for start in (line for line in lines if line["kind"] == "turn_start"):
        start["prefill"]["draw"] = {"coin": 0.5, "low": 0.25, "high": 0.75}


def test_turns_that_say_that_they_have_one_seed_may_share_their_coins(tmp_path: Path) -> None:
    lines = load(FUSED)
    same_coin(lines)
    for start in (line for line in lines if line["kind"] == "turn_start"):
        start["generator_seed"] = 7
    assert not check_trace(store(lines, tmp_path / "seed.jsonl")).invariants["run.coins-fresh"].failed


CHAIN = Toy(kind="chain", choices=((0,), (0, 0), (0, 0, 0)), levels=False)


@pytest.mark.parametrize(("adaptive", "fires"), [(True, False), (None, False), (False, True)])
def test_a_chain_may_stop_early_unless_its_writer_says_otherwise(
    tmp_path: Path, adaptive: bool | None, fires: bool
) -> None:
    lines = toy_lines(CHAIN)
    lines[0]["tree_policy"] |= {"depth": 4, "budget": 4, "choices": None, "adaptive": adaptive}
    report = check_trace(store(lines, tmp_path / "chain.jsonl"))
    assert violated(report) == ({"tree.shape-is-policy"} if fires else set())


def test_a_short_tree_of_all_levels_is_told_how_to_say_that_it_is_adaptive(tmp_path: Path) -> None:
    lines = toy_lines(Toy())
    lines[0]["tree_policy"]["choices"].append([0, 0, 1])
    lines[0]["tree_policy"]["budget"] += 1
    first = check_trace(store(lines, tmp_path / "unsaid.jsonl")).invariants["tree.shape-is-policy"].first
    assert first is not None
    assert "tree_policy.adaptive: true" in first.witness
    lines[0]["tree_policy"]["adaptive"] = True
    assert not violated(check_trace(store(lines, tmp_path / "said.jsonl")))


@pytest.mark.parametrize(("adaptive", "fires"), [(True, False), (None, False), (False, True)])
def test_a_dynamic_tree_may_lack_its_worst_nodes_unless_its_writer_says_otherwise(
    tmp_path: Path, adaptive: bool | None, fires: bool
) -> None:
    lines = load(FUSED)
    lines[0]["tree_policy"] |= {"adaptive": adaptive, "budget": lines[0]["tree_policy"]["budget"] + 1}
    found = violated(check_trace(store(lines, tmp_path / "short.jsonl")))
    assert found == ({"tree.best-of-candidates"} if fires else set())


def without_the_deepest_level(step: Step) -> None:
    """Every node of the deepest level is lost, and the slots before it stay."""
    tree = step["tree"]
    kept = [slot for slot, depth in enumerate(tree["depths"]) if depth < max(tree["depths"])]
    assert kept == list(range(len(kept))), "the flat order is by level"
    for name in ("tokens", "parents", "depths", "logprobs", "scores"):
        tree[name] = [tree[name][slot] for slot in kept]
    del step["tensors"]  # of the whole tree


def test_a_lost_deepest_level_is_no_best_tree(tmp_path: Path) -> None:
    lines = load(FUSED)
    for step in (line for line in lines if line["kind"] == "step"):
        without_the_deepest_level(step)
    assert "tree.best-of-candidates" in violated(check_trace(store(lines, tmp_path / "lost.jsonl")))


def test_a_masked_draft_is_legal_and_other_scores_that_are_no_numbers_are_not(tmp_path: Path) -> None:
    for value, fires in (("-Infinity", False), ("Infinity", True), ("NaN", True)):
        lines = load(FUSED)
        level = first_step(lines)["draft"]["levels"][-1]
        level["logprobs"][-1] = value  # the worst of the deepest level
        found = violated(check_trace(store(lines, tmp_path / "masked.jsonl")))
        assert ("draft.scores-finite" in found) == fires
        assert fires or not found


def test_levels_of_one_forward_need_not_count_on(tmp_path: Path) -> None:
    for kind, fires in (("parallel", False), ("eagle3", True)):
        lines = load(FUSED)
        lines[0]["drafter"]["kind"] = kind
        for step in (line for line in lines if line["kind"] == "step"):
            for level in step["draft"]["levels"]:
                level["positions"] = [step["draft"]["kv_after"] - 1] * len(level["positions"])
        assert ("draft.positions" in violated(check_trace(store(lines, tmp_path / "one.jsonl")))) == fires


@pytest.mark.parametrize("invariant", TOY_MUTANTS)
def test_a_broken_step_of_a_toy_fires_its_invariant(tmp_path: Path, invariant: str) -> None:
    toy, breaks = TOY_MUTANTS[invariant]
    lines = toy_lines(toy)
    breaks(first_step(lines))
    first = check_trace(store(lines, tmp_path / "broken.jsonl")).invariants[invariant].first
    assert first is not None
    assert (first.turn, first.step) == (0, 0)


@pytest.mark.parametrize("invariant", MUTANTS)
def test_a_broken_step_fires_its_invariant_at_its_place(tmp_path: Path, invariant: str) -> None:
    lines = load(FUSED)
    which, breaks = MUTANTS[invariant]
    step = first_step(lines, which)
    breaks(step)
    report = check_trace(store(lines, tmp_path / "broken.jsonl"))
    assert invariant in violated(report)
    first = report.invariants[invariant].first
    assert first is not None
    # A wrong commit or bonus is first seen by the step that follows; every other rule names the broken step itself.
    assert first.turn == step["turn"]
    assert first.step in (step["step"], step["step"] + 1)
    assert first.witness


def test_the_terms_of_a_wrong_length_are_named(tmp_path: Path) -> None:
    lines = load(FUSED)
    step = first_step(lines, TWO)
    before, accepted = step["commit"]["committed_before"], step["accept"]["accepted_length"]
    step["commit"]["committed_after"] += 1
    first = check_trace(store(lines, tmp_path / "broken.jsonl")).invariants["commit.length-equation"].first
    assert first is not None
    assert f"wanted {before + 1 + accepted} = {before} committed + 1 root + {accepted} accepted" in first.witness


def end_of(lines: Lines, kind: str) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == kind)


RUN_MUTANTS: dict[str, Callable[[Lines], Any]] = {
    **PAGING_MUTANTS,
    **PROPOSER_AND_SHAPE_MUTANTS,
    **GUIDED_MUTANTS,
    **ROW_MUTANTS,
    "turn.prefill": lambda lines: end_of(lines, "turn_start")["prefill"].__setitem__("top_tokens", [1, 2]),
    "run.order": lambda lines: lines.remove(end_of(lines, "turn_end")),
    "turn.output-is-sum": lambda lines: end_of(lines, "turn_end")["output_ids"].pop(),
    "turn.end": lambda lines: lines[0]["stop_rules"].__setitem__("max_new_tokens", 12),
    "turn.metrics": lambda lines: end_of(lines, "turn_end").__setitem__("num_accepted", 10**6),
    "turn.stop-strings": lambda lines: goes_on_behind(lines, "STOP"),
    "turn.depth-limits": lambda lines: first_step(lines)["tree"].__setitem__("depth_limit", 2),
    "run.coins-fresh": same_coin,
    "verify.windows": see_one_too_many,
    "ranks.agree": one_rank_parts,
    "ranks.recorded": all_decide_otherwise,
    "tree.size-pays": lambda lines: lines[0]["tree_policy"].__setitem__("costs", WHERE_NO_LEVEL_PAYS),
    "run.sequence": lambda lines: lines.insert(4, lines[3]),
    "run.step-numbers": lambda lines: lines.pop(4),
    "run.counts": lambda lines: end_of(lines, "run_end")["counts"].__setitem__("step", 1),
    "run.tensor-files": lambda lines: first_step(lines).__setitem__(
        "tensor_files", {"file": "../away.safetensors", "digest": "0" * 32, "names": []}
    ),
}


@pytest.mark.parametrize("invariant", RUN_MUTANTS)
def test_a_broken_run_fires_its_invariant(tmp_path: Path, invariant: str) -> None:
    lines = load(FUSED)
    RUN_MUTANTS[invariant](lines)
    assert invariant in violated(check_trace(store(lines, tmp_path / "broken.jsonl")))


def test_a_changed_byte_fires_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "changed.jsonl"
    path.write_bytes(re.sub(rb'"draft_ns":(\d+)', rb'"draft_ns":1\1', FUSED.read_bytes(), count=1))
    assert path.read_bytes() != FUSED.read_bytes()
    assert violated(check_trace(path)) == {"run.digest"}


def test_every_invariant_has_its_mutant() -> None:
    assert set(STATEMENTS) == {
        *(*MUTANTS, *TOY_MUTANTS, *NEWEST_MUTANTS, *RUN_MUTANTS, *PIPELINE_MUTANTS, *LENGTHS_MUTANTS, "run.digest")
    }


#: Invariants that say nothing of a turn's first step.
FROM_THE_SECOND = ("draft.cache-kept", "sequence.pairs-continue")


@pytest.mark.parametrize("section", ["draft", "tree", "tensors", "verify", "accept", "commit", "stop"])
def test_what_was_not_recorded_is_skipped_and_never_passed(tmp_path: Path, section: str) -> None:
    lines = load(FUSED)
    steps = [line for line in lines if line["kind"] == "step"]
    lines[0]["capabilities"] = [c for c in lines[0]["capabilities"] if c.split(".")[0] != section]
    for step in steps:
        del step[section]
    report = check_trace(store(lines, tmp_path / "part.jsonl"))
    assert not violated(report)
    hurt = [i for i in ALL_INVARIANTS if any(need.split(".")[0] == section for need in i.needs)]
    hurt = [i for i in hurt if i.id not in ABOUT_DRAWS | NOT_HERE | PIPELINE_MUTANTS.keys()]
    assert hurt
    for invariant in hurt:
        tally = report.invariants[invariant.id]
        firsts = sum(step["step"] == 0 for step in steps) if invariant.id in FROM_THE_SECOND else 0
        assert (tally.passed, tally.skipped) == (0, len(steps) - firsts), "a first step follows none"


def test_a_flat_list_of_three_positions_a_row_is_told_what_the_format_has_room_for(tmp_path: Path) -> None:
    lines = load(FUSED)
    tensors = first_step(lines)["tensors"]
    tensors["positions"] = tensors["positions"] * 3
    first = check_trace(store(lines, tmp_path / "axes.jsonl")).invariants["tensors.sizes"].first
    assert first is not None
    assert "m-rope" in first.witness
