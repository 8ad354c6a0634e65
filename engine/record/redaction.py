"""Traces without their text: every token id replaced by another one, by a permutation that only the key's owner knows.

The ids stay ids of the vocabulary, each its own, so that every invariant and every diff works on a redacted trace as it
does on the plain one, and two traces that were redacted with one key can be diffed. What it does not hide stands in
``docs/trace-format.md``.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from specscope.schemas import AnyRecord, Manifest, Section, Step, TurnStart, token_fields
from specscope.schemas.turn import WITHHELD
from specscope.tracer.errors import UsageError
from specscope.tracer.files.writer import RecordSink

SHORTEST_KEY = 8
_TOKENS = token_fields()
#: Texts that may quote ids or words, by their field's name; ``check`` finds the witnesses again.
_TEXTS = ("witness", "message")
#: Digests of what anybody could guess from the rest, ids included.
_DIGESTS_OF_IDS = ("input_digest", "token_digests", "tree_digest", "path_digest", "emitted_digest")
#: Settings of processors that are numbers and hold no ids.
_PLAIN_PROCESSORS = ("repetition_penalty", "min_new_tokens", "no_repeat_ngram")


class Redaction:
    """What one key makes of token ids 0..vocab_size - 1.

    Args:
        key: the secret, at least 8 characters; two traces diff where their keys were equal.
        vocab_size: the teacher's.

    Raises:
        UsageError: where the key is too short.
    """

    def __init__(self, key: str, vocab_size: int) -> None:
        check_key(key)
        # Slow on purpose, so that a short key is not found by trying many against ``fingerprint``.
        self._secret = hashlib.scrypt(key.encode(), salt=b"specscope.redaction/1", n=1 << 14, r=8, p=1, dklen=64)
        ranked = sorted(range(vocab_size), key=lambda token: self._hash(b"token", token.to_bytes(8, "little")))
        self._ids = {token: rank for rank, token in enumerate(ranked)}

    @property
    def fingerprint(self) -> str:
        """Tells one key from another, and not the key: 128 bits in hexadecimal."""
        return self._hash(b"key", b"").hex()

    def token(self, token: int) -> int:
        """The id in place of ``token``; what is not an id of the vocabulary is a symptom, and stays."""
        return self._ids.get(token, token)

    def digest(self, digest: str) -> str:
        """In place of a digest over ids: as long, equal where it was equal, and of no use without the key."""
        return self._hash(b"digest", digest.encode()).hex()[: len(digest)]

    def record(self, record: AnyRecord) -> AnyRecord:
        """``record`` without its text; whatever it is made of that does not change is shared."""
        changed: AnyRecord = self._section(record)
        if isinstance(changed, Manifest):
            return self._manifest(changed)
        if isinstance(changed, TurnStart):
            return changed.model_copy(update={"prompt_text": None})
        if isinstance(changed, Step):
            return changed.model_copy(update={"texts": None, "tensor_files": None})
        return changed

    def _manifest(self, manifest: Manifest) -> Manifest:
        rules, sampling = manifest.stop_rules, manifest.sampling
        if rules is not None:
            texts = [self._text(text) for text in rules.stop_strings]
            rules = rules.model_copy(update={"stop_strings": texts})
        if sampling.processors is not None:
            held = {name: self._processor(name, value) for name, value in sampling.processors.items()}
            sampling = sampling.model_copy(update={"processors": held})
        return manifest.model_copy(update={"redaction": self.fingerprint, "stop_rules": rules, "sampling": sampling})

    def _processor(self, name: str, value: Any) -> Any:
        return value if name in _PLAIN_PROCESSORS else self._text(json.dumps(value, sort_keys=True, default=str))

    def _text(self, text: str) -> str:
        return "redacted:" + self._hash(b"text", text.encode()).hex()

    def _section(self, section: Any) -> Any:
        changes = {}
        for name, value in section.__dict__.items():
            changed = self._value(name, value)
            if changed is not value:
                changes[name] = changed
        return section.model_copy(update=changes) if changes else section

    def _value(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if name in _TOKENS:
            return self._tokens(value)
        if name in _DIGESTS_OF_IDS:
            return [self.digest(digest) for digest in value] if isinstance(value, list) else self.digest(value)
        if name in _TEXTS:
            return WITHHELD
        if isinstance(value, Section):
            return self._section(value)
        if isinstance(value, list) and value and isinstance(value[0], Section | dict):
            return [self._value("", item) for item in value]  # of one kind, all of them
        if isinstance(value, dict):
            return {key: self._value(key, item) for key, item in value.items()}
        return value

    def _tokens(self, value: Any) -> Any:
        if not isinstance(value, list):
            return self.token(value)
        if value and isinstance(value[0], list):
            return [self._tokens(item) for item in value]
        get = self._ids.get
        return [get(token, token) for token in value]

    def _hash(self, purpose: bytes, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=16, key=self._secret, person=purpose).digest()


class RedactedSink:
    """Hands records on to ``sink``, each without its text.

    Args:
        sink: the open trace.
        redaction: what to do with ids.
    """

    def __init__(self, sink: RecordSink, redaction: Redaction) -> None:
        self._sink, self._redaction = sink, redaction

    @property
    def next_seq(self) -> int:
        """The number that the next record must carry."""
        return self._sink.next_seq

    def write(self, record: AnyRecord) -> None:
        """Appends one record."""
        self._sink.write(self._redaction.record(record))


def check_redaction(key: str, *, level: str, with_text: bool) -> None:
    """Refuses what a trace that is redacted by ``key`` cannot hold, and a key that can be guessed.

    Raises:
        UsageError: for the first of them.
    """
    check_key(key)
    if with_text:
        raise UsageError("got --trace-text and --redact: a redacted trace holds no text; leave one out")
    if level == "tensors":
        raise UsageError(
            "got --trace-level tensors and --redact: tensors are stored by token id; choose decisions or scores"
        )


def check_key(key: str) -> None:
    """Refuses a key that can be guessed.

    Raises:
        UsageError: where it is shorter than 8 characters.
    """
    if len(key) < SHORTEST_KEY:
        raise UsageError(
            f"got a key of {len(key)} characters to redact with, wanted {SHORTEST_KEY} or more: take a long, random one"
        )
