"""Level ``tensors``: a step's tensors as a safetensors file beside the trace, by relative path and digest."""

from __future__ import annotations

from pathlib import Path

import xxhash
from safetensors.torch import save

from specscope.engine.generate import StepResult
from specscope.schemas import TensorFiles
from specscope.tracer.errors import UsageError


class SideFiles:
    """The folder of one trace's tensors, ``NAME.tensors`` beside ``NAME.jsonl``.

    Raises:
        UsageError: where the folder exists and ``overwrite`` is off, or cannot be made.
    """

    def __init__(self, trace: Path, *, overwrite: bool) -> None:
        self._folder = trace.with_name(trace.stem + ".tensors")
        try:
            self._folder.mkdir(exist_ok=overwrite)
        except FileExistsError:
            raise UsageError(f"{self._folder} exists already: choose another name, or pass --overwrite") from None
        except OSError as error:
            raise UsageError(f"cannot make the folder {self._folder}: {error.strerror}") from None

    def write(self, turn: int, result: StepResult) -> TensorFiles:
        """Stores the step's logits, features and mask."""
        tensors = {
            "logits": result.verification.logits,
            "features": result.verification.features,
            "mask": result.verification.mask,
            "draft_features": result.draft.pairs.features,
        }
        content = save({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})
        name = f"turn-{turn:04d}-step-{result.step:05d}.safetensors"
        (self._folder / name).write_bytes(content)
        return TensorFiles(
            file=f"{self._folder.name}/{name}", digest=xxhash.xxh3_128_hexdigest(content), names=sorted(tensors)
        )
