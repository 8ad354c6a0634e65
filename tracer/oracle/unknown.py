"""Unknown fields in words: what a trace holds that the format does not have, and what was perhaps meant."""

from __future__ import annotations

from collections.abc import Iterator

from specscope.schemas import SCHEMA_VERSION, Manifest, SchemaVersion
from specscope.schemas.capabilities import is_known_capability
from specscope.schemas.unknown import named
from specscope.tracer.naming.text import shorten
from specscope.tracer.oracle.check import OTHERS
from specscope.tracer.oracle.report import OracleReport

LONGEST_NAME = 80


def unknown_lines(report: OracleReport) -> list[str]:
    """A line for each field that no version up to this one has. In a trace of a newer version they are legal, and are
    only counted."""
    version = SchemaVersion.parse(report.manifest.schema_)
    if version.minor <= SCHEMA_VERSION.minor:
        return [*_capabilities(report.manifest), *_fields(report)]
    total = sum(report.unknown.values())
    here = f"{SCHEMA_VERSION.major}.{SCHEMA_VERSION.minor}"
    return [f"{total} of format {version.major}.{version.minor}, newer than {here}, were not read"] if total else []


def _fields(report: OracleReport) -> Iterator[str]:
    for (kind, name), count in report.unknown.items():
        where = f"in {count} {kind} record{'s' * (count != 1)}"
        if name == OTHERS:
            yield f"others {where}"
            continue
        near = named(kind, name).nearest
        yield f"{shorten(name, LONGEST_NAME)} {where}{_hint(near)}"


def _capabilities(manifest: Manifest) -> Iterator[str]:
    """Names that the manifest promises and no step can have."""
    for name in manifest.capabilities[:100]:
        if not is_known_capability(name):
            yield f"{shorten(name, LONGEST_NAME)} among the capabilities{_hint(named('step', name).nearest)}"


def _hint(near: str | None) -> str:
    return "" if near is None else f"; did you mean {near}?"
