"""Trains the byte-level BPE tokenizer and turns documents into one token stream."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from specscope.engine.lab.training.corpus import Document
from specscope.tracer.errors import UsageError

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0

# Indentation is one token a run, newlines are kept apart from it, and digits are split by threes.
SPLIT = Regex(r"\n+|[ \t]+(?=\n)| ?[A-Za-z_]+| ?[0-9]{1,3}| ?[^\sA-Za-z_0-9]+|[ \t]+(?= )|[ \t]+")


def train_tokenizer(documents: Iterable[Document], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of ``vocab_size`` tokens, the end-of-text token being id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(SPLIT, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((d.text for d in documents), trainer=trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, model_max_length: int) -> None:
    """Writes ``tokenizer`` as a Hugging Face tokenizer folder."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=model_max_length,
    )
    wrapped.save_pretrained(folder)


def end_of_text_id(tokenizer: Tokenizer, folder: Path) -> int:
    """The id of the token that ends a text, as the tokenizer's ``folder`` names it.

    Raises:
        UsageError: where it names none that ``tokenizer`` has.
    """
    named = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True).eos_token
    end: int | None = None if named is None else tokenizer.token_to_id(named)
    if end is None:
        what = "no eos_token" if named is None else f"the eos_token {named!r}, which its tokenizer.json does not have"
        raise UsageError(
            f"the tokenizer in {folder} names {what}: the texts to train on are joined by that token; name it in "
            "tokenizer_config.json"
        )
    return end


def encode_stream(tokenizer: Tokenizer, documents: Iterable[Document], end: int) -> NDArray[np.int64]:
    """Every document's ids, each followed by ``end``, as one array (T,)."""
    pieces: list[int] = []
    for document in documents:
        pieces.extend(tokenizer.encode(document.text).ids)
        pieces.append(end)
    return np.asarray(pieces, dtype=np.int64)


def bigram_loss(train: NDArray[np.int64], held_out: NDArray[np.int64], vocab_size: int) -> float:
    """Held-out cross-entropy, in nats per token, of a bigram model with absolute discounting (0.75) that backs off to
    an add-one unigram. The baseline that a trained teacher must clearly beat."""
    discount = 0.75
    unigram = np.bincount(train, minlength=vocab_size) + 1.0
    unigram /= unigram.sum()
    keys, counts = np.unique(train[:-1] * vocab_size + train[1:], return_counts=True)
    context_total = np.bincount(keys // vocab_size, weights=counts, minlength=vocab_size)
    context_types = np.bincount(keys // vocab_size, minlength=vocab_size)

    context, target = held_out[:-1], held_out[1:]
    wanted = context * vocab_size + target
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    count = np.where(keys[at] == wanted, counts[at], 0)
    total = np.maximum(context_total[context], 1.0)
    backoff = np.where(context_total[context] > 0, discount * context_types[context] / total, 1.0)
    prob = np.maximum(count - discount, 0.0) / total + backoff * unigram[target]
    return float(-np.log(prob).mean())
