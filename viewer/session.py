"""What a page works on: the files of the command line, the place that is looked at, and what is kept between reruns.

Files come from the command line alone. The address bar and the browser choose only numbers, which are checked.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import streamlit as st

from specscope.schemas.verdict import Verdict
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.reader import TraceReader
from specscope.tracer.tokens import TokenTexts

PageName = Literal["step", "diff"]
VIEW_KEY = "specscope_view"


@dataclass(frozen=True)
class Arguments:
    """What ``specscope view`` was given."""

    files: tuple[Path, ...]
    tokenizer: Path | None


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """The arguments behind ``streamlit run app.py --``."""
    parser = argparse.ArgumentParser(prog="app.py")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("files", nargs="*", type=Path)
    found = parser.parse_args(list(argv))
    return Arguments(tuple(found.files), found.tokenizer)


@dataclass
class View:
    """The place that is looked at. Numbers may be too large: whoever uses one clamps it."""

    page: PageName = "step"
    trace: int = 0  # index into the files
    turn: int = 0
    step: int = 0
    baseline: int = 0
    candidate: int = 1
    root: int = 0

    @classmethod
    def from_query(cls, query: Mapping[str, str], num_files: int) -> View:
        """The view that a link names; what is garbage is left at its default. With two files or more, the first
        look is at the comparison."""
        view = cls(page="diff" if num_files > 1 else "step")
        if query.get("page") == "step":
            view.page = "step"
        for name in ("trace", "turn", "step", "baseline", "candidate", "root"):
            text = query.get(name, "")
            if text.isascii() and text.isdecimal() and len(text) <= 9:
                setattr(view, name, int(text))
        for name in ("trace", "baseline", "candidate"):
            setattr(view, name, clamp(getattr(view, name), num_files))
        return view

    def to_query(self) -> dict[str, str]:
        """The link's parameters."""
        names = ("trace", "turn", "step") if self.page == "step" else ("baseline", "candidate", "root")
        return {"page": self.page, **{name: str(getattr(self, name)) for name in names}}


def clamp(number: int, size: int) -> int:
    """``number``, or the nearest of 0..size - 1."""
    return max(0, min(number, size - 1))


def current_view(num_files: int) -> View:
    """The view of this session; at its beginning, what the link says."""
    if VIEW_KEY not in st.session_state:
        st.session_state[VIEW_KEY] = View.from_query(st.query_params, num_files)
    view = st.session_state[VIEW_KEY]
    assert isinstance(view, View)
    return view


def remember_view(view: View) -> None:
    """Puts the view into the address bar."""
    wanted = view.to_query()
    if st.query_params.to_dict() != wanted:
        st.query_params.from_dict(wanted)


@st.cache_resource(show_spinner=False, max_entries=8)
def token_texts(tokenizer: Path | None, trace: Path) -> TokenTexts:
    """Token texts for one trace. One object a trace: texts that one trace carries must not name another's ids; a
    redacted trace's are no ids of the tokenizer."""
    with TraceReader(trace) as reader:
        return TokenTexts.load(tokenizer if reader.manifest.redaction is None else None)


@st.cache_resource(show_spinner="Comparing the two traces", max_entries=8)
def _verdict(baseline: Path, candidate: Path, stamps: tuple[str, str]) -> Verdict:
    return diff_traces(_as_typed(baseline), _as_typed(candidate))


def _as_typed(path: Path) -> Path:
    """Below the current folder as a person there would type it; the commands to run next name it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def verdict_of(baseline: TraceReader, candidate: TraceReader) -> Verdict:
    """The comparison; made again only when one of the files has changed."""
    return _verdict(baseline.path, candidate.path, (baseline.index.stamp, candidate.index.stamp))
