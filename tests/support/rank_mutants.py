"""A recorded run as one of several ranks, and ways in which they part."""

from __future__ import annotations

from array import array
from typing import Any

import xxhash

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
            digests = decided_in(line)
            line["ranks"] = [dict(digests) for _ in range(count)]
    return lines


def decided_in(step: dict[str, Any]) -> dict[str, str]:
    """What a rank says that decided what ``step`` records."""
    tree, accept = step["tree"], step["accept"]
    emitted = [*(tree["tokens"][slot] for slot in accept["path"]), accept["bonus_token"]]
    decided = {"tree": [*tree["tokens"], *tree["parents"]], "path": accept["path"], "emitted": emitted}
    return {f"{name}_digest": xxhash.xxh3_64_hexdigest(array("q", ids).tobytes()) for name, ids in decided.items()}


def all_decide_otherwise(lines: Lines) -> None:
    """In the second step all ranks say that they accepted a path that is not the recorded one."""
    second = [line for line in ranks_agree(lines) if line["kind"] == "step"][1]
    for decided in second["ranks"]:
        decided["path_digest"] = "f" * 16


def one_rank_parts(lines: Lines) -> None:
    """The last of them accepts another path in the second step."""
    second = [line for line in ranks_agree(lines) if line["kind"] == "step"][1]
    second["ranks"][-1]["path_digest"] = "f" * 16
