"""Finished measurements, kept in a folder, so that a benchmark that was interrupted does not repeat them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from specscope.tracer.files.whole import written_whole


def kept(folder: Path | None, key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``measure`` returned for ``key``: from ``folder`` where it is there, and otherwise measured and put there.

    Both are of JSON's types. Without a folder nothing is kept. Each measurement is one file, written whole.
    """
    if folder is None:
        return measure()
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{name}.json"
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == key:
            return dict(stored["measured"])
    measured = measure()
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        partial.write_text(json.dumps({"key": key, "measured": measured}) + "\n", encoding="utf-8")
    return measured
