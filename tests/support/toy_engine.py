"""An engine of another make, in a few lines: chains of drafts, greedy, recorded by the recorder alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from specscope.tracer import Recorder
from support.traces import Lines, load, store

VOCAB = 97
LENGTH = 13
PROMPTS = {"a": [5, 9, 2], "b": [40, 41]}


def teacher(token: int) -> int:
    """The token after ``token``."""
    return (3 * token + 1) % VOCAB


def chain(token: int, depth: int) -> list[int]:
    """Drafts after ``token``: the teacher's own, but for every token that is divisible by 5."""
    drafts: list[int] = []
    for _ in range(depth):
        token = teacher(token)
        drafts.append(token + 1 if token % 5 == 0 else token)
    return drafts


def about(depth: int) -> dict[str, Any]:
    """What the recorder is told of the engine."""
    return {
        "engine": "toy 1",
        "mode": "fused",
        "dtype": "float32",
        "device": {"backend": "cpu", "name": "any"},
        "teacher": {"name": "affine", "architecture": "Affine", "vocab_size": VOCAB},
        "drafter": {"kind": "model"},
        "tree_policy": {"kind": "chain", "depth": depth, "top_k": 1, "budget": depth},
        "stop_rules": {"max_new_tokens": LENGTH, "eos_token_ids": [], "stop_strings": []},
    }


def decode(
    path: Path,
    *,
    depth: int = 4,
    first_token: bool = True,
    capped: bool = False,
    prompts: dict[str, list[int]] = PROMPTS,
    **manifest: Any,
) -> Path:
    """Decodes and records ``prompts``.

    ``first_token``: whether the prefill gives one; else drafts hang below the prompt's last token. ``capped``: whether
    drafts end where no more tokens may be emitted.
    """
    with Recorder(path, **about(depth) | manifest) as trace:
        for name, ids in prompts.items():
            output = [teacher(ids[-1])] if first_token else []
            turn = trace.turn(name, ids, output[0] if first_token else None)
            while len(output) < LENGTH:
                left = LENGTH - len(output)
                root = (ids + output)[-1]
                tokens = [root, *chain(root, min(depth, left - 1) if capped else depth)]
                argmax = [teacher(token) for token in tokens]
                accepted = 0
                while accepted + 1 < len(tokens) and tokens[accepted + 1] == argmax[accepted]:
                    accepted += 1
                emitted = [*tokens[1 : accepted + 1], argmax[accepted]][:left]
                limit: dict[str, Any] = {"tree": {"depth_limit": left - 1}} if capped else {}
                turn.step(
                    tokens=tokens,
                    parents=[max(0, slot - 1) for slot in range(len(tokens))],
                    argmax=argmax,
                    path=list(range(1, accepted + 1)),
                    bonus_token=argmax[accepted],
                    kept=len(emitted),
                    **limit,
                )
                output += emitted
            turn.end("length")
    return path


def changed(path: Path, change: Callable[[Lines], Any]) -> Path:
    """A copy of the trace with one change."""
    lines = load(path)
    change(lines)
    return store(lines, path.with_name(f"changed-{path.name}"))
