"""What tests of the recorder give it: of a run, of a step, and of the turn's last step."""

from __future__ import annotations

from typing import Any

ABOUT: dict[str, Any] = {
    "engine": "mine 1.0",
    "mode": "fused",
    "dtype": "bfloat16",
    "device": {"backend": "cuda", "name": "any"},
    "teacher": {"name": "tiny", "architecture": "LlamaForCausalLM", "vocab_size": 100},
    "drafter": {"kind": "ngram"},
    "tree_policy": {"kind": "dynamic", "depth": 2, "top_k": 2, "budget": 3},
}
STEP: dict[str, Any] = {
    "tokens": [7, 4, 5, 8],
    "parents": [0, 0, 0, 1],
    "argmax": [4, 8, 9, 2],
    "path": [1, 3],
    "bonus_token": 2,
}
LAST: dict[str, Any] = {"tokens": [2, 6], "parents": [0, 0], "argmax": [5, 0], "path": [], "bonus_token": 5}
