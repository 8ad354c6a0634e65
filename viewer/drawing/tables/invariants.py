"""What the oracle found, invariant by invariant: what is violated with its witness, what was skipped and why. Pure."""

from __future__ import annotations

from collections.abc import Callable

from specscope.tracer.naming.text import counted, shorten
from specscope.tracer.oracle.report import OracleReport, Tally, Violation
from specscope.viewer.drawing.fragments import note, quiet, rows
from specscope.viewer.drawing.frames import VIOLATED, attribute, folded, kind_attribute, row, table
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup

LONGEST_WITNESS = 400  # characters
#: Turns and steps beyond it cannot be named by a link.
MOST = 10**9
#: Turn and step to markup that leads there; empty where nothing does.
Lead = Callable[[int, int], Markup]


def go_button(turn: int, step: int) -> Markup:
    """The viewer's lead: a button that asks for a step."""
    request = _request(turn, step)
    if not request:
        return NOTHING
    return markup(
        '<button type="button" class="ss-go"{request}>Open turn {turn}, step {step}</button>',
        request=request,
        turn=turn,
        step=step,
    )


def _request(turn: int, step: int) -> Markup:
    """The attribute that asks for a step; nothing where no link can name it."""
    return attribute("data-do", f"go:{turn}.{step}") if 0 <= turn < MOST and 0 <= step < MOST else NOTHING


def invariant_table(report: OracleReport, lead: Lead) -> Markup:
    """All invariants: those violated or skipped as tables, the others folded.

    Args:
        report: of the oracle.
        lead: to the steps that violate one.
    """
    tallies = report.invariants
    violated = {name: tally for name, tally in tallies.items() if tally.failed}
    skipped = {name: tally for name, tally in tallies.items() if tally.skipped}
    passed = {name: tally for name, tally in tallies.items() if tally.passed and not tally.failed}
    unused = {name: tally for name, tally in tallies.items() if not (tally.passed or tally.failed or tally.skipped)}
    parts = [_headline(report, len(violated), len(passed))]
    if violated:
        lines = [_violated(name, tally, lead) for name, tally in violated.items()]
        parts.append(_table(("Violated", *COUNTS, "First witness"), lines))
    if skipped:
        parts.append(_table(("Skipped", *COUNTS, "Why skipped"), [_skipped(*entry) for entry in skipped.items()]))
    statements = rows((f"{name}  ({tally.passed:,})", tally.statement) for name, tally in passed.items())
    parts.append(folded(f"{len(passed)} passed wherever they were judged", statements))
    if unused:
        others = rows((name, tally.statement) for name, tally in unused.items())
        parts.append(folded(f"{len(unused)} do not apply to this run", others))
    return joined(parts)


COUNTS = ("passed", "violated", "skipped")
CLASSES = ("ss-wide", *["num"] * len(COUNTS), "ss-wide")


def _table(names: tuple[str, ...], lines: list[Markup]) -> Markup:
    return table(names, lines, numbers=COUNTS, kind="ss-plain ss-invariants")


def _headline(report: OracleReport, num_violated: int, num_passed: int) -> Markup:
    checks = sum(tally.passed for tally in report.invariants.values())
    over = f"{counted(report.num_turns, 'turn')}, {counted(report.num_steps, 'step')}"
    if num_violated:
        title = f"{counted(num_violated, 'invariant')} violated, {counted(report.num_violations, 'time')} in all"
        return note("bad", title, [f"{checks:,} checks hold; {over}."])
    if not num_passed:
        return note("warn", "Nothing was recorded that could be checked", [over])
    hold = f"{counted(num_passed, 'invariant')} hold"
    if report.failures:  # the step that failed is not recorded, so it was not judged
        return note("info", f"{hold} in what was recorded before the failure", [f"{checks:,} checks; {over}."])
    return note("good", hold, [f"{checks:,} checks; {over}."])


def _violated(name: str, tally: Tally, lead: Lead) -> Markup:
    first = tally.first
    request = NOTHING
    witness = NOTHING
    if first is not None:
        witness = markup(
            "{witness}<div>{place}</div>",
            witness=html_text(shorten(first.witness, LONGEST_WITNESS)),
            place=_place(first, lead),
        )
        request = _request(first.turn, first.step) if first.turn is not None and first.step is not None else NOTHING
    cells = _cells(joined([VIOLATED, markup(" ")]), name, tally, witness)
    return row(cells, CLASSES, joined([kind_attribute("violated"), request]))


def _skipped(name: str, tally: Tally) -> Markup:
    why = html_text(shorten(tally.why_skipped or "no reason given", LONGEST_WITNESS))
    return row(_cells(NOTHING, name, tally, why), CLASSES)


def _cells(sign: Markup, name: str, tally: Tally, words: Markup) -> list[Markup]:
    title = joined([sign, html_text(name), quiet(tally.statement)])
    numbers = (html_text(f"{number:,}") for number in (tally.passed, tally.failed, tally.skipped))
    return [title, *numbers, words]


def _place(violation: Violation, lead: Lead) -> Markup:
    """The way to the step, or in words where it is."""
    words = [f"turn {violation.turn}"] if violation.turn is not None else []
    if violation.turn is not None and violation.step is not None:
        link = lead(violation.turn, violation.step)
        return link or quiet(shorten(f"{words[0]}, step {violation.step}", LONGEST_WITNESS))
    words += [f"line {violation.line:,}"] if violation.line is not None else ["the file as a whole"]
    return quiet(", ".join(words))
