"""What was made last, kept for all sessions: a bounded number of values by key, the last used one longest."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """At most ``most`` values."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[Key, Value] = {}  # the last used one last
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """The value that was kept for ``key``; None where none is."""
        with self._lock:
            value = self._values.pop(key, None)
            if value is not None:
                self._values[key] = value
            return value

    def keep(self, key: Key, value: Value) -> Value:
        """Keeps ``value``, and gives it back; of too many, the one is forgotten that was not used for longest."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = value
            while len(self._values) > self._most:
                del self._values[next(iter(self._values))]
        return value
