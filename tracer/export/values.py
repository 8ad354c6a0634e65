"""Values of SQL as JSON and as CSV. What neither has a word for is text: dates, decimals, bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def json_value(value: Any) -> Any:
    """``value`` as what JSON has, however deep it is nested; floats that are not finite are text."""
    if isinstance(value, dict):
        return {value_text(key): json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("ascii", "backslashreplace")
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def value_text(value: Any) -> str:
    """``value`` as text; lists, objects and booleans as JSON."""
    plain = json_value(value)
    return plain if isinstance(plain, str) else json.dumps(plain, allow_nan=False, ensure_ascii=False)


def csv_line(values: Iterable[Any]) -> str:
    """One record of CSV, newline included. Null is an empty field, and an empty text is ``""``."""
    return ",".join("" if value is None else _field(value_text(value)) for value in values) + "\n"


def _field(text: str) -> str:
    quoted = not text or any(character in text for character in ',"\r\n')
    return '"' + text.replace('"', '""') + '"' if quoted else text
