"""Which values of a difference name tokens or nodes; kept as numbers beside the words, so that texts can be shown."""

from __future__ import annotations

import re
from typing import Any

#: Fields whose value is one token id.
ONE_TOKEN = frozenset({"exit_token", "argmax", "bonus_token", "prefill.pending_token", "token_ids", "trials", "child"})
#: Fields whose value is a list of token ids.
MANY_TOKENS = frozenset({"path", "emitted", "inputs.tokens", "tokens[0]"})
#: Fields that list what one side alone has, as path keys.
ONLY_ON_ONE_SIDE = re.compile(r"levels\[\d+\]\.(tokens|frontier)|nodes")
#: Fields whose value is a list of path keys; an entry that is no node is a number: a slot, or a row.
MANY_NODES = re.compile(r"levels\[\d+\]\.(tokens|frontier)|nodes|source_slots|inputs\.source_rows")
MOST_KEPT = 256  # entries; what a card shows is far less

_TOKEN_IN_WORDS = re.compile(r"token (\d{1,9})")


def tokens_of(field: str, value: Any) -> list[int | list[int]] | None:
    """The token ids, or the nodes by path key, that ``value`` of ``field`` names; None where it names none."""
    if field in ONE_TOKEN:
        return _one_token(value)
    if field == "parents" and _are_ids(value):
        return [value]
    if field in MANY_TOKENS and _are_ids(value):
        return list(value[:MOST_KEPT])
    if MANY_NODES.fullmatch(field) and isinstance(value, list):
        kept = value[:MOST_KEPT]
        return kept if all(_are_ids(entry) or type(entry) is int for entry in kept) else None
    return None


def _one_token(value: Any) -> list[int | list[int]] | None:
    if type(value) is int:
        return [value]
    match = _TOKEN_IN_WORDS.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else [int(match.group(1))]


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(entry) is int for entry in value)
