"""Block verification is lossless, keeps at least as much as token by token, and its records are judged."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner
from support.called import specscope
from support.tiny_models import build_head, build_teacher
from support.traced import record
from support.traces import load, store

from specscope.engine.accept.block import accept_block, weigh_chain
from specscope.engine.accept.sampling import Weighed, weigh_draws
from specscope.engine.cli.replay import replay
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import ModelChoice, SamplingRule
from specscope.engine.tree.grow import DraftTree
from specscope.engine.tree.policy import parse_policy
from specscope.engine.tree.tensors import TreeTensors, tensorize
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.rules import rule_text
from specscope.tracer.oracle.check import check_trace

VOCAB, LENGTH = 3, 3
#: Every chain that can be drafted, and every text of one token more.
CHAINS = list(itertools.product(range(VOCAB), repeat=LENGTH))
TEXTS = list(itertools.product(range(VOCAB), repeat=LENGTH + 1))
Chains = list[tuple[int, ...]]
Distributions = dict[tuple[int, ...], torch.Tensor]


class Models(NamedTuple):
    """Two models' distributions (V,) of the next token after each text."""

    target: Distributions
    draft: Distributions


def random_models(seed: int, sharpness: float) -> Models:
    """The larger ``sharpness``, the further they are apart; some probabilities are 0, and some texts alike in both."""
    generator = torch.Generator().manual_seed(seed)

    def distribution() -> torch.Tensor:
        weights = (sharpness * torch.randn(VOCAB, generator=generator, dtype=torch.float64)).exp()
        weights[int(torch.randint(VOCAB, (), generator=generator))] *= float(torch.rand((), generator=generator) > 0.2)
        return weights / weights.sum()

    prefixes = [text for length in range(LENGTH + 1) for text in itertools.product(range(VOCAB), repeat=length)]
    target = {prefix: distribution() for prefix in prefixes}
    other = {prefix: distribution() for prefix in prefixes}
    return Models(target, {**other, **{prefix: target[prefix] for prefix in prefixes[1::5]}})


def chain_tree(chains: list[tuple[int, ...]]) -> TreeTensors:
    """One row for each chain, the root's token 0."""
    rows, slots = len(chains), len(chains[0]) + 1
    parents = torch.tensor([0, *range(slots - 1)]).expand(rows, -1)
    tree = DraftTree(
        tokens=torch.tensor([[0, *chain] for chain in chains]),
        parents=parents,
        depths=torch.arange(slots).expand(rows, -1),
        logprobs=torch.zeros(rows, slots),
        scores=torch.zeros(rows, slots),
        num_slots=[slots] * rows,
    )
    return tensorize(tree, [0] * rows, slots - 1)


def stacked(model: Distributions, chains: list[tuple[int, ...]]) -> torch.Tensor:
    """(B, P, V): what the model says at each slot of each chain."""
    return torch.stack([torch.stack([model[chain[:end]] for end in range(len(chain) + 1)]) for chain in chains])


def probability(model: Distributions, text: tuple[int, ...]) -> float:
    product = 1.0
    for end, token in enumerate(text):
        product *= float(model[text[:end]][token])
    return product


def endings(thresholds: list[float], *, block: bool) -> list[float]:
    """The probability of each accepted length, of independent coins."""
    if block:
        return [
            (thresholds[length - 1] if length else 1.0) * _all_fail(thresholds[length:])
            for length in range(len(thresholds) + 1)
        ]
    kept, chances = 1.0, []
    for threshold in thresholds:
        chances.append(kept * (1 - threshold))
        kept *= threshold
    return [*chances, kept]


def _all_fail(thresholds: list[float]) -> float:
    product = 1.0
    for threshold in thresholds:
        product *= 1 - threshold
    return product


def output_distribution(models: Models, weighed: Weighed, *, block: bool) -> dict[tuple[int, ...], float]:
    """Exactly: of all texts of ``LENGTH`` + 1 tokens, where the teacher goes on behind the bonus token."""
    total = dict.fromkeys(TEXTS, 0.0)
    for row, chain in enumerate(CHAINS):
        drawn = probability(models.draft, chain)
        if drawn == 0:
            continue
        for length, chance in enumerate(endings(weighed.thresholds[row, 1:].tolist(), block=block)):
            left = weighed.residuals[row, length]
            for text in TEXTS:
                if text[:length] != chain[:length]:
                    continue
                bonus = float(left[text[length]] / left.sum())
                after = 1.0
                for end in range(length + 1, len(text)):
                    after *= float(models.target[text[:end]][text[end]])
                total[text] += drawn * chance * bonus * after
    return total


def worst_error(models: Models, weigh: Callable[[TreeTensors, torch.Tensor, torch.Tensor], Weighed]) -> float:
    weighed = weigh(chain_tree(CHAINS), stacked(models.target, CHAINS), stacked(models.draft, CHAINS))
    output = output_distribution(models, weighed, block=True)
    return max(abs(output[text] - probability(models.target, text)) for text in TEXTS)


def mean_length(models: Models, weighed: Weighed, *, block: bool, chains: Chains = CHAINS) -> float:
    return sum(
        probability(models.draft, chain) * length * chance
        for row, chain in enumerate(chains)
        for length, chance in enumerate(endings(weighed.thresholds[row, 1:].tolist(), block=block))
    )


MODELS = [random_models(seed, sharpness) for seed in range(4) for sharpness in (0.3, 1.0, 2.5)]


@pytest.mark.parametrize("models", MODELS, ids=range(len(MODELS)))
def test_every_text_has_exactly_the_teachers_probability(models: Models) -> None:
    assert worst_error(models, weigh_chain) < 1e-12


def test_block_verification_keeps_at_least_as_much_as_token_by_token() -> None:
    """In exact expectation over drafts and coins; with most of the models it keeps more."""
    more = 0
    for models in MODELS:
        inputs = chain_tree(CHAINS), stacked(models.target, CHAINS), stacked(models.draft, CHAINS)
        tokenwise = mean_length(models, weigh_draws(*inputs, max_children=1), block=False)
        whole = mean_length(models, weigh_chain(*inputs), block=True)
        assert whole >= tokenwise - 1e-12
        more += whole > tokenwise + 1e-3
    assert more > len(MODELS) / 2


def test_the_example_of_the_paper() -> None:
    """Two tokens, the same at every place: the teacher says 1/3 and 2/3, the drafter 2/3 and 1/3."""
    prefixes = [text for length in range(3) for text in itertools.product(range(2), repeat=length)]
    models = Models(
        {prefix: torch.tensor([1 / 3, 2 / 3], dtype=torch.float64) for prefix in prefixes},
        {prefix: torch.tensor([2 / 3, 1 / 3], dtype=torch.float64) for prefix in prefixes},
    )
    chains = list(itertools.product(range(2), repeat=2))
    inputs = chain_tree(chains), stacked(models.target, chains), stacked(models.draft, chains)
    tokenwise = mean_length(models, weigh_draws(*inputs, max_children=1), block=False, chains=chains)
    assert tokenwise == pytest.approx(10 / 9)
    assert mean_length(models, weigh_chain(*inputs), block=True, chains=chains) == pytest.approx(11 / 9)


@pytest.mark.parametrize("spoil", ["no clamp", "thresholds", "residuals"])
def test_the_enumeration_finds_a_rule_that_is_not_lossless(spoil: str) -> None:
    def weigh(tree: TreeTensors, target: torch.Tensor, draft: torch.Tensor) -> Weighed:
        weighed = weigh_chain(tree, target, draft)
        if spoil == "residuals":  # those of token by token
            return weighed._replace(residuals=weigh_draws(tree, target, draft, 1).residuals)
        if spoil == "thresholds":
            return weighed._replace(thresholds=weigh_draws(tree, target, draft, 1).thresholds)
        return weighed._replace(thresholds=(weighed.thresholds * 1.05).clamp(max=1))

    assert max(worst_error(models, weigh) for models in MODELS) > 1e-3


def last_accepted(models: Models, chain: tuple[int, ...], coins: list[float]) -> int:
    """In plain numbers, slot by slot."""
    ratio, last = 1.0, 0
    for slot, token in enumerate(chain, start=1):
        p, q = (float(model[chain[: slot - 1]][token]) for model in models)
        ratio = min(1.0, ratio * p / q) if q > 0 else 0.0
        left = float((ratio * models.target[chain[:slot]] - models.draft[chain[:slot]]).clamp(min=0).sum())
        threshold = left / (left + 1 - ratio) if left + 1 - ratio > 0 else 1.0
        last = slot if coins[slot] < (ratio if slot == len(chain) else threshold) else last
    return last


def test_the_path_goes_up_to_the_last_slot_that_is_accepted() -> None:
    """Row by row in plain numbers; shorter chains are padded, and padding has coins of 0."""
    models, generator = MODELS[5], torch.Generator().manual_seed(0)
    tree = chain_tree(CHAINS)
    target, draft = stacked(models.target, CHAINS), stacked(models.draft, CHAINS)
    ends = [LENGTH - row % 2 for row in range(len(CHAINS))]
    valid = torch.arange(LENGTH + 1) <= torch.tensor(ends)[:, None]
    tree.valid[:] = valid
    lengths: set[int] = set()
    for _ in range(20):
        coins = torch.rand(len(CHAINS), LENGTH + 1, dtype=torch.float64, generator=generator) * valid
        got = accept_block(tree, target, draft, coins, torch.zeros(len(CHAINS), dtype=torch.float64))
        for row, chain in enumerate(CHAINS):
            last = last_accepted(models, chain[: ends[row]], coins[row].tolist())
            assert int(got.lengths[row]) == int(got.bonus_slots[row]) == last
            assert got.paths[row, :last].tolist() == list(range(1, last + 1))
            lengths.add(last)
    assert lengths == {0, 1, 2, 3}


RULE = SamplingRule("block", temperature=0.9, top_p=0.95, draft="sampled")
CHAIN = parse_policy("chain", depth=4, top_k=1, budget=4)
PROMPTS = [Prompt("a", ids=(5, 9, 17, 9, 5, 33, 12)), Prompt("b", ids=(3, 3, 8)), Prompt("c", ids=(9, 4, 31, 7))]


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A batch of tiny models, in both modes."""
    folder = tmp_path_factory.mktemp("block")
    teacher, head = build_teacher(folder / "teacher"), build_head(folder / "head")
    made = {}
    for mode in ("eager", "fused"):
        choice: Any = ModelChoice(
            teacher=str(teacher), drafter=f"eagle3:{head}", mode=mode, device="cpu", policy=CHAIN, rule=RULE
        )
        made[mode] = folder / f"{mode}.jsonl"
        record(choice, PROMPTS, made[mode], batch_size=2, tokens=24)
    return made


def test_a_run_is_recorded_soundly_and_alike_in_both_modes(traces: dict[str, Path]) -> None:
    for trace in traces.values():
        report = check_trace(trace)
        assert report.num_violations == 0
        for name in ("accept.thresholds", "accept.trials", "accept.walk", "accept.bonus"):
            assert report.invariants[name].passed == report.num_steps > 10
        assert load(trace)[0]["sampling"]["rule"] == "block"
    assert diff_traces(traces["eager"], traces["fused"]).verdict in ("equal", "ties")
    lines = load(traces["fused"])
    trials = [
        [trial["accepted"] for visit in line["accept"]["visited"] for trial in visit["trials"]]
        for line in lines
        if line["kind"] == "step"
    ]
    assert any(earlier < later for row in trials for earlier, later in itertools.pairwise(row)), "none was taken along"


def first_of(lines: list[dict[str, Any]], which: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return next(line["accept"] for line in lines if line["kind"] == "step" and which(line["accept"]))


def more_mass(accept: dict[str, Any]) -> None:
    accept["visited"][0]["trials"][0]["residual_mass"] = 1.5


def one_less(accept: dict[str, Any]) -> None:
    accept["path"].pop()


def another_threshold(accept: dict[str, Any]) -> None:
    trial = accept["visited"][1]["trials"][0]
    trial["threshold"] = (trial["threshold"] + trial["coin"]) / 2  # on the same side of the coin


def by_the_token_alone(accept: dict[str, Any]) -> None:
    """The thresholds of token by token, and what they decide."""
    for visit in accept["visited"]:
        for trial in visit["trials"]:
            trial["threshold"] = min(1.0, trial["target_prob"] / max(trial["draft_prob"], 1e-9))
            trial["accepted"] = trial["coin"] < trial["threshold"]


@pytest.mark.parametrize(
    ("spoil", "invariant"),
    [
        (more_mass, "accept.thresholds"),
        (another_threshold, "accept.thresholds"),
        (by_the_token_alone, "accept.thresholds"),
        (one_less, "accept.walk"),
        (lambda accept: accept["visited"].pop(), "accept.thresholds"),
        (lambda accept: accept["visited"][0].update(child=None), "accept.walk"),
    ],
)
def test_a_broken_record_is_found(
    traces: dict[str, Path], tmp_path: Path, spoil: Callable[[dict[str, Any]], Any], invariant: str
) -> None:
    lines = load(traces["fused"])
    spoil(first_of(lines, lambda accept: 0 < accept["accepted_length"] < 4))
    report = check_trace(store(lines, tmp_path / "broken.jsonl"))
    assert report.invariants[invariant].failed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tree", "chain"], "weighs drafts by the probabilities that they were drawn with: give --draft-sampling"),
        (
            ["--tree", "static:pair-6", "--draft-sampling"],
            "got a static tree with block verification, which is of chains",
        ),
        (["--tree", "chain", "--typical"], "which are two acceptance rules: drop one of them"),
        (["--tree", "chain", "--temperature", "0"], "got --block-verification with temperature 0"),
    ],
)
def test_what_it_is_not_for_is_refused_in_words(arguments: list[str], says: str) -> None:
    done = specscope("run", "--prompt", "a", "--temperature", "1", *arguments, "--block-verification")
    assert done.code == 2
    assert says in " ".join(done.err.split())


def test_a_tree_with_branches_is_refused_in_a_program_too() -> None:
    with pytest.raises(UsageError, match="got a dynamic tree with block verification"):
        ModelChoice(rule=RULE)


def test_a_replay_follows_the_rule(traces: dict[str, Path], tmp_path: Path) -> None:
    again = tmp_path / "again.jsonl"
    done = CliRunner().invoke(replay, [str(traces["fused"]), "--mode", "eager", "--out", str(again)])
    assert done.exit_code == 0, done.output
    assert check_trace(again).num_violations == 0
    assert load(again)[0]["sampling"] == load(traces["fused"])[0]["sampling"]
    with TraceReader(again) as reader:
        assert rule_text(reader.manifest.sampling) == "block verification, temperature 0.9, top-p 0.95, sampled draft"
