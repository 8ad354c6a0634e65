"""What differs between runs: the fields of their manifests that are not alike, and a card that lists them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from specscope.schemas import Manifest
from specscope.tracer.compare.manifests import LOADED, OWN, SAID_BY_ABSENCE
from specscope.tracer.naming.text import counted, shorten
from specscope.viewer.drawing.board import card
from specscope.viewer.drawing.fragments import quiet
from specscope.viewer.drawing.frames import attribute, row, table
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup

#: Fields of one run, and of the card; characters of one value. A manifest may hold anything.
MOST_KEPT, MOST_LISTED, LONGEST = 400, 40, 40
ABSENT = "–"


class DifferingField(NamedTuple):
    """A field in which some of the runs differ."""

    name: str  # dotted, as --allow takes it
    values: tuple[str, ...]  # one per run, in their order

    @property
    def commonest(self) -> str | None:
        """What most of the runs have; None where no value is more frequent than every other."""
        ranked = Counter(self.values).most_common(2)
        is_tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
        return None if is_tied else ranked[0][0]


def manifest_fields(manifest: Manifest) -> dict[str, str]:
    """The fields that may tell a run from others, by dotted names; without what is always its own, such as its id."""
    fields: dict[str, str] = {}
    for name, value in _leaves(manifest.model_dump(by_alias=False), ""):
        if len(fields) == MOST_KEPT:
            break
        meant = SAID_BY_ABSENCE.get(name) if value is None else value
        if meant is not None:
            fields[name] = shorten(str(meant), LONGEST)
    return fields


def _leaves(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if name in OWN or name in LOADED:
            continue
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}.")
        elif name == "pipeline.stages":  # clocks and hops are never the same
            yield name, counted(len(value), "stage")
        else:
            yield name, value


def differing_fields(runs: Sequence[Mapping[str, str]]) -> list[DifferingField]:
    """The fields in which the manifests of ``runs`` differ, in the manifests' order."""
    names = dict.fromkeys(name for fields in runs for name in fields)
    everywhere = (DifferingField(name, tuple(fields.get(name, ABSENT) for fields in runs)) for name in names)
    return [field for field in everywhere if len(set(field.values)) > 1]


def differing_card(names: Sequence[str], runs: Sequence[Mapping[str, str]]) -> Markup:
    """What differs between the runs of these names, a line for each run; nothing where there is only one.

    Its lines ask for ``run:N``, as those of the list do.
    """
    if len(runs) < 2:
        return NOTHING
    title = f"What differs between these {counted(len(runs), 'run')}"
    fields = differing_fields(runs)
    if not fields:
        return card("fields", title, "", quiet("Nothing that their manifests say, except for ids, times and places."))
    shown = fields[:MOST_LISTED]
    lines = [_line(at, name, shown) for at, name in enumerate(names)]
    rest = quiet(f"and {len(fields) - MOST_LISTED} more fields") if len(fields) > MOST_LISTED else NOTHING
    listed = table(("run", *(field.name for field in shown)), lines)
    return card("fields", title, "fields of their manifests; pale: what most of them have", joined([listed, rest]))


def _line(at: int, name: str, fields: Sequence[DifferingField]) -> Markup:
    values = [_value(field.values[at], field.commonest) for field in fields]
    request = attribute("data-do", f"run:{at}")
    head = markup(
        '<button type="button" class="ss-opens-run"{request}{label}>{name}</button>',
        request=request,
        label=attribute("aria-label", f"Open {name}"),
        name=html_text(name),
    )
    return row([head, *values], attributes=request)


def _value(value: str, commonest: str | None) -> Markup:
    words = html_text(value)
    return markup('<span class="ss-none">{words}</span>', words=words) if value == commonest else words
