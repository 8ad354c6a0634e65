"""One writer a file, by an advisory lock that ends with the process that holds it, however it ends.

Where there are no such locks (Windows, some network file systems) everybody may write, as if nobody held one.
"""

from __future__ import annotations

import os
from pathlib import Path

from specscope.tracer.errors import UsageError

try:
    import fcntl
except ImportError:  # there is none on Windows
    fcntl = None  # type: ignore[assignment]


def try_lock(descriptor: int) -> bool:
    """Takes the lock of an open file or folder until it is closed; off where another writer holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # of a file system that knows no locks
        return True
    return True


def refuse_if_locked(path: Path) -> None:
    """Refuses a file or folder that a writer holds at this moment; where there is none, or it is free, does nothing.

    Raises:
        UsageError: in the words of ``in_use``.
    """
    if not (path.is_file() or path.is_dir()):  # a device or a pipe is nobody's alone
        return
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_WRONLY)
    except OSError:  # whoever opens it to write will say why
        return
    try:
        free = try_lock(descriptor)
    finally:
        os.close(descriptor)
    if not free:
        raise in_use(path)


def in_use(path: Path, *, here: bool = False) -> UsageError:
    """The one error for what another writer holds; ``here`` where it is one of this process."""
    if here:
        return UsageError(
            f"this process is still writing {path}: close the recorder that has it, or use it in a with block, which "
            "closes it; or choose another name"
        )
    return UsageError(f"another run is writing {path}: wait for it to end, or choose another name")
