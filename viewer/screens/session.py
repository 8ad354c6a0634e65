"""What a page works on: the catalogue of the command line, the view, and what is kept between reruns.

Everything that is kept is kept by the file's stamp, so that a trace that has grown is read again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from specscope.schemas.verdict import Side
from specscope.tracer.compare.diff import Comparison, DiffOptions, compare_traces
from specscope.tracer.errors import TraceError, UsageError
from specscope.tracer.files.index import TraceIndex, TurnEntry, has_index
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.report import OracleReport
from specscope.viewer.drawing.tables.health import Damage
from specscope.viewer.pairs.states import Partner, RunStates
from specscope.viewer.runs.catalogue import Catalogue, Run
from specscope.viewer.runs.tokenizers import known_tokenizer
from specscope.viewer.screens.kept import Kept
from specscope.viewer.screens.reading import reading, seconds_for
from specscope.viewer.screens.view import View

VIEW_KEY, WRITTEN_KEY = "specscope_view", "specscope_link"
#: Larger files are read as a whole only on request: a check or a comparison takes a while.
LARGE_BYTES = 16 << 20
MOST_INDEXES, MOST_COMPARISONS, MOST_REPORTS = 8, 8, 16
#: Streamlit would hash a path as text, which a name on disk may not be.
HASHED: dict[str | type[Any], Callable[[Any], Any]] = {type(Path()): os.fsencode}


@dataclass(frozen=True)
class Arguments:
    """What ``specscope view`` was given."""

    catalogue: Catalogue
    tokenizer: Path | None

    @property
    def num_files(self) -> int:
        """How many files, not folders, were given."""
        return len(self.catalogue.given) - len(self.catalogue.folders)


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """The arguments after ``streamlit run app.py --``."""
    parser = argparse.ArgumentParser(prog="app.py")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("places", nargs="*", type=Path)
    parsed = parser.parse_args(list(argv))
    return Arguments(Catalogue(parsed.places), parsed.tokenizer)


def current_view(arguments: Arguments, names: Sequence[str]) -> View:
    """The view of this session; at its beginning, and where the browser has gone back or forward, what the link says.
    A run that has vanished is forgotten."""
    if VIEW_KEY not in st.session_state or _has_gone_elsewhere(st.session_state[VIEW_KEY]):
        query = st.query_params.to_dict()
        for field in ("run", "baseline", "candidate"):
            run = arguments.catalogue.find(query[field]) if field in query else None
            if run is not None:  # a link may be older than a file whose name made this one longer
                query[field] = run.name
        st.session_state[VIEW_KEY] = View.from_query(query, names, arguments.num_files)
    view = st.session_state[VIEW_KEY]
    assert isinstance(view, View)
    for field in ("run", "baseline", "candidate"):
        if getattr(view, field) not in names:
            setattr(view, field, None)
    view.settle()
    return view


def _has_gone_elsewhere(view: View) -> bool:
    """Whether the address bar names another place although nothing on the page has changed the view."""
    written = st.session_state.get(WRITTEN_KEY)
    return view.to_query() == written and st.query_params.to_dict() != written


def remember_view(view: View) -> None:
    """Puts the view into the address bar."""
    wanted = st.session_state[WRITTEN_KEY] = view.to_query()
    if st.query_params.to_dict() != wanted:
        st.query_params.from_dict(wanted)


def run_named(arguments: Arguments, name: str | None) -> Run:
    """The run of that name.

    Raises:
        UsageError: where it is not, or no longer, in the catalogue.
    """
    run = arguments.catalogue.find(name) if name is not None else None
    if run is None:
        raise UsageError(f"the run {name} no longer exists: choose another on the Runs page")
    return run


@st.cache_resource(show_spinner=False, max_entries=8, hash_funcs=HASHED)
def _token_texts(tokenizer: Path | None, trace: Path, run_id: str, is_redacted: bool) -> TokenTexts:
    return TokenTexts.load(None if is_redacted else tokenizer)


def token_texts(tokenizer: Path | None, reader: TraceReader) -> TokenTexts:
    """Token texts for one run; without a ``tokenizer``, by the one that its manifest names, if that is at hand.

    Each run has its own: the texts of one trace must not name another's ids, nor those of a run that was written in its
    place; the ids of a redacted trace are not the tokenizer's.
    """
    manifest = reader.manifest
    tokenizer = tokenizer or known_tokenizer(manifest, reader.path)
    return _token_texts(tokenizer, reader.path, manifest.run_id, manifest.redaction is not None)


def as_typed(path: Path) -> Path:
    """Below the current folder as a person there would type it; the commands to run next name it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


#: Both traces with their stamps, and the fields that may differ.
_PairKey = tuple[Path, Path, tuple[str, str], tuple[str, ...]]


@st.cache_resource(show_spinner=False)
def _comparisons() -> Kept[_PairKey, Comparison]:
    return Kept(MOST_COMPARISONS)


@st.cache_resource(show_spinner=False)
def _reports() -> Kept[tuple[Path, str], OracleReport | Damage]:
    return Kept(MOST_REPORTS)


def _num_bytes(*readers: TraceReader) -> int:
    return sum(reader.content.stat().st_size for reader in readers)


def comparison_of(baseline: TraceReader, candidate: TraceReader, allow: tuple[str, ...]) -> Comparison | None:
    """The comparison, in which the manifest's fields ``allow`` may differ; made again only when one of the files has
    changed. None where the files are large, and nobody has asked for it yet: see ``allow_reading``."""
    if not _may_read(baseline, candidate):
        return None
    key = (baseline.path, candidate.path, (baseline.index.stamp, candidate.index.stamp), allow)
    kept = _comparisons().get(key)
    if kept is not None:
        return kept
    options = DiffOptions(allowed=frozenset(allow))
    with reading("compare", _num_bytes(baseline, candidate)) as watch:
        comparison = compare_traces(as_typed(baseline.path), as_typed(candidate.path), options, watch=watch)
    return _comparisons().keep(key, comparison)


def oracle_report_of(reader: TraceReader) -> OracleReport | None:
    """What the oracle says of the whole trace; None where a record cannot be read, see ``damage_of``, and where the
    trace is large, and nobody has asked for it yet."""
    answer = _asked_oracle(reader)
    return answer if isinstance(answer, OracleReport) else None


def damage_of(reader: TraceReader) -> Damage | None:
    """The first record that cannot be read, as far as it was looked for."""
    answer = _asked_oracle(reader)
    return answer if isinstance(answer, Damage) else None


def _asked_oracle(reader: TraceReader) -> OracleReport | Damage | None:
    if not _may_read(reader):
        return None
    key = (reader.path, reader.index.stamp)
    kept = _reports().get(key)
    if kept is not None:
        return kept
    with reading("check", _num_bytes(reader)) as watch:
        try:
            return _reports().keep(key, check_trace(as_typed(reader.path), watch=watch))
        except TraceError as error:
            return _reports().keep(key, Damage.of(reader, error))


def seconds_to_read(*readers: TraceReader) -> float | None:
    """About how long it takes to read these traces as a whole; None where they are read without asking."""
    if _may_read(*readers):
        return None
    return seconds_for("check" if len(readers) == 1 else "compare", _num_bytes(*readers))


def allow_reading(*readers: TraceReader) -> None:
    """The user asked for it."""
    for reader in readers:
        st.session_state.setdefault("read_whole", set()).add(reader.index.stamp)


def _may_read(*readers: TraceReader) -> bool:
    asked = st.session_state.get("read_whole", set())
    sizes = [0 if reader.index.stamp in asked else reader.content.stat().st_size for reader in readers]
    return sum(sizes) <= LARGE_BYTES


@contextlib.contextmanager
def open_run(arguments: Arguments, name: str | None) -> Iterator[TraceReader]:
    """Reads the run of that name, with the index that was used before where its file has not changed: it is not read
    from disk, nor built where the folder takes none, at every rerun.

    Raises:
        UsageError: where it has vanished.
        TraceError: where it cannot be read.
    """
    path = run_named(arguments, name).path
    with TraceReader(path) as reader:
        indexes = _indexes()
        kept = indexes.get(path)
        if kept is not None:
            reader.adopt_index(kept)
        is_new = kept is None and path.stat().st_size > LARGE_BYTES and not has_index(path)
        with st.spinner("Reading the trace for the first time") if is_new else contextlib.nullcontext():
            indexes.keep(path, reader.index)
        yield reader


@st.cache_resource(show_spinner=False)
def _indexes() -> Kept[Path, TraceIndex]:
    """The indexes that were used last, by file."""
    return Kept(MOST_INDEXES)


class OpenPair(NamedTuple):
    """Two runs that were compared, one of which is looked at."""

    baseline: TraceReader
    candidate: TraceReader
    comparison: Comparison
    side: Side  # the one that is looked at

    @property
    def partner(self) -> TraceReader:
        """The other one."""
        return self.candidate if self.side == "a" else self.baseline


@contextlib.contextmanager
def open_pair(arguments: Arguments, view: View, reader: TraceReader) -> Iterator[OpenPair | None]:
    """The pair that the run of ``view``, which ``reader`` reads, belongs to; None where it belongs to none, where a
    record of one cannot be read, or where the two are large and nobody has asked to compare them."""
    side: Side = "a" if view.run == view.baseline else "b"
    other = view.candidate if side == "a" else view.baseline
    if other is None or view.run not in (view.baseline, view.candidate):
        yield None
        return
    with open_run(arguments, other) as partner:
        if damage_of(reader) is not None or damage_of(partner) is not None:
            yield None
            return
        baseline, candidate = (reader, partner) if side == "a" else (partner, reader)
        comparison = comparison_of(baseline, candidate, view.allow)
        yield None if comparison is None else OpenPair(baseline, candidate, comparison, side)


def states_of(reader: TraceReader, pair: OpenPair | None) -> RunStates:
    """The states of all steps of the run that ``reader`` reads; of a pair, with the outcome of the comparison."""
    report = oracle_report_of(reader)
    stamp = reader.index.stamp
    if pair is None:
        sources = _Sources(reader.turns, report, None)
        return _states(reader.path, (stamp, None), (report is not None, False), sources)
    other_report = oracle_report_of(pair.partner)
    partner = Partner(pair.comparison, pair.side, pair.partner.turns, other_report)
    checked = (report is not None, other_report is not None)
    return _states(
        reader.path,
        (stamp, f"{pair.side} {pair.partner.index.stamp} {pair.comparison.verdict.axis}"),
        checked,
        _Sources(reader.turns, report, partner),
    )


class _Sources(NamedTuple):
    """What is known of a run, and of the run that it was compared with."""

    turns: list[TurnEntry]
    report: OracleReport | None
    partner: Partner | None


@st.cache_resource(show_spinner=False, max_entries=8, hash_funcs=HASHED)
def _states(
    trace: Path, stamps: tuple[str, str | None], are_checked: tuple[bool, bool], _sources: _Sources
) -> RunStates:
    """Kept by all that ``_sources`` was made from: both files, the side, and whether each run was checked."""
    return RunStates(*_sources)
