"""Guided decoding: the grammar that the output follows, and what it allowed in each step."""

from __future__ import annotations

from pydantic import Field

from specscope.schemas.base import Digest, Section


class Grammar(Section):
    """What the output of every turn is a text of."""

    kind: str = Field(description="How it is written: lark, json-schema, regex, or what another engine has.")
    digest: Digest = Field(description="xxh3_128 of its text, in UTF-8.")
    library: str | None = Field(
        default=None, description="What follows it, such as llguidance; the version stands in versions."
    )


class GrammarState(Section):
    """Where a turn is in its grammar."""

    position: int = Field(description="Tokens of the turn that were taken in.")
    digest: Digest = Field(
        description="Of all that it shows: the tokens allowed next, the position, and whether the text may end or has"
        " ended."
    )


class GuidedSection(Section):
    """What the grammar allowed in a step, found by going along every path of the tree and back.

    A slot that is listed neither in slots nor in ends has a path that the grammar forbids, or that it allows nothing
    behind. Tokens of a turn that no grammar judges, such as those of a reasoning part before it, are no steps of this
    section: it is recorded from the first one on that the grammar judges.
    """

    before: GrammarState = Field(description="At the root, before the tree was gone along.")
    returned: GrammarState | None = Field(
        default=None, description="At the root again, when it was gone along. Absent: not recorded."
    )
    after: GrammarState = Field(description="After the tokens that the step emitted and kept.")
    slots: list[int] = Field(description="Slots that have a mask, ascending: the grammar allows their path.")
    num_allowed: list[int] = Field(description="One for each of slots: how many tokens may follow it.")
    mask_digests: list[Digest] = Field(description="One for each of slots: of the tokens that may follow it.")
    applied_digests: list[Digest] | None = Field(
        default=None,
        description="One for each of slots: of the tokens that its logits allow, as the acceptance was given them;"
        " equals mask_digests. Absent: not recorded.",
    )
    ends: list[int] = Field(
        description="Slots that end the text: an end-of-text token where the grammar is complete. They have no mask."
    )
