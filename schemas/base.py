"""The base of every model on disk.

Integers are exact and strict. A float is a JSON number, or one of the strings "NaN", "Infinity", "-Infinity", which
are symptoms and never written as null. Unknown fields are kept, so that a newer minor version survives a rewrite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict, WithJsonSchema

#: A number, or one of the strings "NaN", "Infinity", "-Infinity".
Float = Annotated[
    float,
    Strict(False),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}),
]

#: An xxh3 digest in lower-case hexadecimal, 64 or 128 bits.
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}([0-9a-f]{16})?$")]


@dataclass(frozen=True)
class IsTokenId:
    """Marks integers that stand for text: those that a redacted trace replaces."""


#: An id of the teacher's vocabulary.
TokenId = Annotated[int, IsTokenId()]


class Section(BaseModel):
    """A part of a record."""

    model_config = ConfigDict(
        extra="allow", frozen=True, strict=True, ser_json_inf_nan="strings", protected_namespaces=()
    )


class Record(Section):
    """One line of a trace."""

    seq: int = Field(ge=0, description="Number of the line in its file, from 0; strictly increasing.")
