"""Invariants of what the drafter is handed of the teacher's forward: which layers, and which rows of them."""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import Context, Invariant, present


def _takes_features(c: Context) -> bool:
    return c.manifest.drafter.hidden_state_indices is not None


def _layers(c: Context) -> str | None:
    got, wanted = present(c.step.verify).feature_layers, present(c.manifest.drafter.hidden_state_indices)
    return None if got == wanted else f"the forward gave the hidden states {got}, the drafter's are {wanted}"


def _are_committed(c: Context) -> str | None:
    fed, committed = present(c.step.draft).inputs.hidden_digest, present(c.features_digest)
    if fed == committed:
        return None
    where = "the prompt" if c.previous is None else "the step before"
    return f"the drafter was fed features {fed}, what {where} committed has {committed}"


FEATURES_FED: tuple[Invariant[Context], ...] = (
    Invariant(
        "draft.features-are-committed",
        "the features fed are the teacher's own of what was committed",
        _are_committed,
        ("draft.inputs.hidden_digest", "features_digest"),
        _takes_features,
    ),
)
FEATURE_LAYERS: tuple[Invariant[Context], ...] = (
    Invariant(
        "verify.feature-layers",
        "the features are read from the layers that the drafter names",
        _layers,
        ("verify.feature_layers", "manifest.drafter.hidden_state_indices"),
        _takes_features,
    ),
)
