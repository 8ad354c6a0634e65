"""Where two runs part: alignment, comparison phase by phase, roots, and the verdict."""

from specscope.tracer.compare.diff import diff_traces

__all__ = ["diff_traces"]
