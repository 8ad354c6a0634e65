"""Whether the files that a trace speaks of lie beside it as they were written: rule ``run.tensor-files``."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import xxhash

from specscope.schemas import TensorFiles

CHUNK_BYTES = 1 << 20


class FileProblem(NamedTuple):
    """What is wrong with one file."""

    witness: str
    absent: bool  # there is no such file; all else is wrong whoever holds the trace


def file_problem(folder: Path, recorded: TensorFiles) -> FileProblem | None:
    """What is wrong with the file that a step of a trace in ``folder`` names; None where it is there and as written."""
    try:
        path = (folder / recorded.file).resolve()
        if Path(recorded.file).is_absolute() or not path.is_relative_to(folder.resolve()):
            return FileProblem(f"{recorded.file} lies outside the trace's folder", absent=False)
        if not path.exists():
            return FileProblem(f"{recorded.file} is not there", absent=True)
        if not path.is_file():
            return FileProblem(f"{recorded.file} is no regular file", absent=False)
        digest = _digest(path)
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, a loop of links, no permission
        return FileProblem(f"{recorded.file} cannot be read ({type(error).__name__})", absent=False)
    if digest == recorded.digest:
        return None
    return FileProblem(f"{recorded.file} has digest {digest}, wanted {recorded.digest}", absent=False)


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
