"""What a sweep over loads measures. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from specscope.engine.lab.bench.turns import Clock
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import Settings
from specscope.schemas import ShapeTable, TreeShape
from specscope.tracer.errors import UsageError
from specscope.tracer.shapes import Load

OFF, DISPATCHED = "off", "dispatched"


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """Which loads are measured, how long and how often."""

    settings: Settings  # of the dispatched runs: their tree is ``auto``
    prompts: Sequence[Prompt]
    texts: str  # name of the suite or the files
    rows: Sequence[int]  # ascending
    contexts: Sequence[int]  # tokens of a row when it begins; ascending
    tokens: int  # that a row emits on average, per round and way
    rounds: int
    clock: Clock = "wall"
    keep: Path | None = None  # folder for what is measured; what is there is not measured again

    @property
    def table(self) -> ShapeTable:
        """The shapes, and what they were measured to take.

        Raises:
            UsageError: where there are none.
        """
        table = self.settings.choice.policy.shapes
        if table is None or self.settings.choice.drafter_source == "none":
            raise UsageError(
                "got --suite batch without --tree auto, whose choice it measures: write a profile of this device by "
                "specscope bench --calibrate FILE, and pass it with --tree auto --profile FILE"
            )
        return table

    @property
    def fixed(self) -> list[TreeShape]:
        """The shapes that draft, each of which is also tried in every step."""
        return [shape for shape in self.table.shapes if shape.kind != "none"]

    @property
    def ways(self) -> list[str]:
        """How every load is decoded: without speculation, by each shape in every step, and by the one that pays."""
        return [OFF, *(shape.name for shape in self.fixed), DISPATCHED]

    @property
    def loads(self) -> list[Load]:
        """By context, then by rows."""
        return [Load(rows, context) for context, rows in product(self.contexts, self.rows)]

    @property
    def num_measures(self) -> int:
        """How many records there will be."""
        return len(self.loads) * len(self.ways) * self.rounds

    def check(self, max_positions: int | None) -> None:
        """Refuses what cannot be measured with a teacher of ``max_positions``.

        Raises:
            UsageError: where values are no ascending numbers, or a row might grow too long.
        """
        for name, values in (("--rows", self.rows), ("--contexts", self.contexts)):
            if not values or list(values) != sorted(set(values)) or values[0] < 1:
                raise UsageError(f"got {name} {', '.join(map(str, values))}, wanted ascending numbers from 1")
        # A row may run ahead of the others, but emits no more per step than the deepest tree has levels, and a bonus.
        growth = (self.tokens + 2) * (2 + max(shape.depth for shape in self.fixed))
        if max_positions is not None and self.contexts[-1] + growth > max_positions:
            raise UsageError(
                f"got context {self.contexts[-1]}, after which a row may emit up to {growth} tokens, and the teacher "
                f"has {max_positions} positions: give smaller --contexts, or fewer --max-new-tokens"
            )
