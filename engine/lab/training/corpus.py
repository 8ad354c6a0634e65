"""The training corpus: Python source files split by name into train and held-out. Knows no tokenizer and no torch."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Generated tables and data dumps: long, regular, and nothing like the code that a prompt continues.
EXCLUDED_PARTS = frozenset({"site-packages", "__pycache__", "pydoc_data", "encodings", "lib2to3"})
EXCLUDED_NAMES = frozenset({"entities.py", "_pydecimal.py", "datetimetester.py"})
MAX_FILE_BYTES = 160_000
HELD_OUT_SHARE = 20  # one file in this many


@dataclass(frozen=True)
class Document:
    """One source file."""

    name: str  # path relative to the corpus root, with forward slashes
    text: str

    @property
    def held_out(self) -> bool:
        """Whether this file is kept from training; decided by its name alone."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return int.from_bytes(digest[:4], "big") % HELD_OUT_SHARE == 0


def stdlib_root() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def iter_documents(root: Path) -> Iterator[Document]:
    """Every usable ``.py`` file under ``root``, in name order; files that are not UTF-8 are passed over."""
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if EXCLUDED_PARTS & set(relative.parts) or relative.name in EXCLUDED_NAMES:
            continue
        if not 200 <= path.stat().st_size <= MAX_FILE_BYTES:
            continue
        try:
            yield Document(relative.as_posix(), path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue


def load_corpus(root: Path) -> list[Document]:
    """All documents under ``root``.

    Raises:
        FileNotFoundError: if there is no usable file.
    """
    documents = list(iter_documents(root))
    if not documents:
        raise FileNotFoundError(f"no Python source files under {root}")
    return documents
