"""What is wrong with a trace as a whole: where it ends, what failed, what the oracle found. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from specscope.schemas import Failure
from specscope.tracer.oracle import OracleReport, Tally, Violation
from specscope.tracer.report.card import one_line
from specscope.tracer.rules import is_lossy, rule_text
from specscope.tracer.text import html_text
from specscope.viewer.drawing.fragments import note, rows
from specscope.viewer.report.page import folded, link, table
from specscope.viewer.states import Spot

SHOWN_FAILURES = 5
MAX_WITNESS = 500  # characters


def health_headline(report: OracleReport) -> str:
    """The oracle's verdict in one line."""
    counted = f"{_count(report.num_turns, 'turn')}, {_count(report.num_steps, 'step')}"
    words = []
    if report.num_violations:
        broken = sum(tally.failed > 0 for tally in report.invariants.values())
        words.append(f"VIOLATED: {_count(broken, 'invariant')}, {_count(report.num_violations, 'time')}")
    if report.failures or report.end_reason == "failed":
        words.append("FAILED RUN")
    if report.truncated or report.torn_bytes:
        words.append("TRUNCATED")
    if not words:
        passed = sum(tally.passed for tally in report.invariants.values())
        words.append(f"ok: {passed} checks hold" if passed else "nothing was recorded that could be checked")
    return f"{', '.join(words)}; {counted}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def health(report: OracleReport, drawn: Mapping[Spot, str]) -> str:
    """Notes, the violated invariants, and what was skipped.

    Args:
        report: of the oracle.
        drawn: where the page shows a step, by its place.
    """
    parts = _notes(report)
    broken = {name: tally for name, tally in report.invariants.items() if tally.failed}
    held = {name: tally for name, tally in report.invariants.items() if tally.passed and not tally.failed}
    skipped = {name: tally for name, tally in report.invariants.items() if tally.skipped}
    if broken:
        parts.append(_broken(broken, drawn))
    if held:
        checks = sum(tally.passed for tally in held.values())
        title = f"{len(held)} invariants hold, {checks} checks in all"
        parts.append(note("good", title) if not broken else "")
        parts.append(folded("What holds", rows((name, tally.statement) for name, tally in held.items())))
    if skipped:
        why = ((name, f"{tally.skipped} times: {one_line(tally.why_skipped or '')}") for name, tally in skipped.items())
        parts.append(folded(f"{len(skipped)} invariants skipped: too little was recorded to judge them", rows(why)))
    return "".join(parts)


def _notes(report: OracleReport) -> list[str]:
    parts = []
    if is_lossy(report.manifest.sampling):
        line = "The output is not distributed as the teacher's own."
        parts.append(note("warn", rule_text(report.manifest.sampling), [line]))
    if report.torn_bytes:
        line = f"Its last {report.torn_bytes} bytes are a torn record and are left out."
        parts.append(note("warn", "This trace is truncated: it ends in a torn record", [line]))
    elif report.truncated:
        line = "The run was cut off, or is still going on; what is shown here is whole."
        parts.append(note("warn", "This trace is truncated: it has no end record", [line]))
    elif report.end_reason != "complete":
        parts.append(note("warn", f"The run was {report.end_reason}, and ended its trace properly"))
    parts += [_failure(failure) for failure in report.failures[:SHOWN_FAILURES]]
    if len(report.failures) > SHOWN_FAILURES:
        parts.append(note("bad", f"and {len(report.failures) - SHOWN_FAILURES} more failures"))
    return parts


def _failure(failure: Failure) -> str:
    where = f"turn {failure.turn}, step {failure.step}, phase {failure.phase}"
    return note("bad", f"The engine failed: {one_line(failure.error)}", [where, one_line(failure.message, MAX_WITNESS)])


def _broken(broken: Mapping[str, Tally], drawn: Mapping[Spot, str]) -> str:
    lines = [
        [
            f'<b class="ss-at-fault">!</b> {html_text(name)}',
            str(tally.failed),
            str(tally.passed),
            "" if tally.first is None else _place(tally.first, drawn),
            "" if tally.first is None else html_text(one_line(tally.first.witness, MAX_WITNESS)),
        ]
        for name, tally in broken.items()
    ]
    names = ("violated", "times", "held", "first at", "witness")
    return table(names, lines, num=frozenset(("times", "held")))


def _place(found: Violation, drawn: Mapping[Spot, str]) -> str:
    if found.turn is None or found.step is None:
        return html_text("the file" if found.line is None else f"line {found.line}")
    words, target = f"turn {found.turn}, step {found.step}", drawn.get(Spot(found.turn, found.step))
    return html_text(words) if target is None else link(target, words)
