"""Decodes cells into traces, a process a setting; a run that is there already is not run again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.verdicts.cells import Cell, cells
from benchmarks.verdicts.models import build_all, folders
from benchmarks.verdicts.settings import CANDIDATE, SETTINGS, Setting
from specscope.engine.load.models import Models, load_models
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import ModelChoice, Settings

#: Relative sizes of the numeric fault: one feed-forward block's output is so much too large.
SIZES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FAULTY_CELLS = ("16-nodes", "60-nodes", "long", "drawn")
FAULTY_LAYERS = (1, 3)


@dataclass(frozen=True)
class NumericFault:
    """One feed-forward block whose output is ``1 + size`` times what it should be."""

    layer: int
    size: float

    @property
    def name(self) -> str:
        """Names its run."""
        return f"mlp{self.layer}-{self.size:g}"


def faults() -> list[NumericFault]:
    """All that are put in."""
    return [NumericFault(layer, size) for size in SIZES for layer in FAULTY_LAYERS]


def trace_path(folder: Path, cell: Cell, run: str) -> Path:
    """Where a run of the cell lies: that of a setting, or of a fault."""
    return folder / cell.id / f"{run}.jsonl"


def record_all(folder: Path, only: str | None = None) -> None:
    """Decodes whatever is missing below ``folder``."""
    build_all(folder / "models")
    for setting in SETTINGS:
        if only is None or setting.name == only:
            command = [sys.executable, "-m", "benchmarks.verdicts", "record-setting", str(folder), setting.name]
            subprocess.run(command, check=True, env=setting.process_environment())
    if only in (None, "faults"):
        command = [sys.executable, "-m", "benchmarks.verdicts", "record-faults", str(folder)]
        subprocess.run(command, check=True, env=CANDIDATE.process_environment())


def record_setting(folder: Path, setting: Setting) -> None:
    """All cells in one setting, in this process, which was started with its environment."""
    for cell in cells():
        path = trace_path(folder, cell, setting.name)
        if not path.exists():
            _decode(folder, cell, setting, path)


def record_faults(folder: Path) -> None:
    """The cells that faults go into, in fused mode, with every fault."""
    for cell in cells():
        for fault in faults() if cell.name in FAULTY_CELLS else ():
            path = trace_path(folder, cell, fault.name)
            if not path.exists():
                _decode(folder, cell, CANDIDATE, path, fault)


def _decode(folder: Path, cell: Cell, setting: Setting, path: Path, fault: NumericFault | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    named = folders(folder / "models", cell.model)
    choice = ModelChoice(
        teacher=named.teacher,
        drafter=named.drafter,
        mode=setting.mode,
        dtype=cell.dtype,
        device="cpu",
        policy=cell.policy,
        rule=cell.rule,
    )
    batch_size = cell.batch_size
    if setting.other_batch:
        batch_size = 1 if cell.batch_size > 1 else min(2, len(cell.prompts))
    settings = Settings(choice=choice, max_new_tokens=cell.max_new_tokens, batch_size=batch_size)
    request = RunRequest(settings, list(cell.prompts), TraceTarget(unfinished, overwrite=True))
    models = _load(choice)
    with _fault_in(models, fault):
        for _ in run_turns(request, models, open_trace(request, models)):
            pass
    unfinished.replace(path)
    print(path.relative_to(folder), flush=True)


@lru_cache(maxsize=2)
def _load_of(teacher: str, drafter: str, mode: str, dtype: str, choice: ModelChoice) -> Models:
    return load_models(choice)


def _load(choice: ModelChoice) -> Models:
    return _load_of(choice.teacher, choice.drafter, choice.mode, choice.dtype, choice)


@contextmanager
def _fault_in(models: Models, fault: NumericFault | None) -> Iterator[None]:
    """Inside, the block computes too much; in float32 at least, for the dtype shall round the result, not the fault."""
    if fault is None:
        yield
        return

    def scale(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        wide = output.to(torch.promote_types(output.dtype, torch.float32))
        return (wide * (1 + fault.size)).to(output.dtype)

    block: Any = models.teacher.model.get_submodule(f"model.layers.{fault.layer}.mlp")
    handle = block.register_forward_hook(scale)
    try:
        yield
    finally:
        handle.remove()
