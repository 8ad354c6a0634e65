"""Which of several processes this is, and which prompts are its own. ``torchrun`` sets the variables that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from specscope.engine.run.prompts import Prompt
from specscope.tracer.errors import UsageError


class Rank(NamedTuple):
    """Which of several processes this is."""

    number: int  # from 0
    size: int  # how many there are

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Rank:
        """The rank that ``RANK`` and ``WORLD_SIZE`` name; the only one where they are not set.

        Raises:
            UsageError: where they are no numbers, or do not fit each other.
        """
        number, size = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
        if not (number.isdecimal() and size.isdecimal() and int(number) < int(size)):
            raise UsageError(
                f"got RANK {number!r} and WORLD_SIZE {size!r}, wanted a number below the world size: torchrun sets both"
            )
        return cls(int(number), int(size))

    def part_of(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """This rank's prompts, in their order: every ``size``-th of them by their ids' order."""
        chosen = set(sorted(prompt.id for prompt in prompts)[self.number :: self.size])
        return [prompt for prompt in prompts if prompt.id in chosen]

    def file_in(self, folder: Path) -> Path:
        """Where this rank writes."""
        return folder / f"rank-{self.number}-of-{self.size}.jsonl"
