"""The version of the trace format, and what a reader may do with another one."""

from __future__ import annotations

import re
from typing import NamedTuple

SCHEMA_NAME = "specscope.trace"


class SchemaVersion(NamedTuple):
    """MAJOR changes meaning; MINOR only adds fields, which older readers keep and ignore."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> SchemaVersion:
        """Reads ``specscope.trace/MAJOR.MINOR``.

        Raises:
            ValueError: where ``text`` is of another form.
        """
        match = re.fullmatch(re.escape(SCHEMA_NAME) + r"/(\d{1,6})\.(\d{1,6})", text)
        if match is None:
            raise ValueError(f"got schema {text[:80]!r}, wanted '{SCHEMA_NAME}/MAJOR.MINOR'")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{SCHEMA_NAME}/{self.major}.{self.minor}"


SCHEMA_VERSION = SchemaVersion(1, 4)
