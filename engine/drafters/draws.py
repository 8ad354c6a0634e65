"""Drawing proposals from a drafter's distribution instead of taking the best: what sampled drafts need."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from specscope.engine.tree.grow import DraftTree, Draw, Level, ToTeacher, child_distributions
from specscope.engine.tree.policy import TreePolicy, refuse_drawn


@dataclass(frozen=True)
class DraftSampler:
    """How a drafter draws, and how large the teacher's vocabulary is, over which the draws are judged."""

    temperature: float
    vocab_size: int

    def check(self, policy: TreePolicy) -> None:
        """Refuses a tree whose shape depends on what was drawn.

        Raises:
            UsageError: because such a tree is not lossless.
        """
        refuse_drawn(policy)

    def draw(self, generators: list[torch.Generator]) -> Draw:
        """Draws with Gumbel noise from each row's own generator, on the CPU, so that every device draws the same."""

        def noise(num_rows: int, vocab_size: int) -> torch.Tensor:
            uniform = torch.stack(
                [torch.rand(num_rows, vocab_size, generator=g, dtype=torch.float64) for g in generators]
            )
            return -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))

        return Draw(self.temperature, noise)

    def child_probs(
        self, levels: list[Level], policy: TreePolicy, tree: DraftTree, to_teacher: ToTeacher
    ) -> torch.Tensor:
        """(B, N, V) over the teacher's vocabulary: what each slot's children were drawn from."""
        drafted = child_distributions(levels, policy, tree.tokens.shape[1])
        ids = to_teacher(torch.arange(drafted.shape[2], device=drafted.device))
        whole = drafted.new_zeros(*drafted.shape[:2], self.vocab_size)
        whole[:, :, ids] = drafted
        return whole
