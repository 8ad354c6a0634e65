"""The tracer: writes, reads, checks and diffs traces; the command line. Never imports torch.

What a program may rely on is exported here, and loaded when it is first used::

    from specscope.tracer import TraceReader, check_trace, diff_traces

    assert diff_traces("eager.jsonl", "fused.jsonl").exit_code == 0
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specscope.tracer.compare.diff import DiffOptions, diff_traces
    from specscope.tracer.errors import SpecScopeError
    from specscope.tracer.export.graph import graph_text, tree_graph
    from specscope.tracer.export.rows import step_rows
    from specscope.tracer.files.reader import TraceReader
    from specscope.tracer.files.recorder import Recorder
    from specscope.tracer.files.ring import TraceRing
    from specscope.tracer.files.writer import TraceWriter
    from specscope.tracer.oracle.check import check_trace

__all__ = [
    "DiffOptions",
    "Recorder",
    "SpecScopeError",
    "TraceReader",
    "TraceRing",
    "TraceWriter",
    "check_trace",
    "diff_traces",
    "graph_text",
    "step_rows",
    "tree_graph",
]

_HOMES = {
    "DiffOptions": "compare.diff",
    "Recorder": "files.recorder",
    "SpecScopeError": "errors",
    "TraceReader": "files.reader",
    "TraceRing": "files.ring",
    "TraceWriter": "files.writer",
    "check_trace": "oracle.check",
    "diff_traces": "compare.diff",
    "graph_text": "export.graph",
    "step_rows": "export.rows",
    "tree_graph": "export.graph",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
