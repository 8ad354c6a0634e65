"""What to do about a root, by its kind: which value to look at in one's own code, and the usual causes of this kind.

The causes are those that public engines had, as the catalogue of deliberate faults collects them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from specscope.schemas.verdict import TIES, Root


class Advice(NamedTuple):
    """What to do about a root."""

    do: str  # one sentence
    causes: tuple[str, ...] = ()  # of this kind, the most frequent first


NOTHING_TO_DO = Advice("Nothing: both choices lie within the noise floor, and either is right.")
_BISECT = "Run bisect on this step: it narrows the difference to the layer and the operation."
_NO_BISECT = "bisect cannot run these traces again. "
#: The same by phase, where bisect cannot, or nobody knows: in the engines that wrote the traces, by hand.
_BY_HAND = {
    "verify": (
        "In both engines, find the first layer whose hidden states differ at this step's slots; have them record"
        " commit.kv_digests_before and commit.kv_digests_after."
    ),
    "draft": (
        "In both engines, compare what the drafter is fed at this step, then the state that each level hands on; have"
        " them record draft.inputs and draft.kv_digest_before."
    ),
}
_FORWARD = Advice(
    _BISECT,
    ("an attention kernel that masks or sums otherwise", "a norm or a scale that one side applies", "another dtype"),
)
#: By phase and the beginning of the field, the longest first.
_BY_FIELD: dict[str, Advice] = {
    "tensors.mask": Advice(
        "Look at the attention mask as it is handed to the forward, row by row against the parents of the tree.",
        (
            "the mask of one level or of the step before was used",
            "rows and columns changed places",
            "ancestors were gathered from parents that were reordered afterwards",
            "from column 32 or 64 on, bits landed in the wrong word",
        ),
    ),
    "tensors.positions": Advice(
        "Look at the position ids of the drafted nodes: each must be the committed length plus its depth.",
        (
            "positions count slots instead of depths",
            "the positions of the step before were used",
            "the committed length is off by one, or another row's",
        ),
    ),
    "tensors.prefix_visible": Advice(
        "Look at how many committed rows each node is let see: all of them, and nothing beyond.",
        ("the committed length of the step before was used", "the lengths of the batch's rows changed places"),
    ),
    "tensors.committed_length": Advice(
        "Look at the committed length from which mask and positions are built.",
        ("it was not advanced by the last commit", "the lengths of the batch's rows changed places"),
    ),
    "tensors.token_ids": Advice(
        "Look at the ids that are fed at the slots of the tree.",
        (
            "ids of the draft vocabulary were not mapped to the teacher's",
            "the batch's rows changed places",
            "a placeholder was fed as an id",
        ),
    ),
    "tensors.": Advice("Look at how this tensor is built from the tree: its inputs are equal on both sides."),
    "tree.": Advice(
        "Look at how the best candidates are chosen and renumbered as slots.",
        (
            "a node was chosen whose parent was not",
            "parents are numbered within their level instead of the tree",
            "equal scores were ordered by another rule",
        ),
    ),
    "draft.inputs.tokens": Advice(
        "Look at the tokens that the drafter is fed: each feature goes with the token that comes after it.",
        ("features are paired with their own tokens instead of the next ones",),
    ),
    "draft.inputs.source_rows": Advice(
        "Look at which rows of the teacher's features are gathered after acceptance.",
        ("the first slots were taken instead of the accepted path",),
    ),
    "draft.inputs.hidden_norms": Advice(
        "Look at which of the teacher's layers the drafter's features come from.",
        ("the layers are counted from another end, or are off by one", "a normed state is fed where the plain one is"),
    ),
    "draft.inputs.positions": Advice(
        "Look at the positions at which the drafter is run.", ("they are one too far", "they are cut at a maximum")
    ),
    "draft.kv": Advice(
        "Look at the length of the drafter's cache before and after drafting.",
        ("entries of the tree stayed in it", "a committed pair was trimmed with them"),
    ),
    "draft.": _FORWARD._replace(
        causes=(
            "drafter positions of the tree are off",
            "another state is fed back from level to level",
            "the draft vocabulary is mapped otherwise",
        )
    ),
    "verify.dispatch": Advice(
        "Look at which attention runs: it is not the one that was asked for.", ("a fallback that nobody noticed",)
    ),
    "verify.windows": Advice(
        "Look at how the masks of layers with a sliding window are made.",
        ("the window is cut by slot instead of by position", "the rows of a tree or of a batch share one window"),
    ),
    "verify.": _FORWARD,
    "accept.bonus": Advice(
        "Look at the row that the bonus token is read from: that of the last accepted node.",
        ("the row before the last accepted one was read", "what the rejected children leave was not renormalised"),
    ),
    "accept.coins": Advice(
        "Look at how coins are drawn: one for every decision.", ("one coin decided several trials",)
    ),
    "accept.trials": Advice(
        "Look at the probabilities and thresholds of the trials.",
        ("the teacher's probabilities lack temperature, top-k or top-p", "rejected mass was not taken out"),
    ),
    "accept.": Advice(
        "Look at the walk through the tree: each step must follow the teacher's choice to a child of the last node.",
        (
            "the first child was taken unchecked",
            "matching nodes of several branches were accepted",
            "padding of the path was accepted",
        ),
    ),
    "commit.content-moved": Advice(
        "Look at how rows are moved within the cache.",
        ("rows were overwritten before they were moved", "layers were exchanged"),
    ),
    "commit.prefix": Advice(
        "Look at what writes into the committed part of the cache between steps.",
        ("a row was overwritten", "the cache was restored from an older state"),
    ),
    "commit.drafter": Advice(
        "Look at how the drafter's cache is trimmed after acceptance.",
        ("entries of the tree were kept", "one committed pair was trimmed as well"),
    ),
    "commit.": Advice(
        "Look at which rows of the cache are kept: the root's and those of the accepted path, in order.",
        (
            "the row after the accepted one was taken",
            "a rejected row was kept, or an accepted one dropped",
            "the tail was not trimmed",
        ),
    ),
    "stop.": Advice(
        "Look at when the turn ends, and what of the last block is kept.",
        ("the block is not cut after the token that ends the turn", "the length is reached one token early"),
    ),
}


def advice_for(root: Root, *, runs_again: bool | None) -> Advice:
    """What to do about ``root``; ``runs_again`` says whether the two traces hold what it takes to run its step again,
    which no trace of another engine does; None where that is not known, and then nobody is sent to bisect."""
    difference = root.difference
    if difference.kind in TIES:
        return NOTHING_TO_DO
    if difference.field.startswith("prefill."):
        return _FORWARD._replace(do="Look at the prompt's own forward: it parts before the first step.")
    spot = difference.phase + "." + re.sub(r"\[\d+\]", "", difference.field)
    name = max((name for name in _BY_FIELD if spot.startswith(name)), key=len, default=None)
    advice = Advice("Look at how this value is computed.") if name is None else _BY_FIELD[name]
    if advice.do != _BISECT or runs_again:
        return advice
    return advice._replace(do=("" if runs_again is None else _NO_BISECT) + _BY_HAND[difference.phase])
