"""What every format renders."""

from __future__ import annotations

from dataclasses import dataclass, field

from specscope.schemas.verdict import Verdict
from specscope.tracer.naming.tokens import TokenTexts


@dataclass(frozen=True)
class Report:
    """A verdict with what is needed to show it."""

    verdict: Verdict
    texts: TokenTexts = field(default_factory=lambda: TokenTexts(None))
    seconds: float = 0.0  # that the comparison took
