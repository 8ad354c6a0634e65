"""The report as JSON: the verdict itself (``specscope.schemas.verdict``)."""

from __future__ import annotations

import json

from specscope.tracer.naming.text import printable
from specscope.tracer.report.report import Report


def render(report: Report) -> str:
    """The verdict, indented; what does not apply is left out. In ASCII, so that a terminal shows it literally."""
    verdict = json.loads(report.verdict.model_dump_json(by_alias=True, exclude_none=True))
    return json.dumps(verdict, indent=2).replace("\x7f", "\\u007f") + "\n"


def render_error(error: str) -> str:
    """Why there is no verdict: an object with one key, ``error``."""
    return json.dumps({"error": printable(error)}, indent=2) + "\n"
