"""What a drafter's parts are fed and give while it drafts, level by level, of one row of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from torch import nn

from specscope.engine.lab.bisect.operations import Captured, Captures, Operation, Put, watched

SCORES = "output head"  # the part that ends a forward


class DraftCalls:
    """Keeps the calls of a drafter's parts in their order; of a part that is called twice at a level, the first.

    Rows go through a forward together, or one after another where they have whole prompts to take in. A level ends
    when the scores of all rows are there.

    Args:
        row: the one to keep.
        num_rows: of the batch.
        is_over: whether the draft is done, and the parts are run for something else.
    """

    def __init__(self, row: int = 0, num_rows: int = 1, is_over: Callable[[], bool] = lambda: False) -> None:
        self.found: Captures = {}
        self._row, self._num_rows, self._is_over = row, num_rows, is_over
        self._level, self._rows_done = 1, 0

    @contextmanager
    def watching(self, parts: dict[str, nn.Module]) -> Iterator[None]:
        """Inside, the calls of ``parts`` are kept."""
        with ExitStack() as stack:
            for name, module in parts.items():
                stack.enter_context(watched(module, self._keeper(name)))
            yield

    def _keeper(self, name: str) -> Put:
        def put(value: Captured) -> None:
            if self._is_over():
                return
            share = self._own(value)
            if share is not None:
                self.found.setdefault(Operation(None, name, self._level), share)
            if name == SCORES:
                self._rows_done += value.fed.shape[0]
                if self._rows_done >= self._num_rows:
                    self._level, self._rows_done = self._level + 1, 0

        return put

    def _own(self, value: Captured) -> Captured | None:
        """The row's share of a call; None of a call for another row."""
        rows = value.fed.shape[0]
        if rows == self._num_rows:
            row = slice(self._row, self._row + 1)
            stacked = value.gave.shape[0] != rows  # cosines and sines
            return replace(value, fed=value.fed[row], gave=value.gave[:, row] if stacked else value.gave[row])
        return value if self._rows_done == self._row else None
