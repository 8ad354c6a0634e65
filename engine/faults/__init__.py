"""Deliberate faults: bugs that public engines really had, put in through the loop's seams. Absent from honest runs."""

from specscope.engine.faults.base import Expectation, Fault, FaultTarget, inject
from specscope.engine.faults.catalogue import FAULTS, find_fault

__all__ = ["FAULTS", "Expectation", "Fault", "FaultTarget", "find_fault", "inject"]
