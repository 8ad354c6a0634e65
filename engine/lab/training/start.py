"""The head that a training continues from, and what is written beside a trained head: of which weights, for which
teacher, of how many tokens, from what.

A head that is to have more layers than the one it continues from gets plain ones after those. Their output projections
are zero, so that each adds nothing to the hidden state that it reads: before the first update both heads draft exactly
the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import LlamaConfig

from specscope.engine.digests import digest_files
from specscope.engine.drafters.draft_vocab import DraftVocab
from specscope.engine.drafters.eagle3.files import WEIGHTS_NAME, default_hidden_state_indices, load_head
from specscope.engine.drafters.eagle3.head import Eagle3Head, HeadLayer
from specscope.engine.lab.training.checkpoint import started_from, updates_done
from specscope.tracer.errors import CheckpointError, UsageError
from specscope.tracer.files.whole import written_whole

STATEMENT_NAME = "training.json"


class Start(NamedTuple):
    """Which head a training continued from."""

    weights_digest: str  # as a trace's manifest has it
    tokens_seen: int | None  # None where nothing beside it says


@dataclass(frozen=True, kw_only=True)
class TrainingStatement:
    """What is said beside a trained head."""

    weights_digest: str  # the head's own: of others it says nothing
    teacher_weights_digest: str  # as a trace's manifest has it
    tokens_seen: int | None  # before and after the start; None where nobody knows how many it was before
    started_from: Start | None  # None: from scratch


class StartingHead(NamedTuple):
    """A head that a training continues from."""

    head: Eagle3Head
    vocab: DraftVocab
    start: Start


def weights_digest(folder: Path) -> str:
    """Of the safetensors in ``folder``, as a trace's manifest has it."""
    return digest_files(folder.glob("*.safetensors"))


def write_statement(statement: TrainingStatement, folder: Path) -> None:
    """Writes ``statement`` beside the head in ``folder``."""
    with written_whole(folder / STATEMENT_NAME) as partial:
        partial.write_bytes(_written(statement))


def is_written(statement: TrainingStatement, folder: Path) -> bool:
    """Whether ``statement``, and no other, lies beside the head in ``folder``."""
    path = folder / STATEMENT_NAME
    return path.exists() and path.read_bytes() == _written(statement)


def _written(statement: TrainingStatement) -> bytes:
    described = asdict(statement)
    described["started_from"] = None if statement.started_from is None else statement.started_from._asdict()
    return (json.dumps(described, indent=2) + "\n").encode()


def stated(digest: str, teacher_weights_digest: str, num_tokens: int, start: StartingHead | None) -> TrainingStatement:
    """Of a head with the weights of ``digest`` that was trained on ``num_tokens``, from scratch or from ``start``."""
    before = 0 if start is None else start.start.tokens_seen
    return TrainingStatement(
        weights_digest=digest,
        teacher_weights_digest=teacher_weights_digest,
        tokens_seen=None if before is None else before + num_tokens,
        started_from=None if start is None else start.start,
    )


def read_statement(folder: Path) -> TrainingStatement | None:
    """What is said beside the head in ``folder``; None where nothing is, as for heads of other trainers.

    Raises:
        CheckpointError: where it cannot be read, or is of other weights.
    """
    path = folder / STATEMENT_NAME
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        start = stated["started_from"]
        statement = TrainingStatement(
            weights_digest=_text(stated["weights_digest"]),
            teacher_weights_digest=_text(stated["teacher_weights_digest"]),
            tokens_seen=_count(stated["tokens_seen"]),
            started_from=None if start is None else Start(_text(start["weights_digest"]), _count(start["tokens_seen"])),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"cannot read {path} ({error}): correct it, or take it away, and the head counts as one of which nothing "
            "is known"
        ) from None
    has = weights_digest(folder)
    if statement.weights_digest != has:
        raise CheckpointError(
            f"{path} is of a head with the weights {statement.weights_digest}, got {has} beside it: run its training "
            "again if that was interrupted, or take the file away, and the head counts as one of which nothing is known"
        )
    return statement


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"got {value!r}, wanted a text")
    return value


def _count(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise TypeError(f"got {value!r}, wanted a number of tokens or null")
    return value


def load_starting_head(folder: Path, teacher_folder: Path) -> StartingHead:
    """The head in ``folder``, which must be one for the teacher in ``teacher_folder`` that training can continue from.

    Raises:
        CheckpointError: where it is missing or unreadable, or made for other sizes than this teacher's.
        UsageError: where it was trained for another teacher, or reads what training does not feed.
    """
    config: Any = LlamaConfig.from_pretrained(teacher_folder)
    files = load_head(folder, config.hidden_size, config.vocab_size)
    statement = read_statement(folder)
    teacher = weights_digest(teacher_folder)
    if statement is not None and statement.teacher_weights_digest != teacher:
        raise UsageError(
            f"the head at {folder} was trained for a teacher with the weights {statement.teacher_weights_digest}, got "
            f"{teacher} at {teacher_folder}: give that teacher, or a head that was trained for this one"
        )
    wanted = default_hidden_state_indices(config.num_hidden_layers)
    read = files.feature_layers(config.num_hidden_layers)
    if files.head.embed_tokens is not None or read != wanted:
        embedding = " and has an embedding of its own" if files.head.embed_tokens is not None else ""
        raise UsageError(
            f"the head at {folder} reads the hidden states {list(read)}{embedding}; heads are trained on "
            f"{list(wanted)} and the teacher's embedding: give a head that reads those"
        )
    return StartingHead(
        files.head, files.vocab, Start(weights_digest(folder), None if statement is None else statement.tokens_seen)
    )


def check_layers(start: StartingHead, num_layers: int) -> None:
    """Holds the layers asked for to those that the head has.

    Raises:
        UsageError: where they are fewer.
    """
    has = start.head.config.num_layers
    if num_layers < has:
        raise UsageError(
            f"got --head-layers {num_layers}, wanted at least {has}: the head of --start-from has so many, and none is "
            "taken away; ask for more, or start from another head"
        )


def head_from(start: Eagle3Head, num_layers: int) -> Eagle3Head:
    """A head of ``num_layers`` with the weights of ``start``, which drafts exactly what that does."""
    head = Eagle3Head(replace(start.config, num_layers=num_layers))
    with torch.no_grad():
        for layer in head.later_layers[start.config.num_layers - 1 :]:
            _silence(layer)
    head.load_state_dict({**head.state_dict(), **start.state_dict()})
    return head


def _silence(layer: HeadLayer) -> None:
    """Makes ``layer`` add nothing to what it reads."""
    for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
        for parameter in projection.parameters():
            parameter.zero_()


def check_begun_alike(folder: Path, state: Path, start: Start | None) -> None:
    """Holds a head that is in ``folder`` already, or half-trained in ``state``, to what it is to continue from.

    Raises:
        UsageError: where it began from something else.
    """
    if updates_done(state):
        begun = started_from(state)
    elif (folder / WEIGHTS_NAME).exists():
        statement = read_statement(folder)
        begun = None if statement is None or statement.started_from is None else statement.started_from.weights_digest
    else:
        return
    asked = None if start is None else start.weights_digest
    if begun != asked:
        raise UsageError(
            f"{folder} began from {_named(begun)}, and is to begin from {_named(asked)}: give another --work, or the "
            "--start-from that it began with"
        )


def _named(digest: str | None) -> str:
    return "scratch" if digest is None else f"a head with the weights {digest}"
