"""The record of a step as text, to be read and copied as it is. Pure."""

from __future__ import annotations

import json
from typing import Any

from specscope.schemas import Step

LONGEST_FIELD = 100_000  # characters of a field of a raw record that are shown


def raw_text(step: Step) -> str:
    """The record as the file has it, each field on its own line, every hidden character escaped.

    A field that would choke a browser is cut, and says so.
    """
    record = step.model_dump(mode="json", by_alias=True, exclude_none=True)
    return _object({name: _inner(value) for name, value in record.items()}, "")


def _inner(value: Any) -> str:
    if not isinstance(value, dict):
        return _line(value)
    return _object({name: _line(inner) for name, inner in value.items()}, " ")


def _line(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    if len(text) <= LONGEST_FIELD:
        return text
    return f"{text[:LONGEST_FIELD]} ... cut here: the file holds {len(text):,} characters of it"


def _object(fields: dict[str, str], indent: str) -> str:
    lines = ",\n".join(f"{indent} {_line(name)}: {text}" for name, text in fields.items())
    return f"{{\n{lines}\n{indent}}}" if fields else "{}"
