"""What token ids look like. Texts come from the trace itself (``--trace-text``) or from a tokenizer file."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from specscope.schemas import Step
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.text import visible


class _Tokenizer(Protocol):
    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str: ...


class TokenTexts:
    """Text by token id, safe to show; ids without a text appear as ``#id``."""

    def __init__(self, tokenizer: _Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._recorded: dict[int, str] = {}
        self.redacted = False  # whether ids of a redacted trace are shown, which no tokenizer knows
        self._visible: dict[int, str] = {}  # what was shown before; a step shows the same few tokens many times

    @classmethod
    def load(cls, path: Path | None) -> TokenTexts:
        """Reads ``tokenizer.json``, given as a file or its folder; None gives only ids.

        Raises:
            UsageError: where there is no readable tokenizer, or the library to read it is not installed.
        """
        if path is None:
            return cls(None)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise UsageError(f"no tokenizer at {file}: give a tokenizer.json or the folder that holds it")
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise UsageError("reading a tokenizer needs the tokenizers library: pip install tokenizers") from None
        try:
            return cls(Tokenizer.from_file(str(file)))
        except Exception as error:  # the library raises bare Exception
            raise UsageError(f"cannot read the tokenizer {file}: {error}") from None

    @classmethod
    def load_for(cls, path: Path | None, *traces: Path) -> TokenTexts:
        """As ``load``, for ids that stand in ``traces``.

        Raises:
            UsageError: as ``load`` does, and where a tokenizer is given for a redacted trace.
            TraceError: where a trace cannot be read.
        """
        for trace in traces if path is not None else ():
            with TraceReader(trace) as reader:
                if reader.manifest.redaction is not None:
                    raise UsageError(f"{trace} is redacted: its token ids have no text; leave the tokenizer out")
        return cls.load(path)

    def learn(self, step: Step) -> None:
        """Takes in the texts that the step itself carries."""
        for token, text in (step.texts or {}).items():
            if token.isascii() and token.isdecimal() and len(token) < 12 and self._recorded.get(int(token)) != text:
                self._recorded[int(token)] = text
                self._visible.pop(int(token), None)

    def has_text(self, token: int) -> bool:
        """Whether ``shown`` has more to say of it than its id."""
        return self.shown(token) != f"#{token}"

    def shown(self, token: int) -> str:
        """The visible text of one token."""
        text = self._visible.get(token)
        if text is None:
            text = self._visible[token] = self._made_visible(token)
        return text

    def _made_visible(self, token: int) -> str:
        if token in self._recorded:
            return visible(self._recorded[token])
        if self._tokenizer is None or token < 0:
            return f"#{token}"
        try:
            return visible(self._tokenizer.decode([token], skip_special_tokens=False)) or f"#{token}"
        except (OverflowError, TypeError):
            return f"#{token}"

    def joined(self, tokens: list[int]) -> str:
        """The visible texts of several tokens, run together."""
        separator = "" if self._tokenizer is not None or self._recorded else " "
        return separator.join(self.shown(token) for token in tokens)
