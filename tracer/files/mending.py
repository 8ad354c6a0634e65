"""Ends a trace whose writer was killed, for those who know that it was: another process of the same run."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import xxhash

from specscope.schemas import Failure, RunEnd, Step, TurnEnd, TurnStart, decode_record, encode_record
from specscope.schemas.trace import AnyRecord
from specscope.tracer.files.locks import try_lock


def end_trace(path: Path, message: str) -> bool:
    """Drops a line that was not written whole, and adds the failure, with ``message``, and the end of the run.

    Returns:
        Whether anything was changed: False where the trace has its end, holds no manifest, is compressed, or is being
        written.
    """
    if path.suffix == ".gz" or not path.is_file():
        return False
    file = os.open(path, os.O_RDWR)
    try:
        return try_lock(file) and _end(file, path, message)
    finally:
        os.close(file)


def _end(file: int, path: Path, message: str) -> bool:
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    records = [decode_record(line) for line in whole.splitlines()]
    if not records or records[-1].kind == "run_end":
        return False
    counts: Counter[str] = Counter(record.kind for record in records)
    added = encode_record(_failure(records, message))
    counts["failure"] += 1
    digest = xxhash.xxh3_128_hexdigest(whole + added)
    added += encode_record(RunEnd(seq=counts.total(), reason="failed", counts=dict(counts), digest=digest))
    os.ftruncate(file, len(whole))
    os.pwrite(file, added, len(whole))
    return True


def _failure(records: list[AnyRecord], message: str) -> Failure:
    """That the run failed, in the turn that was running, if one was."""
    last = next((r for r in reversed(records) if isinstance(r, TurnStart | Step | TurnEnd)), None)
    running = last if isinstance(last, TurnStart | Step) else None
    step = running.step + 1 if isinstance(running, Step) else 0 if running is not None else None
    return Failure(
        seq=len(records),
        turn=running.turn if running is not None else None,
        step=step,
        phase="verify" if running is not None else "prefill",
        error="RankLostError",
        message=message,
        inputs={},
    )
