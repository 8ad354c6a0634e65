"""Two aligned steps, and what a difference between them is made of. What is compared is in ``phases``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specscope.schemas.verdict import Difference, DifferenceKind, Phase, Quantity
from specscope.tracer.compare.judge import FloatJudge
from specscope.tracer.compare.nodes import PathKey, StepNodes, key_tokens
from specscope.tracer.compare.token_values import tokens_of


@dataclass(frozen=True)
class StepPair:
    """Two steps that begin at the same position behind the same tokens."""

    a: StepNodes
    b: StepNodes
    previous_a: StepNodes | None
    previous_b: StepNodes | None
    judge: FloatJudge
    trees_compared: bool  # off where one run drafts nothing
    same_policy: bool = True  # off where trees were meant to differ: then common nodes alone are compared
    regrouped: bool = False  # the steps before were not the same blocks, so the pairs fed are not either

    @property
    def common(self) -> list[PathKey]:
        """Nodes of both trees, in the baseline's slot order."""
        return [key for key in self.a.keys if key in self.b.slots]

    def floor(self, quantity: Quantity) -> float:
        """The noise floor of ``quantity``."""
        return self.judge.floors[quantity]


def difference(
    phase: Phase,
    field: str,
    a: Any,
    b: Any,
    kind: DifferenceKind,
    inputs_equal: bool,
    node: PathKey | None = None,
    floor: float | None = None,
) -> Difference:
    """The difference as it is reported; ``a`` and ``b`` are shortened to what a card can show."""
    tokens = None if node is None else key_tokens(node)
    return Difference(
        phase=phase,
        field=field,
        node=tokens,
        a=_text(a),
        b=_text(b),
        kind=kind,
        inputs_equal=inputs_equal,
        floor=floor,
        tokens_a=tokens_of(field, a),
        tokens_b=tokens_of(field, b),
    )


def choice(
    judge: FloatJudge,
    field: str,
    best: tuple[int, int],
    logits: tuple[list[float], list[float]],
    mutual: bool,
    inputs_equal: bool,
    node: PathKey | None = None,
) -> Difference:
    """Two choices of the teacher that differ: ``best`` with the two best ``logits`` there, a side each.

    A tie is exact where neither side can tell its two best apart, near where noise on both sides may have put either
    first. Neither is a tie unless each side's choice is among the other's two best (``mutual``), with known logits.
    """
    margins = [max(two) - min(two) if len(two) > 1 else None for two in logits]
    kind: DifferenceKind = "real"
    if mutual and margins == [0, 0]:
        kind = "exact-tie"
    elif mutual and all(len(two) > 1 and judge.tied("logits", max(two), min(two)) for two in logits):
        kind = "near-tie"
    found = difference("verify", field, *best, kind, inputs_equal, node, judge.floors["logits"])
    broken = None
    if kind == "exact-tie":
        lower = "baseline" if best[0] < best[1] else "candidate"
        broken = f"both logits are equal on both sides; the {lower} took the lower id"
    return found.model_copy(update={"margin_a": margins[0], "margin_b": margins[1], "tie_break": broken})


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:119] + "…"


def path_tokens(nodes: StepNodes) -> list[Any]:
    """The accepted path in tokens, by which it can be compared across slot orders."""
    assert nodes.step.accept is not None
    keys = [nodes.key_of(slot) for slot in nodes.step.accept.path]
    return ["no such slot" if key is None else key_tokens(key)[-1] if key else "root" for key in keys]


def slot_keys(nodes: StepNodes, slots: list[int]) -> list[Any]:
    """Slots as path keys; a slot that is none stands as its number."""
    keys = ((slot, nodes.key_of(slot)) for slot in slots)
    return [slot if key is None else key_tokens(key) for slot, key in keys]
