"""Traces of several drafters, made of a sample trace, and ways to name the proposers of their nodes wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.shape_mutants import SHAPE_MUTANTS
from support.traces import Lines


def steps_of(lines: Lines) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == "step"]


def propose_together(lines: Lines) -> Lines:
    """An honest trace of two drafters, of which the lookup found nothing: ``lines``, changed."""
    lines[0]["drafter"]["kind"] = "eagle3+ngram"
    for step in steps_of(lines):
        step["tree"]["proposed_by"] = ["", *["eagle3"] * (len(step["tree"]["tokens"]) - 1)]
    return lines


def rename(slot: int, names: str) -> Callable[[Lines], None]:
    """``lines`` as ``propose_together`` has them, with one slot of the first step proposed by ``names``."""

    def change(lines: Lines) -> None:
        propose_together(lines)
        steps_of(lines)[0]["tree"]["proposed_by"][slot] = names

    return change


#: invariant -> how to break it in a run
PROPOSER_MUTANTS: dict[str, Callable[[Lines], Any]] = {
    "tree.proposed-by": rename(3, "ngram"),
    "tree.lookup-is-in-text": rename(-1, "eagle3+ngram"),
}

#: With those of the tables by which shapes are chosen.
PROPOSER_AND_SHAPE_MUTANTS = {**PROPOSER_MUTANTS, **SHAPE_MUTANTS}
