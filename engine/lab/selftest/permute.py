"""The same greedy run with its slots numbered otherwise, as another engine might: a copy of its trace."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TypeVar

import torch

from specscope.engine.digests import digest_tensors
from specscope.schemas import CommitSection, DraftSection, Step, TensorsSection, TreeSection, VerifySection
from specscope.schemas.accept import AcceptSection, Visit
from specscope.schemas.base import Section
from specscope.tracer.errors import EngineError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.writer import TraceWriter

Value = TypeVar("Value")


def permute_slots(source: Path, target: Path, seed: int) -> None:
    """Writes the trace at ``source`` to ``target`` with every step's real slots renumbered at random, parents still
    before their children; all that speaks of slots is renumbered with them.

    Raises:
        TraceError: where ``source`` cannot be read.
        UsageError: where ``target`` cannot be written.
    """
    rng = random.Random(seed)  # noqa: S311  # numbers slots, guards nothing
    before: dict[int, Renumbering] = {}  # of each turn's last step
    with TraceReader(source) as reader:
        writer = TraceWriter(target, overwrite=False, warn=_no_room)
        for _, record, _ in reader.numbered_lines():
            if record.kind == "run_end":
                writer.finish(record.reason)
            elif record.kind == "step":
                assert record.tree is not None
                new = Renumbering.drawn(record.tree.parents, rng)
                writer.write(_renumbered(record, new, before.get(record.turn)))
                before[record.turn] = new
            else:
                writer.write(record)


def _no_room(warning: str) -> None:
    raise EngineError(warning)


class Renumbering:
    """Another order of a step's slots; what is not a real slot keeps its number."""

    def __init__(self, order: list[int]) -> None:
        self._order = order  # old slots, in the new order
        self._new = {old: new for new, old in enumerate(order)}

    @classmethod
    def drawn(cls, parents: list[int], rng: random.Random) -> Renumbering:
        """A random order in which the root is first and each node is after its parent."""
        order = [0]
        waiting = list(range(1, len(parents)))
        while waiting:
            ready = [slot for slot in waiting if parents[slot] in order]
            order.append(rng.choice(ready))
            waiting.remove(order[-1])
        return cls(order)

    def slot(self, old: int) -> int:
        """The new number of one slot."""
        return self._new.get(old, old)

    def slots(self, old: list[int]) -> list[int]:
        """The new numbers of slots that have their own order, such as a path."""
        return [self.slot(slot) for slot in old]

    def rows(self, values: list[Value]) -> list[Value]:
        """Values per slot, in the new order; padding stays where it is."""
        return [values[old] for old in self._order] + values[len(self._order) :]

    def bits(self, row: str) -> str:
        """A mask row's columns, renumbered."""
        old = int.from_bytes(bytes.fromhex(row), "little")
        new = sum(1 << self.slot(column) for column in range(old.bit_length()) if old >> column & 1)
        return new.to_bytes(len(row) // 2, "little").hex()


def _renumbered(step: Step, new: Renumbering, before: Renumbering | None) -> Step:
    update: dict[str, Section] = {}
    if step.draft is not None and before is not None:  # a turn's first pairs are rows of the prompt
        update["draft"] = _draft(step.draft, before)
    if step.tree is not None:
        update["tree"] = _tree(step.tree, new)
    if step.tensors is not None:
        update["tensors"] = moved = _tensors(step.tensors, new)
        if step.verify is not None:
            update["verify"] = _verify(step.verify, new, moved.input_digest)
    if step.accept is not None:
        update["accept"] = _accept(step.accept, new)
    if step.commit is not None:
        update["commit"] = _commit(step.commit, new)
    return step.model_copy(update=update)


def _draft(draft: DraftSection, before: Renumbering) -> DraftSection:
    if draft.inputs is None:
        return draft
    inputs = draft.inputs.model_copy(update={"source_rows": before.slots(draft.inputs.source_rows)})
    return draft.model_copy(update={"inputs": inputs})


def _tree(tree: TreeSection, new: Renumbering) -> TreeSection:
    rows = {name: new.rows(getattr(tree, name)) for name in ("tokens", "depths", "logprobs", "scores")}
    return tree.model_copy(update={**rows, "parents": new.slots(new.rows(tree.parents))})


def _tensors(tensors: TensorsSection, new: Renumbering) -> TensorsSection:
    rows = {name: new.rows(getattr(tensors, name)) for name in ("positions", "prefix_visible", "token_ids")}
    count = tensors.padded_slots
    indices = {}
    for name, flat in tensors.index_tensors.items():  # each is one or more lists of a number a slot
        lists = [flat[at : at + count] for at in range(0, len(flat), count)]
        indices[name] = [slot for slots in lists for slot in new.slots(new.rows(slots))]
    masks = [new.bits(row) for row in new.rows(tensors.mask_rows)]
    moved = tensors.model_copy(update={**rows, "index_tensors": indices, "mask_rows": masks})
    return moved.model_copy(update={"input_digest": digest_inputs(moved)})


def digest_inputs(tensors: TensorsSection) -> str:
    """The digest that this engine gives to what stands in the section."""
    columns = range(tensors.padded_slots)
    rows = [int.from_bytes(bytes.fromhex(row), "little") for row in tensors.mask_rows]
    seen = torch.tensor([[bool(row >> column & 1) for column in columns] for row in rows])
    return digest_tensors(torch.tensor(tensors.token_ids), torch.tensor(tensors.positions), seen)


def _verify(verify: VerifySection, new: Renumbering, input_digest: str | None) -> VerifySection:
    names = ("argmax", "top_tokens", "top_logits", "logsumexp", "entropy", "target_tokens", "target_logprobs")
    rows = {name: new.rows(values) for name in names if (values := getattr(verify, name)) is not None}
    # The logits themselves are not in the trace: in another order they have another digest, and that is all to say.
    other = (verify.logits_digest or "")[::-1] or None
    if verify.nonfinite_slots is not None:
        rows["nonfinite_slots"] = sorted(new.slots(verify.nonfinite_slots))
    return verify.model_copy(update={**rows, "logits_digest": other, "input_digest": input_digest})


def _accept(accept: AcceptSection, new: Renumbering) -> AcceptSection:
    path, bonus = new.slots(accept.path), new.slot(accept.bonus_slot)
    update: dict[str, object] = {"path": path, "bonus_slot": bonus}
    if accept.visited is not None:
        update["visited"] = [_visit(visit, new) for visit in accept.visited]
    return accept.model_copy(update=update)


def _visit(visit: Visit, new: Renumbering) -> Visit:
    child = None if visit.child is None else new.slot(visit.child)
    return visit.model_copy(update={"slot": new.slot(visit.slot), "child": child})


def _commit(commit: CommitSection, new: Renumbering) -> CommitSection:
    return commit.model_copy(update={"source_slots": new.slots(commit.source_slots)})
