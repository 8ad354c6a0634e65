"""What tests read of the oracle's reports."""

from __future__ import annotations

from specscope.tracer.oracle.report import OracleReport


def violated(report: OracleReport) -> set[str]:
    """The invariants that fired."""
    return {name for name, tally in report.invariants.items() if tally.failed}
