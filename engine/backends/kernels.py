"""Attention kernels by name: what ``--attention`` may say, and where a kernel of the user's is looked for.

A kernel is one function, ``kernel(query, key, value, mask, scale)``. It is named as ``MODULE:FUNCTION``, by an entry
point of the group ``specscope.backends``, or by ``register_kernel`` in a running program. Loads no torch.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, get_args

from specscope.schemas.unknown import nearest_name
from specscope.tracer.errors import UsageError

GROUP = "specscope.backends"
#: Entry points of that group that begin so are backends of a device type; the others are kernels.
DEVICE_PREFIX = "device."
#: The engine's own: the reference, and what the device's backend brings.
BUILT_IN = ("eager", "fused")
REGISTERED = "a function of the running program"
#: What a kernel's mask holds: what is added to the scores, or True where a key is seen.
MaskForm = Literal["additive", "visible"]
MODULE_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A function that computes attention, and where it came from."""

    name: str  # as --attention names it
    function: Callable[..., Any]  # (query, key, value, mask, scale), as backends.attention describes it
    origin: str  # built-in, the entry point and its package, or how else it was reached
    file: Path | None = None  # that defines it, where it is Python
    mask_form: MaskForm = "additive"
    dtypes: frozenset[str] | None = None  # that it takes; None: every one
    capturable: bool = True  # in a graph: what it launches depends on shapes alone

    def takes(self, dtype: str) -> bool:
        """Whether it computes in that dtype at all."""
        return self.dtypes is None or dtype in self.dtypes


_REGISTERED: dict[str, Kernel] = {}


def register_kernel(function: Callable[..., Any], name: str | None = None) -> str:
    """Makes ``function`` known in this process; returns its name, ``MODULE:FUNCTION`` unless ``name`` is given.

    Raises:
        UsageError: for a name that the engine uses, or what is not a function.
    """
    if not callable(function):
        raise UsageError(
            f"got {type(function).__name__} as a kernel, wanted a function of query, key, value, mask, scale"
        )
    name = name or _own_name(function)
    if name in BUILT_IN:
        raise UsageError(f"got kernel name {name!r}, which is the engine's own: choose another")
    _REGISTERED[name] = _kernel(name, function, REGISTERED)
    return name


def is_registered(name: str) -> bool:
    """Whether this program has registered a kernel of that name."""
    return name in _REGISTERED


def find_kernel(name: str) -> Kernel:
    """The kernel called ``name``; imports the module that holds it.

    Raises:
        UsageError: where there is none, or it cannot be imported: saying what is missing.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    check_kernel_name(name)
    entry = _entries().get(name)
    return _loaded(name, entry) if entry is not None else _imported(name)


def check_kernel_name(name: str) -> None:
    """Refuses what cannot name a kernel, before anything is loaded.

    Raises:
        UsageError: saying what there is.
    """
    if name in _REGISTERED or name in _entries() or MODULE_FUNCTION.fullmatch(name):
        return
    known = [*BUILT_IN, *sorted({*_REGISTERED, *_entries()})]
    near = nearest_name(name, known)
    hint = f"did you mean {near}? Wanted" if near is not None else "wanted"
    raise UsageError(
        f"got attention {name!r}: {hint} {', '.join(known)}, or MODULE:FUNCTION, a kernel of your own "
        "(see docs/your-kernel.md)"
    )


def installed_backends() -> dict[str, Callable[[], Any]]:
    """Backends of other packages by the device type that they serve; each is made by its class."""
    return {
        name.removeprefix(DEVICE_PREFIX): entry.load()
        for name, entry in _all_entries().items()
        if name.startswith(DEVICE_PREFIX)
    }


def kernel_file(name: str) -> Path | None:
    """The file that ``name`` would be imported from, found without running any of its code; None where it is none."""
    entry = _entries().get(name)
    module = (entry.module if entry is not None else name.partition(":")[0]).split(".")
    path, origin = [*sys.path, str(Path.cwd())], None
    for depth in range(1, len(module) + 1):
        spec = PathFinder.find_spec(".".join(module[:depth]), path)
        if spec is None:
            return None
        path, origin = list(spec.submodule_search_locations or ()), spec.origin
    return Path(origin) if origin is not None and Path(origin).is_file() else None


@cache
def _all_entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _entries() -> dict[str, EntryPoint]:
    return {name: entry for name, entry in _all_entries().items() if not name.startswith(DEVICE_PREFIX)}


def _loaded(name: str, entry: EntryPoint) -> Kernel:
    package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
    origin = f"entry point {entry.value}{package}"
    try:
        thing = entry.load()
    except Exception as error:  # what a package raises at its import is its own affair
        raise UsageError(f"cannot load attention {name!r}, {origin}: {type(error).__name__}: {error}") from None
    return _kernel(name, thing, origin)


def _imported(name: str) -> Kernel:
    module_name, _, path = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # the script's folder is on the path, not the one that the user stands in
    try:
        thing: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UsageError(
                f"got attention {name!r}, but there is no module {module_name} in {here} or on Python's path: run from "
                "the folder that holds it, or set PYTHONPATH"
            ) from None
        raise UsageError(f"cannot import {module_name} for attention {name!r}: {error}") from None
    except Exception as error:  # as above
        raise UsageError(
            f"cannot import {module_name} for attention {name!r}: {type(error).__name__}: {error}"
        ) from None
    for part in path.split("."):
        if not hasattr(thing, part):
            raise UsageError(f"got attention {name!r}, but {module_name} has no {path}: name a function of it")
        thing = getattr(thing, part)
    return _kernel(name, thing, origin="a module of the user's")


def _kernel(name: str, function: Any, origin: str) -> Kernel:
    if not callable(function):
        raise UsageError(f"got attention {name!r}, which is {type(function).__name__}, wanted a function")
    form: Any = getattr(function, "mask_form", "additive")
    if form not in get_args(MaskForm):
        raise UsageError(f"attention {name!r} has mask_form {form!r}, wanted one of {', '.join(get_args(MaskForm))}")
    file = _source(function) if origin == REGISTERED else kernel_file(name)
    capturable = bool(getattr(function, "capturable", True))
    return Kernel(name=name, function=function, origin=origin, file=file, mask_form=form, capturable=capturable)


def _source(function: Callable[..., Any]) -> Path | None:
    try:
        source = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # built in another language
        return None
    return Path(source) if source is not None and os.path.isfile(source) else None  # noqa: PTH113 - <stdin> is none


def _own_name(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", None) or "__main__"
    return f"{module}:{getattr(function, '__qualname__', type(function).__name__)}"
