"""Every invariant, once: the engine checks the structural ones before a kernel runs, the oracle all of them.

An invariant is a function from plain data to a witness, or None where it holds. It is in the file that its id begins
with: ``tree.shape-is-policy`` in ``tree``. The other files hold what several of them share.
"""

from specscope.tracer.oracle.invariants.base import Context, Invariant
from specscope.tracer.oracle.invariants.registry import ALL_INVARIANTS

__all__ = ["ALL_INVARIANTS", "Context", "Invariant"]
