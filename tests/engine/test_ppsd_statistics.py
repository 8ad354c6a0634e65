"""What a pipeline draws is distributed as the teacher's own: by count, as for the tree engine, with mutants that fail.

The stages are real, and so are schedule, coins and draws; only their layers are bigrams over eight tokens, so that
every probability can be written down.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from support.bigrams import DRAFTER, START, TEACHER, VOCAB, chi_square_p, expected_probs
from support.local_pipeline import LocalPipeline, local_pipeline

from specscope.engine.accept.sampling import draw_bonus, target_probs
from specscope.engine.lab.faults.pipeline import PipelineFault, find_pipeline_fault
from specscope.engine.loop.stopping import StopRules
from specscope.engine.ppsd.message import Message
from specscope.engine.ppsd.outcome import Drafted
from specscope.engine.ppsd.schedule import Item
from specscope.engine.ppsd.worker import Verifier
from specscope.engine.settings import SamplingRule

pytestmark = pytest.mark.slow
STAGES, TOKENS = 3, 6_000
LEAST_P, MUTANT_P = 1e-4, 1e-12  # of an honest run, and at most of a faulty one
RULES = {
    "plain": SamplingRule("sampling"),
    "warped": SamplingRule("sampling", temperature=0.8, top_k=6, top_p=0.92),
}


class BigramStage:
    """Hands each row on; the last one's logits are the teacher's after the row's token."""

    def __init__(self) -> None:
        self.part: Any = SimpleNamespace(dtype=torch.float32, hidden_size=1)
        self.length = 0

    def cut(self, length: int) -> None:
        self.length = length

    def embed(self, token_ids: list[int]) -> torch.Tensor:
        return torch.tensor(token_ids, dtype=torch.float32)[None, :, None]

    def bring(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def run(self, hidden: torch.Tensor) -> torch.Tensor:
        self.length += hidden.shape[1]
        return hidden.clone()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return TEACHER[int(hidden[0, -1, 0])].float()


def best_draft(hidden: torch.Tensor, _: Item) -> Drafted:
    return Drafted(int(DRAFTER[int(hidden[0, -1, 0])].argmax()), None)


class Drawn(NamedTuple):
    """A turn, and how its drafts fared."""

    tokens: list[int]
    num_accepted: int
    num_dropped: int


def draw(
    rule: SamplingRule,
    *,
    fault: PipelineFault | None = None,
    change: Callable[[LocalPipeline], None] = lambda _: None,
) -> Drawn:
    stages: Any = [BigramStage() for _ in range(STAGES)]
    with local_pipeline(stages, best_draft, rule=rule, fault=fault) as pipeline:
        change(pipeline)
        turn = pipeline.decode([START], StopRules(TOKENS, [], []), seed=11)
    return Drawn(turn.output_ids, turn.num_accepted, turn.num_dropped)


def p_values(tokens: list[int], rule: SamplingRule) -> tuple[float, float]:
    """Of each token given the one before it, and of each given the two before it: two in a row must not be related
    otherwise."""
    probs = torch.tensor([expected_probs(row, rule) for row in TEACHER.tolist()], dtype=torch.float64)
    text = torch.tensor([START, START, *tokens])
    pairs = torch.bincount(text[1:-1] * VOCAB + text[2:], minlength=VOCAB**2).view(VOCAB, VOCAB)
    triples = torch.bincount((text[:-2] * VOCAB + text[1:-1]) * VOCAB + text[2:], minlength=VOCAB**3)
    return chi_square_p(pairs, probs), chi_square_p(triples.view(-1, VOCAB), probs.repeat(VOCAB, 1))


@pytest.mark.parametrize("name", RULES)
def test_tokens_are_distributed_as_the_teachers_own(name: str) -> None:
    drawn = draw(RULES[name])
    assert len(drawn.tokens) == TOKENS
    assert 0.2 * TOKENS < drawn.num_accepted < 0.8 * TOKENS, "drafts hold and fail"
    assert min(p_values(drawn.tokens, RULES[name])) > LEAST_P


def test_a_stale_item_that_counts_is_seen() -> None:
    tokens = draw(RULES["plain"], fault=find_pipeline_fault("P01")).tokens
    assert min(p_values(tokens, RULES["plain"])) < MUTANT_P


def replaced(p: torch.Tensor, q: torch.Tensor, coin: float) -> int:
    """A draw from what the target has more of than the draft; both (1, V)."""
    left = (p.double() - q.double()).clamp(min=0)
    return int(draw_bonus(left, torch.tensor([coin], dtype=torch.float64)).tokens[0])


def drafting_by_coin(second_coin: Callable[[float], float]) -> Callable[[LocalPipeline], None]:
    """Speculative sampling at the last stage: a draft drawn with the position's coin, accepted with probability p / q
    by ``second_coin``, or else replaced by a draw from what is left."""

    def change(pipeline: LocalPipeline) -> None:
        last = pipeline.workers[-1]

        def verify(logits: torch.Tensor, message: Message, _: Message) -> int:
            token = int(message.rows()[0, -1, 0])
            p, q = target_probs(logits[None], RULES["plain"]), DRAFTER[token].softmax(dim=-1)[None]
            draft = int(draw_bonus(q, torch.tensor([message.coin], dtype=torch.float64)).tokens[0])
            coin, threshold = second_coin(message.coin), min(1.0, float(p[0, draft] / q[0, draft]))
            return draft if coin < threshold else replaced(p, q, (coin - threshold) / (1 - threshold))

        verifier: Verifier = verify
        last.verify = verifier

    return change


def test_one_coin_for_draft_and_verify_is_seen_and_two_are_right() -> None:
    generator = torch.Generator().manual_seed(3)
    fresh = drafting_by_coin(lambda _: float(torch.rand((), dtype=torch.float64, generator=generator)))
    assert min(p_values(draw(RULES["plain"], change=fresh).tokens, RULES["plain"])) > LEAST_P
    shared = drafting_by_coin(lambda coin: coin)
    assert min(p_values(draw(RULES["plain"], change=shared).tokens, RULES["plain"])) < MUTANT_P
