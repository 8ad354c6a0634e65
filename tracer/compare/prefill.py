"""The first pending token of a turn in two runs: the teacher's choice, or draw, behind the prompt."""

from __future__ import annotations

from specscope.schemas import Prefill
from specscope.schemas.verdict import Difference, DifferenceKind
from specscope.tracer.compare.acceptance import compare_draws
from specscope.tracer.compare.steps import difference
from specscope.tracer.compare.tolerance import FloatJudge


def compare_prefills(judge: FloatJudge, a: Prefill, b: Prefill) -> Difference | None:
    """The first difference, of phase verify; the prompts are known to be equal."""
    drawn = a.draw is not None and b.draw is not None
    if drawn or a.pending_token == b.pending_token:
        return _logits(judge, a, b) or _draws(judge, a, b)
    margins = [max(p.top_logits, default=0.0) - min(p.top_logits, default=0.0) for p in (a, b)]
    tie = max(margins) <= 2 * judge.tolerance and {a.pending_token, b.pending_token} <= set(a.top_tokens)
    kind: DifferenceKind = "near-tie" if tie else "real"
    found = difference("verify", "prefill.pending_token", a.pending_token, b.pending_token, kind, True)
    return found.model_copy(update={"margin_a": margins[0], "margin_b": margins[1]})


def _logits(judge: FloatJudge, a: Prefill, b: Prefill) -> Difference | None:
    for x, y in zip(a.top_logits, b.top_logits, strict=False):
        if not judge.same("prefill.top_logits", x, y):
            return difference("verify", "prefill.top_logits", x, y, "real", True)
    return None


def _draws(judge: FloatJudge, a: Prefill, b: Prefill) -> Difference | None:
    found = compare_draws(judge, "prefill.draw", (a.pending_token, b.pending_token), (a.draw, b.draw))
    if found is None:
        return None
    field = "prefill.pending_token" if found.field == "token" else f"prefill.draw.{found.field}"
    made = difference("verify", field, found.a, found.b, found.kind, True)
    return made.model_copy(update={"margin_a": found.margin_a, "margin_b": found.margin_b})
