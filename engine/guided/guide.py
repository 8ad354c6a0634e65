"""A guide: where a turn stands in its grammar, and what may come next. It goes forward with tokens and back again.

Knows no torch. Letters: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from specscope.tracer.errors import EngineError


class GuideState(NamedTuple):
    """All that a guide shows of where it stands: two that differ in it stand at different places."""

    position: int  # tokens of the turn that it has taken in
    digest: str  # xxh3_64 over the tokens allowed next, the position, and whether the text may end or has ended


class Guide:
    """One turn's place in its grammar.

    A text ends with one of the teacher's end-of-text tokens, which is allowed where the grammar is complete. What comes
    behind it is none of the grammar's business: nothing is allowed there.

    Args:
        matcher: the library's, at the beginning.
        vocab_size: width of the teacher's logits.
        eos_token_ids: the teacher's end-of-text tokens.
    """

    def __init__(self, matcher: Any, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        self._matcher, self._vocab_size, self._eos_token_ids = matcher, vocab_size, eos_token_ids
        self._ended_at: int | None = None  # the position of the end-of-text token; the matcher is not told of it
        self.position = 0

    @property
    def has_ended(self) -> bool:
        """Whether an end-of-text token was taken in."""
        return self._ended_at is not None

    def take(self, token: int) -> bool:
        """Goes forward by ``token`` where that is allowed; else stays, and says so."""
        if self.has_ended or not 0 <= token < self._vocab_size:
            return False
        if token in self._eos_token_ids:
            if not self.allowed()[token]:
                return False
            self._ended_at = self.position
        elif self._matcher.try_consume_tokens([token]) != 1:
            self._check()
            return False
        self.position += 1
        return True

    def take_all(self, tokens: Sequence[int]) -> int:
        """Goes forward as far as ``tokens`` are allowed; by how many of them."""
        for count, token in enumerate(tokens):
            if not self.take(token):
                return count
        return len(tokens)

    def back(self, count: int) -> None:
        """Takes the last ``count`` tokens back."""
        matched = count
        if self._ended_at is not None and self.position - count <= self._ended_at:
            self._ended_at, matched = None, count - 1
        if matched and not self._matcher.rollback(matched):
            self._check()
        self.position -= count

    def allowed(self) -> NDArray[np.bool_]:
        """(V,) what may come next; nothing where the text has ended, or the grammar goes nowhere from here."""
        if self.has_ended:
            return np.zeros(self._vocab_size, dtype=np.bool_)
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        if self._matcher.is_stopped() and not self._matcher.is_accepting():
            allowed[:] = False  # the library allows the end of text there, though no text is complete
        return allowed

    def allowed_after(self, path: Sequence[int]) -> NDArray[np.bool_] | None:
        """(V,) what may come behind ``path``; None where the path itself is forbidden, or nothing may follow. The guide
        stays where it is."""
        taken = self.take_all(path)
        allowed = self.allowed() if taken == len(path) else None
        if taken:
            self.back(taken)
        return None if allowed is None or not allowed.any() else allowed

    def state(self) -> GuideState:
        """Where it stands."""
        digest = xxhash.xxh3_64(digested_bits(self.allowed()))
        is_complete = not self.has_ended and bool(self._matcher.is_accepting())
        digest.update(f"{self.position} {self.has_ended} {is_complete}".encode())
        return GuideState(self.position, digest.hexdigest())

    def _check(self) -> None:
        """Raises where the library has given up, as it does on a grammar that is too large for its limits."""
        if self._matcher.is_error():
            reason = " ".join(str(self._matcher.get_error()).split("<state>")[0].split())
            raise EngineError(f"the grammar cannot be followed any further, after {self.position} tokens: {reason}")


def digested_bits(allowed: NDArray[np.bool_]) -> bytes:
    """(V,) or (1, V) as the bytes that a digest of a mask is over: a bit a token, lowest first."""
    return np.packbits(allowed, bitorder="little").tobytes()


def mask_digest(allowed: NDArray[np.bool_]) -> str:
    """xxh3_64 of what is ``allowed`` (V,)."""
    return xxhash.xxh3_64_hexdigest(digested_bits(allowed))
