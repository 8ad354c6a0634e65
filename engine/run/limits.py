"""The limits of what a run may be asked for. Imports nothing heavy, so that a mistake is answered at once."""

from __future__ import annotations

from collections.abc import Iterable

from specscope.tracer.errors import UsageError

MAX_BATCH_SIZE = 1024


def check_limits(*, max_new_tokens: int, batch_size: int, stop_strings: Iterable[str]) -> None:
    """Refuses numbers out of range, and a stop string that every text contains.

    Raises:
        UsageError: for the first of them.
    """
    if max_new_tokens < 1:
        raise UsageError(f"got {max_new_tokens} new tokens, wanted at least 1")
    if not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise UsageError(f"got batch size {batch_size}, wanted 1 to {MAX_BATCH_SIZE}")
    if "" in stop_strings:
        raise UsageError("got an empty stop string, which every text contains: leave it out")
