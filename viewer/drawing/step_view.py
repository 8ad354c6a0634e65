"""One step as all drawings take it: the record, the texts of its tokens, and the nodes to be marked."""

from __future__ import annotations

from dataclasses import dataclass

from specscope.schemas import Step
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.marks import NodeMarks


@dataclass(frozen=True)
class StepView:
    """One step to be drawn."""

    step: Step
    texts: TokenTexts
    marks: NodeMarks = NodeMarks()  # noqa: RUF009  (immutable)

    @property
    def tokens(self) -> list[int]:
        """Token ids by slot, the root first; empty where no tree was recorded."""
        return self.step.tree.tokens if self.step.tree is not None else []

    def name(self, slot: int) -> str:
        """What ``data-node`` says for ``slot``."""
        return self.marks.name(slot)

    def shown(self, token: int) -> str:
        """The visible text of a token; raw."""
        return self.texts.shown(token)
