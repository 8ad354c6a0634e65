"""The drafter's forwards narrowed, level by level: it drafts again from the baseline's pairs, and is watched doing so.

Each module that is fed one tensor and nothing else is run by itself on what the baseline's was fed. What stands between
the modules (a concatenation, the attention, a hidden state that is handed on) shows in what the next one is fed, as far
as everything before it was right.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import nn

from specscope.engine.drafters.base import Draft, DraftPairs
from specscope.engine.lab.bisect.draft_calls import DraftCalls
from specscope.engine.lab.bisect.floors import SPREAD, Floors, relative_error
from specscope.engine.lab.bisect.operations import Captures, Operation, run_by_itself
from specscope.engine.lab.bisect.sides import Side, prefix_cache
from specscope.engine.lab.rerun.recorded_trees import FedPairs
from specscope.engine.load.models import DTYPES
from specscope.engine.record.sections import draft_section, tree_section
from specscope.schemas import DraftSection, TreeSection
from specscope.schemas.bisection import NarrowedDraft, OperationError

#: What stands before a part, by the part that is fed it. Of the others it is the part before.
BETWEEN = {
    "feature norm": "features",
    "fc": "features",
    "embedding": "proposed tokens",
    "hidden norm": "hidden state handed on",
    "input norm": "residual",
    "query projection": "concatenation",
    "key projection": "concatenation",
    "value projection": "concatenation",
    "output projection": "attention",
    "post-attention norm": "residual",
    "final norm": "residual",
}
LAYER = re.compile(r"layer \d+ ")
#: In roundings: how far whole forwards of honest kernels may part before anything else did.
ROUNDINGS = 16.0


class Drafted(NamedTuple):
    """A draft, and what the parts were fed and gave for it, in the order of the calls."""

    draft: DraftSection
    tree: TreeSection
    calls: Captures


@torch.inference_mode()
def redraft(side: Side, fed: FedPairs, num_earlier: int, prefix: torch.Tensor) -> Drafted:
    """Has the side's drafter, alone, draft from the pairs ``fed`` after the committed keys and values ``prefix``
    (L, 2, G, T, W). The first ``num_earlier`` of the pairs it had before."""
    trees = side.lane.trees
    trees.wanted = None
    trees.begin_session(prefix_cache(side.teacher, prefix))
    trees.begin_turn(0, side.committed_ids, 0)
    if num_earlier:
        _draft_from(side, fed, range(num_earlier), prefix=prefix, generators=None)
        trees.begin_turn(0, side.committed_ids, num_earlier)
    generators = None
    if side.generator_state is not None and side.lane.session.decoding.rule.draft == "sampled":
        generators = [torch.Generator()]
        generators[0].set_state(side.generator_state)
    calls = DraftCalls()
    with calls.watching(trees.parts()):
        draft = _draft_from(side, fed, range(num_earlier, len(fed.tokens)), prefix=prefix, generators=generators)
    return Drafted(draft_section(draft, 0), tree_section(draft.tree, 0), calls.found)


def _draft_from(
    side: Side, fed: FedPairs, rows: range, prefix: torch.Tensor, generators: list[torch.Generator] | None
) -> Draft:
    """What the side's drafter drafts after these rows of ``fed``."""
    teacher = side.teacher
    assert fed.features is not None
    features = fed.features[rows.start : rows.stop].to(device=teacher.device, dtype=teacher.dtype)
    tokens = fed.tokens[rows.start : rows.stop]
    pairs = DraftPairs(list(rows), features, torch.tensor(tokens, device=teacher.device), tokens)
    return side.lane.trees.propose([pairs], prefix_cache(teacher, prefix), generators)


def narrow_draft(ours: Captures, theirs: Captures, modules: dict[str, nn.Module], dtype: str) -> NarrowedDraft:
    """The first of the drafter's operations that is off.

    Args:
        ours: the baseline's calls.
        theirs: the candidate's, from the same pairs.
        modules: the candidate's parts.
        dtype: the coarser one of both sides.
    """
    errors = {
        operation: relative_error(value.gave, run_by_itself(modules[operation.name], value.fed))
        for operation, value in ours.items()
        if value.is_all
    }
    floors = Floors(errors, dtype)
    above = floors.above
    parted = _parting(ours, theirs, dtype)
    order = list(ours)
    culprit = None
    if above and (parted is None or order.index(above[0]) <= order.index(parted.before)):
        culprit = _error(above[0], errors, floors)
    elif parted is not None:
        culprit = parted.error
    return NarrowedDraft(operations=[_error(operation, errors, floors) for operation in errors], culprit=culprit)


def narrow_in_place(ours: Captures, theirs: Captures, dtype: str) -> NarrowedDraft:
    """Where the drafts of the step itself part, as ``narrow_draft``: for what is right when it is done once more by
    itself."""
    parted = _parting(ours, theirs, dtype)
    return NarrowedDraft(operations=[], culprit=None if parted is None else parted.error)


def _before(name: str) -> str:
    """What the part of that name is fed, with the layer where the name has one."""
    layer, part = LAYER.match(name), LAYER.sub("", name)
    return (layer.group() if layer is not None else "") + BETWEEN.get(part, f"input of the {part}")


def _error(operation: Operation, errors: dict[Operation, float], floors: Floors) -> OperationError:
    floor = floors.of(operation)
    return OperationError(
        level=operation.level,
        operation=operation.name,
        error=errors[operation],
        floor=floor.value,
        sample_size=floor.sample_size,
        at_ceiling=floor.at_ceiling,
    )


class _Parting(NamedTuple):
    """Where two drafts part between the modules."""

    before: Operation  # the part that is fed the first value that is off, or gave it
    error: OperationError


def _parting(ours: Captures, theirs: Captures, dtype: str) -> _Parting | None:
    """The first value in the order of the calls that is off by more than those before it explain."""
    least, largest = ROUNDINGS * torch.finfo(DTYPES[dtype]).eps, 0.0
    for operation, value in ours.items():
        other = theirs.get(operation)
        if other is None:
            return None
        for name, wanted, got in (
            (_before(operation.name), value.fed, other.fed),
            (operation.name, value.gave, other.gave),
        ):
            error = relative_error(wanted, got) if wanted.shape == got.shape else float("inf")
            floor = max(least, SPREAD * largest)
            if error > floor:
                culprit = OperationError(
                    level=operation.level, operation=name, in_place=True, error=error, floor=floor,
                    sample_size=0, at_ceiling=False,
                )  # fmt: skip
                return _Parting(operation, culprit)
            largest = max(largest, error)
    return None
