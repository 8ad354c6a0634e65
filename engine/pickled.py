"""Weights as pickles, which are never read, because a pickle runs code: how to make safetensors of them."""

from __future__ import annotations

import shlex
from pathlib import Path

#: Which of a folder's pickles are weights: transformers' own, if there are any; other kinds lie beside them.
PATTERNS = ("pytorch_model*.bin", "*.bin", "*.pt", "*.pth")
PROGRAM = """\
import pathlib, torch, safetensors.torch as st; \
folder = pathlib.Path({folder}); \
files = [torch.load(file, "cpu", weights_only=True) for file in sorted(folder.glob("{pattern}"))]; \
tensors = {{name: value.contiguous().clone() for file in files for name, value in file.items()}}; \
st.save_file(tensors, folder / "model.safetensors", {{"format": "pt"}})"""


def conversion(folder: Path) -> str | None:
    """A command that makes safetensors of the pickled weights in ``folder``, running no code in them; None where it has
    none."""
    pattern = next((pattern for pattern in PATTERNS if any(folder.glob(pattern))), None)
    if pattern is None:
        return None
    return "python -c " + shlex.quote(PROGRAM.format(folder=repr(str(folder)), pattern=pattern))
