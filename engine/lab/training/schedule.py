"""What the training loop is given: the learning-rate shape and the batch order; and its progress log."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer


def warmup_stable_decay(step: int, num_steps: int, warmup: int = 40, decay_share: float = 0.4) -> float:
    """The factor on the peak learning rate: linear up, flat, then linear down over the last ``decay_share``."""
    decay_steps = max(1, int(num_steps * decay_share))
    return min(1.0, (step + 1) / warmup, (num_steps - step) / decay_steps)


def set_learning_rate(optimizers: list[Optimizer], factor: float) -> None:
    """Scales every parameter group to ``factor`` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def batch_at(stream: NDArray[np.int64], step: int, batch_size: int, length: int, seed: int) -> torch.Tensor:
    """Batch number ``step`` (B, T) of chunks of ``stream``: a fresh offset and order each epoch, a function of its
    arguments alone, so that a resumed run sees the same data."""
    num_chunks = len(stream) // length - 1
    per_epoch = num_chunks // batch_size
    epoch, within = divmod(step, per_epoch)
    order = np.random.default_rng((seed, epoch))
    offset = int(order.integers(0, length))
    chunks = order.permutation(num_chunks)[within * batch_size : (within + 1) * batch_size]
    rows = [stream[offset + c * length : offset + (c + 1) * length] for c in chunks]
    return torch.from_numpy(np.stack(rows))


def rows_at(rows: NDArray[np.int64], step: int, batch_size: int, seed: int) -> torch.Tensor:
    """Batch number ``step`` (B, T) of ``rows`` (num, T), in a fresh order each epoch; by its arguments alone."""
    epoch, within = divmod(step, len(rows) // batch_size)
    order = np.random.default_rng((seed, epoch)).permutation(len(rows))
    return torch.from_numpy(rows[order[within * batch_size : (within + 1) * batch_size]])


def logged_seconds(log: Path, tokens_per_update: int) -> int:
    """How long the updates in a training's ``log`` took, by the rate of each report. Evaluation, and updates that
    were done again after an interruption, are left out."""
    rates: dict[int, int] = {}  # by the update that the report was made at
    for line in log.read_text(encoding="utf-8").splitlines():
        report = json.loads(line)
        if report["tokens_per_s"]:
            rates[report["step"]] = report["tokens_per_s"]
    steps = [0, *sorted(rates)]
    return round(sum((step - before) * tokens_per_update / rates[step] for before, step in pairwise(steps)))


class ProgressLog:
    """One JSON line a report, to a file and to the terminal, with the rate since the last one."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._since = time.monotonic()
        self._tokens = 0

    def count(self, tokens: int) -> None:
        """Adds ``tokens`` to those trained on since the last report."""
        self._tokens += tokens

    def report(self, step: int, num_steps: int, **values: float) -> None:
        """Writes the values of ``step`` with the tokens a second since the last report."""
        now = time.monotonic()
        rate = self._tokens / max(now - self._since, 1e-9)
        self._since, self._tokens = now, 0
        rounded = {name: round(value, 4) for name, value in values.items()}
        line = json.dumps({"step": step, "of": num_steps, **rounded, "tokens_per_s": round(rate)})
        with self._path.open("a", encoding="utf-8") as log:
            log.write(line + "\n")
        print(line, flush=True)
