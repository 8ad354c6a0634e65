"""Every fault that can be put in, by id."""

from __future__ import annotations

from specscope.engine.lab.faults.accept import ACCEPT_FAULTS
from specscope.engine.lab.faults.base import Fault
from specscope.engine.lab.faults.checkpoints import CHECKPOINT_FAULTS
from specscope.engine.lab.faults.commit import COMMIT_FAULTS
from specscope.engine.lab.faults.custody import CUSTODY_FAULTS
from specscope.engine.lab.faults.draft import DRAFT_FAULTS
from specscope.engine.lab.faults.graphs import GRAPH_FAULTS
from specscope.engine.lab.faults.guided import GUIDED_FAULTS
from specscope.engine.lab.faults.kernels import KERNEL_FAULTS
from specscope.engine.lab.faults.paged import PAGED_FAULTS
from specscope.engine.lab.faults.ranks import RANK_FAULTS
from specscope.engine.lab.faults.rows import ROW_FAULTS
from specscope.engine.lab.faults.tensors import TENSOR_FAULTS
from specscope.engine.lab.faults.tree import TREE_FAULTS
from specscope.engine.lab.faults.turn import TURN_FAULTS
from specscope.engine.lab.faults.verify import VERIFY_FAULTS
from specscope.engine.lab.faults.windows import WINDOW_FAULTS
from specscope.tracer.errors import UsageError

_ALL = (
    *CHECKPOINT_FAULTS,
    *DRAFT_FAULTS,
    *TREE_FAULTS,
    *TENSOR_FAULTS,
    *VERIFY_FAULTS,
    *GUIDED_FAULTS,
    *GRAPH_FAULTS,
    *KERNEL_FAULTS,
    *WINDOW_FAULTS,
    *ACCEPT_FAULTS,
    *COMMIT_FAULTS,
    *CUSTODY_FAULTS,
    *PAGED_FAULTS,
    *ROW_FAULTS,
    *RANK_FAULTS,
    *TURN_FAULTS,
)
#: In the catalogue's order; forms of an entry as their file has them, the first of them standing for all.
FAULTS: dict[str, Fault] = {fault.id: fault for fault in sorted(_ALL, key=lambda fault: fault.entry)}


def find_fault(fault_id: str) -> Fault:
    """The fault of that id; of an entry's alone, such as F15, its first form.

    Raises:
        UsageError: where there is none.
    """
    fault = FAULTS.get(fault_id) or next((fault for fault in FAULTS.values() if fault.entry == fault_id), None)
    if fault is None:
        entries: dict[str, list[str]] = {}
        for fault in FAULTS.values():
            entries.setdefault(fault.entry, []).append(fault.id.removeprefix(fault.entry))
        forms = ", ".join(
            entry + ("" if suffixes == [""] else f" ({' '.join(suffixes)})") for entry, suffixes in entries.items()
        )
        raise UsageError(f"got fault {fault_id!r}, wanted one of {forms}")
    return fault
