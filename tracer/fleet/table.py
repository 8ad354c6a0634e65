"""The table of pairs: a CSV file with the header ``baseline,candidate[,name][,allow][,noise]``."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from specscope.tracer.errors import UsageError
from specscope.tracer.naming.text import visible

NEEDED = ("baseline", "candidate")
OPTIONAL = ("name", "allow", "noise")

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One line of the table; paths are relative to the table's folder, and resolved here."""

    name: str  # on one line, safe to show
    baseline: Path
    candidate: Path
    allowed: tuple[str, ...] = ()  # manifest fields that may differ
    noise: Path | None = None


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count``, from 1."""

    number: int = 1
    count: int = 1

    def of(self, items: list[Item]) -> list[Item]:
        """Every ``count``-th item: the shards of one list have no item in common, and together all of them."""
        return items[self.number - 1 :: self.count]


def parse_shard(value: str) -> Shard:
    """``i/N`` as given to ``--shard``.

    Raises:
        UsageError: where it has another shape, or ``i`` is not one of 1..N.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", value)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"got --shard {value!r}, wanted i/N with i of 1..N, e.g. 1/4")
    return Shard(int(match[1]), int(match[2]))


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a table, in its order; blank lines are left out.

    Raises:
        UsageError: where the table cannot be read, lacks a column, has one too many, or names two pairs alike.
    """
    lines = [(number, cells) for number, cells in _lines(path) if any(cell.strip() for cell in cells)]
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    _check_header(path, header)
    pairs = [_pair(path, number, header, cells) for number, cells in lines[1:]]
    if not pairs:
        raise UsageError(f"{path} names no pair: wanted one per line, below the header")
    _check_names(path, pairs)
    return pairs


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The cells of every line, with its number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise UsageError(f"cannot read the table {path}: it holds a NUL; wanted CSV in UTF-8")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        return [(reader.line_num, cells) for cells in reader]
    except OSError as error:
        raise UsageError(f"cannot read the table {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read the table {path}: {error}; wanted CSV in UTF-8") from None


def _check_header(path: Path, header: list[str]) -> None:
    wanted = f"wanted {','.join(NEEDED)}[,{'][,'.join(OPTIONAL)}]"
    missing = [name for name in NEEDED if name not in header]
    strange = [name for name in header if name not in NEEDED + OPTIONAL]
    if missing or strange or len(set(header)) != len(header):
        raise UsageError(f"{path}, line 1: got the header {','.join(header) or '(nothing)'}, {wanted}")


def _pair(path: Path, number: int, header: list[str], cells: list[str]) -> Pair:
    if len(cells) != len(header):
        raise UsageError(f"{path}, line {number}: got {len(cells)} cells, wanted {len(header)}, as in the header")
    row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
    for name in NEEDED:
        if not row[name]:
            raise UsageError(f"{path}, line {number}: the {name} is empty")
    folder = path.parent
    return Pair(
        name=visible(row.get("name") or f"{row['baseline']} -> {row['candidate']}"),
        baseline=folder / row["baseline"],
        candidate=folder / row["candidate"],
        allowed=tuple(row.get("allow", "").split()),
        noise=folder / row["noise"] if row.get("noise") else None,
    )


def _check_names(path: Path, pairs: list[Pair]) -> None:
    seen: set[str] = set()
    for pair in pairs:
        if pair.name in seen:
            raise UsageError(f"{path} names two pairs {pair.name!r}: give each a name of its own")
        seen.add(pair.name)
