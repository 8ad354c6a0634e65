"""What could not be compared: because it is missing, or because a writer never promised it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from specscope.schemas import Manifest, Prefill, Section, Step
from specscope.schemas.phases import COMPARED_PHASES, Phase
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.failures import stopped_text
from specscope.tracer.naming.text import counted

#: Without these in both runs no decision can be compared.
DECISIVE: tuple[Phase, ...] = ("tree", "accept", "stop")
#: What is compared of those sections where both runs record it.
OPTIONAL = (
    *("draft.inputs", "draft.inputs.hidden_norms", "draft.kv_before", "draft.kv_after"),
    *("draft.levels", "draft.levels.logsumexp", "tree.proposed_by", "verify.nonfinite_slots", "verify.windows"),
    *("verify.top_tokens", "verify.top_logits", "verify.logsumexp", "verify.entropy"),
    *("accept.visited", "accept.visited.trials", "accept.visited.trials.coin", "accept.bonus_draw"),
    *("commit.drafter_after", "guided"),
)
#: Turns without a partner that are named.
NAMED_TURNS = 3
OPTIONAL_IN_PREFILL = ("top_tokens", "top_logits", "draw", "guided")
#: Of all these, what a writer can record whatever it runs: where neither side does, that is said. Of the others nobody
#: knows whether there was anything to record.
OF_ANY_VERIFY = ("top_tokens", "top_logits", "logsumexp", "entropy", "nonfinite_slots")
OF_ANY = frozenset([*(f"verify.{name}" for name in OF_ANY_VERIFY), "top_tokens", "top_logits"])


def coverage_problems(reader: TraceReader, name: str) -> list[str]:
    """What is missing of a run that was begun."""
    problems = []
    if reader.truncated:
        problems.append(f"the {name} is truncated: it has no run_end")
    if reader.index.torn_bytes:
        problems.append(f"the {name} ends in a torn record of {counted(reader.index.torn_bytes, 'byte')}")
    failures = reader.failures()
    end = reader.run_end()
    if end is not None and (end.reason == "interrupted" or (end.reason == "failed" and not failures)):
        problems.append(f"the {name} was interrupted" if end.reason == "interrupted" else f"the {name} failed")
    return [*(f"the {name} {stopped_text(failure)}" for failure in failures), *problems]


def unpaired_turns(names: list[str], side: str) -> list[str]:
    """In one line, the turns that only one side has: the first of them by name."""
    if not names:
        return []
    shown = ", ".join(names[:NAMED_TURNS])
    more = len(names) - NAMED_TURNS
    count = f"{counted(len(names), 'turn')}: " if len(names) > 1 else ""
    return [f"only in the {side}: {count}{shown}" + (f", and {more} more" if more > 0 else "")]


def not_supplied(manifest: Manifest, name: str) -> list[str]:
    """What the writer says that it does not supply, of that which a diff compares."""
    missing = [section for section in COMPARED_PHASES if section not in _supplied(manifest)]
    return [f"the {name} does not record {', '.join(missing)}"] if missing else []


def is_decisive(manifest: Manifest) -> bool:
    """Whether the writer supplies what decisions are read from."""
    return _supplied(manifest) >= set(DECISIVE)


def in_part(manifest: Manifest) -> frozenset[str]:
    """The sections of which the writer lists single fields alone: what is absent there was not recorded."""
    return frozenset(section for section in _supplied(manifest) if section not in manifest.capabilities)


def _supplied(manifest: Manifest) -> set[str]:
    return {capability.split(".")[0] for capability in manifest.capabilities}


class _Absence(NamedTuple):
    """What was not compared, a section or a field of one, and why."""

    name: str
    side: str | None  # that does not record it; None: neither does


def _absences(a: Step, b: Step) -> Iterator[_Absence]:
    whole = [name for name in COMPARED_PHASES if getattr(a, name) is None or getattr(b, name) is None]
    yield from (_absence(a, b, name) for name in whole)
    yield from _absent_fields(a, b, [name for name in OPTIONAL if name.partition(".")[0] not in whole])


def _absent_fields(a: Section, b: Section, names: Iterable[str]) -> Iterator[_Absence]:
    """Those of ``names`` that a side does not record, or both do not although they could."""
    for name in names:
        has_a, has_b = _has(a, name), _has(b, name)
        if has_a != has_b or (not has_a and name in OF_ANY):
            yield _absence(a, b, name)


def _absence(a: Section, b: Section, name: str) -> _Absence:
    has_a, has_b = _has(a, name), _has(b, name)
    return _Absence(name, None if has_a == has_b else "candidate" if has_a else "baseline")


def not_compared(a: Step, b: Step) -> list[str]:
    """What of two steps was not compared, in words, because a side does not record it, or both do not: a section, or a
    field that a writer can record whatever it runs."""
    by_side: dict[str | None, list[str]] = {None: [], "baseline": [], "candidate": []}
    for absence in _absences(a, b):
        by_side[absence.side].append(absence.name)
    lines = []
    for side, names in by_side.items():
        outermost = [name for name in names if name.rpartition(".")[0] not in names]
        who = "neither side records" if side is None else f"the {side} does not record"
        lines += [f"Not compared: {', '.join(outermost)}, which {who}."] if outermost else []
    return lines


@dataclass
class Coverage:
    """How much of two runs was compared, counted pair by pair."""

    other_trees: int = 0  # pairs of steps whose trees were meant to differ, and do
    phases: Counter[Phase] = field(default_factory=Counter)  # pairs of steps in which a phase was compared
    _absent: Counter[_Absence] = field(default_factory=Counter)  # -> places

    def add_equal(self, line: bytes) -> None:
        """Counts a pair of steps whose lines are the same, compact ones: what is there was compared."""
        self.phases.update(phase for phase in COMPARED_PHASES if b',"%s":{' % phase.encode() in line)
        begin = line.find(b',"verify":{')
        if begin >= 0:  # no later section has a field of these names
            absent = (name for name in OF_ANY_VERIFY if line.find(b'"%s":' % name.encode(), begin) < 0)
            self._absent.update(_Absence(f"verify.{name}", None) for name in absent)

    def add(self, a: Step, b: Step, phases: Iterable[Phase]) -> None:
        """Counts a pair of steps, of which ``phases`` were compared."""
        self.phases.update(phases)
        self._absent.update(
            absence for absence in _absences(a, b) if absence.side is not None or absence.name not in COMPARED_PHASES
        )

    def add_prefill(self, a: Prefill, b: Prefill) -> None:
        """Counts a pair of turns."""
        absences = _absent_fields(a, b, OPTIONAL_IN_PREFILL)
        self._absent.update(absence._replace(name=f"prefill.{absence.name}") for absence in absences)

    def lines(self, a: Manifest, b: Manifest) -> list[str]:
        """What was not compared, in words, beside the sections that one of the two never supplies."""
        missing: dict[tuple[str | None, int], list[str]] = {}
        for (name, side), count in self._absent.items():
            supplied = _supplied(a if side == "baseline" else b)
            within_another = _Absence(name.rpartition(".")[0], side) in self._absent
            if not within_another and (name not in COMPARED_PHASES or name in supplied):
                missing.setdefault((side, count), []).append(name)
        lines = [_missing_text(side, names, counted(count, "place")) for (side, count), names in missing.items()]
        if self.other_trees:
            pairs = f"{self.other_trees} pair{'s' * (self.other_trees != 1)} of steps"
            lines.append(f"in {pairs} the trees differ, as they may: what was accepted of them is not compared")
        return lines


def _missing_text(side: str | None, names: list[str], places: str) -> str:
    if side is None:
        return f"neither side records {', '.join(names)} in {places}"
    return f"the {side} does not record {', '.join(names)} in {places} where the other does"


def _has(value: Any, name: str) -> bool:
    """Whether the field ``name``, dotted, is there; below a list, in any of its entries."""
    return _has_parts(value, _parts(name))


@cache
def _parts(name: str) -> tuple[str, ...]:
    return tuple(name.split("."))


def _has_parts(value: Any, parts: tuple[str, ...]) -> bool:
    for at, part in enumerate(parts, start=1):
        value = getattr(value, part, None)
        if value is None:
            return False
        if isinstance(value, list) and at < len(parts):
            return any(_has_parts(entry, parts[at:]) for entry in value)
    return True
