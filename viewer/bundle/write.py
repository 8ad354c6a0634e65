"""Writes a bundle: reads one run or two, draws every step, and writes the files of the site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from specscope.tracer.compare.diff import DiffOptions, compare_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import counted, shorten, visible
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.invariants.base import Context
from specscope.tracer.report.card import leading_root
from specscope.tracer.report.values import SideTexts
from specscope.viewer.bundle.site import BundledTurn, RootPlace, site_page, site_script, turn_entry, turn_script
from specscope.viewer.drawing.board import Board, card
from specscope.viewer.drawing.markup import NOTHING
from specscope.viewer.drawing.pair.board import Front, pair_board
from specscope.viewer.drawing.step.board import step_board
from specscope.viewer.drawing.svg.strip import draw_strip, strip_key
from specscope.viewer.drawing.tables.verdict_card import proof, root_list, verdict_card
from specscope.viewer.pairs.looks import PairRun, look_at
from specscope.viewer.pairs.states import Partner, RunStates, Spot
from specscope.viewer.runs.judge import judged_step
from specscope.viewer.runs.tokenizers import known_tokenizer

#: Steps that are drawn, at most: whole turns from the first on.
MOST_STEPS = 1_000

DrawTurn = Callable[[TurnEntry], list[Board]]


class Bundled(NamedTuple):
    """What was written."""

    num_steps: int
    num_left_out: int
    num_bytes: int


def write_bundle(
    folder: Path, files: list[Path], *, tokenizer: Path | None = None, allow: tuple[str, ...] = ()
) -> Bundled:
    """Writes the site of one trace, or of a baseline and a candidate, into ``folder``.

    Raises:
        UsageError: where ``folder`` exists and is not empty, or there are not one or two files.
        TraceError: where a trace cannot be read.
    """
    if len(files) not in (1, 2):
        raise UsageError(f"got --bundle and {len(files)} files, wanted one, or the two of a diff")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} already exists and is not an empty folder: name another one")
    with TraceReader(files[0]) as reader:
        if len(files) == 1:
            return _write(folder, reader, _run_turns(reader, tokenizer), [])
        with TraceReader(files[1]) as candidate:
            pair = _Pair(reader, candidate, tokenizer, allow)
            return _write(folder, reader, pair.turns(), pair.roots, beside=candidate.path.name)


def _write(
    folder: Path, reader: TraceReader, turns: Iterator[BundledTurn], roots: list[RootPlace], beside: str = ""
) -> Bundled:
    (folder / "data").mkdir(parents=True)
    entries, num_bytes = [], 0
    for turn in turns:
        text = turn_script(turn)
        num_bytes += len(text)
        (folder / "data" / f"{turn.turn}.js").write_text(text, encoding="utf-8")
        entries.append(turn_entry(turn))
    name = f"{reader.path.name} | {beside}" if beside else reader.path.name
    page, script = site_page(name, entries, roots), site_script()
    (folder / "index.html").write_text(page, encoding="utf-8")
    (folder / "bundle.js").write_text(script, encoding="utf-8")
    drawn = sum(entry["size"] for entry in entries)
    total = sum(len(turn.steps) for turn in reader.turns)
    return Bundled(drawn, total - drawn, num_bytes + len(page.encode()) + len(script.encode()))


def _texts(tokenizer: Path | None, reader: TraceReader) -> TokenTexts:
    return TokenTexts.load_for(tokenizer or known_tokenizer(reader.manifest, reader.path), reader.path)


def _chosen(reader: TraceReader) -> Iterator[TurnEntry]:
    """Whole turns from the first on, as many as fit."""
    left = MOST_STEPS
    for number, turn in enumerate(reader.turns):
        if number and len(turn.steps) > left:
            return
        left -= len(turn.steps)
        yield turn


def _bundled(turn: TurnEntry, states: RunStates, draw: DrawTurn) -> BundledTurn:
    name = f"{turn.turn} · {shorten(visible(turn.prompt_id), 40)} · {counted(len(turn.steps), 'step')}"
    stops = [spot.step for spot in states.stops if spot.turn == turn.turn]
    return BundledTurn(turn.turn, name, draw_strip(states.of_turn(turn.turn)), boards=draw(turn), stops=stops)


def _run_turns(reader: TraceReader, tokenizer: Path | None) -> Iterator[BundledTurn]:
    texts = _texts(tokenizer, reader)
    states = RunStates(reader.turns, check_trace(reader.path))

    def draw(turn: TurnEntry) -> list[Board]:
        boards, previous = [], None
        for step in list(reader.steps(turn))[:MOST_STEPS]:
            texts.learn(step)
            context = Context(manifest=reader.manifest, turn=reader.turn_start(turn), previous=previous, step=step)
            boards.append(step_board(judged_step(context, texts), strip=NOTHING))
            previous = step
        return boards

    return (_bundled(turn, states, draw) for turn in _chosen(reader))


class _Pair:
    """A baseline and a candidate, and their comparison."""

    def __init__(self, a: TraceReader, b: TraceReader, tokenizer: Path | None, allow: tuple[str, ...]) -> None:
        self._comparison = compare_traces(a.path, b.path, DiffOptions(allowed=frozenset(allow)))
        verdict = self._comparison.verdict
        if verdict.incomparable:
            fields = ", ".join(visible(line) for line in verdict.incomparable)
            raise UsageError(f"these two were not meant to be equal: {fields}; --allow FIELD lets a field differ")
        self._runs = tuple(PairRun(reader, _texts(tokenizer, reader), visible(reader.path.name)) for reader in (a, b))
        partner = Partner(self._comparison, "a", b.turns, check_trace(b.path))
        self._states = RunStates(a.turns, check_trace(a.path), partner)
        self.roots = [RootPlace(root.place.turn, root.place.step_a) for root in verdict.roots]

    def turns(self) -> Iterator[BundledTurn]:
        """The baseline's turns, a board for each of its steps."""
        return (_bundled(turn, self._states, self._draw) for turn in _chosen(self._runs[0].reader))

    def _draw(self, turn: TurnEntry) -> list[Board]:
        return [self._board(Spot(turn.turn, step)) for step in range(min(len(turn.steps), MOST_STEPS))]

    def _board(self, spot: Spot) -> Board:
        a, b = self._runs
        here = look_at(a, b, self._comparison, spot)
        verdict = self._comparison.verdict
        root = verdict.roots[here.root] if here.root is not None else leading_root(verdict)
        listed = root_list(verdict, root) if verdict.roots else NOTHING
        shown = verdict_card(verdict, root, SideTexts(a.texts, b.texts), below=listed)
        aside = card("proof", "What was compared", "", proof(verdict, a.reader.manifest))
        key = strip_key(self._states.of_turn(spot.turn))
        return pair_board(Front(card=shown, aside=aside, key=key), here.look, strip=NOTHING)
