"""Traces of a paged cache, made of a sample trace, and what is wrong with their blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.traces import Lines

BLOCK_SIZE, NUM_BLOCKS = 8, 64
Step = dict[str, Any]


def make_paged(lines: Lines) -> Lines:
    """An honest trace of one row whose prefix is paged: ``lines``, changed."""
    lines[0].update(cache="paged", block_size=BLOCK_SIZE)
    table: list[int] = []
    for line in lines:
        if line["kind"] == "turn_start":
            table = list(range(_covering(len(line["prompt_ids"]))))
            line["prefill"]["block_table"] = table
        if line["kind"] == "step":
            after = list(range(_covering(line["commit"]["committed_after"])))
            line["verify"]["block_table"] = table
            line["commit"]["blocks"] = {
                "table": after,
                "references": [1] * len(after),
                "taken": after[len(table) :],
                "freed": [],
                "num_blocks": NUM_BLOCKS,
                "num_free": NUM_BLOCKS - len(after),
                "num_held": len(after),
                "num_accounted": NUM_BLOCKS,
            }
            table = list(after)
    return lines


def _covering(length: int) -> int:
    return -(-length // BLOCK_SIZE)


def breaking(change: Callable[[Step], Any]) -> Callable[[Lines], None]:
    """``lines`` as ``make_paged`` has them, with ``change`` made to the second step."""

    def broken(lines: Lines) -> None:
        steps = [line for line in make_paged(lines) if line["kind"] == "step"]
        change(steps[1])

    return broken


def share(*digests: str, references: int) -> Callable[[Step], None]:
    """The first block is shared by as many rows as there are ``digests``."""

    def change(step: Step) -> None:
        blocks = step["commit"]["blocks"]
        blocks["references"][0] = references
        blocks["shared"] = [{"block": 0, "rows": list(range(len(digests))), "token_digests": list(digests)}]

    return change


def _blocks(**changes: Any) -> Callable[[Step], None]:
    return lambda step: step["commit"]["blocks"].update(changes)


def lose_one(step: Step) -> None:
    blocks = step["commit"]["blocks"]
    blocks["num_free"] -= 1
    blocks["num_accounted"] -= 1


def drop_the_last(step: Step) -> None:
    blocks = step["commit"]["blocks"]
    blocks["table"].pop()
    blocks["references"].pop()


def exchange(step: Step, other: int) -> None:
    """The last block is another one than the one that was taken."""
    step["commit"]["blocks"]["table"][-1] = other


def leave_out_a_digest(step: Step) -> None:
    share(ALIKE, ALIKE, references=2)(step)
    step["commit"]["blocks"]["shared"][0]["token_digests"].pop()


def share_what_it_does_not_have(step: Step) -> None:
    share(ALIKE, ALIKE, references=2)(step)
    blocks = step["commit"]["blocks"]
    blocks["shared"].append({**blocks["shared"][0], "block": 50})


ALIKE, OTHER = "0123456789abcdef", "fedcba9876543210"
#: name -> the invariant, and how it is broken
FORMS: dict[str, tuple[str, Callable[[Step], Any]]] = {
    "a stale table": ("paging.table-read", lambda s: s["verify"]["block_table"].pop()),
    "the table of another row": ("paging.table-read", lambda s: s["verify"]["block_table"].__setitem__(0, 33)),
    "the last block dropped": ("paging.table-covers", drop_the_last),
    "a block twice": ("paging.table-covers", lambda s: exchange(s, 0)),
    "a block that there is not": ("paging.table-covers", lambda s: exchange(s, NUM_BLOCKS)),
    "a block that was not taken": ("paging.table-covers", lambda s: exchange(s, 33)),
    "taken and not in the table": ("paging.table-covers", lambda s: s["commit"]["blocks"]["taken"].append(33)),
    "a lost block": ("paging.no-leak", lose_one),
    "free twice": ("paging.freed-once", lambda s: s["commit"]["blocks"].update(num_free=NUM_BLOCKS)),
    "given back twice": ("paging.freed-once", _blocks(freed=[40, 40])),
    "given back and kept": ("paging.freed-once", _blocks(freed=[0])),
    "rows that differ": ("paging.shared-alike", share(ALIKE, OTHER, references=2)),
    "a row not counted": ("paging.shared-alike", share(ALIKE, ALIKE, references=1)),
    "a row too many": ("paging.shared-alike", lambda s: s["commit"]["blocks"]["references"].__setitem__(0, 2)),
    "a digest missing": ("paging.shared-alike", leave_out_a_digest),
    "a block of no table": ("paging.shared-alike", share_what_it_does_not_have),
}


#: invariant -> how to break it in a run
PAGING_MUTANTS = {invariant: breaking(change) for invariant, change in FORMS.values()}
