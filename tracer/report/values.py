"""The values of a difference for people: token ids by their texts, nodes by their paths, and no empty list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from specscope.schemas.verdict import Difference, Root, Side
from specscope.tracer.compare.token_values import MANY_NODES, ONLY_ON_ONE_SIDE
from specscope.tracer.naming.text import legible, path_text
from specscope.tracer.naming.tokens import TokenTexts

SHOWN = 12  # tokens or nodes of one value
NOTHING = "nothing"


class SideTexts(NamedTuple):
    """The token texts of both runs; what one of them lacks, the other may know."""

    a: TokenTexts
    b: TokenTexts

    def shown(self, token: int, side: Side = "b") -> str:
        """The text of ``token`` by its own side, else by the other, else its id."""
        side_texts, other = (self.a, self.b) if side == "a" else (self.b, self.a)
        known = side_texts if side_texts.has_text(token) or not other.has_text(token) else other
        return legible(known.shown(token))

    def has_text(self, token: int) -> bool:
        """Whether either side knows what ``token`` looks like."""
        return self.a.has_text(token) or self.b.has_text(token)


class ValueNames(NamedTuple):
    """What the two values of a root are called."""

    a: str
    b: str


def value_names(root: Root) -> ValueNames:
    """Their sides; where all numbers drift, the values are a bound, and what was measured between the sides."""
    return ValueNames("baseline", "candidate") if root.drift is None else ValueNames("wanted", "found")


def same_texts(texts: TokenTexts) -> SideTexts:
    """``texts`` for both sides."""
    return SideTexts(texts, texts)


def node_text(node: list[int], texts: SideTexts, side: Side = "b", arrow: str = " > ") -> str:
    """A path key for people."""
    return path_text([texts.shown(token, side) for token in node], arrow) or "root"


def value_text(difference: Difference, side: Side, texts: SideTexts, *, with_ids: bool = True) -> str:
    """One side's value; ``with_ids`` keeps the ids beside the texts of tokens."""
    value, tokens = (difference.a, difference.tokens_a) if side == "a" else (difference.b, difference.tokens_b)
    if tokens is None:
        return NOTHING if value == "[]" else value
    if difference.field == "mask":
        return f"also sees {_nodes(tokens, texts, side, 'padding')}" if tokens else "sees nothing else"
    if ONLY_ON_ONE_SIDE.fullmatch(difference.field):
        return f"only here: {_nodes(tokens, texts, side, 'slot')}" if tokens else NOTHING
    if difference.field == "parents" or MANY_NODES.fullmatch(difference.field):
        return _nodes(tokens, texts, side, "row" if difference.field == "inputs.source_rows" else "slot") or NOTHING
    return _tokens([token for token in tokens if isinstance(token, int)], texts, side, with_ids) or NOTHING


def ids_of(difference: Difference) -> Iterator[int]:
    """Every token id that the words of a difference name."""
    yield from difference.node or ()
    numbers_are_tokens = difference.field != "mask" and MANY_NODES.fullmatch(difference.field) is None
    for entry in [*(difference.tokens_a or ())[:SHOWN], *(difference.tokens_b or ())[:SHOWN]]:
        if isinstance(entry, list):
            yield from entry
        elif numbers_are_tokens:
            yield entry


def _nodes(nodes: list[int | list[int]], texts: SideTexts, side: Side, number: str) -> str:
    """Nodes by path; an entry that is not one is a ``number``."""
    words = [node_text(node, texts, side) if isinstance(node, list) else f"{number} {node}" for node in nodes[:SHOWN]]
    return ", ".join(words) + _more(len(nodes))


def _tokens(tokens: list[int], texts: SideTexts, side: Side, with_ids: bool) -> str:
    shown = " ".join(texts.shown(token, side) for token in tokens[:SHOWN]) + _more(len(tokens))
    if not (with_ids and any(texts.has_text(token) for token in tokens[:SHOWN])):
        return shown
    word = "id" if len(tokens) == 1 else "ids"
    return f"{shown}  ({word} {', '.join(map(str, tokens[:SHOWN]))})"


def _more(count: int) -> str:
    return f" and {count - SHOWN} more" if count > SHOWN else ""
