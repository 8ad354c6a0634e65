"""How the code is written, measured: short functions, calls with names, names that say what they hold.

A folder of ``LIMITS`` may not be worse than its limits. Those of ``HOUSE`` are the aim; a folder that is not there yet
has what it came to when it was measured last, so that it can only get better. Whoever betters it lowers its limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from support.style import FolderStyle, Measured, largest, measure, variadic_functions

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The worst that a folder may hold."""

    p90_tokens: int = 180  # 90th percentile of the tokens per function, without comments and docstrings
    most_tokens: int = 450  # per function
    most_positionals: int = 4  # arguments per call, where the function has names for them
    most_positional_fields: int = 4  # of a dataclass that takes its fields in order; a larger one is kw_only
    most_lines: int = 400  # per file
    num_banned: int = 0  # assigned names that do not say what they hold: see support.style.BANNED


HOUSE = Limits()
LIMITS = {
    "schemas": HOUSE,
    "tracer": HOUSE,
    "adapters": HOUSE,
    "viewer": HOUSE,
    "tests/schemas": HOUSE,
    # Not there yet.
    "tests/tracer": Limits(most_lines=470, num_banned=50),
    "engine": Limits(p90_tokens=186, most_tokens=636, most_positionals=6, most_positional_fields=11, num_banned=10),
    "tests": Limits(
        p90_tokens=200, most_tokens=505, most_positionals=6, most_positional_fields=14, most_lines=603, num_banned=236
    ),
    "benchmarks": Limits(p90_tokens=214, most_positionals=8, most_positional_fields=8, num_banned=24),
    "docs": Limits(most_positionals=5, most_positional_fields=5, num_banned=3),
}
FOLDERS = sorted(LIMITS)
#: Functions of other libraries whose positional arguments are a list.
VARIADIC = {"add_row", "runpytest_inprocess", "print", "zip"}


@cache
def variadic() -> frozenset[str]:
    return variadic_functions(ROOT / name for name in LIMITS) | VARIADIC


@cache
def style_of(folder: str) -> FolderStyle:
    return measure(ROOT / folder, variadic())


def above(measured: list[Measured], most: int) -> list[str]:
    """What is larger than ``most``, the largest first."""
    ordered = sorted(measured, key=lambda thing: -thing.value)
    return [f"{thing.where}: {thing.value}" for thing in ordered if thing.value > most]


@pytest.mark.parametrize("folder", FOLDERS)
def test_functions_are_short(folder: str) -> None:
    style, limits = style_of(folder), LIMITS[folder]
    assert above(style.functions, limits.most_tokens) == []
    assert style.p90_tokens <= limits.p90_tokens


@pytest.mark.parametrize("folder", FOLDERS)
def test_calls_name_their_arguments(folder: str) -> None:
    assert above(style_of(folder).calls, LIMITS[folder].most_positionals) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_large_dataclasses_take_keywords_only(folder: str) -> None:
    assert above(style_of(folder).dataclasses, LIMITS[folder].most_positional_fields) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_are_short(folder: str) -> None:
    assert above(style_of(folder).files, LIMITS[folder].most_lines) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_say_what_they_hold(folder: str) -> None:
    banned, most = style_of(folder).banned, LIMITS[folder].num_banned
    assert len(banned) <= most, banned if most == 0 else f"{len(banned)} banned names, {most} when measured last"


def test_what_is_measured(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(
        '''@dataclass
class Five:
    a: int
    b: int
    c: int
    d: int
    e: int = field(init=False)


def first(x, *, one):
    """Not counted."""
    # Nor is this.
    found = call(1, 2, *x)
    return listed(1, 2, 3, 4, 5)
'''
    )
    style = measure(tmp_path, frozenset({"listed"}))
    assert [function.value for function in style.functions] == [34]
    assert [(call.function, call.value) for call in style.calls if call.value > 1] == [("call", 3)]
    assert [dataclass.value for dataclass in style.dataclasses] == [4]
    assert [name.rpartition(" ")[2] for name in style.banned] == ["one", "found"]
    assert largest(style.files) == 14
