"""What the list of runs says of one file: from its manifest, its index and the record that ends it, not from its steps.

Pure but for reading the file. Knows no pages; the oracle, which reads every record, is not asked here: what it found
is told by ``Checked`` where somebody asked it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import xxhash

from specscope.schemas import Manifest, RunEnd
from specscope.tracer.compare.manifests import AXIS, OWN
from specscope.tracer.errors import SpecScopeError
from specscope.tracer.files.index import TraceIndex
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.report import OracleReport
from specscope.tracer.words.rules import rule_text
from specscope.tracer.words.text import counted, shorten
from specscope.viewer.drawing.fragments import Tone
from specscope.viewer.drawing.words.manifest import (
    created_text,
    device_text,
    drafter_text,
    peculiarities,
    tree_text,
)
from specscope.viewer.runs.catalogue import Run


class Mark(NamedTuple):
    """One thing to be said of a run's health."""

    tone: Tone
    words: str


class Checked(NamedTuple):
    """What the oracle found in a whole trace."""

    num_holding: int  # checks that hold, over all invariants and steps
    num_violated: int  # invariants that are violated somewhere


def checked(report: OracleReport) -> Checked:
    """The report in two numbers."""
    tallies = report.invariants.values()
    return Checked(sum(tally.passed for tally in tallies), sum(tally.failed > 0 for tally in tallies))


class Outcome(NamedTuple):
    """What a run came to, as its index tells."""

    num_turns: int
    num_steps: int
    accepted_length: float | None  # mean over all steps; None where there is none, or it was not recorded
    marks: tuple[Mark, ...]  # how it ended is among them, unless it is complete
    is_complete: bool
    kin: str  # equal in two runs that agree in all but what a comparison is made across, prompts included


class RunSummary(NamedTuple):
    """One trace, for a list of them. All texts are raw."""

    run: Run
    num_bytes: int
    created: str  # as it stands in the manifest; UTC, ISO 8601, so that it sorts
    mode: str
    attention: str
    dtype: str
    device: str
    teacher: str
    drafter: str
    tree: str
    rule: str
    is_plain: bool  # neither broken on purpose, nor a replay, nor redacted
    marks: tuple[Mark, ...]  # what the manifest alone says
    outcome: Outcome | None  # None where the file has no index yet
    checked: Checked | None = None  # None where the oracle was not asked

    @property
    def health(self) -> tuple[Mark, ...]:
        """All marks, the worst first. Only what the oracle has seen is ever called good."""
        found = [*self.marks, *(self.outcome.marks if self.outcome else (Mark("info", "not indexed yet"),))]
        end = "complete, " if self.outcome is not None and self.outcome.is_complete else ""
        if self.checked is not None:
            found.append(_judged(self.checked, end, is_plain=not found))
        elif end:
            found.append(Mark("info", "complete, not checked"))
        return tuple(sorted(found, key=lambda mark: ("bad", "warn", "good", "info").index(mark.tone)))

    @property
    def words(self) -> str:
        """All that a person may look for, in lower case."""
        texts = (self.run.name, self.mode, self.attention, self.dtype, self.device, self.teacher, self.drafter)
        marks = [mark.words for mark in self.health]
        return " ".join([*texts, self.tree, self.rule, created_text(self.created), *marks]).lower()


def _judged(found: Checked, end: str, *, is_plain: bool) -> Mark:
    """``end`` comes first; good is only what has no other mark."""
    if found.num_violated:
        violated = counted(found.num_violated, "invariant")
        return Mark("bad", f"{end}{violated} violated")
    hold = f"{found.num_holding:,} {'check holds' if found.num_holding == 1 else 'checks hold'}"
    return Mark("good" if is_plain else "info", f"{end}{hold}")


class NoTrace(NamedTuple):
    """A file that is no trace, or cannot be read as one."""

    run: Run
    reason: str


def summarise(run: Run) -> RunSummary | NoTrace:
    """All that there is to say. Builds the index where there is none, which reads the whole file."""
    return _read(run, with_index=True)


def glance(run: Run) -> RunSummary | NoTrace:
    """What the manifest alone says, however large the file is."""
    return _read(run, with_index=False)


def mean_accepted_length(reader: TraceReader) -> float | None:
    """Over all steps; None where there is none, their writer supplies none, or a length is beyond floats."""
    lengths = [length for turn in reader.turns for length in turn.accepted_lengths]
    if not lengths or "accept" not in {name.partition(".")[0] for name in reader.manifest.capabilities}:
        return None
    try:
        return sum(lengths) / len(lengths)
    except OverflowError:
        return None


def suggest_pair(summaries: Sequence[RunSummary]) -> tuple[RunSummary, RunSummary] | None:
    """The newest eager and fused run that agree in everything else, where no third run makes it a matter of choice."""
    kin: dict[str, list[RunSummary]] = {}
    for found in summaries:
        if found.outcome is not None and found.is_plain:
            kin.setdefault(found.outcome.kin, []).append(found)
    for group in sorted(kin.values(), key=lambda group: max(one.created for one in group), reverse=True):
        if sorted(one.mode for one in group) == ["eager", "fused"]:
            eager, fused = sorted(group, key=lambda one: one.mode)
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
        marks=tuple(Mark(one.tone, one.mark) for one in peculiarities(manifest)),
        outcome=outcome,
    )


def _outcome(reader: TraceReader) -> Outcome:
    index, end = reader.index, reader.run_end()
    return Outcome(
        num_turns=len(index.turns),
        num_steps=sum(len(turn.steps) for turn in index.turns),
        accepted_length=mean_accepted_length(reader),
        marks=tuple(_found(reader, end)),
        is_complete=end is not None and end.reason == "complete",
        kin=_kin(reader.manifest, index),
    )


def _found(reader: TraceReader, end: RunEnd | None) -> list[Mark]:
    index = reader.index
    marks = []
    if index.failures:
        marks.append(Mark("bad", counted(len(index.failures), "failure record")))
    num_violated = sum(failed > 0 for turn in index.turns for failed in turn.failed_invariants)
    if num_violated:
        marks.append(Mark("bad", f"the engine saw violations in {counted(num_violated, 'step')}"))
    if end is None:
        marks.append(Mark("warn", "truncated, or still going on"))
    elif end.reason != "complete":
        marks.append(Mark("bad" if end.reason == "failed" else "warn", end.reason))
    return marks


def _kin(manifest: Manifest, index: TraceIndex) -> str:
    said = manifest.model_dump(mode="json", by_alias=False, exclude={*AXIS, *(name for name in OWN if "." not in name)})
    for name in ("teacher", "drafter"):
        said[name].pop("source")
    prompts = [(turn.prompt_id, turn.prompt_turn) for turn in index.turns]
    return xxhash.xxh3_128_hexdigest(repr((sorted(said.items()), prompts)).encode("utf-8", "surrogatepass"))
