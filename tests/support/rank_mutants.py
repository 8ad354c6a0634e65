"""A recorded run as one of several ranks, and ways in which they part."""

from __future__ import annotations

from typing import Any

Lines = list[dict[str, Any]]


def ranks_agree(lines: Lines, count: int = 3) -> Lines:
    """``lines`` as those of a run of ``count`` ranks that decide the same in every step."""
    lines[0]["tensor_parallel"] = {
        "world_size": count,
        "plan": {"lm_head": "colwise_gather_output"},
        "backend": "gloo",
        "acceptance": "replicated",
    }
    lines[0]["capabilities"].append("ranks")
    for line in lines:
        if line["kind"] == "step":
            digests = dict.fromkeys(("tree_digest", "path_digest", "emitted_digest"), f"{line['step']:016x}")
            line["ranks"] = [dict(digests) for _ in range(count)]
    return lines


def one_rank_parts(lines: Lines) -> None:
    """The last of them accepts another path in the second step."""
    second = [line for line in ranks_agree(lines) if line["kind"] == "step"][1]
    second["ranks"][-1]["path_digest"] = "f" * 16
