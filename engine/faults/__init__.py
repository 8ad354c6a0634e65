"""Deliberate faults: bugs that public engines really had, put in through the loop's seams. Absent from honest runs."""

from specscope.engine.faults.base import Expectation, Fault, FaultTarget, check_fits, inject
from specscope.engine.faults.catalogue import FAULTS, find_fault

__all__ = ["FAULTS", "Expectation", "Fault", "FaultTarget", "check_fits", "find_fault", "inject"]
