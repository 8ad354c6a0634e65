"""A run that a grammar guides, made of a recorded one; and ways to guide it wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Lines = list[dict[str, Any]]
Line = dict[str, Any]
GRAMMAR = {"kind": "regex", "digest": "a" * 32, "library": "llguidance"}


def guides(lines: Lines) -> Lines:
    """``lines`` as those of a run whose grammar allows every token of every tree, and stands where it must."""
    lines[0]["grammar"] = dict(GRAMMAR)
    lines[0]["capabilities"].append("guided")
    state = at(1)
    for line in lines:
        if line["kind"] == "turn_start":
            state = line["prefill"]["guided"] = at(1)
        elif line["kind"] == "step":
            slots = list(range(len(line["tree"]["tokens"])))
            digests = [f"{slot:016x}" for slot in slots]
            after = at(state["position"] + line["stop"]["kept"])
            line["guided"] = {
                "before": dict(state),
                "returned": dict(state),
                "after": dict(after),
                "slots": slots,
                "num_allowed": [100 for _ in slots],
                "mask_digests": digests,
                "applied_digests": list(digests),
                "ends": [],
            }
            state = after
    return lines


def at(position: int) -> Line:
    """A state at that position."""
    return {"position": position, "digest": f"{position:016x}"}


def guided_steps(lines: Lines) -> Lines:
    """The steps that a grammar guides."""
    return [line for line in lines if line["kind"] == "step"]


def _in_second(change: Callable[[Line], Any]) -> Callable[[Lines], None]:
    def mutate(lines: Lines) -> None:
        change(guided_steps(guides(lines))[1])

    return mutate


def _in_accepting(change: Callable[[Line], Any]) -> Callable[[Lines], None]:
    """Of the first step that accepts two nodes or more."""

    def mutate(lines: Lines) -> None:
        change(next(step for step in guided_steps(guides(lines)) if len(step["accept"]["path"]) > 1))

    return mutate


def _forbid(step: Line, slot: int) -> None:
    """Takes a slot's mask away, and those of its descendants."""
    guided, parents = step["guided"], step["tree"]["parents"]
    gone = {slot}
    for child in range(slot + 1, len(parents)):
        if parents[child] in gone:
            gone.add(child)
    keep = [n for n, listed in enumerate(guided["slots"]) if listed not in gone]
    for name in ("slots", "num_allowed", "mask_digests", "applied_digests"):
        guided[name] = [guided[name][n] for n in keep]


def _end_early(step: Line) -> None:
    """The first accepted slot ends the text, although what was accepted behind it was kept."""
    first = step["accept"]["path"][0]
    _forbid(step, first)
    step["guided"]["ends"] = [first]
    assert step["stop"]["kept"] > 1


def _shift_applied(step: Line) -> None:
    """The masks of all slots are put on the slot behind."""
    digests = step["guided"]["applied_digests"]
    step["guided"]["applied_digests"] = [digests[-1], *digests[:-1]]


def _allow_two_of_many(step: Line) -> None:
    """A slot has as many finite logits among its best as were recorded, and is said to allow fewer."""
    step["guided"]["num_allowed"] = [1 for _ in step["guided"]["slots"]]


def _stay(lines: Lines) -> None:
    """A step finds the grammar where the step before it found it."""
    steps = guided_steps(guides(lines))
    steps[1]["guided"]["before"] = dict(steps[0]["guided"]["before"])
    steps[1]["guided"]["returned"] = dict(steps[0]["guided"]["before"])


def _begin_elsewhere(lines: Lines) -> None:
    next(line for line in guides(lines) if line["kind"] == "turn_start")["prefill"]["guided"] = at(2)


def _orphan(step: Line) -> None:
    """A slot loses its mask, and a child of it keeps its own."""
    guided, parents = step["guided"], step["tree"]["parents"]
    at_parent = guided["slots"].index(next(slot for slot in parents if slot > 0))
    for name in ("slots", "num_allowed", "mask_digests", "applied_digests"):
        guided[name].pop(at_parent)


#: By invariant, each of them violates it.
WRONGLY_GUIDED: dict[str, dict[str, Callable[[Lines], None]]] = {
    "guided.slots": {
        "a list is too short": _in_second(lambda s: s["guided"]["num_allowed"].pop()),
        "the root has none": _in_second(lambda s: _forbid(s, 0)),
        "a slot that there is not": _in_second(lambda s: s["guided"]["ends"].append(99)),
        "twice": _in_second(lambda s: s["guided"]["ends"].append(1)),
        "the parent has none": _in_second(_orphan),
        "allows nothing": _in_second(lambda s: s["guided"]["num_allowed"].__setitem__(2, 0)),
    },
    "guided.masks-applied": {
        "a row off": _in_second(_shift_applied),
        "more than allowed": _in_second(_allow_two_of_many),
    },
    "guided.rolled-back": {"one too few": _in_second(lambda s: s["guided"].update(returned=at(99)))},
    "guided.path-allowed": {
        "a forbidden slot": _in_accepting(lambda s: _forbid(s, s["accept"]["path"][-1])),
        "behind the end": _in_accepting(_end_early),
    },
    "guided.advances": {
        "past the end": _in_second(lambda s: s["guided"]["after"].update(position=s["guided"]["after"]["position"] + 1))
    },
    "guided.state-continues": {"stays": _stay, "begins elsewhere": _begin_elsewhere},
}
#: One of each.
GUIDED_MUTANTS = {name: next(iter(ways.values())) for name, ways in WRONGLY_GUIDED.items()}
