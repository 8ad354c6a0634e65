"""Level ``tensors``: a step's tensors as a safetensors file beside the trace, by relative path and digest."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import xxhash
from safetensors.torch import save

from specscope.engine.loop.phases import StepResult
from specscope.schemas import TensorFiles
from specscope.tracer.errors import FileTakenError, UsageError
from specscope.tracer.files.locks import refuse_if_locked
from specscope.tracer.files.writer import TraceWriter


def side_folder(trace: Path) -> Path:
    """``NAME.tensors`` beside ``NAME.jsonl``."""
    return trace.with_name(trace.stem + ".tensors")


def check_side_folder(trace: Path, *, overwrite: bool) -> None:
    """Refuses a folder that is there already, before anything is written.

    Raises:
        UsageError: where it exists and ``overwrite`` is off, or another run writes into it.
    """
    if side_folder(trace).exists() and not overwrite:
        raise FileTakenError(side_folder(trace))
    refuse_if_locked(side_folder(trace))


class SideFiles:
    """The folder of one trace's tensors, ``NAME.tensors`` beside ``NAME.jsonl``.

    Args:
        trace: the trace's file.
        writer: its writer, which is told to give up where a file cannot be written.
        overwrite: whether the folder may be there already.

    Raises:
        UsageError: where the folder exists and ``overwrite`` is off, cannot be made, or another run writes into it.
    """

    def __init__(self, trace: Path, writer: TraceWriter, *, overwrite: bool) -> None:
        self._writer = writer
        self._folder = side_folder(trace)
        check_side_folder(trace, overwrite=overwrite)
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {self._folder}: {error.strerror}") from None
        writer.hold(self._folder)

    def write(self, turn: int, result: StepResult) -> TensorFiles | None:
        """Stores the step's logits, features and mask; None where the trace was, or now is, given up."""
        if self._writer.broken:
            return None
        row, verification = result.row, result.shared.verification
        tensors = {
            "logits": verification.logits[row],
            "features": verification.features[row],
            "mask": verification.inputs.mask[row],
            "draft_features": result.shared.draft.pairs[row].features,
        }
        content = save({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})
        name = f"turn-{turn:04d}-step-{result.step:05d}.safetensors"
        try:
            (self._folder / name).write_bytes(content)
        except OSError as error:
            with suppress(OSError):
                (self._folder / name).unlink()  # half a file that no record speaks of
            self._writer.give_up(error)
            return None
        return TensorFiles(
            file=f"{self._folder.name}/{name}", digest=xxhash.xxh3_128_hexdigest(content), names=sorted(tensors)
        )
