"""What can be told of a step's line without reading all of it: certain, or None.

Works on lines of compact JSON, with the step's place first and its decisions behind the tree. A key counts as the
step's own only where what stands after it, with a brace put before, is an object: the braces then balance, so that the
key was in no inner one. Whatever is otherwise is left to the full parse.

That the line is JSON at all is taken for granted; reading the record will tell.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson

_HEAD = re.compile(rb'\{"seq":(?:0|[1-9]\d{0,17}),"kind":"step","turn":(0|[1-9]\d{0,17}),"step":(0|[1-9]\d{0,17}),')
_TIMING = re.compile(rb',"timing":\{[^{}\\]*\}')
_OWN = ("seq", "kind", "turn", "step")
_BEHIND = ("commit", "stop", "invariants")  # read behind accept; where they are not there, they must not be before it
#: What must not stand between head and decisions: a key in disguise, NaN or Infinity bare, the head's keys once more,
#: which would count. One letter is found ten times as fast as a word.
_DOUBTFUL = (b"\\", b"N", b"I", b',"kind"', b',"turn"', b',"step"')


class StepSkim(NamedTuple):
    """What a step's line says of its place and outcome."""

    turn: int
    step: int
    accepted_length: int
    num_failed: int  # invariants that the engine itself found violated
    committed_before: int | None  # None: commit is not recorded; likewise emitted and kept without stop
    emitted: list[int] | None
    kept: int | None


def skim_step(line: bytes) -> StepSkim | None:
    """Place and outcome of the step on ``line``, with or without its newline; None where only a parse can tell."""
    head = _HEAD.match(line)
    at = line.rfind(b',"accept":{')
    if head is None or at < head.end() - 1:
        return None
    if any(line.find(doubt, head.end() - 1, at) >= 0 for doubt in _DOUBTFUL):
        return None
    try:
        tail = orjson.loads(b"{" + line[at + 1 :])
        if any(name not in tail and line.find(b'"%s"' % name.encode(), head.end(), at) >= 0 for name in _BEHIND):
            return None
        return _outcome(int(head[1]), int(head[2]), tail)
    except (ValueError, LookupError, TypeError):
        return None


def _outcome(turn: int, step: int, tail: dict[str, Any]) -> StepSkim | None:
    if any(name in tail for name in _OWN):
        return None
    accept, commit, stop = tail["accept"], tail.get("commit"), tail.get("stop")
    failed = tail["invariants"]["failed"] if "invariants" in tail else []
    before = commit["committed_before"] if commit is not None else None
    emitted, kept = (stop["emitted"], stop["kept"]) if stop is not None else (None, None)
    length = accept["accepted_length"]
    integers = [length, *([] if before is None else [before]), *([] if stop is None else [kept]), *(emitted or ())]
    if type(failed) is not list or any(type(value) is not int for value in integers):
        return None
    return StepSkim(
        turn=turn,
        step=step,
        accepted_length=length,
        num_failed=len(failed),
        committed_before=before,
        emitted=emitted,
        kept=kept,
    )


def equal_but_for_timing(a: bytes, b: bytes) -> bool:
    """Whether two steps' lines are certainly equal in all but ``seq``, ``turn`` and ``timing``; False: not known.

    They then decode alike, and as both stand for the same step of paired turns, no decision in them differs.
    """
    head_a, head_b = _HEAD.match(a), _HEAD.match(b)
    if head_a is None or head_b is None or head_a[2] != head_b[2]:
        return False
    if a[head_a.end() :] == b[head_b.end() :]:
        return True
    timing_a, timing_b = _last_timing(a), _last_timing(b)
    if timing_a is None or timing_b is None:
        return False
    rest = a[timing_a.end() :]
    if rest != b[timing_b.end() :] or a[head_a.end() : timing_a.start()] != b[head_b.end() : timing_b.start()]:
        return False
    return rest in (b"}\n", b"}") or (_is_own(a, timing_a) and _is_own(b, timing_b))


def _last_timing(line: bytes) -> re.Match[bytes] | None:
    at = line.rfind(b',"timing":{')
    return None if at < 0 else _TIMING.match(line, at)


def _is_own(line: bytes, key: re.Match[bytes]) -> bool:
    """Whether the key is the record's own, and not one of an inner object."""
    try:
        orjson.loads(b"{" + line[key.start() + 1 :])
    except ValueError:
        return False
    return True
