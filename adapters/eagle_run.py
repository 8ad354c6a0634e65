"""What a manifest says of a run of official EAGLE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from specscope.adapters.eagle_draft import is_identity
from specscope.adapters.models import describe_teacher, digests_of, version_of

if TYPE_CHECKING:
    from _typeshed import StrPath

SECTIONS = ("draft", "tree", "tensors", "verify", "accept", "commit", "stop")


def about_run(model: Any, teacher: StrPath | None, head: StrPath | None, max_new_tokens: int | None) -> dict[str, Any]:
    """What the recorder is told of the run."""
    drafter, base = model.ea_layer, model.base_model
    described = describe_teacher(base)
    if teacher is not None:
        described |= {"name": Path(teacher).name, **digests_of(Path(teacher))}
    about: dict[str, Any] = {
        "engine": "SafeAILab/EAGLE",
        "versions": {"torch": torch.__version__, "transformers": version_of("transformers")},
        "mode": "eager",
        "attention": "eager",
        "dtype": str(base.dtype).removeprefix("torch."),
        "device": {"backend": base.device.type, "name": base.device.type},
        "teacher": described,
        "drafter": _drafter_of(drafter, head),
        "tree_policy": _policy_of(drafter),
        "sampling": {"rule": "greedy", "lossless": True},
        "sections": SECTIONS,
        "conventions": {"draft_position": "pair-index"},
    }
    if max_new_tokens is not None:
        eos = sorted(ends_of(model))
        about["stop_rules"] = {"max_new_tokens": max_new_tokens, "eos_token_ids": eos, "stop_strings": []}
    return about


def ends_of(model: Any) -> frozenset[int]:
    """The token that ends a turn, if its tokenizer has one."""
    eos = model.tokenizer.eos_token_id
    return frozenset() if eos is None else frozenset({int(eos)})


def _drafter_of(drafter: Any, head: StrPath | None) -> dict[str, Any]:
    return {
        "kind": "eagle3",
        "draft_vocab_size": drafter.config.draft_vocab_size,
        "vocab_mapping": "identity" if is_identity(drafter) else "offset",
        **({} if head is None else {"name": Path(head).name, **digests_of(Path(head))}),
    }


def _policy_of(drafter: Any) -> dict[str, Any]:
    """Its depth does not count the first level, which the pairs propose."""
    depth, budget = drafter.depth + 1, drafter.total_tokens
    return {"kind": "dynamic", "depth": depth, "top_k": drafter.top_k, "budget": budget}
