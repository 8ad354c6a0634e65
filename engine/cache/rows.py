"""Values per row of a batch, in which rows end as they do in the cache: the last row takes the freed number."""

from __future__ import annotations

from typing import TypeVar

Value = TypeVar("Value")


class RowList(list[Value]):
    """One value per row of the batch."""

    def drop_row(self, row: int) -> None:
        """Ends ``row``: the last row takes its number."""
        last = self.pop()
        if row < len(self):
            self[row] = last
