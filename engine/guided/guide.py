"""A guide: where a turn is in its grammar, and what may come next. It goes forward with tokens and back again.

Knows no torch. Letters: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from specscope.tracer.errors import EngineError

GOES_NOWHERE = "NoExtension"  # how the library begins what it says where nothing can follow


class GuideState(NamedTuple):
    """All that a guide shows of where it stands: two that differ in it stand at different places."""

    position: int  # tokens of the turn that it has taken in
    digest: str  # xxh3_64 over the tokens allowed next, the position, and whether the text may end or has ended


@dataclass
class _Place:
    """A place in the grammar: the library's matcher there, which never moves on, and the places around it."""

    matcher: Any
    allowed: NDArray[np.bool_] | None = None  # (V,) what may come next, once somebody asked
    behind: dict[int, _Place | None] = field(default_factory=dict)  # by token, those that were tried; None: forbidden

    def after(self, token: int) -> _Place | None:
        """The place after ``token``; None where that is forbidden."""
        if token not in self.behind:
            matcher = self.matcher.deep_copy()
            self.behind[token] = _Place(matcher) if matcher.try_consume_tokens([token]) == 1 else None
            _check(matcher)
        return self.behind[token]


class Guide:
    """One turn's place in its grammar.

    A text ends with one of the teacher's end-of-text tokens, which is allowed where the grammar is complete. What comes
    after it is none of the grammar's business: nothing is allowed there.

    The library can take tokens back by itself, and then gives wrong masks after the next token, though not at once
    (1.7 and 1.9: mask, take back, token, mask). So no matcher ever goes back: each place has its own, a copy that took
    one token more, and going back is going to the place before.

    Args:
        matcher: the library's, at the beginning.
        vocab_size: width of the teacher's logits.
        eos_token_ids: the teacher's end-of-text tokens.
    """

    def __init__(self, matcher: Any, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        self._vocab_size, self._eos_token_ids = vocab_size, eos_token_ids
        self._places = [_Place(matcher)]  # from where it was settled to where it is
        self._ended_at: int | None = None  # the position of the end-of-text token, which no matcher is told of
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
        else:
            place = self._places[-1].after(token)
            if place is None:
                return False
            self._places.append(place)
        self.position += 1
        return True

    def take_all(self, tokens: Sequence[int]) -> int:
        """Goes forward as far as ``tokens`` are allowed; by how many of them."""
        for count, token in enumerate(tokens):
            if not self.take(token):
                return count
        return len(tokens)

    def back(self, count: int) -> None:
        """Goes back before the last ``count`` tokens; never to before where it was settled."""
        left = count
        if self._ended_at is not None and self.position - count <= self._ended_at:
            self._ended_at, left = None, count - 1
        if left >= len(self._places):
            raise ValueError(f"got {count} tokens to take back, wanted at most those since it was settled")
        del self._places[len(self._places) - left :]
        self.position -= count

    def settle(self) -> None:
        """Makes where it is the place that it is not taken back behind, and forgets all others."""
        last = self._places[-1]
        self._places = [_Place(last.matcher, last.allowed)]

    def allowed(self) -> NDArray[np.bool_]:
        """(V,) what may come next, not to be written to; nothing where the text has ended, or the grammar goes nowhere
        from here."""
        if self.has_ended:
            return np.zeros(self._vocab_size, dtype=np.bool_)
        place = self._places[-1]
        if place.allowed is None:
            place.allowed = self._allowed_by(place.matcher)
            place.allowed.flags.writeable = False
        return place.allowed

    def _allowed_by(self, matcher: Any) -> NDArray[np.bool_]:
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        if not matcher.is_accepting():
            if matcher.is_stopped():
                _check(matcher)
            # The library allows the end of text where it can go no further, and where a grammar names it in its midst.
            allowed[[token for token in self._eos_token_ids if token < self._vocab_size]] = False
        return allowed

    def allowed_after(self, path: Sequence[int]) -> NDArray[np.bool_] | None:
        """(V,) what may come after ``path``; None where the path itself is forbidden, or nothing may follow. The guide
        stays where it is."""
        taken = self.take_all(path)
        allowed = self.allowed() if taken == len(path) else None
        if taken:
            self.back(taken)
        return None if allowed is None or not allowed.any() else allowed

    def state(self) -> GuideState:
        """Where it stands."""
        digest = xxhash.xxh3_64(digested_bits(self.allowed()))
        is_complete = not self.has_ended and bool(self._places[-1].matcher.is_accepting())
        digest.update(f"{self.position} {self.has_ended} {is_complete}".encode())
        return GuideState(self.position, digest.hexdigest())


def _check(matcher: Any) -> None:
    """Raises where the library has given up, as it does on a grammar that is too large for its limits."""
    reason = " ".join(str(matcher.get_error()).split("<state>")[0].split())
    if reason and not reason.startswith(GOES_NOWHERE):
        raise EngineError(f"the grammar cannot be followed any further: {reason}")


def digested_bits(allowed: NDArray[np.bool_]) -> bytes:
    """(V,) or (1, V) as the bytes that a digest of a mask is over: a bit a token, lowest first."""
    return np.packbits(allowed, bitorder="little").tobytes()


def mask_digest(allowed: NDArray[np.bool_]) -> str:
    """xxh3_64 of what is ``allowed`` (V,)."""
    return xxhash.xxh3_64_hexdigest(digested_bits(allowed))
