"""Finds the tokenizer of a trace by the digest in its manifest, so that a trace without texts is read as text.

Looked for are a ``tokenizer.json`` beside the trace, and that of the demo models. Only equal bytes are taken.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import xxhash

from specscope.schemas import Manifest

DEMO = Path("demo_models", "teacher", "tokenizer.json")
#: No tokenizer is larger.
MOST_BYTES = 64 << 20


def known_tokenizer(manifest: Manifest, trace: Path) -> Path | None:
    """The file whose digest ``manifest`` names; None where it is not at hand, cannot be read, or its ids are not those
    of the trace, as in a redacted one."""
    if manifest.tokenizer is None or manifest.redaction is not None or find_spec("tokenizers") is None:
        return None
    engine = find_spec("specscope.engine")  # located, not loaded
    folders = [Path(place) / DEMO.parent for place in (engine.submodule_search_locations or [])] if engine else []
    files = [folder / DEMO.name for folder in (trace.parent, *folders)]
    return next((file for file in files if _digest(file) == manifest.tokenizer.digest), None)


def _digest(file: Path) -> str | None:
    try:
        status = file.stat()
        return _digest_of(file, status.st_mtime_ns) if status.st_size <= MOST_BYTES else None
    except OSError:
        return None


@lru_cache(maxsize=64)
def _digest_of(file: Path, modified_ns: int) -> str:
    return xxhash.xxh3_128_hexdigest(file.read_bytes())
