"""Runs of which only lengths are recorded, written by hand, and what breaks each of their invariants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from support.traces import FUSED, Lines, load


def lengths_lines(turns: Sequence[Sequence[tuple[int, int]]], rule: str = "greedy") -> Lines:
    """A trace of level lengths: per turn, its steps as (drafted, accepted)."""
    manifest: dict[str, Any] = {**load(FUSED)[0], "schema": "specscope.trace/1.4", "run_id": f"lengths {turns}"}
    unknown = ["device", "mode", "attention"]
    manifest["tree_policy"] = {"kind": "chain", "depth": 8, "top_k": 1, "budget": 8}
    manifest |= {"level": "lengths", "capabilities": ["lengths"], "sampling": {"rule": rule}, "not_known": unknown}
    manifest.pop("stop_rules", None)
    records: Lines = [manifest]
    for turn, steps in enumerate(turns):
        empty = {"prompt_ids": [], "reused_length": 0, "without_ids": True, "prefill": {"num_tokens": 0}}
        name = {"prompt_id": f"p{turn}", "prompt_turn": 0, "num_prompt_tokens": 7}
        records.append({"kind": "turn_start", "turn": turn, **name, **empty})
        records += [
            {"kind": "step", "turn": turn, "step": step, "lengths": {"drafted": drafted, "accepted": accepted}}
            for step, (drafted, accepted) in enumerate(steps)
        ]
        records.append({"kind": "turn_end", "turn": turn, **_sums(steps)})
    kinds = [record["kind"] for record in records]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    records.append({"kind": "run_end", "reason": "complete", "counts": counts})
    return [{**record, "seq": seq} for seq, record in enumerate(records)]


def _sums(steps: Sequence[tuple[int, int]]) -> dict[str, Any]:
    accepted = [length for _, length in steps]
    return {
        "output_ids": [],
        "num_output_tokens": 1 + len(steps) + sum(accepted),
        "reason": "length",
        "num_steps": len(steps),
        "num_drafted": sum(drafted for drafted, _ in steps),
        "num_accepted": sum(accepted),
        "accepted_by_depth": [sum(n > depth for n in accepted) for depth in range(max(accepted, default=0))],
        "duration_ns": 0,
    }


HONEST = [[(3, 3), (3, 0), (3, 2)], [(3, 1), (2, 2)]]


def accept_more_than_drafted(lines: Lines) -> None:
    """One more than there are, and everywhere."""
    step = next(line for line in lines if line["kind"] == "step")
    end = next(line for line in lines if line["kind"] == "turn_end")
    step["lengths"]["accepted"] = 4
    end["num_accepted"] += 1
    end["accepted_by_depth"].append(1)


def count_otherwise(lines: Lines) -> None:
    """The engine's own total is not that of its steps."""
    next(line for line in lines if line["kind"] == "turn_end")["num_accepted"] -= 1


LENGTHS_MUTANTS: dict[str, Callable[[Lines], None]] = {
    "lengths.accepted-of-drafted": accept_more_than_drafted,
    "turn.metrics": count_otherwise,
}
