"""The first pending token of a turn in two runs: the teacher's choice, or draw, after the prompt."""

from __future__ import annotations

from specscope.schemas import Prefill, Step
from specscope.schemas.verdict import Difference
from specscope.tracer.compare.acceptance import compare_draws
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.said import paired_numbers, said_behind
from specscope.tracer.compare.steps import choice, difference


def is_of_prefill(field: str) -> bool:
    """Whether a difference's field is one of a prompt's own forward, which belongs to no step."""
    return field.startswith("prefill.")


def with_first_token(prefill: Prefill, first: Step | None) -> Prefill:
    """The prefill of an engine that drafts before it has a token, as that of one that does not: with what the root of
    its ``first`` step says."""
    if prefill.pending_token is not None or first is None or first.stop is None:
        return prefill
    verify = first.verify
    known = verify is not None and verify.top_tokens and verify.top_logits
    best = {"top_tokens": verify.best_tokens(0), "top_logits": verify.best_logits(0)} if verify and known else {}
    return prefill.model_copy(update={"pending_token": first.stop.emitted[0], **best})


def compare_prefills(judge: FloatJudge, a: Prefill, b: Prefill) -> Difference | None:
    """The first difference, of phase verify; the prompts are known to be equal."""
    said_a, said_b = said_behind(a), said_behind(b)
    if said_a is None or said_b is None:
        return None  # it is said in the first step
    drawn = a.draw is not None and b.draw is not None
    if drawn or a.pending_token == b.pending_token:
        return compare_prefill_logits(judge, a, b) or _draws(judge, a, b)
    return choice(judge, "prefill.pending_token", said_a, said_b, inputs_equal=True)


def compare_prefill_logits(judge: FloatJudge, a: Prefill, b: Prefill) -> Difference | None:
    """The first difference of the best logits, whatever was chosen or drawn of them."""
    said_a, said_b = said_behind(a), said_behind(b)
    if said_a is None or said_b is None:
        return None
    for number in paired_numbers(said_a, said_b):
        if not judge.same("logits", "prefill.top_logits", number.a, number.b, size=number.size):
            floor = judge.floors["logits"]
            return difference(
                "verify", "prefill.top_logits", number.a, number.b, kind="real", inputs_equal=True, floor=floor
            )
    return None


def _draws(judge: FloatJudge, a: Prefill, b: Prefill) -> Difference | None:
    if a.pending_token is None or b.pending_token is None:
        return None
    draws = compare_draws(judge, "prefill.draw", (a.pending_token, b.pending_token), (a.draw, b.draw))
    if draws is None:
        return None
    field = "prefill.pending_token" if draws.field == "token" else f"prefill.draw.{draws.field}"
    differing = difference("verify", field, draws.a, draws.b, kind=draws.kind, inputs_equal=True)
    return differing.model_copy(
        update={"margin_a": draws.margin_a, "margin_b": draws.margin_b, "contenders": draws.contenders}
    )
