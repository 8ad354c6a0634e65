"""Records the decisions of an engine that is not ours: what the engine tells, and what follows from it.

    with Recorder("run.jsonl", engine="mine 1.0", mode="fused", dtype="bfloat16", ...) as trace:
        turn = trace.turn("prompt-0", prompt_ids, pending_token)
        turn.step(tokens=[7, 4, 8], parents=[0, 0, 1], argmax=[4, 8, 2], path=[1, 2], bonus_token=2)
        turn.end("length")

Depths, counts and digests are derived, and so are the emitted tokens and the output where nobody tells them. Arrays of
numpy and tensors are taken as lists are. What cannot be written as a record is refused; whether the decisions are sound
is not judged here, because a wrong one is what a trace is for: ``specscope check`` judges it.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from specscope.schemas import AnyRecord, Failure, Manifest, Step, TurnEnd, TurnStart
from specscope.schemas.capabilities import is_known_capability
from specscope.schemas.manifest import DTYPES
from specscope.schemas.turn import WITHHELD
from specscope.schemas.version import SCHEMA_VERSION
from specscope.tracer.errors import UsageError
from specscope.tracer.files.given import check_json, merged, plain, record_of, with_packed_mask
from specscope.tracer.files.writer import TraceWriter

if TYPE_CHECKING:
    from _typeshed import StrPath

_SECTIONS = tuple(filter(is_known_capability, Step.model_fields))
DEFAULT_SECTIONS = ("tree", "verify", "accept", "stop")
StopReason = Literal["eos", "length", "stop_string", "criterion"]
#: Why a turn ends: a stop rule that its last step met, or what kept it from going on.
TurnReason = StopReason | Literal["cancelled", "interrupted", "failed"]
_STOP_REASONS = get_args(StopReason)
_TURN_REASONS = tuple(word for words in get_args(TurnReason) for word in get_args(words))


class Recorder:
    """A trace that is being written. A context manager: where an exception leaves it, the trace says which, and where.

    Args:
        path: the file; compressed where its name ends with ``.gz``.
        engine: name and version of the engine.
        mode: ``fused`` or ``eager``: which of its two paths ran.
        dtype: of the teacher's weights and logits: float64, float32, float16 or bfloat16. How much may be noise depends
            on it.
        device: a section of the manifest, such as ``{"backend": "cuda", "name": "H100"}``.
        teacher, drafter, tree_policy: sections of the manifest.
        sections: what every step will have; what is not listed cannot be judged.
        overwrite: whether an existing file may be replaced.
        warn: told once, in words, if the trace must be given up; decoding may go on.
        manifest: further fields of the manifest, such as ``attention``, ``seed`` or ``batch_size``. The rule of
            ``sampling``, without it greedy, is that of every step.

    Raises:
        UsageError: where the file cannot be written, or a field is missing, unknown or of another type.
    """

    def __init__(
        self,
        path: StrPath,
        *,
        engine: str,
        mode: str,
        dtype: str,
        device: Mapping[str, Any],
        teacher: Mapping[str, Any],
        drafter: Mapping[str, Any],
        tree_policy: Mapping[str, Any],
        sections: Sequence[str] = DEFAULT_SECTIONS,
        overwrite: bool = False,
        warn: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
        **manifest: Any,
    ) -> None:
        self.sections = tuple(sections)
        unknown = [name for name in sections if not is_known_capability(name)]
        if unknown:
            raise UsageError(f"got section {unknown[0]!r}, wanted some of {', '.join(_SECTIONS)}, or a field of one")
        fields = {
            "schema": str(SCHEMA_VERSION),
            "run_id": uuid.uuid4().hex,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {},
            "attention": "other",
            "sampling": {"rule": "greedy"},
            "level": "decisions",
            "capabilities": list(sections),
        }
        given = {"engine": engine, "mode": mode, "dtype": dtype, "device": device}
        given |= {"teacher": teacher, "drafter": drafter, "tree_policy": tree_policy}
        self.manifest = record_of(Manifest, 0, plain(fields | given | manifest))
        if self.manifest.knows("dtype") and dtype not in DTYPES:
            raise UsageError(
                f"got dtype={dtype!r}, wanted one of {', '.join(DTYPES)}: noise is counted in its roundings; for "
                "quantized weights, say how in teacher={'quantization': ...}"
            )
        check_json(self.manifest)
        self._writer = TraceWriter(Path(path), overwrite=overwrite, warn=warn)
        self._writer.write(self.manifest)
        self._num_turns = 0
        self._open: dict[int, RecordedTurn] = {}

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None = None, *_: object) -> None:
        if error is not None:
            self._give_up(error)
            return
        self.close()

    def _give_up(self, error: BaseException) -> None:
        """Ends the trace with all that was told, although turns are running, and with ``error`` unless a person
        interrupted it. Whatever is wrong with these, the file is closed."""
        interrupted = isinstance(error, KeyboardInterrupt)
        try:
            for turn in self._open.values():
                turn.flush()
            for place in [] if interrupted else [turn.place for turn in self._open.values()] or [{}]:
                message = WITHHELD if self.manifest.redaction is not None else _message(error)
                failed = {**place, "error": type(error).__name__, "message": message, "inputs": {}}
                self.write(Failure, failed)
        finally:
            self._writer.finish("interrupted" if interrupted else "failed")

    def turn(
        self,
        prompt_id: str,
        prompt_ids: Sequence[int],
        pending_token: int | None = None,
        *,
        prompt_turn: int = 0,
        reused_length: int = 0,
        prefill: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> RecordedTurn:
        """Begins a turn: the prompt was taken in, and ``pending_token`` is the first token after it; None where the
        engine drafts before it has one, so that the first step's root is the prompt's last token.

        Raises:
            UsageError: where a field is missing, unknown or of another type, or where more turns would run than
                ``batch_size`` allows.
        """
        most = self.manifest.batch_size or 1
        if len(self._open) >= most:
            raise UsageError(
                f"turn {self._num_turns} begins, and turn {min(self._open)} has not ended: call its end(reason) first, "
                f"or say how many turns may run at once by Recorder(batch_size=...), which is {most}"
            )
        number, pending_token = self._num_turns, plain(pending_token)
        num_tokens = len(prompt_ids) - reused_length - (pending_token is None)
        given = {"num_tokens": num_tokens, "pending_token": pending_token, **(prefill or {})}
        named_fields = {
            "turn": number,
            "prompt_id": prompt_id,
            "prompt_turn": prompt_turn,
            "prompt_ids": list(prompt_ids),
            "reused_length": reused_length,
            "prefill": given,
        }
        self.write(TurnStart, plain(named_fields | fields))
        self._num_turns += 1
        self._open[number] = RecordedTurn(self, number, pending_token)
        return self._open[number]

    def write(self, kind: type[AnyRecord], fields: Mapping[str, Any]) -> None:
        """Appends a record of that kind; its number in the file is added.

        Raises:
            UsageError: where a field is missing, unknown or of another type. Nothing is written then.
        """
        self._writer.write(record_of(kind, self._writer.next_seq, fields))

    def append(self, step: Step) -> None:
        """Appends a step, with its number in the file."""
        self._writer.write(step.model_copy(update={"seq": self._writer.next_seq}))

    def ended(self, turn: int) -> None:
        """Notes that ``turn`` has ended."""
        self._open.pop(turn, None)

    def close(self) -> None:
        """Ends the trace.

        Raises:
            UsageError: where a turn has not ended.
            TraceLostError: where the trace had to be given up.
        """
        if self._open:
            error = UsageError(f"turn {min(self._open)} has not ended: call its end(reason) before the recorder closes")
            self._give_up(error)
            raise error
        self._writer.finish("complete")
        self._writer.check_whole()


class RecordedTurn:
    """One turn of a trace. Its last step is held back until it is known whether another follows."""

    def __init__(self, recorder: Recorder, number: int, pending_token: int | None) -> None:
        self._recorder, self._number = recorder, number
        self._output = [] if pending_token is None else [pending_token]
        self._lengths: list[int] = []
        self._num_drafted = 0
        self._held: Step | None = None
        self._ended = False
        self._begun_ns = time.perf_counter_ns()

    def step(
        self,
        *,
        tokens: Sequence[int],
        parents: Sequence[int],
        path: Sequence[int],
        bonus_token: int,
        argmax: Sequence[int] | None = None,
        emitted: Sequence[int] | None = None,
        kept: int | None = None,
        **sections: Mapping[str, Any],
    ) -> None:
        """Records one step.

        ``tokens`` (N,) are the tree's, the root first; ``parents`` (N,) their slots, the root's own being 0; ``path``
        the accepted slots without the root; ``argmax`` (N,) the teacher's best token at each slot; ``emitted`` the
        tokens that the engine really appended to its text: without them they are those of the path and the bonus
        token, and nobody can tell whether the engine appended these, as the trace says; ``kept`` how many of them
        count, where the turn ends inside them. ``sections`` are further ones, and further fields of these: ``draft``,
        ``tree``, ``tensors``, ``verify``, ``accept``, ``commit``, ``stop``, ``timing``. The rows of the mask may be
        lists of booleans.

        Raises:
            UsageError: where lists do not fit together, a promised section is missing, a field is unknown or of another
                type, or the turn has ended.
        """
        self._refuse_if_ended()
        tokens, parents, path, bonus_token = plain(tokens), plain(parents), plain(path), plain(bonus_token)
        argmax, emitted, sections = plain(argmax), plain(emitted), plain(sections)
        self._check(tokens, parents, path=path, argmax=argmax)
        appended = [*(tokens[slot] for slot in path), bonus_token] if emitted is None else emitted
        is_derived = emitted is None and not _is_told(("stop", "emitted"), sections)
        derived: dict[str, dict[str, Any]] = {
            "tree": {"tokens": tokens, "parents": parents, "depths": _depths(parents)},
            "accept": {
                "rule": self._recorder.manifest.sampling.rule,
                "path": path,
                "accepted_length": len(path),
                "bonus_token": bonus_token,
                "bonus_slot": path[-1] if path else 0,
            },
            "stop": {
                "emitted": appended,
                "emitted_from": "path" if is_derived else None,
                "kept": len(appended) if kept is None else plain(kept),
            },
        }
        if argmax is not None:
            derived["verify"] = {"argmax": argmax}
        self._hold(derived, sections)

    def _hold(self, derived: Mapping[str, dict[str, Any]], sections: Mapping[str, Any]) -> None:
        """Takes in the sections of a step, and writes the one before it."""
        whole = {**sections, **{name: merged(fields, sections.get(name)) for name, fields in derived.items()}}
        if "tensors" in whole:
            whole["tensors"] = with_packed_mask(whole["tensors"])
        missing = [name for name in self._recorder.sections if not _is_told(name.split("."), whole)]
        if missing:
            raise UsageError(f"{self._place} lacks {missing[0]}, which the recorder's sections promise for every step")
        # Refused now, while the caller is still at this step; and a copy, whatever becomes of the caller's lists.
        record = record_of(Step, 0, {**self.place, **whole})
        self.flush()
        self._held = record
        assert record.stop is not None  # it is derived, as the others are
        self._output += record.stop.emitted[: record.stop.kept]
        self._lengths.append(record.accepted_length or 0)
        self._num_drafted += record.num_drafted or 0

    def _check(
        self, tokens: Sequence[int], parents: Sequence[int], *, path: Sequence[int], argmax: Sequence[int] | None
    ) -> None:
        """Refuses lists that are not about one tree. They are plain ones."""
        slots = range(1, len(tokens))
        if (
            len(parents) != len(tokens)
            or list(parents[:1]) != [0]
            or any(not isinstance(parents[slot], int) or not 0 <= parents[slot] < slot for slot in slots)
        ):
            raise UsageError(
                f"{self._place}: got parents {parents} of {len(tokens)} tokens, wanted one for each token: 0 for "
                "the root, and an earlier slot for every other"
            )
        if argmax is not None and len(argmax) != len(tokens):
            raise UsageError(f"{self._place}: got {len(argmax)} best tokens (argmax) for {len(tokens)} slots")
        if any(not isinstance(slot, int) or slot not in slots for slot in path):
            raise UsageError(f"{self._place}: got path {path}, wanted slots of 1 to {len(tokens) - 1}")

    def end(self, reason: TurnReason, *, output_ids: Sequence[int] | None = None) -> None:
        """Ends the turn. One that was cancelled, was interrupted or failed did not meet a stop rule in its last step.

        ``output_ids`` are the tokens that the engine hands to its caller, the pending token first, if there is one:
        without them they are those that the steps kept, and nobody can tell whether the caller got these.

        Raises:
            UsageError: for a reason that there is not, where ``output_ids`` are no token ids, or where it has ended
                already.
        """
        self._refuse_if_ended()
        if reason not in _TURN_REASONS:
            raise UsageError(
                f"turn {self._number}: got turn.end(reason={reason!r}), wanted one of {', '.join(_TURN_REASONS)}"
            )
        deepest = max(self._lengths, default=0)
        fields = {
            "turn": self._number,
            "output_ids": self._output if output_ids is None else plain(output_ids),
            "output_from": "steps" if output_ids is None else None,
            "reason": reason,
            "num_steps": len(self._lengths),
            "num_drafted": self._num_drafted,
            "num_accepted": sum(self._lengths),
            "accepted_by_depth": [sum(length > depth for length in self._lengths) for depth in range(deepest)],
            "counts_from": "steps",
            "duration_ns": time.perf_counter_ns() - self._begun_ns,
        }
        record_of(TurnEnd, 0, fields)  # refused before the last step is written as the one that met the stop rule
        if self._held is not None and self._held.stop is not None and reason in _STOP_REASONS:
            stop = self._held.stop.model_copy(update={"reason": reason})
            self._held = self._held.model_copy(update={"stop": stop})
        self.flush()
        self._recorder.write(TurnEnd, fields)
        self._recorder.ended(self._number)
        self._ended = True

    def _refuse_if_ended(self) -> None:
        if self._ended:
            raise UsageError(f"turn {self._number} has ended already: begin another with the recorder's turn(...)")

    @property
    def place(self) -> dict[str, int]:
        """The fields by which a record says that it is of the turn's next step."""
        return {"turn": self._number, "step": len(self._lengths)}

    @property
    def _place(self) -> str:
        return f"turn {self._number}, step {len(self._lengths)}"

    def flush(self) -> None:
        """Writes the last step, which is held back, as one that met no stop rule."""
        if self._held is not None:
            held, self._held = self._held, None
            self._recorder.append(held)


def _depths(parents: Sequence[int]) -> list[int]:
    """Of each slot, from its parent's, which comes before it."""
    depths = [0]
    for parent in parents[1:]:
        depths.append(depths[parent] + 1)
    return depths


def _is_told(path: Sequence[str], fields: Mapping[str, Any]) -> bool:
    """Whether the field at ``path``, section by section, is among ``fields``."""
    value = fields.get(path[0])
    if value is None or len(path) == 1 or not isinstance(value, Mapping):
        return value is not None
    return _is_told(path[1:], value)


def _message(error: BaseException) -> str:
    """What an exception says, as text that a file can hold, whatever its class makes of being asked."""
    try:
        return str(error).encode(errors="replace").decode()
    except Exception as other:
        return f"the message cannot be shown: {type(other).__name__}"
