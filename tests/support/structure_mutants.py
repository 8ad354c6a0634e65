"""Ways to break the tree or the tensors of a recorded step: at least one per structural invariant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Step = dict[str, Any]
Lines = list[Step]


def put(section: str, field: str, index: int, value: Any) -> Callable[[Step], None]:
    def change(step: Step) -> None:
        step[section][field][index] = value

    return change


def flip_mask(row: int, column: int) -> Callable[[Step], None]:
    def change(step: Step) -> None:
        rows = step["tensors"]["mask_rows"]
        width = len(rows[row])
        bits = int.from_bytes(bytes.fromhex(rows[row]), "little") ^ 1 << column
        rows[row] = bits.to_bytes(width // 2, "little").hex()

    return change


def twin_sibling(step: Step) -> None:
    tree = step["tree"]
    slots = [s for s, p in enumerate(tree["parents"]) if p == 0 and s]
    tree["tokens"][slots[1]] = tree["tokens"][slots[0]]


def self_parent(step: Step) -> None:
    step["tree"]["parents"][3] = 3


def unpadded(step: Step) -> None:
    step["tensors"]["padded_slots"] -= 1


def see_padding(step: Step) -> None:
    tensors = step["tensors"]
    tensors["padded_slots"] += 1
    for name in ("positions", "token_ids", "prefix_visible"):
        tensors[name].append(tensors[name][0])
    tensors["mask_rows"].append(tensors["mask_rows"][0])


#: invariant -> how to break it in a step
STRUCTURE_MUTANTS: dict[str, Callable[[Step], Any]] = {
    "tensors.sizes": unpadded,
    "tree.tokens-in-vocabulary": put("tree", "tokens", 2, 4096),
    "tree.parent-before-child": put("tree", "parents", 1, 2),
    "tree.depth-follows-parent": put("tree", "depths", 2, 4),
    "tree.siblings-distinct": twin_sibling,
    "tree.reaches-root": self_parent,
    "tensors.mask-is-ancestors": flip_mask(2, 1),
    "tensors.mask-row-sum": flip_mask(4, 0),
    "tensors.padding-isolated": see_padding,
    "tensors.position-is-length-plus-depth": put("tensors", "positions", 1, 7),
    "tensors.index-in-range": lambda s: s["tensors"]["index_tensors"]["parents"].__setitem__(1, -1),
    "tensors.tokens-are-the-trees": put("tensors", "token_ids", 1, 5),
}


def see_one_too_many(lines: Lines) -> None:
    """Makes every layer one with a window of 4, which all steps keep to, but one slot of one of them."""
    lines[0]["teacher"]["sliding_windows"] = [4] * 8
    steps = [line for line in lines if line["kind"] == "step"]
    for step in steps:
        positions = step["tensors"]["positions"][: step["tensors"]["num_slots"]]
        step["verify"]["windows"] = [
            {
                "size": 4,
                "layers": list(range(8)),
                "first_positions": [max(0, position - 3) for position in positions],
                "num_seen": [min(4, position + 1) for position in positions],
            }
        ]
    steps[1]["verify"]["windows"][0]["num_seen"][-1] += 1
