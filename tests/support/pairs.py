"""Two traces side by side: what tests of their drawings share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from specscope.schemas import Step
from specscope.tracer.compare.diff import Comparison, compare_traces
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.board import Board
from specscope.viewer.drawing.marks import NodeMarks
from specscope.viewer.drawing.markup import NOTHING
from specscope.viewer.drawing.pair.board import Front, pair_board
from specscope.viewer.drawing.pair.sides import PairSide, PairSides
from specscope.viewer.pairs.looks import LookedAt, PairRun, look_at
from specscope.viewer.pairs.states import Spot

SVG = "{http://www.w3.org/2000/svg}"
XHTML = "{http://www.w3.org/1999/xhtml}"


@dataclass(frozen=True)
class Pair:
    """Two traces, compared and open."""

    comparison: Comparison
    a: PairRun
    b: PairRun

    def at(self, turn: int, step: int) -> LookedAt:
        """What stands at a step of the baseline."""
        return look_at(self.a, self.b, self.comparison, Spot(turn, step))

    def all(self) -> Iterator[LookedAt]:
        """What stands at every step of the baseline."""
        for entry in self.a.reader.turns:
            for step in range(len(entry.steps)):
                yield look_at(self.a, self.b, self.comparison, Spot(entry.turn, step))


@contextmanager
def opened(a: Path, b: Path) -> Iterator[Pair]:
    with TraceReader(a) as first, TraceReader(b) as second:
        runs = [PairRun(reader, TokenTexts(None), reader.path.name) for reader in (first, second)]
        yield Pair(compare_traces(a, b), *runs)


def board_at(pair: Pair, turn: int, step: int) -> Board:
    return pair_board(Front(), pair.at(turn, step).look, strip=NOTHING)


def parsed(board: Board) -> ElementTree.Element:
    """The board, which must hold nothing that runs or fetches, and say no less of a node than it draws."""
    root = ElementTree.fromstring(board.html)
    notes = [ElementTree.fromstring(note) for note in board.notes.values()]
    for element in [*root.iter(), *(inner for note in notes for inner in note.iter())]:
        assert element.tag.startswith((SVG, XHTML))
        assert element.tag.rpartition("}")[2] not in ("script", "iframe", "img", "link", "a")
        assert not [name for name in element.attrib if name.startswith("on") or "href" in name or name == "src"]
    named = {element.get("data-node") for element in root.iter()} - {None, ""}
    assert named <= set(board.notes)
    return root


def words_of(element: ElementTree.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def sides_of(a: Step, b: Step, *, marked: frozenset[int] = frozenset(), origin: int | None = None) -> PairSides:
    """Two steps of the same tree with the same slots."""
    texts = TokenTexts(None)
    for step in (a, b):
        texts.learn(step)
    marks = NodeMarks(divergent=marked, origin=origin, names=tuple(f"a{slot}" for slot in range(7)))
    return PairSides(PairSide(a, texts, marks), PairSide(b, texts, marks))


def with_section(step: Step, name: str, **changes: object) -> Step:
    section = getattr(step, name)
    return step.model_copy(update={name: section.model_copy(update=changes)})
