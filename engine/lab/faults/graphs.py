"""Faults of captured forwards, F18 as well: memory that a graph reads and that is filled at the capture alone."""

from __future__ import annotations

from collections.abc import Callable

from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget, Places
from specscope.engine.loop.phases import ForwardInputs, StaticInputs


def _not_refreshed(name: str) -> Callable[[FaultTarget], FaultTarget]:
    """The buffer ``name`` of a graph keeps what it was captured with."""

    def inject(target: FaultTarget) -> FaultTarget:
        honest, filled = target.phases.refresh, list[StaticInputs]()

        def refresh(static: StaticInputs, given: ForwardInputs, lengths: list[int]) -> None:
            buffer = getattr(static, name)
            before = buffer.clone()
            honest(static, given, lengths)
            if any(static is known for known in filled):
                buffer.copy_(before)
            else:
                filled.append(static)

        return target.with_phases(refresh=refresh)

    return inject


def _graph_fault(form: str, says: str, places: Places, invariant: str) -> Fault:
    buffers = {"mask": "mask", "positions": "position_ids", "tokens": "token_ids", "lengths": "lengths"}
    return Fault(
        id=f"F18.graph-{form}",
        says=f"a graph is replayed with the {says} that it was captured with",
        expect=Expectation(places=places, invariant=invariant),
        scenario="captured",
        inject=_not_refreshed(buffers[form]),
    )


GRAPH_FAULTS: tuple[Fault, ...] = (
    _graph_fault("mask", "mask", (("tensors", "prefix_visible"), ("tensors", "mask")), "verify.input-digest"),
    _graph_fault("positions", "positions", (("tensors", "positions"),), "verify.input-digest"),
    _graph_fault("tokens", "token ids", (("tensors", "token_ids"),), "tensors.tokens-are-the-trees"),
    _graph_fault("lengths", "committed lengths", (("verify", ""), ("commit", "")), "verify.graph-length"),
)
