"""The Trace health page: what is to be known of one trace as a whole before its steps are trusted."""

from __future__ import annotations

import re

import streamlit as st

from specscope.tracer.reader import TraceReader
from specscope.viewer.controls import choose_run
from specscope.viewer.drawing.health_board import Health, health_board
from specscope.viewer.inspector import show_board
from specscope.viewer.session import (
    Arguments,
    allow_reading,
    as_typed,
    oracle_report_of,
    run_named,
    seconds_to_read,
)
from specscope.viewer.view import View

_PLACE = re.compile(r"go:(\d{1,9})\.(\d{1,9})", re.ASCII)


def show_health_page(arguments: Arguments, view: View) -> None:
    """The whole page."""
    controls = st.container(key="controls", horizontal=True, vertical_alignment="bottom")
    with controls:
        choose_run(arguments, view)
    with TraceReader(run_named(arguments, view.run).path) as reader:
        report = oracle_report_of(reader)
        if report is None:
            with controls:
                _offer_to_read(reader)
        end = reader.run_end()
        found = Health(
            path=as_typed(reader.path),
            num_bytes=reader.path.stat().st_size,
            num_records=reader.index.num_lines,
            torn_bytes=reader.index.torn_bytes,
            end_reason=None if end is None else end.reason,
            original_version=reader.original_version,
            manifest=reader.manifest,
            turns=reader.turns,
            failures=reader.failures(),
            report=report,
            seconds_to_read=seconds_to_read(reader),
        )

    def asked(request: str) -> None:
        place = _PLACE.fullmatch(request)
        if place is not None:
            view.page, view.turn, view.step, view.node = "step", int(place[1]), int(place[2]), None

    board = health_board(found)
    show_board(board, key="health", now=None, picked=None, on_pick=lambda _: None, on_request=asked)


def _offer_to_read(reader: TraceReader) -> None:
    seconds = max(1, round(seconds_to_read(reader) or 0))
    if st.button(f"Check every record, about {seconds} s", key="read-whole"):
        allow_reading(reader)
        st.rerun()
