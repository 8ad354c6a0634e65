"""A session's trace from its opening to its end: where it goes, what stands on line 1, how it ends.

What ``run``, ``generate`` and anything else that drives a session share.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from specscope.engine.load.models import Models
from specscope.engine.loop.phases import EndReason
from specscope.engine.record.manifest import RunFacts, build_manifest
from specscope.engine.record.recorder import TraceRecorder
from specscope.engine.record.redaction import RedactedSink, Redaction, check_redaction
from specscope.engine.record.side_files import SideFiles, check_side_folder
from specscope.engine.settings import TRACE_LEVELS, check_name
from specscope.engine.teacher.model import Teacher
from specscope.schemas.manifest import TraceLevel
from specscope.tracer.errors import UsageError
from specscope.tracer.files.ring import TraceRing
from specscope.tracer.files.writer import RecordSink, RunSink, TraceWriter

#: What decoding may raise that is no error of the user's: whoever drives a session tells of it as an EngineError.
RUN_ERRORS = (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError)


@dataclass(frozen=True)
class TraceTarget:
    """Where and how to trace."""

    path: Path | TraceRing  # a ring keeps the last steps in memory, and writes them when asked
    level: TraceLevel = "decisions"
    overwrite: bool = False
    with_text: bool = False
    redact: str | None = None  # the key by which token ids are replaced

    def __post_init__(self) -> None:
        check_name("trace level", self.level, TRACE_LEVELS)
        if isinstance(self.path, TraceRing) and self.level == "tensors":
            raise UsageError("got level tensors for a ring, wanted decisions or scores: tensors do not stay in memory")
        if self.redact is not None:
            check_redaction(self.redact, level=self.level, with_text=self.with_text)

    def open(self, warn: Callable[[str], None]) -> RunSink:
        """The file, empty, or a place in the ring. An existing file is replaced here, when nothing else can be refused.

        Raises:
            UsageError: where it exists already and may not be replaced, or cannot be written.
        """
        if isinstance(self.path, TraceRing):
            return self.path.open(warn)
        if self.level == "tensors":
            check_side_folder(self.path, overwrite=self.overwrite)
        return TraceWriter(self.path, overwrite=self.overwrite, warn=warn)

    def record(self, writer: RunSink, facts: RunFacts, models: Models) -> TraceRecorder:
        """Writes the manifest, and gives what hands out the turns' observers."""
        sink = redacted(self, writer, models.teacher)
        token_text = _token_text(models.teacher) if self.with_text else None
        side = None
        if self.level == "tensors" and isinstance(writer, TraceWriter):
            side = SideFiles(writer.path, writer, overwrite=self.overwrite)
        manifest = build_manifest(uuid.uuid4().hex, facts, models.teacher, models.drafter)
        return TraceRecorder(sink, manifest, token_text, side)


def redacted(target: TraceTarget, writer: RunSink, teacher: Teacher) -> RecordSink:
    """The writer, behind a redaction where ``target`` asks for one."""
    if target.redact is None:
        return writer
    return RedactedSink(writer, Redaction(target.redact, teacher.vocab_size))


class Running(Protocol):
    """What runs turns: a session, or what holds several."""

    def abandon(self, reason: EndReason) -> None:
        """Ends all running turns."""

    def fail(self, error: Exception) -> None:
        """Tells the observers what happened, and ends all turns."""


@contextmanager
def ending(session: Running, writer: RunSink | None) -> Iterator[None]:
    """However the block ends, the session's running turns and the trace end with it, and say how."""
    reason: Literal["complete", "interrupted", "failed"] = "failed"
    try:
        yield
        reason = "complete"
    except (KeyboardInterrupt, GeneratorExit):
        session.abandon("interrupted")
        reason = "interrupted"
        raise
    except OSError:  # of whoever reads our output, or of the disk: no phase is to blame
        session.abandon("failed")
        raise
    except Exception as error:
        session.fail(error)
        raise
    finally:
        if writer is not None:
            writer.finish(reason)


def _token_text(teacher: Teacher) -> Callable[[int], str]:
    if teacher.tokenizer is None:
        raise UsageError(f"{teacher.folder} has no tokenizer: --trace-text needs one")
    tokenizer = teacher.tokenizer
    return lambda token: str(tokenizer.decode([token], skip_special_tokens=False))
