"""Acceptance: the walk from the root, each trial on the way, and the token drawn after it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specscope.schemas.base import Digest, Float, Section, TokenId


class DistributionCut(Section):
    """From a slot's logits to the probabilities that a rule draws from: exp(logit / temperature - log_normaliser) for
    the tokens that are kept, 0 for all others."""

    log_normaliser: Float = Field(description="Log of the sum of exp(logit / temperature) over the tokens kept.")
    least_logit: Float | None = Field(
        default=None, description="The lowest logit that top_k and top_p keep; absent where nothing is cut off."
    )


class Trial(Section):
    """One child that a rule other than greedy tried.

    Rule sampling accepts it where its coin lies below its threshold, and tries no younger sibling then. Rule block does
    so for every slot of a chain, and the path goes up to the last accepted one. Rule typical
    accepts it where its target_prob lies above its threshold, tries all siblings, and goes to the likeliest accepted.
    """

    slot: int = Field(description="The child's slot.")
    target_prob: Float = Field(description="Of the child's token, in the teacher's distribution at the parent.")
    draft_prob: Float = Field(description="Of the child's token, in the drafter's; 1 where it was not drawn.")
    threshold: Float = Field(
        description="Sampling: probability of accepting it, given that its elder siblings were rejected."
        " Block: residual_mass / (residual_mass + 1 - r), at the end of the chain r, where r is the smaller of 1 and"
        " r target_prob / draft_prob, from 1 at the root. Typical: min(epsilon, delta exp(-entropy)) at the parent."
    )
    coin: Float | None = Field(default=None, description="Uniform in [0, 1); absent where the rule draws none.")
    accepted: bool = Field(description="What threshold and coin, or threshold and target_prob, decide for it alone.")
    logit: Float | None = Field(
        default=None, description="The teacher's, of the child's token at the parent; not yet divided."
    )
    residual_mass: Float | None = Field(
        default=None,
        description="Rule block: after this child, the sum over all tokens of max(0, r p - q), p the teacher's"
        " probability and q the drafter's; absent at the end of the chain.",
    )


class Visit(Section):
    """One node where the acceptance walk stood; under rule block every node of the chain that has a child, since a
    later one decides for those before it."""

    slot: int = Field(description="The node's slot; the walk begins at 0.")
    wanted: TokenId | None = Field(
        default=None, description="Greedy: the teacher's token there. Absent where the rule draws."
    )
    child: int | None = Field(default=None, description="Slot of the child it went to; absent where the walk ended.")
    trials: list[Trial] | None = Field(
        default=None, description="The children tried, in slot order; absent where greedy."
    )
    cut: DistributionCut | None = Field(
        default=None, description="What makes probabilities of the logits at this node; absent where greedy."
    )


class BonusDraw(Section):
    """How a token was drawn: its share of the distribution, cumulated in order of token ids, holds the coin."""

    coin: Float = Field(description="Uniform in [0, 1).")
    low: Float = Field(description="Cumulative probability of all tokens before it.")
    high: Float = Field(description="The same, with it.")
    residual_digest: Digest | None = Field(default=None, description="Of the distribution that it was drawn from.")
    logit: Float | None = Field(default=None, description="The teacher's, of the token drawn; not yet divided.")
    cut: DistributionCut | None = Field(
        default=None,
        description="After a prompt: what makes a probability of it. In a step the visit of its slot says so.",
    )


class AcceptSection(Section):
    """Phase accept."""

    rule: Literal["greedy", "sampling", "block", "typical", "match"] = Field(description="The rule that was followed.")
    drawn: list[TokenId] | None = Field(
        default=None,
        description="Rule match: per slot, the token that was drawn from the teacher; a child that has it is accepted.",
    )
    visited: list[Visit] | None = Field(default=None, description="The nodes where the walk stood, the root first.")
    path: list[int] = Field(description="Accepted slots in order, without the root.")
    accepted_length: int = Field(description="Excludes root and bonus.")
    bonus_token: TokenId = Field(description="The teacher's own next token after the path; the next step's root.")
    bonus_slot: int = Field(description="The slot whose logits gave the bonus token.")
    bonus_draw: BonusDraw | None = Field(
        default=None, description="From what the rejected children left; typical: from the whole. Absent where greedy."
    )
