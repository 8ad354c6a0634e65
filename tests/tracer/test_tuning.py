"""What other trees would have accepted, and how walks went: against slow counts of the same records."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pytest
from support.called import specscope
from support.loops import looping
from support.traces import EAGER, FUSED, load, store

from specscope.schemas import DraftInputs, DraftLevel, DraftSection, Manifest, Step
from specscope.tracer.errors import EXIT_COVERAGE, EXIT_USAGE
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.tuning.intervals import Cluster, clusters_of, mean_of, ratio_of
from specscope.tracer.tuning.repetition import repeated_tail
from specscope.tracer.tuning.summary import RunNumbers, json_of, read_numbers
from specscope.tracer.tuning.walks import walks_of
from specscope.tracer.tuning.whatif import StepCandidates, TreeSetting, step_candidates, why_not

NO_PAIRS = DraftInputs(source_rows=[], tokens=[], positions=[])


@pytest.fixture(scope="module")
def numbers() -> RunNumbers:
    with TraceReader(FUSED) as reader:
        return read_numbers(reader)


def drafted(levels: list[DraftLevel], tokens: list[int]) -> Step:
    """A step with these candidates, whose tree is the root only."""
    draft = DraftSection(inputs=NO_PAIRS, kv_before=0, kv_after=0, levels=levels, num_candidates=6)
    return Step.model_validate(
        {
            "seq": 1,
            "turn": 0,
            "step": 0,
            "draft": draft.model_dump(),
            "tree": {"tokens": tokens, "parents": [0] * len(tokens), "depths": [0, *[1] * (len(tokens) - 1)]},
        }
    )


#: Below the root 4 and 6; below 4 then 8 and 1, below 6 then 8 and 3.
FIRST = DraftLevel(frontier=[], positions=[7], tokens=[4, 6], logprobs=[-0.5, -2.0], finite=True)
SECOND = DraftLevel(
    frontier=[0, 1], positions=[8, 8], tokens=[8, 1, 8, 3], logprobs=[-1.0, -1.5, -0.25, -4.0], finite=True
)


CASES = [
    (TreeSetting(1, 2, 2), [4, 8, 9], 1),  # the best is 4
    (TreeSetting(2, 2, 2), [4, 8, 9], 2),  # then 8 below it
    (TreeSetting(2, 2, 2), [4, 1], 1),  # 1 below 4 and 6 tie, and 6 was proposed before: neither is among two
    (TreeSetting(6, 2, 2), [6, 3], 2),
    (TreeSetting(6, 1, 2), [6, 3], 1),  # depth cuts
    (TreeSetting(6, 2, 1), [6, 3], 0),  # 6 is no first child
    (TreeSetting(6, 2, 2), [5], 0),
    (TreeSetting(6, 2, 2), [], 0),
]


@pytest.mark.parametrize(("setting", "continuation", "accepted"), CASES)
def test_the_longest_path_that_the_output_follows(setting: TreeSetting, continuation: list[int], accepted: int) -> None:
    candidates = step_candidates(drafted([FIRST, SECOND], [2, 4]), continuation)
    assert candidates is not None
    assert candidates.accepted(setting) == accepted
    assert candidates.is_exact(setting)


def test_a_smaller_top_k_whose_candidates_were_fed_is_exact() -> None:
    third = DraftLevel(frontier=[4, 2], positions=[9, 9], tokens=[1, 2, 3, 4], logprobs=[-1.0] * 4, finite=True)
    level = SECOND.model_copy(update={"logprobs": [-3.0, -3.5, -0.25, -4.0]})
    candidates = step_candidates(drafted([FIRST, level, third], [2]), [])
    assert candidates is not None
    assert candidates.is_exact(TreeSetting(6, 3, 2)), "the best two of the second level are those that were fed"


def test_one_that_needs_what_was_not_fed_is_not() -> None:
    third = DraftLevel(frontier=[4, 2], positions=[9, 9], tokens=[1, 2, 3, 4], logprobs=[-1.0] * 4, finite=True)
    level = SECOND.model_copy(update={"logprobs": [-3.0, -3.5, -0.25, -4.0]})
    unfed = third.model_copy(update={"frontier": [4, 3]})
    candidates = step_candidates(drafted([FIRST, level, unfed], [2]), [])
    assert candidates is not None
    assert not candidates.is_exact(TreeSetting(6, 3, 1)), "the first child of the first child was not fed"


class Scored(NamedTuple):
    """A candidate as a path."""

    score: float
    number: int
    path: tuple[int, ...]


def paths_of(step: dict[str, Any]) -> list[Scored]:
    """Every candidate by its path, in order."""
    paths: list[Scored] = []
    for level in step["draft"]["levels"]:
        rows = [paths[at] for at in level["frontier"]] or [Scored(0.0, 0, ())]
        width = len(level["tokens"]) // len(rows)
        paths += [
            Scored(rows[at // width].score + logprob, len(paths) + at, (*rows[at // width].path, token))
            for at, (token, logprob) in enumerate(zip(level["tokens"], level["logprobs"], strict=True))
        ]
    return paths


def slow_length(step: dict[str, Any], budget: int, continuation: list[int]) -> int:
    """The same for budgets alone: the best so many candidates, and the longest prefix among them."""
    best = {at.path for at in sorted(paths_of(step), key=lambda at: (-at.score, at.number))[:budget]}
    lengths = range(len(continuation) + 1)
    return max(length for length in lengths if not length or tuple(continuation[:length]) in best)


def test_budgets_agree_with_a_slow_count_and_with_the_recorded_lengths(numbers: RunNumbers) -> None:
    steps = [line for line in load(FUSED) if line["kind"] == "step"]
    lengths: dict[int, list[int]] = {}
    for turn in sorted({step["turn"] for step in steps}):
        rows = [step for step in steps if step["turn"] == turn]
        for at, step in enumerate(rows):
            emitted = [token for row in rows[at:] for token in row["stop"]["emitted"][: row["stop"]["kept"]]]
            if len(emitted) >= 5:
                for budget in (4, 16, 68):
                    lengths.setdefault(budget, []).append(slow_length(step, budget, emitted[:40]))
    outcomes = {outcome.setting: outcome for outcome in numbers.what_if}
    for budget, wanted in lengths.items():
        outcome = outcomes[TreeSetting(budget, 5, 4)]
        assert outcome.accepted_length.value == pytest.approx(fmean(wanted))
        assert outcome.num_exact == outcome.accepted_length.size == len(wanted)
    assert numbers.num_rebuilt == len(lengths[16]), "every recorded tree is the best of its candidates"


def test_a_deeper_tree_accepts_no_less(numbers: RunNumbers) -> None:
    outcomes = {outcome.setting: outcome for outcome in numbers.what_if}
    means = [outcomes[TreeSetting(16, depth, 4)].accepted_length.value for depth in (1, 2, 3, 4, 5)]
    assert means == sorted(means)


def test_what_was_proposed_is_not_counted_where_it_was_not_recorded(tmp_path: Path) -> None:
    assert "were proposed and cut" in specscope("metrics", FUSED).out
    lines = load(FUSED)
    lines[0]["capabilities"].remove("draft")
    for step in (line for line in lines if line["kind"] == "step"):
        del step["draft"]
    done = specscope("metrics", store(lines, tmp_path / "no-drafts.jsonl"))
    assert "not in the tree" in done.out
    assert "proposed and cut" not in done.out
    with TraceReader(tmp_path / "no-drafts.jsonl") as reader:
        assert json_of(read_numbers(reader))["right_child"]["of_those_cut"] is None


def test_walks_agree_with_the_records(numbers: RunNumbers) -> None:
    steps = [line for line in load(FUSED) if line["kind"] == "step"]
    assert numbers.walks.lengths == Counter(step["accept"]["accepted_length"] for step in steps)
    ranks: Counter[int | None] = Counter()
    for step in steps:
        tree = step["tree"]
        for visit in step["accept"]["visited"]:
            children = [at for at in range(1, len(tree["tokens"])) if tree["parents"][at] == visit["slot"]]
            children.sort(key=lambda at: (-tree["logprobs"][at], at))
            if children:
                tokens = [tree["tokens"][at] for at in children]
                ranks[tokens.index(visit["wanted"]) + 1 if visit["wanted"] in tokens else None] += 1
    assert numbers.walks.not_in_tree == ranks.pop(None)
    assert numbers.walks.ranks == ranks
    assert numbers.walks.cut is not None
    assert 0 < numbers.walks.cut <= numbers.walks.not_in_tree
    assert sum(tenth.accepted for tenth in numbers.walks.bins) == sum(ranks.values())
    assert numbers.walks.by_depth[0] == len(steps)


def test_the_json_is_plain_and_whole(numbers: RunNumbers) -> None:
    page = json.loads(json.dumps(json_of(numbers)))
    assert page["accepted_length"]["low"] < page["accepted_length"]["value"] < page["accepted_length"]["high"]
    assert page["tokens_per_step"] == pytest.approx(page["accepted_length"]["value"] + 1)
    assert sum(page["accepted_lengths"].values()) == page["num_steps"] == page["num_read"]
    assert {row["prompt_id"] for row in page["turns"]} == {"function", "class"}
    assert sum(phase["share"] for phase in page["phases"]) == pytest.approx(1)


def test_an_interval_holds_the_mean_about_as_often_as_it_says() -> None:
    draw = random.Random(1)
    held = 0
    for _ in range(60):
        turns = [[draw.gauss(shift, 1.0) + 3 for _ in range(10)] for shift in (draw.gauss(0, 0.5) for _ in range(30))]
        mean = mean_of(clusters_of(turns))
        assert mean is not None
        held += mean.low <= 3 <= mean.high
    assert 51 <= held <= 60
    assert mean_of([]) is None


def test_a_ratio_in_pairs_is_narrower_than_one_apart() -> None:
    draw = random.Random(2)
    base = [Cluster(draw.uniform(5, 50), 10) for _ in range(12)]
    faster = [Cluster(cluster.total * draw.uniform(1.05, 1.15), 10) for cluster in base]
    in_pairs = ratio_of(faster, base)
    apart = ratio_of(faster[:-1], base)
    assert in_pairs is not None
    assert apart is not None
    assert 1 < in_pairs.low < in_pairs.value < in_pairs.high
    assert in_pairs.high - in_pairs.low < apart.high - apart.low
    assert ratio_of(base, []) is None


def test_where_nothing_can_be_told_the_reason_is_given() -> None:
    manifest = Manifest.model_validate(load(EAGER)[0])
    assert why_not(manifest) is None
    chain = manifest.model_copy(update={"tree_policy": manifest.tree_policy.model_copy(update={"kind": "chain"})})
    assert "only dynamic" in (why_not(chain) or "")
    drawn = manifest.model_copy(update={"sampling": manifest.sampling.model_copy(update={"rule": "sampling"})})
    assert "only greedy" in (why_not(drawn) or "")


def test_steps_with_too_little_are_left_out() -> None:
    assert walks_of([drafted([FIRST], [2])]).num_steps == 0, "a step without acceptance is no walk"
    assert step_candidates(drafted([FIRST.model_copy(update={"logprobs": [0.0]})], [2]), []) is None
    assert StepCandidates([], frozenset(), [1]).accepted(TreeSetting(4, 4, 4)) == 0


def command(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "specscope", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_whatif_prints_what_is_computed(numbers: RunNumbers) -> None:
    asked = ["whatif", str(FUSED), "--budget", "8", "--budget", "68", "--json"]
    outcomes = json.loads(command(asked).stdout)["outcomes"]
    assert [row["budget"] for row in outcomes] == [16, 8, 68]
    assert outcomes[0]["accepted_length"]["value"] == numbers.what_if[0].accepted_length.value
    shown = command(["whatif", str(FUSED)]).stdout
    assert "as recorded" in shown
    assert "Exact at every recorded step" in shown


def test_whatif_refuses_what_was_never_proposed() -> None:
    refused = command(["whatif", str(FUSED), "--depth", "9"])
    assert (refused.returncode, refused.stdout) == (EXIT_USAGE, "")
    assert "wanted at most the recorded 5" in refused.stderr


def test_metrics_prints_every_run() -> None:
    shown = command(["metrics", str(FUSED)]).stdout
    assert "accepted length" in shown
    assert "not in the tree: " in shown
    runs = json.loads(command(["metrics", str(EAGER), str(FUSED), "--json"]).stdout)["runs"]
    assert [run["num_steps"] for run in runs] == [37, 37]


def test_the_command_says_why_it_cannot_tell(tmp_path: Any) -> None:
    lines = load(FUSED)
    lines[0]["tree_policy"]["kind"] = "chain"
    path = tmp_path / "chain.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    done = command(["whatif", str(path)])
    assert done.returncode == EXIT_COVERAGE
    assert "the trees are chain" in done.stderr


LOOP = [5, 6, 7]
PLAIN = [token * 7 % 101 for token in range(60)]


@pytest.mark.parametrize(
    ("tokens", "repeated"),
    [
        ([], 0),
        ([4], 0),
        (PLAIN, 0),
        ([*PLAIN, *LOOP * 11], 0),  # 30 tokens of ten further rounds
        ([*PLAIN, *LOOP * 12], 33),
        ([*PLAIN, *LOOP * 12, 8], 0),  # it found its way out
        ([*PLAIN, *[300] * 33], 32),
        ([*range(200, 232)] * 3, 0),  # two further rounds: a refrain
        ([*range(200, 232)] * 4, 96),
        ([*range(200, 233)] * 5, 0),  # longer than what is looked for
    ],
)
def test_a_loop_is_told_from_text_by_its_rounds_and_its_length(tokens: list[int], repeated: int) -> None:
    assert repeated_tail(tokens) == repeated


def test_a_turn_that_repeats_itself_is_named_with_what_it_accepted(tmp_path: Path, numbers: RunNumbers) -> None:
    path = store(looping(load(FUSED)), tmp_path / "loop.jsonl")
    with TraceReader(path) as reader:
        steps = list(reader.steps(reader.turns[0]))
        everything = [step.accepted_length or 0 for turn in reader.turns for step in reader.steps(turn)]
        repetition = read_numbers(reader).repetition
    inside = [step.accepted_length or 0 for step in steps[2:]]  # the first token of the loop repeats none
    assert (repetition.num_turns, repetition.mean_inside) == (1, fmean(inside))
    assert repetition.mean_outside == pytest.approx((sum(everything) - sum(inside)) / (len(everything) - len(inside)))
    assert numbers.loops is None


def test_a_loop_that_nothing_was_drafted_in_is_not_named(tmp_path: Path) -> None:
    lines = looping(load(FUSED))
    for line in lines:
        if line["kind"] == "step":
            line["tree"] = {name: values[:1] for name, values in line["tree"].items()}
            line["accept"] |= {"path": [0], "accepted_length": 0}
    with TraceReader(store(lines, tmp_path / "plain.jsonl")) as reader:
        numbers = read_numbers(reader)
    assert numbers.repetition.num_turns == 1
    assert numbers.loops is None


def test_loops_of_a_part_of_the_steps_are_named_as_such(tmp_path: Path) -> None:
    with TraceReader(store(looping(load(FUSED)), tmp_path / "loop.jsonl")) as reader:
        whole = read_numbers(reader)
        part = read_numbers(reader, most_steps=whole.num_steps - 1)
    assert "steps read" not in (whole.loops or "")
    assert part.num_read < part.num_steps
    assert f"tokens of the {part.num_read} steps read: accepted length" in (part.loops or "")


def test_metrics_names_a_loop_and_no_text(tmp_path: Path) -> None:
    path = store(looping(load(FUSED)), tmp_path / "loop.jsonl")
    shown, silent = (command(["metrics", str(trace)]).stdout for trace in (path, FUSED))
    assert "1 turn ends in a loop" in " ".join(shown.split())
    assert "loop" not in silent
    (run,) = json.loads(command(["metrics", str(path), "--json"]).stdout)["runs"]
    with TraceReader(path) as reader:
        assert run["repetition"]["accepted_length_inside"] == read_numbers(reader).repetition.mean_inside
