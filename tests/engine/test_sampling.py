"""Acceptance, all rows at once, against slow and obvious readings of the rules on one tree at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.slow_acceptance import VOCAB, Batch, Case, Slow, batch_of, exact, random_case, slow_sampling, slow_typical
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from specscope.engine.accept.greedy import Acceptance, Trials, accept_greedy
from specscope.engine.accept.sampling import accept_sampling, accept_typical, draw_bonus, draw_coins, target_probs
from specscope.engine.settings import SamplingRule
from specscope.engine.tree.tensors import TreeTensors
from specscope.tracer.errors import UsageError
from specscope.tracer.oracle.invariants.walk import greedy_walk

JUST_BELOW_ONE = math.nextafter(1, 0)
TYPICAL = SamplingRule("typical", epsilon=0.2, delta=0.6)


def trials_of(outcome: Acceptance) -> Trials:
    assert outcome.trials is not None
    return outcome.trials


def path_of(outcome: Acceptance, row: int) -> list[int]:
    length = int(outcome.lengths[row])
    path: list[int] = outcome.paths[row].tolist()
    assert path[length:] == [0] * (len(path) - length)
    assert int(outcome.bonus_slots[row]) == [0, *path[:length]][-1]
    return path[:length]


def assert_equals_slow(outcome: Acceptance, row: int, slow: Slow) -> None:
    trials = trials_of(outcome)
    assert path_of(outcome, row) == slow.path
    assert int(outcome.bonus_tokens[row]) == slow.bonus_token
    thresholds = trials.thresholds[row, 1 : len(slow.thresholds)].tolist()
    assert thresholds == pytest.approx([float(t) for t in slow.thresholds[1:]], rel=1e-6, abs=1e-12)
    assert trials.residuals[row].tolist() == pytest.approx([float(r) for r in slow.residual], abs=1e-12)
    assert float(trials.bonus_low[row]) == pytest.approx(float(slow.bonus_low), abs=1e-12)
    assert float(trials.bonus_high[row]) == pytest.approx(float(slow.bonus_high), abs=1e-12)


Accept = Callable[[Batch], Acceptance]
RULES: dict[str, Accept] = {
    "greedy": lambda b: accept_greedy(b.tree, b.target.argmax(dim=-1)),
    "point-mass": lambda b: accept_sampling(b.tree, b.target, None, b.coins, b.bonus_coins),
    "drawn": lambda b: accept_sampling(b.tree, b.target, b.draft, b.coins, b.bonus_coins, max_children=4),
    "typical": lambda b: accept_typical(b.tree, b.target, TYPICAL, b.bonus_coins),
}


def random_batch(seed: int, distinct: bool = True) -> list[Case]:
    rng = random.Random(seed)
    return [random_case(rng, distinct) for _ in range(rng.randint(1, 4))]


SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(SEEDS, st.integers(0, 17))
def test_greedy_equals_the_walk_on_plain_lists(seed: int, pad_to: int) -> None:
    cases = random_batch(seed, distinct=False)
    outcome = RULES["greedy"](batch_of(cases, pad_to))
    for row, case in enumerate(cases):
        argmax: list[int] = case.target.argmax(dim=-1).tolist()
        walk = greedy_walk(case.tokens, case.parents, argmax)
        assert path_of(outcome, row) == walk.path
        assert int(outcome.bonus_tokens[row]) == walk.visited[-1].wanted


@settings(deadline=None)
@given(SEEDS, st.integers(0, 17), st.sampled_from(["point-mass", "drawn", "typical"]), st.booleans())
def test_each_rule_equals_its_slow_reading(seed: int, pad_to: int, rule: str, distinct: bool) -> None:
    cases = random_batch(seed, distinct)
    outcome = RULES[rule](batch_of(cases, pad_to))
    for row, case in enumerate(cases):
        slow = slow_typical(case, TYPICAL) if rule == "typical" else slow_sampling(case, rule == "drawn")
        assert_equals_slow(outcome, row, slow)


@settings(deadline=None)
@given(SEEDS)
def test_trials_hold_what_was_weighed(seed: int) -> None:
    cases = random_batch(seed)
    batch = batch_of(cases)
    for rule, drawn in (("point-mass", False), ("drawn", True), ("typical", False)):
        trials = trials_of(RULES[rule](batch))
        for row, case in enumerate(cases):
            for slot in range(1, len(case.tokens)):
                parent, token = case.parents[slot], case.tokens[slot]
                wanted = exact(case.draft[parent])[token] if drawn else 1
                assert float(trials.target_probs[row, slot]) == pytest.approx(float(exact(case.target[parent])[token]))
                assert float(trials.draft_probs[row, slot]) == pytest.approx(float(wanted))
        assert (trials.coins is None) == (rule == "typical")
        assert torch.equal(trials.bonus_coins, batch.bonus_coins)
        assert bool(((trials.bonus_low <= batch.bonus_coins) & (batch.bonus_coins < trials.bonus_high)).all())


@settings(deadline=None)
@given(SEEDS, st.sampled_from(sorted(RULES)))
def test_a_row_in_a_batch_equals_the_row_alone_to_the_bit(seed: int, rule: str) -> None:
    cases = random_batch(seed)
    together = RULES[rule](batch_of(cases, pad_to=17))
    for row, case in enumerate(cases):
        alone = RULES[rule](batch_of([case]))
        slots = len(case.tokens)
        for name in ("lengths", "paths", "bonus_slots", "bonus_tokens"):
            assert torch.equal(getattr(together, name)[row], getattr(alone, name)[0])
        assert torch.equal(together.accepted[row, 1:slots], alone.accepted[0, 1:])
        if together.trials is None or alone.trials is None:
            continue
        for field in fields(Trials):
            ours, theirs = getattr(together.trials, field.name), getattr(alone.trials, field.name)
            if field.name in ("target_probs", "draft_probs", "thresholds") or (
                field.name == "coins" and rule != "typical"
            ):
                assert torch.equal(ours[row, 1:slots], theirs[0, 1:])
            elif ours is not None:
                assert torch.equal(ours[row], theirs[0])


@settings(deadline=None)
@given(SEEDS, st.sampled_from([0.0, JUST_BELOW_ONE]), st.sampled_from([0.0, JUST_BELOW_ONE]))
def test_no_coin_leads_to_a_token_that_the_teacher_would_never_draw(seed: int, coin: float, bonus_coin: float) -> None:
    cases = [
        case._replace(coins=torch.full_like(case.coins, coin), bonus_coin=torch.full_like(case.bonus_coin, bonus_coin))
        for case in random_batch(seed)
    ]
    batch = batch_of(cases)
    for rule in ("point-mass", "drawn", "typical"):
        outcome = RULES[rule](batch)
        for row, case in enumerate(cases):
            path = [0, *path_of(outcome, row)]
            emitted = [*(case.tokens[slot] for slot in path[1:]), int(outcome.bonus_tokens[row])]
            assert all(float(case.target[slot, token]) > 0 for slot, token in zip(path, emitted, strict=True))
            assert float(trials_of(outcome).residuals[row, emitted[-1]]) > 0
            assert float(trials_of(outcome).residuals[row].sum()) == pytest.approx(1)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_nothing_waits_for_the_device(rule: str) -> None:
    """A fake tensor has no values: to read one, or to shape a result by them, is an error."""
    batch = batch_of(random_batch(3), pad_to=17)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:

        def fake(value: Any) -> Any:
            return tree_map_only(torch.Tensor, mode.from_tensor, value)

        tree = TreeTensors(**{field.name: fake(getattr(batch.tree, field.name)) for field in fields(TreeTensors)})
        probs = target_probs(fake(batch.target).log(), SamplingRule("sampling", 0.7, top_k=3, top_p=0.9))
        outcome = RULES[rule](Batch(tree, probs, fake(batch.draft), fake(batch.coins), fake(batch.bonus_coins)))
    assert outcome.bonus_tokens.shape == batch.bonus_coins.shape


@settings(deadline=None)
@given(SEEDS)
def test_to_sample_from_the_best_token_alone_is_greedy(seed: int) -> None:
    batch = batch_of(random_batch(seed))
    best = target_probs(batch.target.log(), SamplingRule("sampling", top_k=1))
    greedy = RULES["greedy"](batch)
    for draft in (None, batch.draft):
        outcome = accept_sampling(batch.tree, best, draft, batch.coins, batch.bonus_coins)
        assert torch.equal(outcome.bonus_tokens, greedy.bonus_tokens)
        if draft is None:
            assert torch.equal(outcome.paths, greedy.paths)


def siblings(target: list[float], draft: list[float], tokens: list[int], coin: float) -> Batch:
    """A root with the children ``tokens``, and one coin for all."""
    slots = len(tokens) + 1
    target_rows, draft_rows = torch.tensor([target] * slots), torch.tensor([draft] * slots)
    coins = torch.full((slots,), coin, dtype=torch.float64)
    return batch_of([Case([0, *tokens], [0] * slots, target_rows, draft_rows, coins, coins[0])])


def test_thresholds_of_siblings_by_hand() -> None:
    batch = siblings([0.5, 0.25, 0.125, 0.125, 0, 0, 0], [0.25, 0.5, 0.25, 0, 0, 0, 0], [1, 0, 2], JUST_BELOW_ONE)
    by_rule = {rule: trials_of(RULES[rule](batch)) for rule in RULES if rule != "greedy"}
    assert by_rule["point-mass"].thresholds[0].tolist() == [0, 0.25, 0.5 / 0.75, 0.5]
    # 1 drawn first: 0.25 / 0.5. Then p is (2/3, 0, 0, 1/3), q is (1/2, 0, 1/2): 0 is accepted for sure, 2 never.
    assert by_rule["drawn"].thresholds[0].tolist() == [0, 0.5, 1, 0]
    entropy = 0.5 * math.log(2) + 0.25 * math.log(4) + 0.25 * math.log(8)
    assert by_rule["typical"].thresholds[0, 1].item() == pytest.approx(min(0.2, 0.6 * math.exp(-entropy)))
    assert path_of(RULES["typical"](batch), 0) == [2], "0 is likelier than 1, though its slot is higher"


def test_among_equally_likely_siblings_typical_takes_the_lowest_slot() -> None:
    batch = siblings([0.4, 0.3, 0.3, 0, 0, 0, 0], [1 / VOCAB] * VOCAB, [2, 1, 2], 0.5)
    assert path_of(RULES["typical"](batch), 0) == [1]


def test_a_draft_like_the_teacher_is_always_accepted_and_a_bonus_is_found_all_the_same() -> None:
    probs = [0.1, 0.2, 0.3, 0.15, 0.25, 0, 0]
    outcome = RULES["drawn"](siblings(probs, probs, [2, 0], JUST_BELOW_ONE))
    assert path_of(outcome, 0) == [1]
    assert trials_of(outcome).thresholds[0, 1].item() == 1
    assert trials_of(outcome).residuals.isfinite().all()


def test_younger_siblings_than_the_bound_are_not_tried() -> None:
    batch = siblings([0, 0.5, 0.5, 0, 0, 0, 0], [0.4, 0.3, 0.3, 0, 0, 0, 0], [0, 1, 2], 0.0)
    bounded = accept_sampling(batch.tree, batch.target, batch.draft, batch.coins, batch.bonus_coins, max_children=1)
    assert path_of(bounded, 0) == []
    assert trials_of(bounded).thresholds[0].tolist() == [0] * 4
    assert path_of(RULES["drawn"](batch), 0) == [2]


def test_a_token_is_drawn_where_its_share_holds_the_coin() -> None:
    weights = torch.tensor([[0, 1, 0, 3, 0.0]] * 5)
    coins = torch.tensor([0, math.nextafter(0.25, 0), 0.25, 0.5, JUST_BELOW_ONE], dtype=torch.float64)
    drawn = draw_bonus(weights, coins)
    assert drawn.tokens.tolist() == [1, 1, 3, 3, 3]
    assert (drawn.low.tolist(), drawn.high.tolist()) == ([0, 0, 0.25, 0.25, 0.25], [0.25, 0.25, 1, 1, 1])
    assert drawn.probs[0].tolist() == [0, 0.25, 0, 0.75, 0]


def test_the_coins_of_a_step_are_the_rows_own_and_always_as_many() -> None:
    ours, theirs = (torch.Generator().manual_seed(5) for _ in range(2))
    coins = draw_coins(ours, 9)
    assert (coins.slots.shape, coins.bonus.shape) == ((9,), ())
    assert coins.slots.dtype == coins.bonus.dtype == torch.float64
    assert torch.equal(
        torch.cat([coins.bonus[None], coins.slots]), torch.rand(10, dtype=torch.float64, generator=theirs)
    )
    assert torch.equal(ours.get_state(), theirs.get_state())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_target_probs_are_warped_by_temperature_then_top_k_then_top_p(dtype: torch.dtype) -> None:
    logits = torch.tensor([[[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 5.0, -torch.inf]]], dtype=dtype)  # (1, 2, 4)
    plain = target_probs(logits, SamplingRule("sampling"))
    assert plain.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(plain, logits.to(plain.dtype).softmax(dim=-1))
    hot = [math.exp(x / 2) for x in (2, 1, 0)]  # temperature 2, the best three
    kept = [hot[0], hot[1]]  # (0.51, 0.31, 0.19): the first two reach 0.8, and would not have among all four
    warped = target_probs(logits, SamplingRule("sampling", 2.0, top_k=3, top_p=0.8))
    assert warped[0, 0].tolist() == pytest.approx([kept[0] / sum(kept), kept[1] / sum(kept), 0, 0])
    assert target_probs(logits[0, 0], SamplingRule("sampling", 2.0, top_k=9, top_p=0.8))[2] > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rule": "nucleus"}, "got rule 'nucleus', wanted one of greedy, sampling, block, typical"),
        ({"draft": "beam"}, "got draft 'beam', wanted one of point-mass, sampled"),
        ({"temperature": 0.0}, "got temperature 0.0, wanted 0.0001 to 10000; the teacher's best token is rule greedy"),
        ({"temperature": math.nan}, "got temperature nan, wanted"),
        ({"top_k": 0}, "got top_k 0, wanted at least 1, or none to keep all tokens"),
        ({"top_p": 1.5}, "got top_p 1.5, wanted above 0 and at most 1"),
        ({"epsilon": 0.0}, "got epsilon 0.0, wanted above 0"),
        ({"delta": -1.0}, "got delta -1.0, wanted above 0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SamplingRule(**{"rule": "sampling", **wrong})


def test_only_typical_acceptance_loses() -> None:
    assert [SamplingRule(rule).lossless for rule in ("greedy", "sampling", "typical")] == [True, True, False]
