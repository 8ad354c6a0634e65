"""Verify forwards that are captured in graphs: one graph for each shape, replayed by every step that fits in it.

A shape is the rows of the batch, and slots and columns rounded up, so that few graphs serve all steps of a session. A
graph reads the step's inputs from its own tensors, and the cache where it lay at the capture: when the cache's
buffer moves, the graphs are worth nothing and are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from specscope.engine.backends.attention import DispatchLog, count_calls, separate_log
from specscope.engine.backends.graphs import Graph, GraphPolicy
from specscope.engine.backends.self_check import LIMITS
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.loop.phases import ForwardInputs, GraphUse, Phases, StaticInputs
from specscope.engine.teacher.model import Teacher, TeacherOutput

MOST_GRAPHS = 32  # of a session; a step of yet another shape runs without one
SLOT_GRAIN = 8
LEAST_COLUMNS = 256


class GraphShape(NamedTuple):
    """What one graph serves."""

    rows: int
    slots: int  # 1, or a multiple of 8
    columns: int  # a power of two

    @classmethod
    def holding(cls, given: ForwardInputs, lengths: list[int]) -> GraphShape:
        """The least one in which a step fits."""
        rows, slots = given.token_ids.shape
        slots = 1 if slots == 1 else -(-slots // SLOT_GRAIN) * SLOT_GRAIN
        columns = max(LEAST_COLUMNS, 1 << (max(lengths) + slots - 1).bit_length())
        return cls(rows, slots, columns)


class TeacherForward(NamedTuple):
    """A forward of the teacher, and what it really read."""

    output: TeacherOutput
    inputs: ForwardInputs  # of a graph its own tensors, as far as they are of the step's slots
    use: GraphUse | None  # None where forwards are not captured


@dataclass(kw_only=True)
class _Captured:
    """One graph and its memory."""

    graph: Graph
    inputs: StaticInputs
    output: TeacherOutput
    dispatch: DispatchLog  # attention calls of a replay
    replays: int = 0


class VerifyGraphs:
    """The graphs of one session.

    Args:
        teacher: whose forwards are captured.
        policy: how.
        phases: whose ``refresh`` writes a step's inputs where its graph reads them.
    """

    def __init__(self, teacher: Teacher, policy: GraphPolicy, phases: Phases) -> None:
        self._teacher, self._policy, self._refresh = teacher, policy, phases.refresh
        self._captured: dict[GraphShape, _Captured] = {}
        self._address: int | None = None  # of the cache that they read
        self._failure: str | None = None  # why nothing is captured any more

    def forward(
        self, given: ForwardInputs, lengths: list[int], cache: TreeCache, feature_layers: tuple[int, ...]
    ) -> TeacherForward:
        """The teacher's forward over ``given`` behind the committed ``lengths``, by the graph of its shape, which is
        captured where there is none yet; without one where that cannot be."""
        shape = GraphShape.holding(given, lengths)
        address = cache.reserve(shape.columns)
        if address != self._address:
            self._captured, self._address = {}, address
        captured = self._captured.get(shape)
        if captured is None and self._failure is None and len(self._captured) < MOST_GRAPHS:
            captured = self._capture(shape, given, lengths, cache, feature_layers)
        if captured is None:
            output = self._teacher.forward(*given, cache, feature_layers=feature_layers)
            return TeacherForward(output, given, GraphUse(fallback=self._failure or f"{MOST_GRAPHS} graphs are kept"))
        self._captured[shape] = captured
        return self._replay(captured, given, lengths, cache)

    def _replay(
        self, captured: _Captured, given: ForwardInputs, lengths: list[int], cache: TreeCache
    ) -> TeacherForward:
        static, slots = captured.inputs, given.token_ids.shape[1]
        self._refresh(static, given, lengths)
        captured.graph.replay()
        captured.replays += 1
        count_calls(captured.dispatch)
        cache.set_tail(slots)
        output = TeacherOutput(captured.output.logits[:, :slots], captured.output.features[:, :slots])
        read = ForwardInputs(static.token_ids[:, :slots], static.position_ids[:, :slots], static.mask[:, :, :slots])
        use = GraphUse(static.mask.shape[2], static.mask.shape[3], captured.replays, static.lengths)
        return TeacherForward(output, read, use)

    def _capture(
        self,
        shape: GraphShape,
        given: ForwardInputs,
        lengths: list[int],
        cache: TreeCache,
        feature_layers: tuple[int, ...],
    ) -> _Captured | None:
        """The graph of ``shape``, captured with the inputs of this step; None, and ``_failure``, where it cannot be, or
        does not compute what it was captured of."""
        static, dispatch = _memory(shape, given), DispatchLog()
        self._refresh(static, given, lengths)

        def work() -> TeacherOutput:
            places = static.lengths[:, None] + torch.arange(shape.slots, device=static.lengths.device)
            cache.drop_tail()
            with separate_log() as calls, cache.fixed(places, shape.columns):
                output = self._teacher.forward(*static[:3], cache, feature_layers=feature_layers)
            dispatch.clear()
            dispatch.update(calls)
            dispatch.windows = calls.windows
            return output

        graph = self._policy.graphs.new()
        try:
            wanted = work().logits.clone() if self._policy.check else None
            output = graph.capture(work)
            graph.replay()
            if wanted is not None and not _same(output.logits, wanted):
                self._give_up("its first replay gave other logits than the same forward uncaptured")
        except RuntimeError as error:  # a device's reasons are its own
            self._give_up(f"{type(error).__name__}: {error}")
        cache.drop_tail()
        if self._failure is not None:
            return None
        return _Captured(graph=graph, inputs=static, output=output, dispatch=dispatch)

    def _give_up(self, reason: str) -> None:
        self._failure = reason
        self._policy.warn(f"the verify forward cannot be captured ({reason}): it runs without a graph, as --no-graph")


def _memory(shape: GraphShape, given: ForwardInputs) -> StaticInputs:
    """Tensors for the inputs of every step that fits in ``shape``."""
    rows, slots, columns = shape
    ids = given.token_ids
    return StaticInputs(
        token_ids=ids.new_zeros(rows, slots),
        position_ids=ids.new_zeros(rows, slots),
        mask=given.mask.new_zeros(rows, 1, slots, columns),
        lengths=ids.new_zeros(rows),
    )


def _same(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Whether logits are equal up to rounding."""
    size = float(wanted.nan_to_num(posinf=0, neginf=0).abs().max())
    return torch.allclose(got, wanted, rtol=0, atol=LIMITS[wanted.dtype] * size, equal_nan=True)
