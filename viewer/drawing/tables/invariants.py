"""What the oracle found, invariant by invariant: what is violated with its witness, what was skipped and why. Pure."""

from __future__ import annotations

from collections.abc import Callable

from specscope.tracer.oracle.report import OracleReport, Tally, Violation
from specscope.tracer.words.text import counted, html_text, shorten
from specscope.viewer.drawing.fragments import note, quiet, rows
from specscope.viewer.drawing.frames import VIOLATED, folded, row, table

LONGEST_WITNESS = 400  # characters
#: Turns and steps beyond it are no places that a link can name.
MOST = 10**9
#: Turn and step to markup that leads there; empty where nothing does.
Lead = Callable[[int, int], str]


def go_button(turn: int, step: int) -> str:
    """The viewer's lead: a button that asks for a step."""
    request = _request(turn, step)
    return f'<button type="button" class="ss-go"{request}>Open turn {turn}, step {step}</button>' if request else ""


def _request(turn: int, step: int) -> str:
    """The attribute that asks for a step; nothing where no link can name it."""
    return f' data-do="go:{turn}.{step}"' if 0 <= turn < MOST and 0 <= step < MOST else ""


def invariant_table(report: OracleReport, lead: Lead) -> str:
    """All invariants: those violated or skipped as tables, the others folded.

    Args:
        report: of the oracle.
        lead: to the steps that violate one.
    """
    found = report.invariants
    violated = {name: tally for name, tally in found.items() if tally.failed}
    skipped = {name: tally for name, tally in found.items() if tally.skipped}
    passed = {name: tally for name, tally in found.items() if tally.passed and not tally.failed}
    unused = {name: tally for name, tally in found.items() if not (tally.passed or tally.failed or tally.skipped)}
    parts = [_headline(report, len(violated), len(passed))]
    if violated:
        lines = [_violated(name, tally, lead) for name, tally in violated.items()]
        parts.append(_table(("Violated", *COUNTS, "First witness"), lines))
    if skipped:
        parts.append(_table(("Skipped", *COUNTS, "Why skipped"), [_skipped(*entry) for entry in skipped.items()]))
    held = rows((f"{name}  ({tally.passed:,})", tally.statement) for name, tally in passed.items())
    parts.append(folded(f"{len(passed)} passed wherever they were judged", held))
    if unused:
        statements = rows((name, tally.statement) for name, tally in unused.items())
        parts.append(folded(f"{len(unused)} say nothing of such a run", statements))
    return "".join(parts)


COUNTS = ("passed", "violated", "skipped")
CLASSES = ("ss-wide", *["num"] * len(COUNTS), "ss-wide")


def _table(names: tuple[str, ...], lines: list[str]) -> str:
    return table(names, lines, numbers=COUNTS, kind="ss-plain ss-invariants")


def _headline(report: OracleReport, num_violated: int, num_passed: int) -> str:
    checks = sum(tally.passed for tally in report.invariants.values())
    over = f"{counted(report.num_turns, 'turn')}, {counted(report.num_steps, 'step')}"
    if num_violated:
        title = f"{counted(num_violated, 'invariant')} violated, {counted(report.num_violations, 'time')} in all"
        return note("bad", title, [f"{checks:,} checks hold; {over}."])
    if not num_passed:
        return note("warn", "Nothing was recorded that could be checked", [over])
    if report.failures:  # what failed was never recorded, so it is in none of them
        return note(
            "info",
            f"{counted(num_passed, 'invariant')} hold in what was recorded before the failure",
            [f"{checks:,} checks; {over}."],
        )
    return note("good", f"{counted(num_passed, 'invariant')} hold", [f"{checks:,} checks; {over}."])


def _violated(name: str, tally: Tally, lead: Lead) -> str:
    first, request, witness = tally.first, "", ""
    if first is not None:
        witness = html_text(shorten(first.witness, LONGEST_WITNESS)) + f"<div>{_place(first, lead)}</div>"
        request = _request(first.turn, first.step) if first.turn is not None and first.step is not None else ""
    return row(_cells(f"{VIOLATED} ", name, tally, witness), CLASSES, f' class="violated"{request}')


def _skipped(name: str, tally: Tally) -> str:
    why = html_text(shorten(tally.why_skipped or "not said", LONGEST_WITNESS))
    return row(_cells("", name, tally, why), CLASSES)


def _cells(sign: str, name: str, tally: Tally, words: str) -> list[str]:
    numbers = (f"{number:,}" for number in (tally.passed, tally.failed, tally.skipped))
    return [f"{sign}{html_text(name)}{quiet(tally.statement)}", *numbers, words]


def _place(found: Violation, lead: Lead) -> str:
    """The way to the step, or in words where it is."""
    words = [f"turn {found.turn}"] if found.turn is not None else []
    if found.turn is not None and found.step is not None:
        return lead(found.turn, found.step) or quiet(shorten(f"{words[0]}, step {found.step}", LONGEST_WITNESS))
    words += [f"line {found.line:,}"] if found.line is not None else ["the file as a whole"]
    return quiet(", ".join(words))
