"""Deliberate faults: bugs that public engines really had, put in through the loop's seams. Absent from honest runs."""

from specscope.engine.lab.faults.base import (
    Expectation,
    Fault,
    FaultTarget,
    check_cache,
    check_fits,
    check_ranks,
    inject,
    injecting,
)
from specscope.engine.lab.faults.catalogue import FAULTS, find_fault

__all__ = [
    "FAULTS",
    "Expectation",
    "Fault",
    "FaultTarget",
    "check_cache",
    "check_fits",
    "check_ranks",
    "find_fault",
    "inject",
    "injecting",
]
