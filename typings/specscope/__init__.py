"""SpecScope: a trace-driven debugger and viewer for tree speculative decoding.

The rooms are ``specscope.schemas``, ``specscope.tracer``, ``specscope.engine`` and ``specscope.viewer``. This package
imports none of them.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> str:
    """Looks the version up when it is asked for: reading the installed metadata takes some milliseconds."""
    if name == "__version__":
        from importlib.metadata import version

        return version("specscope")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
