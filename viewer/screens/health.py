"""The Trace health page: what to know about a trace as a whole before its steps are trusted."""

from __future__ import annotations

import re

import streamlit as st

from specscope.tracer.files.reader import TraceReader
from specscope.viewer.drawing.labels.numbers import about_seconds
from specscope.viewer.drawing.tables.health import health_board, health_of
from specscope.viewer.runs.checks import CHECKS, stamp_of
from specscope.viewer.runs.summary import checked
from specscope.viewer.screens.controls import choose_run
from specscope.viewer.screens.inspector import show_one_board
from specscope.viewer.screens.session import (
    Arguments,
    allow_reading,
    as_typed,
    damage_of,
    oracle_report_of,
    run_named,
    seconds_to_read,
)
from specscope.viewer.screens.view import View

_PLACE = re.compile(r"go:(\d{1,9})\.(\d{1,9})", re.ASCII)


def show_health_page(arguments: Arguments, view: View) -> None:
    """The whole page."""
    controls = st.container(key="controls", horizontal=True, vertical_alignment="bottom")
    with controls:
        choose_run(arguments, view)
    path = run_named(arguments, view.run).path
    stamp = stamp_of(path)
    with TraceReader(path) as reader:
        report = oracle_report_of(reader)
        if report is not None and stamp is not None:
            CHECKS.keep(stamp, checked(report))  # so that the list of runs shows it as well
        damage = damage_of(reader)
        if report is None and damage is None:
            with controls:
                _offer_to_read(reader)
        seconds = seconds_to_read(reader)
        health = health_of(reader, as_typed(reader.path), report, damage=damage, seconds_to_read=seconds)

    def asked(request: str) -> None:
        place = _PLACE.fullmatch(request)
        if place is not None:
            view.page = "step"
            view.look_at(view.run, int(place[1]), int(place[2]))

    board = health_board(health)
    show_one_board(board, key="health", title=view.title, on_request=asked)


def _offer_to_read(reader: TraceReader) -> None:
    if st.button(f"Check every record, {about_seconds(seconds_to_read(reader))}", key="read-whole"):
        allow_reading(reader)
        st.rerun()
