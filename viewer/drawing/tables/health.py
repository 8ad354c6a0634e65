"""A trace as a whole, as a board: its end, failures, what the oracle reports, what is missing. Pure.

Its clicks ask for ``go:TURN.STEP``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from specscope.schemas import SCHEMA_VERSION, Failure, Manifest, SchemaVersion
from specscope.schemas.phases import COMPARED_PHASES
from specscope.tracer.compare.coverage import DECISIVE, is_decisive
from specscope.tracer.errors import TraceError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import StepNumber, TraceReader
from specscope.tracer.naming.failures import in_phase
from specscope.tracer.naming.rules import is_lossy, rule_text
from specscope.tracer.naming.text import counted, shorten
from specscope.tracer.oracle.report import OracleReport
from specscope.viewer.drawing.board import Board, board_of, card, columns, raw_record
from specscope.viewer.drawing.fragments import Fact, Tone, commands, facts, note, quiet, rows
from specscope.viewer.drawing.frames import box, row, table
from specscope.viewer.drawing.labels.failed import failed_after
from specscope.viewer.drawing.labels.manifest import manifest_rows, peculiarities
from specscope.viewer.drawing.labels.numbers import about_seconds, size_text
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.tables.invariants import Lead, go_button, invariant_table

#: Sections that a writer may supply, with what they hold.
SECTIONS = {
    "draft": "what the drafter was fed, and how it grew its tree",
    "tree": "the draft trees",
    "tensors": "mask, positions and token ids as they were used",
    "verify": "the teacher's output",
    "accept": "which nodes were accepted, and the bonus token",
    "commit": "what the caches kept",
    "stop": "what was emitted, and what ended the turn",
    "invariants": "what the engine itself checked",
    "timing": "how long each phase took",
}
MOST_FAILURES = 5
LONGEST_RAW = 200_000  # characters of a raw text that are shown


class Damage(NamedTuple):
    """The first record that cannot be read."""

    problem: str  # in words, with the file and the line
    place: StepNumber | None  # None where it is no step

    @classmethod
    def of(cls, reader: TraceReader, error: TraceError) -> Damage:
        """What ``reader`` knows of ``error``."""
        return cls(str(error), None if error.line is None else reader.step_on_line(error.line))


@dataclass(frozen=True, kw_only=True)
class Health:
    """What is known of one trace."""

    path: Path  # as a person would type it
    num_bytes: int
    num_records: int
    torn_bytes: int
    end_reason: str | None  # None where the run's end is missing
    original_version: SchemaVersion
    manifest: Manifest
    turns: Sequence[TurnEntry]
    failures: Sequence[Failure]
    report: OracleReport | None  # None where the trace was not checked
    damage: Damage | None = None  # why it could not be
    seconds_to_read: float | None = None  # how long a check takes, where there was none


def health_of(
    reader: TraceReader,
    path: Path,
    report: OracleReport | None,
    *,
    damage: Damage | None = None,
    seconds_to_read: float | None = None,
) -> Health:
    """What is known of the trace that ``reader`` reads; the arguments are named as the fields are."""
    end = reader.run_end()
    return Health(
        path=path,
        num_bytes=reader.content.stat().st_size,
        num_records=reader.index.num_lines,
        torn_bytes=reader.index.torn_bytes,
        end_reason=None if end is None else end.reason,
        original_version=reader.original_version,
        manifest=reader.manifest,
        turns=reader.turns,
        failures=reader.failures(),
        report=report,
        damage=damage,
        seconds_to_read=seconds_to_read,
    )


def health_board(health: Health) -> Board:
    """The whole board."""
    file = card("file", "The file", "", joined([_file_facts(health), rows([("file", str(health.path))])]))
    coverage = card("coverage", "Coverage", "what its writer says it records", _coverage(health))
    manifest = card("manifest", "Manifest", "line 1 of the trace", rows(manifest_rows(health.manifest)))
    following = card("next", "On the command line", "", commands(_commands(health)))
    return Board(
        board_of(
            markup("<div>{notes}</div>", notes=health_notes(health, go_button)),
            columns([_invariants(health), coverage], [file, manifest, following], kind="wide-narrow"),
            box(raw_record("manifest", "Raw manifest")),
        ),
        raw={"manifest": _raw(health.manifest)},
    )


def _invariants(health: Health) -> Markup:
    """The card; where the trace was not checked, why."""
    if health.damage is not None:
        line = (
            "Checking its invariants needs every record, and one cannot be read. Each step is checked on its own page."
        )
        return card("invariants", "Invariants", "", note("info", "Not checked", [line]))
    if health.report is None:
        takes = about_seconds(health.seconds_to_read)
        line = f"The file is large. Checking its invariants reads every record, which takes {takes}."
        return card("invariants", "Invariants", "", note("info", "Not checked yet", [line]))
    aside = "recomputed from the records, without a model"
    return card("invariants", "Invariants", aside, invariant_table(health.report, go_button))


def _file_facts(health: Health) -> Markup:
    num_steps = sum(len(turn.steps) for turn in health.turns)
    return facts(
        [
            Fact("turns", f"{len(health.turns):,}"),
            Fact("steps", f"{num_steps:,}"),
            Fact("records", f"{health.num_records:,}"),
            Fact("size", size_text(health.num_bytes)),
            Fact("end", health.end_reason or "missing"),
        ]
    )


def health_notes(health: Health, lead: Lead) -> Markup:
    """What to know before a step of the trace is trusted, the worst first; ``lead`` leads to its steps."""
    parts = [] if health.damage is None else [_damage(health.damage, lead)]
    parts += [_failure(failure, health, lead) for failure in health.failures[:MOST_FAILURES]]
    if len(health.failures) > MOST_FAILURES:
        parts.append(note("bad", f"and {len(health.failures) - MOST_FAILURES:,} more failure records"))
    parts += [*_engine_violations(health, lead), *_end(health), *_special(health)]
    report = health.report
    if not parts and report is not None and not report.num_violations:
        parts.append(note("good", "This trace is complete, and nothing in it is violated"))
    return joined(parts)


def failure_note(failure: Failure, role: str | None = None) -> Markup:
    """What failed, and where, as far as that was recorded: a prefill has no step. ``role`` says which of two runs."""
    places = (("turn", failure.turn), ("step", failure.step), ("phase", failure.phase))
    where = ", ".join(f"{name} {value}" for name, value in places if value is not None)
    who = f"{role}: the engine failed" if role else "The engine failed"
    return note("bad", f"{who}: {shorten(failure.error, 100)}", [where, shorten(failure.message, 400)])


def damage_note(damage: Damage, role: str | None = None) -> Markup:
    """Which record cannot be read, and what follows from it; ``role`` says which of two runs."""
    place = damage.place
    title = "A record cannot be read" if place is None else f"Turn {place.turn}, step {place.step} cannot be read"
    lines = [shorten(damage.problem, 400)]
    lines.append("The other steps are shown. The trace as a whole was not checked, so violated steps bear no mark.")
    return note("bad", f"{role}: {title[:1].lower()}{title[1:]}" if role else title, lines)


def _damage(damage: Damage, lead: Lead) -> Markup:
    return joined([damage_note(damage), NOTHING if damage.place is None else lead(*damage.place)])


def _failure(failure: Failure, health: Health, lead: Lead) -> Markup:
    """The note, and the way to the step that failed where it can be drawn, else to the last one before it."""
    turn = next((turn for turn in health.turns if turn.turn == failure.turn), None)
    if turn is None:
        return failure_note(failure)
    steps = [len(turn.steps)] if failed_after(turn, [failure], health.manifest.sampling) is not None else []
    steps += [len(turn.steps) - 1] if turn.steps else []
    leads = (lead(turn.turn, step) for step in steps)
    return joined([failure_note(failure), next(filter(None, leads), NOTHING)])


def no_steps_note(reader: TraceReader, turn: TurnEntry) -> Markup:
    """Why a turn has no step to show."""
    failure = next((failure for failure in reader.failures() if failure.turn == turn.turn), None)
    if failure is not None:
        lines = [f"It failed{in_phase(failure, ' ')}: {shorten(failure.message, 400)}"]
        if failure.state is not None:
            lines.append(f"To run that step again: specscope repro {shlex.quote(str(reader.path))}")
        return note("bad", f"Turn {turn.turn} failed before its first step was recorded", lines)
    if reader.turn_end(turn) is None:
        return note("warn", f"Turn {turn.turn} was cut off before its first step was recorded")
    return note("info", "This turn has no steps", ["It ended with the token that the prompt's own forward gave."])


def _engine_violations(health: Health, lead: Lead) -> list[Markup]:
    """What the engine itself recorded, which is known without reading the steps."""
    places = [
        (turn.turn, step)
        for turn in health.turns
        for step, num_failed in enumerate(turn.failed_invariants)
        if num_failed
    ]
    if not places:
        return []
    turn, step = places[0]
    title = f"The engine itself recorded violated invariants in {counted(len(places), 'step')}"
    return [note("bad", title, [f"The first is at turn {turn}, step {step}."]), lead(turn, step)]


def _end(health: Health) -> list[Markup]:
    if health.end_reason is None:
        lines = ["The run was cut off, or is still in progress; all that is shown here was recorded as a whole."]
        lines += [torn_text(health.torn_bytes)] if health.torn_bytes else []
        return [note("warn", TRUNCATED, lines)]
    parts = []
    if health.torn_bytes:
        parts.append(note("warn", "This trace ends in a torn record", [torn_text(health.torn_bytes)]))
    if health.end_reason != "complete":
        tone: Tone = "bad" if health.end_reason == "failed" else "warn"
        title = "The run failed" if health.end_reason == "failed" else f"The run was {health.end_reason}"
        line = "The trace has its end record, but some prompts may not have been decoded to the end."
        parts.append(note(tone, title, [line]))
    return parts


TRUNCATED = "This trace is truncated: it has no end record"


def torn_text(num_bytes: int) -> str:
    """What is said of a record that was not written to its end."""
    return f"A torn record of {counted(num_bytes, 'byte')} at the end is left out."


def _special(health: Health) -> list[Markup]:
    """What sets the run and its file apart."""
    sampling = health.manifest.sampling
    parts = [note(entry.tone, entry.title, entry.lines) for entry in peculiarities(health.manifest)]
    if is_lossy(sampling):
        parts.append(note("warn", rule_text(sampling), [LOSSY_LINE]))
    if health.manifest.original_schema is None and health.original_version > SCHEMA_VERSION:
        line = (
            f"It was written as {health.original_version}; this version reads {SCHEMA_VERSION} and ignores what is new."
        )
        parts.append(note("info", "This trace is of a newer format", [line]))
    return parts


LOSSY_LINE = "The output does not follow the teacher's own distribution."


def _coverage(health: Health) -> Markup:
    """What the manifest promises, section by section, and what of it is missing in the steps."""
    promised: dict[str, list[str]] = {}
    for capability in health.manifest.capabilities:
        section, _, field = capability.partition(".")
        promised.setdefault(section, []).extend([field] if field else [])
    lines = (_coverage_line(name, promised.get(name)) for name in SECTIONS)
    shown = table(("Section", "Recorded", "What it holds"), lines, kind="ss-plain")
    others = [name for name in promised if name not in SECTIONS]
    unknown = quiet(f"Unknown to this version: {shorten(', '.join(others), 200)}.") if others else NOTHING
    return joined([*_coverage_notes(health), shown, unknown])


def _coverage_line(name: str, fields: list[str] | None) -> Markup:
    sign = markup('<b class="ss-has">✓</b> yes')
    words = SECTIONS[name]
    if fields is None:
        sign = markup('<b class="ss-none">–</b> no')
        words += "; without it no decision can be compared" if name in DECISIVE else ""
    elif fields:
        words += f"; {shorten(', '.join(fields), 200)}"
    return row([html_text(name), sign, html_text(words)], ("", "", "ss-wide"))


def _coverage_notes(health: Health) -> list[Markup]:
    parts = []
    if not is_decisive(health.manifest):
        line = "A comparison needs trees, acceptance and what was emitted."
        parts.append(note("warn", "No decision of this run can be compared", [line]))
    else:
        supplied = {capability.partition(".")[0] for capability in health.manifest.capabilities}
        missing = [name for name in COMPARED_PHASES if name not in supplied]
        if missing:
            parts.append(note("info", f"A comparison cannot judge {', '.join(missing)}"))
    tally = health.report.invariants.get("run.capabilities") if health.report is not None else None
    if tally is not None and tally.failed:
        witness = tally.first.witness if tally.first is not None else ""
        lack = "1 step lacks" if tally.failed == 1 else f"{tally.failed:,} steps lack"
        parts.append(note("bad", f"{lack} what the manifest promises", [witness]))
    return parts


def _commands(health: Health) -> list[str]:
    file = shlex.quote(str(health.path))
    lines = [f"specscope check {file}"]
    if any(failure.state is not None for failure in health.failures):
        lines.append(f"specscope repro {file}")
    return lines


def _raw(manifest: Manifest) -> str:
    record = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return shorten(json.dumps(record, indent=1, ensure_ascii=True), LONGEST_RAW)
