"""The list of all invariants, in the order of a step's phases."""

from __future__ import annotations

from typing import Any

from specscope.schemas.phases import COMPARED_PHASES, Phase
from specscope.tracer.oracle.invariants.accept import ACCEPT
from specscope.tracer.oracle.invariants.base import Context, Invariant
from specscope.tracer.oracle.invariants.commit import COMMIT
from specscope.tracer.oracle.invariants.draft import DRAFT
from specscope.tracer.oracle.invariants.guided import GUIDED
from specscope.tracer.oracle.invariants.lengths import LENGTHS
from specscope.tracer.oracle.invariants.paging import PAGING
from specscope.tracer.oracle.invariants.pipeline import PIPELINE, PIPELINE_TURNS
from specscope.tracer.oracle.invariants.ranks import RANKS
from specscope.tracer.oracle.invariants.rows import ROWS, RowTaken
from specscope.tracer.oracle.invariants.run import RUN_RULES
from specscope.tracer.oracle.invariants.sequence import (
    COMMITTED_CONTINUES,
    LENGTH_CONTINUES,
    PAIRS_CONTINUE,
    ROOT_IS_LAST_BONUS,
)
from specscope.tracer.oracle.invariants.stop import STOP
from specscope.tracer.oracle.invariants.structure import TreeArrays
from specscope.tracer.oracle.invariants.tensors import SIZES, TENSORS, TENSORS_STRUCTURE
from specscope.tracer.oracle.invariants.tree import TREE, TREE_STRUCTURE
from specscope.tracer.oracle.invariants.turn import TURN, TurnTally
from specscope.tracer.oracle.invariants.verify import VERIFY

#: On a tree and its tensors as plain lists. The engine checks these before a kernel runs.
STRUCTURE: tuple[Invariant[TreeArrays], ...] = (SIZES, *TREE_STRUCTURE, *TENSORS_STRUCTURE)
#: On a step's record.
ON_STEPS: tuple[Invariant[Context], ...] = (
    *DRAFT,
    *TREE,
    *TENSORS,
    *VERIFY,
    *GUIDED,
    *ACCEPT,
    ROOT_IS_LAST_BONUS,
    *STOP,
    *COMMIT,
    *PAGING,
    COMMITTED_CONTINUES,
    LENGTH_CONTINUES,
    PAIRS_CONTINUE,
    *LENGTHS,
    *PIPELINE,
    *RANKS,
)
#: On a turn as a whole.
ON_TURNS: tuple[Invariant[TurnTally], ...] = (*TURN, *PIPELINE_TURNS)
#: On a row, as a turn begins in it.
ON_ROWS: tuple[Invariant[RowTaken], ...] = ROWS
ALL_INVARIANTS: tuple[Invariant[Any], ...] = (*STRUCTURE, *ON_STEPS, *ON_TURNS, *ON_ROWS)
#: What holds in an honest run, by invariant.
STATEMENTS = {invariant.id: invariant.statement for invariant in ALL_INVARIANTS} | RUN_RULES

_BY_ID = {invariant.id: invariant for invariant in ALL_INVARIANTS}


def phase_of(invariant: str) -> Phase:
    """The phase that an invariant judges, by its id; ``stop`` where it is of a turn, or of the run."""
    known = _BY_ID.get(invariant)
    if known is not None and known.phase is not None:
        return known.phase
    name = invariant.partition(".")[0]
    for phase in COMPARED_PHASES:
        if phase == name:
            return phase
    return "stop"


def looks_across_steps(invariant: str) -> bool:
    """Whether an invariant, by its id, looks at earlier steps too."""
    return invariant in _BY_ID and _BY_ID[invariant].across_steps
