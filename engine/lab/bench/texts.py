"""Text without end: the token ids of all prompts, one after another, to begin rows of any length with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, cycle, islice

import xxhash

from specscope.engine.run.conversation import Conversation
from specscope.engine.run.prompts import Prompt
from specscope.engine.teacher.model import Teacher


class EndlessText:
    """The ids of ``prompts`` as ``teacher`` reads them, over and over."""

    def __init__(self, prompts: Sequence[Prompt], teacher: Teacher) -> None:
        conversations = (Conversation(teacher.tokenizer, prompt) for prompt in prompts)
        ids = list(chain.from_iterable(talk.context(0, [], []) for talk in conversations))
        self._ids = cycle(ids)
        self._hash = xxhash.xxh3_128()

    def take(self, count: int) -> list[int]:
        """The next ``count``."""
        taken = list(islice(self._ids, count))
        self._hash.update(repr(taken).encode())
        return taken

    @property
    def digest(self) -> str:
        """Of all that was taken."""
        return self._hash.hexdigest()
