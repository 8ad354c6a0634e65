"""What a choice lay between stands in the verdict, with what each scored on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.traces import FUSED, Lines, first_step, load, store
from support.verdicts import near_tie

from specscope.schemas import BonusDraw, Trial
from specscope.schemas.verdict import Contender
from specscope.tracer.compare.contenders import drawn_share, weighed_trial
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.report.sizes import side_scores
from specscope.tracer.report.values import same_texts


def swapped(lines: Lines, tokens: list[int], margin: float) -> float:
    """Lets the last node of a step choose the first of ``tokens``, ``margin`` before the other; the best logit."""
    verify = first_step(lines, lambda step: step["step"] > 1)["verify"]
    best = float(verify["top_logits"][-1][0])
    verify["top_tokens"][-1], verify["argmax"][-1] = tokens, tokens[0]
    verify["top_logits"][-1] = [best, best - margin]
    return best


@pytest.mark.parametrize(("margin", "kind"), [(0.0, "exact-tie"), (3e-6, "near-tie"), (0.5, "real")])
def test_two_choices_have_both_logits_on_both_sides(tmp_path: Path, margin: float, kind: str) -> None:
    a, b = load(FUSED), load(FUSED)
    best = swapped(a, [7, 8], margin)
    swapped(b, [8, 7], margin)
    verdict = diff_traces(store(a, tmp_path / "a.jsonl"), store(b, tmp_path / "b.jsonl"))
    difference = verdict.roots[0].difference
    assert (difference.field, difference.kind) == ("argmax", kind)
    last = best - margin
    assert difference.contenders == [Contender(token=7, a=best, b=last), Contender(token=8, a=last, b=best)]


def test_each_side_names_its_own_choice_first() -> None:
    texts = same_texts(TokenTexts(None))
    assert side_scores(near_tie().difference, "a", texts) == "#7 9.50001, #8 9.5"
    assert side_scores(near_tie().difference, "b", texts) == "#8 9.5, #7 9.49998"


def trial(threshold: float, coin: float | None) -> Trial:
    return Trial(slot=1, target_prob=0.5, draft_prob=0.5, threshold=threshold, coin=coin, accepted=True)


def test_a_coin_stands_beside_its_threshold() -> None:
    threshold = Contender(what="threshold", a=0.25, b=0.3)
    drawn = weighed_trial(trial(0.25, 0.25), trial(0.3, 0.25))
    assert drawn == [Contender(what="coin", a=0.25, b=0.25), threshold]
    undrawn = weighed_trial(trial(0.25, None), trial(0.3, None))
    assert undrawn == [Contender(what="probability", a=0.5, b=0.5), threshold]


def test_a_drawn_token_stands_beside_the_end_of_its_share() -> None:
    draws = BonusDraw(coin=0.5, low=0.4, high=0.5), BonusDraw(coin=0.5, low=0.49, high=0.6)
    coin = Contender(what="coin", a=0.5, b=0.5)
    assert drawn_share(*draws, upwards=True) == [coin, Contender(what="end of the share", a=0.5, b=0.49)]
    assert drawn_share(*reversed(draws), upwards=False) == [coin, Contender(what="end of the share", a=0.49, b=0.5)]
