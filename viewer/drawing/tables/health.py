"""A trace as a whole, as a board: its end, what failed, what the oracle found, what is missing. Pure.

Its clicks ask for ``go:TURN.STEP``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specscope.schemas import SCHEMA_VERSION, Failure, Manifest, SchemaVersion
from specscope.schemas.phases import COMPARED_PHASES
from specscope.tracer.compare.coverage import DECISIVE, is_decisive
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.report import OracleReport
from specscope.tracer.words.rules import is_lossy, rule_text
from specscope.tracer.words.text import counted, html_text, shorten
from specscope.viewer.drawing.board import Board, board_of, card, columns, raw_record
from specscope.viewer.drawing.fragments import Fact, Tone, commands, facts, note, quiet, rows
from specscope.viewer.drawing.frames import box, row, table
from specscope.viewer.drawing.tables.invariants import Lead, go_button, invariant_table
from specscope.viewer.drawing.words.manifest import manifest_rows, peculiarities
from specscope.viewer.drawing.words.numbers import about_seconds, size_text

#: Sections that a writer may supply, with what they hold.
SECTIONS = {
    "draft": "what the drafter was fed, and how it came to its tree",
    "tree": "the draft trees",
    "tensors": "mask, positions and token ids as they were really used",
    "verify": "what the teacher said",
    "accept": "which nodes were accepted, and the bonus token",
    "commit": "what was kept in the caches",
    "stop": "what was emitted, and what ended the turn",
    "invariants": "what the engine itself checked",
    "timing": "how long each phase took",
}
MOST_FAILURES = 5
LONGEST_RAW = 200_000  # characters of a raw text that are shown


@dataclass(frozen=True)
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
    report: OracleReport | None  # None where the oracle was not asked
    seconds_to_read: float | None = None  # what asking it takes, where it was not


def health_of(
    reader: TraceReader, path: Path, report: OracleReport | None, seconds_to_read: float | None = None
) -> Health:
    """What is known of the trace that ``reader`` reads; the arguments are named as the fields are."""
    end = reader.run_end()
    return Health(
        path=path,
        num_bytes=reader.path.stat().st_size,
        num_records=reader.index.num_lines,
        torn_bytes=reader.index.torn_bytes,
        end_reason=None if end is None else end.reason,
        original_version=reader.original_version,
        manifest=reader.manifest,
        turns=reader.turns,
        failures=reader.failures(),
        report=report,
        seconds_to_read=seconds_to_read,
    )


def health_board(found: Health) -> Board:
    """The whole board."""
    file = card("file", "The file", "", _file_facts(found), rows([("file", str(found.path))]))
    coverage = card("coverage", "Coverage", "what this writer says that it records", _coverage(found))
    manifest = card("manifest", "Manifest", "line 1 of the trace", rows(manifest_rows(found.manifest)))
    following = card("next", "On the command line", "", commands(_commands(found)))
    return Board(
        board_of(
            f"<div>{health_notes(found, go_button)}</div>",
            columns([_invariants(found), coverage], [file, manifest, following], kind="wide-narrow"),
            box(raw_record("manifest", "Raw manifest")),
        ),
        raw={"manifest": _raw(found.manifest)},
    )


def _invariants(found: Health) -> str:
    """The card; where the oracle was not asked, why."""
    if found.report is None:
        takes = about_seconds(found.seconds_to_read)
        line = f"The file is large: to judge its invariants, every record must be read, which takes {takes}."
        return card("invariants", "Invariants", "", note("info", "Not checked yet", [line]))
    aside = "recomputed from the records, without a model"
    return card("invariants", "Invariants", aside, invariant_table(found.report, go_button))


def _file_facts(found: Health) -> str:
    num_steps = sum(len(turn.steps) for turn in found.turns)
    return facts(
        [
            Fact("turns", f"{len(found.turns):,}"),
            Fact("steps", f"{num_steps:,}"),
            Fact("records", f"{found.num_records:,}"),
            Fact("size", size_text(found.num_bytes)),
            Fact("end", found.end_reason or "missing"),
        ]
    )


def health_notes(found: Health, lead: Lead) -> str:
    """What is to be known before a step of the trace is trusted, the worst first; ``lead`` leads to its steps."""
    parts = [_failure(failure, found.turns, lead) for failure in found.failures[:MOST_FAILURES]]
    if len(found.failures) > MOST_FAILURES:
        parts.append(note("bad", f"and {len(found.failures) - MOST_FAILURES:,} more failure records"))
    parts += [*_own_violations(found, lead), *_end(found), *_special(found)]
    report = found.report
    if not parts and report is not None and not report.num_violations:
        parts.append(note("good", "This trace is whole, and nothing in it is violated"))
    return "".join(parts)


def failure_note(failure: Failure) -> str:
    """What failed, and where, as far as that was recorded: a prefill has no step."""
    places = (("turn", failure.turn), ("step", failure.step), ("phase", failure.phase))
    where = ", ".join(f"{name} {value}" for name, value in places if value is not None)
    return note("bad", f"The engine failed: {shorten(failure.error, 100)}", [where, shorten(failure.message, 400)])


def _failure(failure: Failure, turns: Sequence[TurnEntry], lead: Lead) -> str:
    """The note, and the way to the last step that was recorded: the one that failed never was."""
    turn = next((turn for turn in turns if turn.turn == failure.turn), None)
    there = lead(turn.turn, len(turn.steps) - 1) if turn is not None and turn.steps else ""
    return failure_note(failure) + there


def no_steps_note(reader: TraceReader, turn: TurnEntry) -> str:
    """Why a turn has no step to show."""
    failed = next((one for one in reader.failures() if one.turn == turn.turn), None)
    if failed is not None:
        lines = [f"It failed in phase {failed.phase}: {shorten(failed.message, 400)}"]
        if failed.state is not None:
            lines.append(f"To run that step again: specscope repro {shlex.quote(str(reader.path))}")
        return note("bad", f"Turn {turn.turn} failed before its first step was recorded", lines)
    if reader.turn_end(turn) is None:
        return note("warn", f"Turn {turn.turn} was cut off before its first step was recorded")
    return note("info", "This turn has no steps", ["It ended with the prompt's own next token."])


def _own_violations(found: Health, lead: Lead) -> list[str]:
    """What the engine itself recorded, which is known without reading the steps."""
    places = [
        (turn.turn, step)
        for turn in found.turns
        for step, num_failed in enumerate(turn.failed_invariants)
        if num_failed
    ]
    if not places:
        return []
    turn, step = places[0]
    title = f"The engine itself recorded violated invariants in {counted(len(places), 'step')}"
    return [note("bad", title, [f"First at turn {turn}, step {step}."]) + lead(turn, step)]


def _end(found: Health) -> list[str]:
    if found.end_reason is None:
        lines = ["The run was cut off, or is still going on; what is shown here is whole."]
        if found.torn_bytes:
            lines.append(f"A torn record of {counted(found.torn_bytes, 'byte')} at its end is left out.")
        return [note("warn", "This trace is truncated: it has no end record", lines)]
    parts = []
    if found.torn_bytes:
        line = f"What is left out behind the last whole record: {counted(found.torn_bytes, 'byte')}."
        parts.append(note("warn", "This trace ends in a torn record", [line]))
    if found.end_reason != "complete":
        tone: Tone = "bad" if found.end_reason == "failed" else "warn"
        title = "The run failed" if found.end_reason == "failed" else f"The run was {found.end_reason}"
        parts.append(
            note(tone, title, ["The trace is whole, but some prompts may not have been decoded to their end."])
        )
    return parts


def _special(found: Health) -> list[str]:
    """What sets the run and its file apart."""
    sampling = found.manifest.sampling
    parts = [note(one.tone, one.title, one.lines) for one in peculiarities(found.manifest)]
    if is_lossy(sampling):
        parts.append(note("warn", rule_text(sampling), ["The output is not distributed as the teacher's own."]))
    if found.manifest.original_schema is None and found.original_version > SCHEMA_VERSION:
        lines = [f"Written as {found.original_version}; this version knows {SCHEMA_VERSION} and ignores what is new."]
        parts.append(note("info", "This trace is of a newer format", lines))
    return parts


def _coverage(found: Health) -> str:
    """What the manifest promises, section by section, and what of it is missing in the steps."""
    promised: dict[str, list[str]] = {}
    for capability in found.manifest.capabilities:
        section, _, field = capability.partition(".")
        promised.setdefault(section, []).extend([field] if field else [])
    lines = (_coverage_line(name, promised.get(name)) for name in SECTIONS)
    shown = table(("Section", "Recorded", "What it holds"), lines, kind="ss-plain")
    others = [name for name in promised if name not in SECTIONS]
    unknown = quiet(f"Not known to this version: {shorten(', '.join(others), 200)}.") if others else ""
    return "".join([*_coverage_notes(found), shown, unknown])


def _coverage_line(name: str, fields: list[str] | None) -> str:
    sign, words = '<b class="ss-has">✓</b> yes', SECTIONS[name]
    if fields is None:
        sign = '<b class="ss-none">–</b> no'
        words += "; without it no decision can be compared" if name in DECISIVE else ""
    elif fields:
        words += f"; {shorten(', '.join(fields), 200)}"
    return row([name, sign, html_text(words)], ("", "", "ss-wide"))


def _coverage_notes(found: Health) -> list[str]:
    parts = []
    if not is_decisive(found.manifest):
        line = "A comparison needs trees, acceptance and what was emitted."
        parts.append(note("warn", "No decision of this run can be compared", [line]))
    else:
        supplied = {capability.partition(".")[0] for capability in found.manifest.capabilities}
        missing = [name for name in COMPARED_PHASES if name not in supplied]
        if missing:
            parts.append(note("info", f"A comparison cannot judge {', '.join(missing)}"))
    kept = found.report.invariants.get("run.capabilities") if found.report is not None else None
    if kept is not None and kept.failed:
        witness = kept.first.witness if kept.first is not None else ""
        lack = "1 step lacks" if kept.failed == 1 else f"{kept.failed:,} steps lack"
        parts.append(note("bad", f"{lack} what the manifest promises", [witness]))
    return parts


def _commands(found: Health) -> list[str]:
    file = shlex.quote(str(found.path))
    lines = [f"specscope check {file}"]
    if any(failure.state is not None for failure in found.failures):
        lines.append(f"specscope repro {file}")
    return lines


def _raw(manifest: Manifest) -> str:
    record = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return shorten(json.dumps(record, indent=1, ensure_ascii=True), LONGEST_RAW)
