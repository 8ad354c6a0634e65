"""Whether two traces are two runs at all: a comparison of a run with itself finds nothing, and says nothing."""

from __future__ import annotations

import filecmp

from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import printable, shorten, visible

MAX_RUN_ID = 80
_WANTED = "a run compared with itself tells nothing; give the two runs that are to be compared"


def one_run_remarks(a: TraceReader, b: TraceReader) -> list[str]:
    """Why the two traces are of one run; empty where they are of two, as far as they tell."""
    if a.content.samefile(b.content):  # by another name, a link, or the same one
        return [f"baseline and candidate are the same file, {printable(str(b.path))}: {_WANTED}"]
    if filecmp.cmp(a.content, b.content, shallow=False):
        return [f"the candidate is a copy of the baseline, byte for byte: {_WANTED}"]
    if a.manifest.run_id == b.manifest.run_id:
        run = shorten(visible(a.manifest.run_id), MAX_RUN_ID)
        return [f"both traces are of the same run, {run}, and one was changed since: {_WANTED}"]
    return []
