"""Tables of traces in DuckDB: queried in SQL, or stored as Parquet.

SQL is a user's, and may come with a trace from somebody else: when it runs, DuckDB can no longer reach files, the
network or extensions, takes no more than ``MEMORY_LIMIT``, and nothing but one ``SELECT`` is run.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from specscope.tracer.errors import UsageError
from specscope.tracer.export.tables import TABLES, Row, Table, table_rows

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_LIMIT = "4 GB"
BATCH_ROWS = 1000
MAX_ROW_BYTES = 16_000_000  # as JSON; DuckDB reads no longer lines
#: What a column of type BIGINT holds.
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
#: Before the user's SQL runs.
CLOSED = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET temp_directory = ''",
    "SET enable_external_access = false",
    f"SET memory_limit = '{MEMORY_LIMIT}'",
    "SET lock_configuration = true",
)

Values = tuple[Any, ...]


class Answer(NamedTuple):
    """What a query gives."""

    columns: list[str]  # each name once
    rows: Iterator[Values]  # fetched as they are asked for; raises UsageError where the SQL fails on the way


@contextmanager
def ask(sql: str, traces: Sequence[Path]) -> Iterator[Answer]:
    """The answer to ``sql``, one SELECT over the tables of ``traces``; its rows are there as long as the context is.

    Raises:
        UsageError: where it is not one SELECT, DuckDB refuses it, or a trace is named twice.
        TraceError: where a trace cannot be read.
        ModuleNotFoundError: where DuckDB is not installed.
    """
    import duckdb

    named = {name: table for name, table in TABLES.items() if re.search(rf"\b{name}\b", sql, re.IGNORECASE)}
    with _database() as base:
        try:
            _check_select(base.extract_statements(sql))
            _check_different(traces)
            # SQL that names no table may list them, or put a name together.
            _fill(base, named or TABLES, traces)
            for setting in CLOSED:
                base.execute(setting)
            result = base.execute(sql)
        except duckdb.Error as error:
            raise _in_words(error) from None
        columns = unique_names([str(column[0]) for column in result.description or ()])
        yield Answer(columns, _rows(result))


def _rows(result: DuckDBPyConnection) -> Iterator[Values]:
    import duckdb

    try:
        while batch := result.fetchmany(BATCH_ROWS):
            yield from batch
    except duckdb.Error as error:
        raise _in_words(error) from None


def unique_names(names: Sequence[str]) -> list[str]:
    """The names of columns, each once: the second ``turn`` is ``turn_1``, as in DuckDB's own tables."""
    taken, unique = set(names), []
    for name in names:
        free, number = name, 0
        while free in unique or (number and free in taken):
            number += 1
            free = f"{name}_{number}"
        unique.append(free)
    return unique


def _check_select(statements: Sequence[Any]) -> None:
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        raise UsageError(f"got {', '.join(kinds) or 'no statement'}, wanted one SELECT")


def _check_different(traces: Sequence[Path]) -> None:
    """Rows that are there twice make every sum wrong."""
    seen: dict[object, Path] = {}
    for path in traces:
        try:
            stat = path.stat()
        except OSError:  # the reader says what is wrong with it; "-" is no file at all
            key: object = str(path)
        else:
            key = (stat.st_dev, stat.st_ino)
        if key in seen:
            raise UsageError(f"got {seen[key]} and {path}, which are the same file: name each trace once")
        seen[key] = path


def store_parquet(name: str, trace: Path, out: Path) -> int:
    """Writes the table ``name`` of the trace as a Parquet file, and gives the number of its rows.

    Writes ``out`` whole or not at all, and touches no other file.

    Raises:
        UsageError: where it cannot be written.
        TraceError: where the trace cannot be read.
        ModuleNotFoundError: where DuckDB is not installed.
    """
    import duckdb

    out = Path(os.path.realpath(out))
    with _database() as base:
        _fill(base, {name: TABLES[name]}, [trace])
        try:
            with tempfile.TemporaryDirectory(prefix=".specscope-", dir=out.parent) as folder:
                draft = Path(folder, "table.parquet")
                base.execute(f"COPY {name} TO {_quoted(draft)} (FORMAT parquet, COMPRESSION zstd)")
                if out.exists():
                    draft.chmod(out.stat().st_mode)
                draft.replace(out)
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror}") from None
        except duckdb.Error as error:
            raise UsageError(f"{out} cannot be written: {_first_line(error)}") from None
        counted = base.execute(f"SELECT count(*) FROM {name}").fetchall()  # noqa: S608 - one of our own tables
        return int(counted[0][0])


@contextmanager
def _database() -> Iterator[DuckDBPyConnection]:
    """An empty database in memory."""
    import duckdb

    base = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    try:
        yield base
    finally:
        base.close()


def _fill(base: DuckDBPyConnection, tables: dict[str, Table], traces: Sequence[Path]) -> None:
    import duckdb

    for name, table in tables.items():
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
            for path in traces:
                file.writelines(_line(row, path) for row in table_rows(table, path))
            file.flush()
            try:
                _load(base, name, table, Path(file.name))
            except duckdb.OutOfMemoryException:
                raise UsageError(f"the table {name} does not fit into memory: name fewer traces") from None
            except duckdb.Error:  # whose words name our temporary file, and options of reading it
                named = ", ".join(map(str, traces))
                raise UsageError(f"{named}: got a value that no column of {name} holds; try specscope check") from None


def _in_words(error: Exception) -> UsageError:
    """What DuckDB says of a user's SQL, without its advice on settings, which are locked."""
    import duckdb

    line = _first_line(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        line = f"this needs more than {MEMORY_LIMIT} of memory: select fewer rows or columns, or name fewer traces"
    elif isinstance(error, duckdb.CatalogException) and "Table with name" in line:
        line = f"{line.partition(' Did you mean')[0]} The tables are {', '.join(TABLES)}"
    return UsageError(f"SQL: {line}")


def _first_line(error: Exception) -> str:
    """What DuckDB says, without the SQL that it repeats."""
    return " ".join(str(error).partition("\n\n")[0].split())


def _line(row: Row, trace: Path) -> str:
    """A row as JSON; floats that are not finite as texts, which DuckDB reads as the numbers that they are."""
    odd = {}
    for name, value in row.items():
        if isinstance(value, float) and value - value != 0:
            odd[name] = str(value)
        elif isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
            raise UsageError(f"{trace}: {name} has {len(str(value))} digits, wanted {MIN_INTEGER} to {MAX_INTEGER}")
    line = json.dumps(row | odd) + "\n"
    if len(line) > MAX_ROW_BYTES:
        raise UsageError(f"{trace}: a row of the table has {len(line):,} bytes, wanted at most {MAX_ROW_BYTES:,}")
    return line


def _load(base: DuckDBPyConnection, name: str, table: Table, file: Path) -> None:
    columns = ", ".join(f"{column.name}: '{column.type}'" for column in table.columns)
    types = ", ".join(f"{column.name} {column.type}" for column in table.columns)
    base.execute(f"CREATE TABLE {name} ({types})")
    if file.stat().st_size:
        source = f"read_json({_quoted(file)}, format = 'newline_delimited', columns = {{{columns}}})"
        base.execute(f"INSERT INTO {name} SELECT * FROM {source}")  # noqa: S608 - our own names and file


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
