"""Drafted, accepted and drawn over several steps, tokens are distributed as the teacher's own: by count, not by proof.

The teacher and the drafter are bigrams over eight tokens, so that every probability can be written down. The same check
is then put to rules with a fault of a few per cent, and has to refuse each of them: what it cannot tell, it cannot
vouch for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
import torch
from support.bigrams import (
    DRAFTER,
    START,
    TEACHER,
    VOCAB,
    chi_square_p,
    chi_square_survival,
    expected_probs,
    normalised,
)

from specscope.engine.accept import sampling
from specscope.engine.accept.greedy import Acceptance
from specscope.engine.accept.sampling import Weighed, accept_sampling, accept_typical, target_probs
from specscope.engine.settings import SamplingRule
from specscope.engine.tree.grow import DraftTree
from specscope.engine.tree.tensors import TreeTensors, tensorize

NUM_DRAWS, ROWS = 200_000, 20_000
NUM_TOKENS = 3  # of a trajectory that are looked at; as many steps always yield them
LEAST_P = 1e-4  # of an honest run, which the seeds make the same every time
MUTANT_P = 1e-12  # of a faulty one, at most
MOST_DISTANCE = 0.004  # total variation of the first token; sampling alone makes about 0.002

DRAFT_PROBS = DRAFTER.softmax(dim=-1)


@dataclass(frozen=True)
class Config:
    """A way to decode."""

    rule: SamplingRule
    parents: tuple[int, ...]  # of the tree's slots

    @property
    def drawn(self) -> bool:
        return self.rule.draft == "sampled"

    def children(self, slot: int) -> list[int]:
        return [child for child in range(1, len(self.parents)) if self.parents[child] == slot]

    def depths(self) -> list[int]:
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return depths


CHAIN, TREE = (0, 0, 1), (0, 0, 0, 1, 1, 2)
PLAIN = SamplingRule("sampling")
WARPED = SamplingRule("sampling", temperature=0.8, top_k=6, top_p=0.92)
CONFIGS = {
    "point-mass tree": Config(PLAIN, TREE),
    "point-mass tree, warped": Config(WARPED, TREE),
    "drawn chain": Config(replace(PLAIN, draft="sampled"), CHAIN),
    "drawn tree": Config(replace(PLAIN, draft="sampled"), TREE),
    "drawn tree, warped": Config(replace(WARPED, draft="sampled"), TREE),
}

# --- decoding: what is tested


class Drafted(NamedTuple):
    """A batch of trees and what each slot's children were drawn from."""

    tree: TreeTensors
    probs: torch.Tensor | None  # (B, P, V)


def draft(config: Config, blank: TreeTensors, pending: torch.Tensor, generator: torch.Generator) -> Drafted:
    """Trees of the config's shape under ``pending`` (B,): the drafter's best tokens, or Gumbel-top-k draws."""
    tokens = [pending] + [torch.zeros_like(pending)] * (len(config.parents) - 1)
    for slot in range(len(tokens)):
        children, scores = config.children(slot), DRAFTER[tokens[slot]]
        if config.drawn:
            noise = torch.rand(len(pending), VOCAB, generator=generator, dtype=torch.float64)
            scores = scores - torch.log(-torch.log(noise))
        best = scores.topk(max(1, len(children))).indices
        for rank, child in enumerate(children):
            tokens[child] = best[:, rank]
    tree = replace(blank, token_ids=torch.stack(tokens, dim=1))
    return Drafted(tree, DRAFT_PROBS[tree.token_ids] if config.drawn else None)


def blank_trees(config: Config) -> TreeTensors:
    depths = config.depths()
    parents, levels = (torch.tensor([row] * ROWS) for row in (config.parents, depths))
    zeros = torch.zeros(ROWS, len(depths))
    tree = DraftTree(
        tokens=torch.zeros_like(parents),
        parents=parents,
        depths=levels,
        logprobs=zeros,
        scores=zeros,
        num_slots=[len(depths)] * ROWS,
    )
    return tensorize(tree, [1] * ROWS, max(depths))


class Run(NamedTuple):
    """Trajectories of one batch, and what their steps came to."""

    tokens: torch.Tensor  # (B, NUM_TOKENS)
    pending: torch.Tensor  # (B, NUM_TOKENS) before each step
    bonus_slots: torch.Tensor  # (B, NUM_TOKENS)
    bonus_tokens: torch.Tensor  # (B, NUM_TOKENS)


def decode(config: Config, rule: SamplingRule, blank: TreeTensors, generator: torch.Generator) -> Run:
    """Steps from START, each drafted behind the bonus of the step before."""
    pending = torch.full((ROWS,), START)
    depth = max(config.depths())
    tokens = torch.zeros(ROWS, NUM_TOKENS * (depth + 1) + depth, dtype=torch.int64)
    counts = torch.zeros(ROWS, 1, dtype=torch.int64)
    steps = []
    for _ in range(NUM_TOKENS):
        drafted = draft(config, blank, pending, generator)
        coins = torch.rand(ROWS, len(config.parents) + 1, generator=generator, dtype=torch.float64)
        outcome = accept(rule, drafted, coins)
        emitted = torch.cat([drafted.tree.token_ids.gather(1, outcome.paths), pending[:, None]], dim=1)
        emitted = emitted.scatter(1, outcome.lengths[:, None], outcome.bonus_tokens[:, None])
        # What lies behind a row's bonus is overwritten by its next step, or lies behind all that is looked at.
        tokens.scatter_(1, counts + torch.arange(depth + 1), emitted)
        counts += outcome.lengths[:, None] + 1
        steps.append((pending, outcome.bonus_slots, outcome.bonus_tokens))
        pending = outcome.bonus_tokens
    return Run(tokens[:, :NUM_TOKENS], *(torch.stack(parts, dim=1) for parts in zip(*steps, strict=True)))


def accept(rule: SamplingRule, drafted: Drafted, coins: torch.Tensor) -> Acceptance:
    probs = target_probs(TEACHER[drafted.tree.token_ids].float(), rule)
    if rule.rule == "typical":
        return accept_typical(drafted.tree, probs, rule, coins[:, -1])
    return accept_sampling(drafted.tree, probs, drafted.probs, coins[:, :-1], coins[:, -1], max_children=2)


# --- expectation: what it is held against, in plain Python


class Ending(NamedTuple):
    """One way in which a node's trials can end."""

    prob: float
    rank: int | None  # of the accepted child; None where all were rejected
    token: int  # the child's, or the bonus


def endings(p: list[float], proposals: list[Any], num_children: int, rank: int = 0) -> Iterator[Ending]:
    """All of them: under draws from the probabilities ``proposals``, or with the tokens ``proposals`` as children."""
    if rank == num_children:
        yield from (Ending(prob, None, token) for token, prob in enumerate(p))
        return
    drawn = isinstance(proposals[0], float)
    q = [float(x) for x in proposals] if drawn else [float(t == proposals[rank]) for t in range(VOCAB)]
    left = normalised([max(0.0, a - b) for a, b in zip(p, q, strict=True)])
    for token in (token for token in range(VOCAB) if q[token] > 0):
        threshold = min(1.0, p[token] / q[token])
        yield Ending(q[token] * threshold, rank, token)
        rest = normalised([b * (t != token) for t, b in enumerate(q)]) if drawn else proposals
        for later in endings(left, rest, num_children, rank + 1):
            yield later._replace(prob=later.prob * q[token] * (1 - threshold))


class Tables(NamedTuple):
    """Counts, or the probabilities of each row's cells."""

    first: torch.Tensor  # (1, V) the first token
    joint: torch.Tensor  # (1, V ** 3) the first three tokens, over up to three steps
    pairs: torch.Tensor  # (V, V) the same tokens, each behind the one before
    endings: torch.Tensor  # (V, P) bonus slots of all steps, by the pending token
    strata: torch.Tensor  # (V, P * V) bonus slots and bonus tokens of all steps, by the pending token


def expected_tables(config: Config) -> Tables:
    rows = [expected_probs(row, config.rule) for row in TEACHER.tolist()]
    proposals = proposals_of(config)
    strata = torch.zeros(VOCAB, len(config.parents), VOCAB, dtype=torch.float64)

    def visit(pending: int, slot: int, token: int, prob: float) -> None:
        children = config.children(slot)
        for ending in endings(rows[token], proposals[token], len(children)):
            if ending.rank is None:
                strata[pending, slot, ending.token] += prob * ending.prob
            else:
                visit(pending, children[ending.rank], ending.token, prob * ending.prob)

    for token in range(VOCAB):
        visit(token, 0, token, 1.0)
    p = torch.tensor(rows, dtype=torch.float64)
    joint = p[START][:, None, None] * p[:, :, None] * p[None, :, :]
    return Tables(p[START][None], joint.reshape(1, -1), p, strata.sum(dim=2), strata.flatten(1))


def proposals_of(config: Config) -> list[Any]:
    """By the token before: the probabilities that children are drawn from, or all tokens, the drafter's best first."""
    found: list[Any] = (DRAFT_PROBS if config.drawn else DRAFTER.argsort(dim=-1, descending=True)).tolist()
    return found


def counted_tables(config: Config, rule: SamplingRule, seed: int) -> Tables:
    generator, blank, slots = torch.Generator().manual_seed(seed), blank_trees(config), len(config.parents)
    runs = [decode(config, rule, blank, generator) for _ in range(NUM_DRAWS // ROWS)]
    run = Run(*(torch.cat(parts) for parts in zip(*runs, strict=True)))
    before = torch.cat([torch.full_like(run.tokens[:, :1], START), run.tokens[:, :-1]], dim=1)
    joint = (run.tokens * torch.tensor([VOCAB**2, VOCAB, 1])).sum(dim=1)
    ended = run.pending * slots + run.bonus_slots

    def count(cells: torch.Tensor, num_rows: int, num_cells: int) -> torch.Tensor:
        return torch.bincount(cells.flatten(), minlength=num_rows * num_cells).view(num_rows, num_cells)

    return Tables(
        count(run.tokens[:, 0], 1, VOCAB),
        count(joint, 1, VOCAB**3),
        count(before * VOCAB + run.tokens, VOCAB, VOCAB),
        count(ended, VOCAB, slots),
        count(ended * VOCAB + run.bonus_tokens, VOCAB, slots * VOCAB),
    )


# --- the check


class Statistics(NamedTuple):
    """p-values of the chi-square tests of each table, and the distance of the first token's distribution."""

    first: float
    joint: float
    pairs: float
    endings: float
    strata: float
    distance: float

    @property
    def least_p(self) -> float:
        return min(self[:-1])

    @property
    def passes(self) -> bool:
        return self.least_p > LEAST_P and self.distance < MOST_DISTANCE

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.2g}" for name, value in self._asdict().items())


def statistics(config: Config, rule: SamplingRule, seed: int = 7) -> Statistics:
    counts, probs = counted_tables(config, rule, seed), expected_tables(config)
    p_values = [chi_square_p(count, prob) for count, prob in zip(counts, probs, strict=True)]
    return Statistics._make([*p_values, float((counts.first / NUM_DRAWS - probs.first).abs().sum() / 2)])


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_are_distributed_as_the_teachers_own(name: str) -> None:
    config = CONFIGS[name]
    found = statistics(config, config.rule)
    print(f"\n{name}: {found}")
    assert found.passes, str(found)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_expectation_adds_up(name: str) -> None:
    """The endings, summed over the slots, give the teacher's own distribution: the plain reading is lossless too."""
    config = CONFIGS[name]
    rows = [expected_probs(row, config.rule) for row in TEACHER.tolist()]
    proposals = proposals_of(config)
    for token in range(VOCAB):
        sums = [0.0] * VOCAB
        for ending in endings(rows[token], proposals[token], 2):
            sums[ending.token] += ending.prob
        assert sums == pytest.approx(rows[token], abs=1e-12)


def test_the_survival_function_of_chi_square_agrees_with_the_printed_tables() -> None:
    for statistic, degrees, p in ((14.067, 7, 0.05), (24.322, 7, 0.001), (553.127, 500, 0.05)):
        assert chi_square_survival(torch.tensor(statistic), degrees) == pytest.approx(p, rel=1e-3)


# --- faults that the check has to see


def weighing(change: Callable[[TreeTensors, torch.Tensor, Weighed], Weighed]) -> dict[str, Any]:
    """Both weighing functions with ``change`` (tree, target_probs, weighed) applied to what they return."""

    def changed(weigh: Callable[..., Weighed]) -> Callable[..., Weighed]:
        return lambda tree, target, *rest: change(tree, target, weigh(tree, target, *rest))

    return {name: changed(getattr(sampling, name)) for name in ("weigh_point_masses", "weigh_draws")}


def bonus_of_the_parent(probs: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    return probs[torch.arange(len(probs)), torch.tensor(TREE)[slots]]


FAULTS: dict[str, dict[str, Any]] = {
    "threshold 2 % too high": weighing(lambda _, __, w: w._replace(thresholds=w.thresholds * 1.02)),
    "bonus from the parent's row": {"rows_at": bonus_of_the_parent},
    "rejected tokens not taken from the bonus": weighing(lambda _, target, w: w._replace(residuals=target)),
    "not renormalised after a rejection": weighing(
        lambda _, __, w: w._replace(thresholds=(w.target_probs / w.draft_probs).clamp(max=1.0))
    ),
}
MUTANTS = [(fault, name) for fault in FAULTS for name in ("point-mass tree", "drawn tree")]


@pytest.mark.parametrize(("fault", "name"), [*MUTANTS, ("q not updated after a rejection", "drawn tree")])
def test_the_check_refuses_a_faulty_acceptance(fault: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGS[name]
    for function, faulty in FAULTS.get(fault, {"without": lambda tree, probs, gone: probs}).items():
        monkeypatch.setattr(sampling, function, faulty)
    found = statistics(config, config.rule)
    print(f"\n{fault}, {name}: {found}")
    assert not found.passes
    assert found.least_p < MUTANT_P


@pytest.mark.parametrize("name", ["point-mass tree", "drawn tree"])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_the_check_refuses_a_temperature_off_by_two_per_cent(factor: float, name: str) -> None:
    config = CONFIGS[name]
    found = statistics(config, replace(config.rule, temperature=config.rule.temperature * factor))
    print(f"\ntemperature x {factor}, {name}: {found}")
    assert not found.passes
    assert found.least_p < MUTANT_P


def test_the_check_refuses_typical_acceptance() -> None:
    config = CONFIGS["point-mass tree"]
    found = statistics(config, replace(config.rule, rule="typical"))
    print(f"\ntypical: {found}")
    assert found.least_p < MUTANT_P
