"""A grammar, compiled for a teacher's tokens: what every turn of guided decoding begins with. Knows no torch.

Grammars are read by llguidance, an optional library. It is loaded here and nowhere else.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import xxhash

from specscope.engine.guided.guide import Guide
from specscope.engine.settings import GrammarChoice
from specscope.schemas import Grammar as GrammarManifest
from specscope.tracer.errors import UsageError

LIBRARY = "llguidance"
TESTED = ((1, 9), (1, 9))  # first and last minor version that the tests ran with
LONGEST_REASON = 300  # characters of what the library says of a grammar


@dataclass(frozen=True)
class TokenTable:
    """A teacher's tokens: the texts that a grammar is matched against."""

    tokenizer_json: str = field(repr=False)  # as the tokenizers library writes it
    vocab_size: int  # width of the teacher's logits; ids that no text belongs to are never allowed
    eos_token_ids: tuple[int, ...]  # allowed where the text may end


class Grammar:
    """One grammar over one teacher's tokens.

    Args:
        choice: its kind and its text.
        tokens: the teacher's.

    Raises:
        UsageError: where the library is missing, or the text is no grammar, or one that allows no text at all.
    """

    def __init__(self, choice: GrammarChoice, tokens: TokenTable) -> None:
        library = load_library()
        self._choice, self._tokens, self._new_matcher = choice, tokens, library.LLMatcher
        self._source = _source(choice, library)
        width = max(tokens.vocab_size, _num_known(tokens.tokenizer_json))
        ends = [token for token in tokens.eos_token_ids if token < width]
        try:
            self._tokenizer = library.LLTokenizer(tokens.tokenizer_json, n_vocab=width, eos_token=ends)
        except ValueError as error:
            raise UsageError(f"{LIBRARY} cannot read the teacher's tokenizer: {error}") from None
        _refuse_invalid(choice, library.LLMatcher.validate_grammar_with_warnings(self._source, self._tokenizer))
        if not self.guide().allowed().any():
            raise UsageError(f"the {choice.kind} allows no text of this teacher's tokens, not even an empty one")

    def guide(self) -> Guide:
        """A guide at the beginning of a turn."""
        matcher = self._new_matcher(self._tokenizer, self._source, log_level=0)
        return Guide(matcher, self._tokens.vocab_size, frozenset(self._tokens.eos_token_ids))

    def manifest(self) -> GrammarManifest:
        """What the trace says of it: not its text, which may be private or long."""
        digest = xxhash.xxh3_128_hexdigest(self._choice.text.encode())
        return GrammarManifest(kind=self._choice.kind, digest=digest, library=LIBRARY)


@lru_cache(maxsize=4)
def compiled(choice: GrammarChoice, tokens: TokenTable) -> Grammar:
    """The grammar, compiled once: of a large vocabulary that takes about a second.

    Raises:
        UsageError: as ``Grammar`` does.
    """
    return Grammar(choice, tokens)


def check_grammar(choice: GrammarChoice) -> None:
    """Refuses what is no grammar of its kind, before a model is loaded.

    Raises:
        UsageError: with what the library says of it.
    """
    library = load_library()
    _refuse_invalid(choice, library.LLMatcher.validate_grammar_with_warnings(_source(choice, library), None))


def is_installed() -> bool:
    """Whether a version of the library that was tested is there."""
    try:
        load_library()
    except UsageError:
        return False
    return True


def load_library() -> Any:
    """The library.

    Raises:
        UsageError: where it is not installed, or of a version that was never tried.
    """
    first, last = (f"{major}.{minor}" for major, minor in TESTED)
    try:
        installed = version(LIBRARY)
    except PackageNotFoundError:
        raise UsageError(
            f"guided decoding needs {LIBRARY}, which is not installed: pip install 'specscope[guided]'"
        ) from None
    release = re.match(r"(\d+)\.(\d+)", installed)
    if release is None or not TESTED[0] <= (int(release[1]), int(release[2])) <= TESTED[1]:
        raise UsageError(f"got {LIBRARY} {installed}, wanted {first} to {last}: pip install 'specscope[guided]'")
    return import_module(LIBRARY)


def _num_known(tokenizer_json: str) -> int:
    """One more than the highest id that the tokenizer has a text for."""
    stated = json.loads(tokenizer_json)
    vocab = stated.get("model", {}).get("vocab", {})
    ids = [*vocab.values()] if isinstance(vocab, dict) else [len(vocab) - 1]
    return 1 + max([*ids, *(token["id"] for token in stated.get("added_tokens", []))], default=-1)


def _source(choice: GrammarChoice, library: Any) -> str:
    """The text as the library wants it."""
    try:
        choice.text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the {choice.kind} is no text: it holds a lone surrogate or bytes outside UTF-8") from None
    if choice.kind == "regex":
        return str(library.LLMatcher.grammar_from_regex(choice.text))
    if choice.kind == "lark":
        return str(library.LLMatcher.grammar_from_lark(choice.text))
    try:
        json.loads(choice.text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the JSON schema is not JSON: {error}") from None
    return str(library.LLMatcher.grammar_from_json_schema(choice.text))


def _refuse_invalid(choice: GrammarChoice, verdict: tuple[bool, list[str]]) -> None:
    is_error, says = verdict
    if is_error:
        reason = " ".join(" ".join(says).split())[:LONGEST_REASON]
        raise UsageError(f"the {choice.kind} is not one that {LIBRARY} can follow: {reason}")
