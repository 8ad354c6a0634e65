"""What an engine that is not ours gives to the recorder, as records; and what is wrong with it, in words.

Arrays and scalars of numpy, torch and their like come as plain values where these are exactly the same. Knows no torch:
whatever has ``tolist`` says itself what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError

from specscope.schemas import AnyRecord, Record, encode_record
from specscope.schemas.unknown import known_fields, named, nearest_name, unknown_fields
from specscope.tracer.errors import UsageError

SomeRecord = TypeVar("SomeRecord", bound=Record)
_NUMBERS = frozenset({int, float, bool, type(None)})
_LONGEST_VALUE = 60  # characters of a value that an error shows
#: What to give instead, by a field that is easily given in another form.
_WANTED = {
    "tensors.mask_rows": "give each row as a list of booleans, one for each column of the tree, or as hexadecimal "
    "digits, packed as docs/trace-format.md says under The mask"
}
_SEE = "see docs/trace-format.md"


def plain(value: Any) -> Any:
    """``value`` with lists and scalars of Python in place of arrays, tensors and their scalars, at every level.

    Raises:
        UsageError: where a text in it is not valid Unicode, which no file can hold.
    """
    if type(value) in _NUMBERS:
        return value
    if type(value) is list and _NUMBERS.issuperset(map(type, value)):  # most are, and need not be looked through
        return list(value)
    if isinstance(value, str):
        _check_text(value)
        return value
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(entry) for entry in value]
    to_list = getattr(value, "tolist", None)
    return to_list() if callable(to_list) else value


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"got the text {text[:_LONGEST_VALUE]!a}, which is not valid Unicode") from None


def check_json(record: AnyRecord) -> None:
    """Refuses what a field for anything may hold and JSON cannot.

    Raises:
        UsageError: where there is such a value.
    """
    try:
        encode_record(record)
    except PydanticSerializationError as error:
        raise UsageError(f"{record.kind} record: {error}; {_SEE}") from None


def merged(derived: dict[str, Any], given: object) -> object:
    """A section of what follows from other arguments and, first of all, of what was given for it."""
    return {**derived, **given} if isinstance(given, Mapping) else derived if given is None else given


def packed_row(seen: Sequence[bool]) -> str:
    """A row of the mask as the format's hexadecimal digits."""
    bits = sum(1 << column for column, visible in enumerate(seen) if visible)
    return bits.to_bytes((len(seen) + 7) // 8, "little").hex()


def with_packed_mask(tensors: Any) -> Any:
    """A step's ``tensors``, plain ones, whose mask is packed where its rows are booleans."""
    rows = tensors.get("mask_rows") if isinstance(tensors, dict) else None
    if not isinstance(rows, list) or not all(_is_boolean(row) for row in rows):
        return tensors
    return {**tensors, "mask_rows": [packed_row(row) for row in rows]}


def _is_boolean(row: object) -> bool:
    return isinstance(row, list) and all(type(column) is bool for column in row)


def record_of(kind: type[SomeRecord], seq: int, fields: Mapping[str, Any]) -> SomeRecord:
    """The record of these fields, which are plain.

    Raises:
        UsageError: naming the first that is missing, unknown or of another type.
    """
    name = kind.model_fields["kind"].default
    try:
        record = kind.model_validate({"seq": seq, **fields})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        why = f"{problem['msg']}{_got(problem)}; {_advice(kind, problem, fields)}"
        raise UsageError(f"{name} record, field {place}: {why}") from None
    unknown = next(unknown_fields(record), None)
    if unknown is not None:
        nearest = named(name, unknown).nearest
        hint = f"did you mean {nearest}?" if nearest is not None else f"{_SEE} for those that it has"
        raise UsageError(f"{name} record: the format has no field {unknown}; {hint}")
    return record


def _got(problem: ErrorDetails) -> str:
    """The value that is wrong and its type; nothing where there is none."""
    if problem["type"] == "missing":
        return ""
    text = repr(problem["input"])
    shown = text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
    return f", got {shown} ({type(problem['input']).__name__})"


def _advice(kind: type[Record], problem: ErrorDetails, fields: Mapping[str, Any]) -> str:
    """What to do about a problem."""
    names = [part for part in problem["loc"] if isinstance(part, str)]
    if problem["type"] == "missing":
        above = "".join(f"{name}." for name in names[:-1])
        known = known_fields(kind)
        unknown = [name for name in _beside(problem, fields) if above + name not in known]
        near = nearest_name(names[-1], unknown)
        if near is not None:
            return f"the format has no field {above}{near}, which was given: is it meant?"
    return _WANTED.get(".".join(names), _SEE)


def _beside(problem: ErrorDetails, fields: Mapping[str, Any]) -> list[str]:
    """What was given where a field is missing."""
    value: Any = fields
    for part in problem["loc"][:-1]:
        value = value[part]
    return [str(name) for name in value] if isinstance(value, Mapping) else []
