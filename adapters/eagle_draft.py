"""What official EAGLE's head was fed and proposed, from hooks on its modules."""

from __future__ import annotations

from typing import Any

import torch


def is_identity(drafter: Any) -> bool:
    """Whether the head drafts from the teacher's whole vocabulary, whose ids it then uses."""
    return bool(drafter.config.vocab_size == drafter.config.draft_vocab_size)


class DraftWatch:
    """What the head was fed and proposed since it was last asked for a tree."""

    def __init__(self, head: Any) -> None:
        self._head = head
        self._is_on = False  # other methods of the model use the head as well
        self.positions: list[list[int]] = []  # of each forward
        self.logprobs: list[torch.Tensor] = []  # of each level: (rows, draft vocabulary)

    def hooks(self) -> list[Any]:
        """Sets them; each has a ``remove``."""
        return [
            self._head.midlayer.register_forward_pre_hook(self.fed, with_kwargs=True),
            self._head.logsoftmax.register_forward_hook(self.proposed),
        ]

    def fed(self, _module: Any, _args: Any, words: dict[str, Any]) -> None:
        """Notes the positions."""
        if self._is_on:
            self.positions.append(words["position_ids"].reshape(-1).tolist())

    def proposed(self, _module: Any, _args: Any, output: torch.Tensor) -> None:
        """Notes the log-probabilities of a level."""
        if self._is_on:
            self.logprobs.append(output.reshape(-1, output.shape[-1]))

    def num_pairs(self) -> int:
        """Pairs in its cache."""
        kept = getattr(self._head, "stable_kv", None)
        return 0 if kept is None else int(kept[0][0].shape[2])

    def begin(self) -> int:
        """Looks from now on, and forgets what was seen before; the pairs in its cache."""
        self._is_on, self.positions, self.logprobs = True, [], []
        return self.num_pairs()

    def section(self, before: int, *, rows: list[int], tokens: list[int], hidden: torch.Tensor) -> dict[str, Any]:
        """Of a draft that was fed ``tokens`` with ``hidden`` (P, H), read at ``rows``, after ``before`` pairs."""
        self._is_on = False
        levels = self.levels()
        return {
            "inputs": {
                "source_rows": rows,
                "tokens": tokens,
                "positions": self.positions[0],
                "hidden_norms": hidden.float().norm(dim=-1).tolist(),
            },
            "kv_before": before,
            "kv_after": self.num_pairs(),
            "levels": levels,
            "num_candidates": sum(len(level["tokens"]) for level in levels),
        }

    def levels(self) -> list[dict[str, Any]]:
        """As the format has them: best proposals of each row, and which of all were fed to the next level."""
        top_k, first = self._head.top_k, 0
        frontier: list[int] = []
        levels: list[dict[str, Any]] = []
        scores: torch.Tensor | None = None
        for number, logprobs in enumerate(self.logprobs):
            best = logprobs.topk(top_k, -1)
            tokens = best.indices if is_identity(self._head) else best.indices + self._head.d2t[best.indices]
            levels.append(
                {
                    "frontier": frontier,
                    "positions": self.positions[number] if number else self.positions[number][-1:],
                    "tokens": tokens.flatten().tolist(),
                    "logprobs": best.values.flatten().tolist(),
                    "finite": bool(logprobs.isfinite().all()),
                }
            )
            sums = best.values[0] if scores is None else (best.values + scores[:, None]).flatten()
            chosen = torch.arange(top_k) if scores is None else sums.topk(top_k, -1).indices
            frontier, scores, first = (chosen + first).tolist(), sums[chosen], first + len(sums)
        return levels
