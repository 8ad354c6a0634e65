"""What the ranks of a run say to each other besides the partial sums of the teacher: numbers, and rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist


class RankGroup(NamedTuple):
    """This rank among those that compute together."""

    rank: int
    size: int
    process_group: dist.ProcessGroup | None = None  # None: the group of all ranks

    @classmethod
    def of(cls, process_group: dist.ProcessGroup | None = None) -> RankGroup:
        """The ranks of ``process_group``, or all there are."""
        return cls(dist.get_rank(process_group), dist.get_world_size(process_group), process_group)

    def exchange(self, numbers: list[int]) -> list[list[int]]:
        """The numbers of every rank, each int64, in the order of the ranks: through the host's memory."""
        return [theirs.tolist() for theirs in self.gather(torch.tensor(numbers, dtype=torch.int64))]

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """``values`` of every rank, in the order of the ranks; all have one shape and dtype."""
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(gathered, values.contiguous(), group=self.process_group)
        return gathered
