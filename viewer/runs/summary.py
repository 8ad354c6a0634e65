"""What the list of runs says of one file: from its manifest, its index and the record that ends it, not from its steps.

Pure except for reading the file. Knows no pages. The oracle, which reads every record, is not asked here: ``Checked``
holds its report where it was asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import xxhash

from specscope.schemas import Manifest, RunEnd
from specscope.tracer.compare.manifests import AXIS, OWN
from specscope.tracer.errors import SpecScopeError
from specscope.tracer.files.index import TraceIndex
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.rules import rule_text
from specscope.tracer.naming.text import counted, shorten
from specscope.tracer.oracle.report import OracleReport
from specscope.viewer.drawing.fragments import Tone
from specscope.viewer.drawing.labels.manifest import (
    created_text,
    device_text,
    drafter_text,
    peculiarities,
    tree_text,
)
from specscope.viewer.runs.catalogue import Run
from specscope.viewer.runs.differing import manifest_fields

#: Turns whose time is read, at most: the list of runs must not wait for long.
MOST_TIMED = 32
#: More than a hundred years: a hostile record's time may be a number of any size.
LONGEST_NS = 1 << 62


class Mark(NamedTuple):
    """One remark on a run's health."""

    tone: Tone
    words: str


class Checked(NamedTuple):
    """What the oracle reports of a whole trace."""

    num_holding: int  # checks that hold, over all invariants and steps
    num_violated: int  # invariants that are violated somewhere
    problem: str = ""  # why it could not be read to its end


def checked(report: OracleReport) -> Checked:
    """The report in two numbers."""
    tallies = report.invariants.values()
    return Checked(sum(tally.passed for tally in tallies), sum(tally.failed > 0 for tally in tallies))


class Outcome(NamedTuple):
    """The outcome of a run, by its index."""

    num_turns: int
    num_steps: int
    accepted_length: float | None  # mean over all steps; None where there is none, or it was not recorded
    tokens_per_second: float | None  # None where no turn says it, or turns ran side by side
    marks: tuple[Mark, ...]  # how it ended is among them, unless it is complete
    is_complete: bool
    kin: str  # equal for two runs that agree in everything that a comparison requires, prompts included


class RunSummary(NamedTuple):
    """One trace, for a list of them. All texts are raw."""

    run: Run
    num_bytes: int
    created: str  # as the manifest has it; UTC, ISO 8601, so that it sorts
    mode: str
    attention: str
    dtype: str
    device: str
    teacher: str
    drafter: str
    tree: str
    rule: str
    is_plain: bool  # neither broken on purpose, nor a replay, nor redacted
    marks: tuple[Mark, ...]  # from the manifest only
    outcome: Outcome | None  # None where the file has no index yet
    checked: Checked | None = None  # None where it was not checked
    fields: Mapping[str, str] = MappingProxyType({})  # of the manifest, that may tell it from others

    @property
    def health(self) -> tuple[Mark, ...]:
        """All marks, the worst first. Only what the oracle has checked is ever called good."""
        marks = [*self.marks, *(self.outcome.marks if self.outcome else (Mark("info", "not indexed yet"),))]
        end = "complete, " if self.outcome is not None and self.outcome.is_complete else ""
        if self.checked is not None:
            marks.append(_judged(self.checked, end, is_plain=not marks))
        elif end:
            marks.append(Mark("info", "complete, not checked"))
        return tuple(sorted(marks, key=lambda mark: ("bad", "warn", "good", "info").index(mark.tone)))

    @property
    def words(self) -> str:
        """All that a person may look for, in lower case."""
        texts = (self.run.name, self.mode, self.attention, self.dtype, self.device, self.teacher, self.drafter)
        marks = [mark.words for mark in self.health]
        return " ".join([*texts, self.tree, self.rule, created_text(self.created), *marks]).lower()


def _judged(checked: Checked, end: str, *, is_plain: bool) -> Mark:
    """``end`` comes first; good is only what has no other mark."""
    if checked.problem:
        return Mark("bad", checked.problem)
    if checked.num_violated:
        violated = counted(checked.num_violated, "invariant")
        return Mark("bad", f"{end}{violated} violated")
    hold = f"{checked.num_holding:,} {'check holds' if checked.num_holding == 1 else 'checks hold'}"
    return Mark("good" if is_plain else "info", f"{end}{hold}")


class NoTrace(NamedTuple):
    """A file that is not a trace, or cannot be read as such."""

    run: Run
    reason: str


def summarise(run: Run) -> RunSummary | NoTrace:
    """The whole summary. Builds the index where there is none, which reads the whole file."""
    return _read(run, with_index=True)


def glance(run: Run) -> RunSummary | NoTrace:
    """The summary from the manifest only, however large the file is."""
    return _read(run, with_index=False)


def mean_accepted_length(reader: TraceReader) -> float | None:
    """Over all steps; None where there are none, their writer supplies no lengths, or one is too large for a float."""
    lengths = [length for turn in reader.turns for length in turn.accepted_lengths]
    if not lengths or not reader.manifest.supplies_lengths:
        return None
    try:
        return sum(lengths) / len(lengths)
    except OverflowError:
        return None


def suggest_pair(summaries: Sequence[RunSummary]) -> tuple[RunSummary, RunSummary] | None:
    """The newest eager and fused run that agree in everything else, where no third run agrees with them."""
    kin: dict[str, list[RunSummary]] = {}
    for summary in summaries:
        if summary.outcome is not None and summary.is_plain:
            kin.setdefault(summary.outcome.kin, []).append(summary)
    for group in sorted(kin.values(), key=lambda group: max(summary.created for summary in group), reverse=True):
        if sorted(summary.mode for summary in group) == ["eager", "fused"]:
            eager, fused = sorted(group, key=lambda summary: summary.mode)
            return eager, fused
    return None


def _read(run: Run, *, with_index: bool) -> RunSummary | NoTrace:
    try:
        with TraceReader(run.path) as reader:
            outcome = _outcome(reader) if with_index else None
            return _summary(run, run.path.stat().st_size, reader, outcome)
    except SpecScopeError as error:
        return NoTrace(run, shorten(str(error).removeprefix(str(run.path)).lstrip(",: "), 300))
    except OSError as error:
        return NoTrace(run, f"cannot be read: {error.strerror}")


def _summary(run: Run, num_bytes: int, reader: TraceReader, outcome: Outcome | None) -> RunSummary:
    manifest = reader.manifest
    return RunSummary(
        run=run,
        num_bytes=num_bytes,
        created=shorten(manifest.created, 40),
        mode=manifest.mode,
        attention=shorten(manifest.attention, 40),
        dtype=shorten(manifest.dtype, 20),
        device=device_text(manifest),
        teacher=shorten(manifest.teacher.name, 80),
        drafter=drafter_text(manifest),
        tree=tree_text(manifest.tree_policy),
        rule=rule_text(manifest.sampling),
        is_plain=manifest.fault is None and manifest.replay_of is None and manifest.redaction is None,
        marks=tuple(Mark(entry.tone, entry.mark) for entry in peculiarities(manifest)),
        outcome=outcome,
        fields=manifest_fields(manifest),
    )


def _outcome(reader: TraceReader) -> Outcome:
    index, end = reader.index, reader.run_end()
    return Outcome(
        num_turns=len(index.turns),
        num_steps=sum(len(turn.steps) for turn in index.turns),
        accepted_length=mean_accepted_length(reader),
        tokens_per_second=_speed(reader),
        marks=tuple(_marks(reader, end)),
        is_complete=end is not None and end.reason == "complete",
        kin=_kin(reader.manifest, index),
    )


def _speed(reader: TraceReader) -> float | None:
    """Tokens per second over the turns, or over some of many, spread evenly."""
    if (reader.manifest.batch_size or 1) > 1:
        return None
    chosen = reader.turns[:: max(1, -(-len(reader.turns) // MOST_TIMED))]
    ends = [end for end in map(reader.turn_end, chosen) if end is not None and end.duration_ns > 0]
    seconds = sum(min(end.duration_ns, LONGEST_NS) for end in ends) / 1e9
    return sum(len(end.output_ids) for end in ends) / seconds if ends else None


def _marks(reader: TraceReader, end: RunEnd | None) -> list[Mark]:
    index = reader.index
    marks = []
    if index.failures:
        marks.append(Mark("bad", counted(len(index.failures), "failure record")))
    num_violated = sum(failed > 0 for turn in index.turns for failed in turn.failed_invariants)
    if num_violated:
        marks.append(Mark("bad", f"the engine reported violations in {counted(num_violated, 'step')}"))
    if end is None:
        marks.append(Mark("warn", "truncated, or still in progress"))
    elif end.reason != "complete":
        marks.append(Mark("bad" if end.reason == "failed" else "warn", end.reason))
    return marks


def _kin(manifest: Manifest, index: TraceIndex) -> str:
    excluded = {*AXIS, *(name for name in OWN if "." not in name)}
    shared = manifest.model_dump(mode="json", by_alias=False, exclude=excluded)
    for name in ("teacher", "drafter"):
        shared[name].pop("source")
    prompts = [(turn.prompt_id, turn.prompt_turn) for turn in index.turns]
    return xxhash.xxh3_128_hexdigest(repr((sorted(shared.items()), prompts)).encode("utf-8", "surrogatepass"))
