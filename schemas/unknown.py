"""Fields that a record has and this version of the format does not: by name, and what was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple, get_args

from specscope.schemas.base import Section
from specscope.schemas.manifest import Manifest
from specscope.schemas.step import Step
from specscope.schemas.turn import Failure, RunEnd, TurnEnd, TurnStart

RECORDS: tuple[type[Section], ...] = (Manifest, TurnStart, Step, TurnEnd, Failure, RunEnd)


class UnknownField(NamedTuple):
    """A field that no model has where it stands."""

    record: str  # the record's kind
    name: str  # dotted, from the record
    nearest: str | None  # the known field that comes closest, dotted likewise


def unknown_fields(record: Section) -> Iterator[str]:
    """The dotted name of every field of ``record``, at any level, that its model does not know.

    A field in the entries of a list comes once for each entry that has it.
    """
    yield from _unknown(record, "")


def _unknown(section: Section, above: str) -> Iterator[str]:
    for name in section.model_extra or ():
        yield above + name
    for name, on_disk in _nested(type(section)):
        value = getattr(section, name)
        for entry in value if isinstance(value, list) else (value,):
            if isinstance(entry, Section):
                yield from _unknown(entry, f"{above}{on_disk}.")


def named(record: str, name: str) -> UnknownField:
    """The unknown field ``name`` of records of the kind ``record``, with the nearest name that is known."""
    model = next((model for model in RECORDS if model.model_fields["kind"].default == record), None)
    known = [] if model is None else list(known_fields(model))
    above, dot, last = name.rpartition(".")
    beside = [field[len(above + dot) :] for field in known if field.rpartition(".")[0] == above]
    near = nearest_name(last, beside)
    return UnknownField(record, name, _elsewhere(last, known) if near is None else above + dot + near)


@cache
def known_fields(model: type[Section]) -> tuple[str, ...]:
    """Every field of a record, at any level, dotted, by its name on disk."""
    return tuple(_known(model, ""))


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The name of ``known`` that is most like ``name``; None where none is much like it."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.7)), None)


def _elsewhere(last: str, known: Iterable[str]) -> str | None:
    """A known field of exactly that last name at another place."""
    return next((field for field in known if field.rpartition(".")[2] == last), None)


@cache
def _nested(model: type[Section]) -> tuple[tuple[str, str], ...]:
    """The fields of ``model`` that hold sections, with their names on disk."""
    return tuple(
        (name, field.alias or name) for name, field in model.model_fields.items() if list(_sections(field.annotation))
    )


def _sections(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _known(model: type[Section], above: str) -> Iterator[str]:
    """Every field below ``model``, dotted, by its name on disk."""
    for name, field in model.model_fields.items():
        on_disk = above + (field.alias or name)
        yield on_disk
        for section in _sections(field.annotation):
            yield from _known(section, f"{on_disk}.")
