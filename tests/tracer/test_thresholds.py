"""How much of a threshold may be noise: never less than noise does, and little where much is left to share."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from specscope.schemas import Trial
from specscope.tracer.compare.thresholds import Tried

VOCAB = 6


class Draws(NamedTuple):
    """Siblings that were drawn without replacement, at one node, for a teacher's distribution."""

    target: list[float]
    draft: list[float]
    order: list[int]

    def trials(self) -> list[Trial]:
        """All of them tried one after another, by the definition and not as the engine does it."""
        left, drawn = normalised(self.target), normalised(self.draft)
        trials = []
        for slot, token in enumerate(self.order, 1):
            threshold = min(1.0, left[token] / drawn[token])
            trials.append(
                Trial(
                    slot=slot,
                    target_prob=normalised(self.target)[token],
                    draft_prob=normalised(self.draft)[token],
                    threshold=threshold,
                    coin=0.5,
                    accepted=False,
                )
            )
            left = normalised([max(0.0, p - q) for p, q in zip(left, drawn, strict=True)])
            drawn = normalised([0.0 if other == token else q for other, q in enumerate(drawn)])
        return trials


def normalised(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights] if total > 0 else weights


def any_draws(chance: random.Random) -> Draws:
    target, draft = ([chance.random() ** 3 + 1e-3 for _ in range(VOCAB)] for _ in range(2))
    return Draws(target, draft, chance.sample(range(VOCAB), 3))


@given(st.integers(0, 10**9), st.sampled_from([1e-6, 1e-4, 1e-3]))
def test_what_noise_does_to_a_threshold_is_within_what_it_may_do(seed: int, share: float) -> None:
    chance = random.Random(seed)
    draws = any_draws(chance)
    noisy = draws._replace(target=[p * (1 + share * chance.uniform(-1, 1)) for p in draws.target])
    honest, other = draws.trials(), noisy.trials()
    for number, (ours, theirs) in enumerate(zip(honest, other, strict=True)):
        if any(trial.threshold >= 1 for trial in honest[:number]):
            return  # it cannot have been rejected
        allowed = Tried("sampling", honest[:number], ours).threshold_noise(share)
        assert abs(ours.threshold - theirs.threshold) <= allowed


def noisy(weights: list[float], share: float, chance: random.Random) -> list[float]:
    return normalised([weight * (1 + share / 2 * chance.uniform(-1, 1)) for weight in weights])


@given(st.integers(0, 10**9), st.sampled_from([1e-6, 1e-4, 1e-3]))
def test_what_noise_does_to_an_entropy_is_within_what_it_may_do(seed: int, share: float) -> None:
    chance = random.Random(seed)
    honest = normalised([chance.random() ** 3 + 1e-9 for _ in range(200)])
    ours, theirs = (
        0.3 * math.exp(sum(p * math.log(p) for p in probs)) for probs in (honest, noisy(honest, share, chance))
    )
    trial = Trial(slot=1, target_prob=0.5, draft_prob=1.0, threshold=ours, accepted=True)
    assert abs(ours - theirs) <= Tried("typical", [], trial).threshold_noise(share)


def block_trials(targets: list[list[float]], drafts: list[list[float]], tokens: list[int]) -> list[Trial]:
    """A chain by the definition of block verification; the target after its end is the last of them."""
    trials, ratio = [], 1.0
    for slot, token in enumerate(tokens, 1):
        target, draft = targets[slot - 1][token], drafts[slot - 1][token]
        ratio = min(1.0, ratio * target / draft)
        mass = None
        if slot < len(tokens):
            mass = sum(max(0.0, ratio * p - q) for p, q in zip(targets[slot], drafts[slot], strict=True))
        threshold = ratio if mass is None else mass / (mass + 1 - ratio) if mass + 1 - ratio > 0 else 1.0
        trials.append(
            Trial(
                slot=slot,
                target_prob=target,
                draft_prob=draft,
                threshold=threshold,
                coin=0.5,
                accepted=False,
                residual_mass=mass,
            )
        )
    return trials


@given(st.integers(0, 10**9), st.sampled_from([1e-6, 1e-4, 1e-3]))
def test_what_noise_does_to_a_block_is_within_what_it_may_do(seed: int, share: float) -> None:
    chance = random.Random(seed)
    targets, drafts = (
        [normalised([chance.random() ** 3 + 1e-3 for _ in range(VOCAB)]) for _ in range(5)] for _ in range(2)
    )
    tokens = [chance.randrange(VOCAB) for _ in range(4)]
    honest = block_trials(targets, drafts, tokens)
    other = block_trials([noisy(target, share, chance) for target in targets], drafts, tokens)
    for number, (ours, theirs) in enumerate(zip(honest, other, strict=True)):
        tried = Tried("block", honest[:number], ours)
        if ours.residual_mass is not None and theirs.residual_mass is not None:
            assert abs(ours.residual_mass - theirs.residual_mass) <= tried.mass_noise(share)
        assert abs(ours.threshold - theirs.threshold) <= tried.threshold_noise(share)


def test_a_draft_that_was_not_renormalised_is_no_noise() -> None:
    draws = Draws([0.2, 0.35, 0.45], [0.6, 0.3, 0.1], [0, 1])
    first, second = draws.trials()
    wrong = second.threshold / (1 - 0.6)  # as if q still had the rejected token
    assert abs(second.threshold - wrong) > Tried("sampling", [first], second).threshold_noise(1e-4)


def test_where_nothing_is_left_nothing_is_known() -> None:
    sure = Trial(slot=1, target_prob=0.5, draft_prob=0.5, threshold=1.0, coin=0.5, accepted=False)
    assert Tried("sampling", [sure], sure).threshold_noise(1e-6) == float("inf")


def test_a_blocks_mass_is_held_to_the_noise_of_its_chain() -> None:
    trial = Trial(slot=2, target_prob=0.4, draft_prob=0.5, threshold=0.2, coin=0.5, accepted=False, residual_mass=0.1)
    block = Tried("block", [trial], trial)
    assert block.mass_noise(1e-4) < 0.02 * 0.1 < block.mass_noise(1e-2)
    assert block.threshold_noise(1e-4) >= block.mass_noise(1e-4)
    assert Tried("typical", [], trial).threshold_noise(1e-4) < 0.01 * trial.threshold


def test_a_child_that_is_accepted_for_sure_is_so_whatever_noise_does() -> None:
    sure = Draws([0.5, 0.3, 0.2], [0.01, 0.5, 0.49], [0]).trials()
    assert sure[0].threshold == 1.0
    assert Tried("sampling", [], sure[0]).threshold_noise(2e-2) == 0.0
    near = sure[0].model_copy(update={"draft_prob": 0.499})
    assert Tried("sampling", [], near).threshold_noise(2e-2) > 0.0
