"""Traces of older major versions, upgraded one step at a time.

A new major version adds one function here, from the records of the major before it to its own. It sees one record as a
plain JSON object, of any kind, and gives the upgraded one; what it does not know of it hands on. Minor versions only
add fields and need none. No major version but the first was released, so the registry is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from specscope.schemas.version import SCHEMA_NAME, SCHEMA_VERSION, SchemaVersion

RawRecord = dict[str, Any]
#: From one record of major N, as a plain JSON object, to the same record in major N + 1. Changes nothing else.
Migration = Callable[[RawRecord], RawRecord]

#: By the major version that they start from.
MIGRATIONS: dict[int, Migration] = {}


class KnownVersions(NamedTuple):
    """What a reader can read: its own version, and what leads to it."""

    version: SchemaVersion = SCHEMA_VERSION
    migrations: Mapping[int, Migration] = MIGRATIONS

    def steps_from(self, written: SchemaVersion) -> list[int]:
        """The majors that a record of version ``written`` passes through, each the start of one migration.

        Raises:
            ValueError: where ``written`` is of a newer major version, or a step on the way is missing.
        """
        if written.major > self.version.major:
            raise ValueError(
                f"got {written}, this version reads up to {SCHEMA_NAME}/{self.version.major}.x: upgrade specscope"
            )
        steps = list(range(written.major, self.version.major))
        missing = next((major for major in steps if major not in self.migrations), None)
        if missing is not None:
            raise ValueError(
                f"got {written}, wanted {SCHEMA_NAME}/{self.version.major}.x, and no migration from major {missing} to "
                f"{missing + 1} is known"
            )
        return steps

    def upgrade(self, record: RawRecord, written: SchemaVersion) -> RawRecord:
        """``record``, written as version ``written``, in this major version; ``record`` itself is left as it is.

        A manifest is then named after the version that it was upgraded to, and remembers its own in
        ``original_schema``.

        Raises:
            ValueError: as ``steps_from``.
        """
        for major in self.steps_from(written):
            record = self.migrations[major](dict(record))
            if record.get("kind") == "manifest":
                original = record.get("original_schema") or record.get("schema")
                record = record | {"schema": str(SchemaVersion(major + 1, 0)), "original_schema": original}
        return record
