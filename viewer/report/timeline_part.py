"""The stages of a pipelined turn in the report: its numbers, the whole turn, and the stretch around what is drawn."""

from __future__ import annotations

from collections.abc import Sequence

from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.board import card
from specscope.viewer.drawing.fragments import facts
from specscope.viewer.drawing.frames import scrolled
from specscope.viewer.drawing.markup import NOTHING, Markup, joined
from specscope.viewer.drawing.timeline.board import LEGEND, overview, shares_card
from specscope.viewer.drawing.timeline.flow import TurnFlow, flow_of
from specscope.viewer.drawing.timeline.numbers import flow_facts, numbers_of
from specscope.viewer.drawing.timeline.picture import TimelinePicture, draw_timeline
from specscope.viewer.drawing.timeline.window import Window, around, whole


def timeline_part(reader: TraceReader, turn: TurnEntry, steps: Sequence[int], texts: TokenTexts) -> Markup:
    """The timeline of a turn, of which ``steps`` are drawn; nothing where the run has no stages.

    Raises:
        TraceError: where a record cannot be read.
    """
    pipeline = reader.manifest.pipeline
    if pipeline is None:
        return NOTHING
    flow = flow_of(pipeline.stages, reader.turn_start(turn), reader.steps(turn), reader.turn_end(turn))
    if flow is None:
        return NOTHING
    numbers = numbers_of(flow)
    picture = TimelinePicture(flow=flow, window=_window(flow, steps), shown=texts.shown)
    aside = f"{picture.window.length / 1e6:,.1f} ms of {whole(flow).length / 1e6:,.1f} ms"
    drawn = [facts(flow_facts(flow, numbers)), overview(picture), scrolled(draw_timeline(picture)), LEGEND]
    return joined([card("flow", "Stages over time", aside, joined(drawn)), shares_card(flow, numbers)])


def _window(flow: TurnFlow, steps: Sequence[int]) -> Window:
    """Around the first step that is drawn; from the beginning on where that is the turn's first."""
    item = flow.of_step(steps[0]) if steps else None
    return around(item if item is not None else flow.items[0], flow)
