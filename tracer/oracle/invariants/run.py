"""Rules about a run as a whole, judged by ``Oracle`` while the file is read."""

from __future__ import annotations

RUN_RULES = {
    "run.sequence": "records are numbered one after another",
    "run.step-numbers": "turns are numbered one after another, and steps in their turn",
    "run.order": "one manifest first, one run_end last; every turn ends, none stands twice, no more at once than rows",
    "run.capabilities": "every step has the sections and fields that the manifest promises",
    "run.coins-fresh": "turns that draw by seeds of their own do not draw the same coin first",
    "run.engine-checks": "the engine's own checks found nothing",
    "run.tensor-files": "each file of tensors lies in the trace's folder as written; skipped where none is there",
    "run.counts": "run_end counts the records",
    "run.digest": "run_end digests every byte before it",
}
