"""Digests of files and tensors. xxh3: fast, not cryptographic; equal bytes are what is asked."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch.distributed.tensor import DTensor

CHUNK_BYTES = 1 << 24


def digest_files(paths: Iterable[Path]) -> str:
    """xxh3_128 over names and contents of ``paths``, in name order. Files that have not changed since are not read
    again: a process that opens many traces would read its weights for each."""
    return _digest_of_files(tuple(_Version.of(path) for path in sorted(paths, key=lambda p: p.name)))


class _Version(NamedTuple):
    """A file as it is now; another content has another one of these."""

    path: Path
    size: int
    changed_ns: int
    number: int

    @classmethod
    def of(cls, path: Path) -> _Version:
        stat = path.stat()
        return cls(path.absolute(), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=64)
def _digest_of_files(versions: tuple[_Version, ...]) -> str:
    digest = xxhash.xxh3_128()
    for version in versions:
        digest.update(version.path.name.encode())
        with version.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def digest_file(path: Path) -> str:
    """xxh3_128 of one file's content."""
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def digest_parameters(module: torch.nn.Module) -> dict[str, str]:
    """Of each parameter and buffer of ``module`` by its name; one that has two names is listed under its first. What
    is divided among ranks is gathered for it, one after another, so that all ranks must call this together."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: digest_tensors(whole(tensor)) for name, tensor in named}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a parameter, of which this rank may have a part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def digest_tensors(*tensors: torch.Tensor | NDArray[Any]) -> str:
    """xxh3_64 over the bytes of ``tensors``, in order; shape and dtype are not part of it."""
    digest = xxhash.xxh3_64()
    for values in tensors:
        digest.update(np.ascontiguousarray(values if isinstance(values, np.ndarray) else _numbers(values)).data)
    return digest.hexdigest()


def _numbers(tensor: torch.Tensor) -> NDArray[Any]:
    """Of a dtype that numpy does not have, the bytes."""
    try:
        numbers: NDArray[Any] = tensor.numpy()
    except (TypeError, RuntimeError):  # such a dtype, a device, or a tensor that wants a gradient
        numbers = tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy()
    return numbers
