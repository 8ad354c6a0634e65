"""Files that are written whole or not at all: beside, and then renamed."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """An empty file beside ``path``, to be written inside the block; where that ends well, it replaces ``path``.

    Its name is new each time, so that it is nobody else's: neither a file of the user's nor that of another process.
    However the block fails, with a full disk or Ctrl-C, nothing is left of it and ``path`` is as it was.

    Raises:
        OSError: where the folder cannot be written to, or ``path`` cannot be replaced.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")
    partial.touch(exist_ok=False)
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
