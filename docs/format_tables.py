"""The tables of ``docs/trace-format.md``, from the models and the invariants themselves.

    python docs/format_tables.py

writes them into the document, between the lines that mark them. A test fails where they are not those of the code.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from specscope import schemas
from specscope.schemas.base import IsTokenId
from specscope.tracer.oracle.invariants import ALL_INVARIANTS
from specscope.tracer.oracle.invariants.needs import recorded_as
from specscope.tracer.oracle.invariants.run import RUN_RULES

DOCUMENT = Path(__file__).with_name("trace-format.md")
MARKED = re.compile(r"<!-- table: (\S+) -->\n(.*?)<!-- end -->\n", re.DOTALL)
PLAIN = {int: "integer", float: "float", str: "text", bool: "boolean", Any: "anything", NoneType: ""}


def table(name: str) -> str:
    """The table of that name: a model of ``specscope.schemas``, or ``invariants``."""
    if name == "invariants":
        rows = [(f"`{i.id}`", i.statement, _needs(i)) for i in ALL_INVARIANTS]
        rows += [(f"`{rule}`", statement, "") for rule, statement in RUN_RULES.items()]
        return _markdown(("invariant", "what holds", "needs"), rows)
    model: type[BaseModel] = getattr(schemas, name)
    rows = [_field_row(field, info) for field, info in model.model_fields.items()]
    return _markdown(("field", "type", "required", "meaning"), rows)


def filled(text: str) -> str:
    """``text`` with every marked table as it must be."""
    return MARKED.sub(lambda found: f"<!-- table: {found[1]} -->\n{table(found[1])}<!-- end -->\n", text)


def _needs(invariant: Any) -> str:
    needs = [f"`{need}`" for need in dict.fromkeys(map(recorded_as, invariant.needs))]
    if invariant.needs_if_drawn is not None:
        needs.append(f"where drawn `{invariant.needs_if_drawn}`")
    return ", ".join(needs)


def _field_row(name: str, info: FieldInfo) -> tuple[str, str, str, str]:
    required = "yes" if info.is_required() else "-"
    if name == "kind" and get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1:
        required = "yes"
    return f"`{info.alias or name}`", _type(info.annotation, info.metadata), required, info.description or ""


def _type(annotation: Any, metadata: list[Any]) -> str:
    if any(isinstance(mark, IsTokenId) for mark in metadata):
        return "token id"
    if any(getattr(mark, "pattern", None) is not None for mark in metadata):
        return "hex" if annotation is not str or "{16}" not in str(metadata) else "digest"
    if annotation in PLAIN:
        return PLAIN[annotation]
    arguments = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0], [part for mark in annotation.__metadata__ for part in _parts(mark)])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if get_origin(annotation) is list:
        return f"list of {_plural(_type(arguments[0], []))}"
    if get_origin(annotation) is dict:
        return f"object of {_plural(_type(arguments[1], []))}"
    if arguments:  # a union, with None perhaps
        return ", ".join(_type(part, []) for part in arguments if part is not NoneType)
    return f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def _parts(mark: Any) -> list[Any]:
    return [mark, *mark.metadata] if isinstance(mark, FieldInfo) else [mark]


def _plural(word: str) -> str:
    if word.startswith("list of "):
        return "lists of " + word.removeprefix("list of ")
    return word if word.startswith("[") or word in ("text", "hex", "anything") else word + "s"


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in lines)


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
