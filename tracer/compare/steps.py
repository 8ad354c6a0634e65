"""Two aligned steps, and what a difference between them is made of. What is compared is in ``phases``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specscope.schemas.verdict import Difference, DifferenceKind, Phase
from specscope.tracer.compare.nodes import PathKey, StepNodes, key_tokens
from specscope.tracer.compare.tolerance import FloatJudge


@dataclass(frozen=True)
class StepPair:
    """Two steps that begin at the same position behind the same tokens."""

    a: StepNodes
    b: StepNodes
    previous_a: StepNodes | None
    previous_b: StepNodes | None
    judge: FloatJudge
    trees_compared: bool  # off where one run drafts nothing
    regrouped: bool = False  # the steps before were not the same blocks, so the pairs fed are not either

    @property
    def common(self) -> list[PathKey]:
        """Nodes of both trees, in the baseline's slot order."""
        return [key for key in self.a.keys if key in self.b.slots]


def difference(
    phase: Phase, field: str, a: Any, b: Any, kind: DifferenceKind, inputs_equal: bool, node: PathKey | None = None
) -> Difference:
    """The difference as it is reported; ``a`` and ``b`` are shortened to what a card can show."""
    tokens = None if node is None else key_tokens(node)
    return Difference(
        phase=phase, field=field, node=tokens, a=_text(a), b=_text(b), kind=kind, inputs_equal=inputs_equal
    )


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:119] + "…"


def path_tokens(nodes: StepNodes) -> list[Any]:
    """The accepted path in tokens, by which it can be compared across slot orders."""
    assert nodes.step.accept is not None
    keys = [nodes.key_of(slot) for slot in nodes.step.accept.path]
    return ["no such slot" if key is None else key_tokens(key)[-1] if key else "root" for key in keys]
