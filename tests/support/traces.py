"""Real recorded traces, and ways to damage copies of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from specscope.schemas.verdict import Quantity
from specscope.tracer.compare.drift import QUANTITIES

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_traces"
FUSED, EAGER = SAMPLES / "fused.jsonl", SAMPLES / "eager.jsonl"
FAULTY = SAMPLES / "fused-F16.jsonl"

#: Costs by which a tree of one level pays, whatever was drafted.
WHERE_NO_LEVEL_PAYS = {"fixed_ms": 1.0, "level_ms": 1e6, "verify_slots": [1], "verify_ms": [1.0]}

Lines = list[dict[str, Any]]


def load(path: Path) -> Lines:
    """A trace as plain objects, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def store(lines: Lines, path: Path) -> Path:
    """Writes objects as a trace, without repairing anything but the digest of the last line."""
    import xxhash

    body = [json.dumps(line, ensure_ascii=False) + "\n" for line in lines]
    if lines and lines[-1].get("kind") == "run_end":
        digest = xxhash.xxh3_128("".join(body[:-1]).encode()).hexdigest()
        body[-1] = json.dumps({**lines[-1], "digest": digest}) + "\n"
    path.write_text("".join(body), encoding="utf-8")
    return path


def flat_floors(floor: float) -> dict[Quantity, float]:
    """The same noise floor for every quantity."""
    return dict.fromkeys(QUANTITIES, floor)


def first_step(lines: Lines, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
    """The first step for which ``wanted`` holds."""
    return next(line for line in lines if line["kind"] == "step" and wanted(line))


def accepts_at_least(count: int) -> Callable[[dict[str, Any]], bool]:
    """Steps whose accepted length is at least ``count``."""
    return lambda step: bool(step["accept"]["accepted_length"] >= count)


def drop_last_node(step: dict[str, Any]) -> None:
    """Leaves the last slot out everywhere; in flat order it is a leaf."""
    for name in ("tokens", "parents", "depths", "logprobs", "scores"):
        step["tree"][name].pop()
    tensors = step["tensors"]
    tensors["num_slots"] -= 1
    tensors["padded_slots"] -= 1
    for name in ("positions", "token_ids", "prefix_visible", "mask_rows"):
        tensors[name].pop()
    tensors["index_tensors"]["parents"].pop()
    for name in ("argmax", "top_tokens", "top_logits", "logsumexp", "entropy"):
        step["verify"][name].pop()


def permute_slots(lines: Lines, seed: int) -> None:
    """Renumbers every step's slots, parents still before children, and everything that speaks of slots."""
    rng = random.Random(seed)
    previous: dict[int, dict[int, int]] = {}
    for step in (line for line in lines if line["kind"] == "step"):
        tree, tensors, verify = step["tree"], step["tensors"], step["verify"]
        count = len(tree["tokens"])
        order = [0]
        while len(order) < count:
            ready = [s for s in range(count) if s not in order and tree["parents"][s] in order]
            order.append(rng.choice(ready))
        new = {old: at for at, old in enumerate(order)}
        old_parents = list(tree["parents"])
        for section, names in (
            (tree, ("tokens", "depths", "logprobs", "scores")),
            (tensors, ("positions", "token_ids", "prefix_visible", "mask_rows")),
            (verify, ("argmax", "top_tokens", "top_logits", "logsumexp", "entropy")),
        ):
            for name in names:
                section[name] = [section[name][old] for old in order]
        tree["parents"] = [new[old_parents[old]] for old in order]
        width = tensors["padded_slots"]
        for name, flat in tensors["index_tensors"].items():
            levels = [flat[at : at + width] for at in range(0, len(flat), width)]
            tensors["index_tensors"][name] = [new[slots[old]] for slots in levels for old in order]
        tensors["mask_rows"] = [permute_bits(row, new) for row in tensors["mask_rows"]]
        accept = step["accept"]
        accept["path"] = [new[s] for s in accept["path"]]
        accept["bonus_slot"] = new[accept["bonus_slot"]]
        for visit in accept["visited"]:
            visit |= {name: new[visit[name]] for name in ("slot", "child") if name in visit}
        step["commit"]["source_slots"] = [new[s] for s in step["commit"]["source_slots"]]
        if step["turn"] in previous:
            inputs = step["draft"]["inputs"]
            inputs["source_rows"] = [previous[step["turn"]][row] for row in inputs["source_rows"]]
        previous[step["turn"]] = new


def permute_bits(row: str, new: dict[int, int]) -> str:
    bits = int.from_bytes(bytes.fromhex(row), "little")
    moved = sum(1 << at for old, at in new.items() if bits >> old & 1)
    return moved.to_bytes(len(row) // 2, "little").hex()
