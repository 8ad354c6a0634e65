"""What the oracle found, invariant by invariant: what is violated with its witness, what was skipped and why. Pure."""

from __future__ import annotations

from specscope.tracer.oracle import OracleReport, Tally, Violation
from specscope.tracer.text import html_text, shorten
from specscope.viewer.drawing.board import card
from specscope.viewer.drawing.fragments import note, quiet, rows

LONGEST_WITNESS = 400  # characters
#: Turns and steps beyond it are no places that a link can name.
MOST = 10**9


def go_button(turn: int, step: int) -> str:
    """A button that leads to a step; nothing where no link can name it."""
    if not (0 <= turn < MOST and 0 <= step < MOST):
        return ""
    return f'<button type="button" class="ss-go" data-do="go:{turn}.{step}">Open turn {turn}, step {step}</button>'


def invariants_card(report: OracleReport | None, seconds_to_read: float | None) -> str:
    """The card; where the oracle was not asked, why."""
    if report is None:
        seconds = max(1, round(seconds_to_read or 0))
        line = f"The file is large: to judge its invariants, every record must be read, which takes about {seconds} s."
        return card("invariants", "Invariants", "", note("info", "Not checked yet", [line]))
    violated = {name: tally for name, tally in report.invariants.items() if tally.failed}
    skipped = {name: tally for name, tally in report.invariants.items() if tally.skipped}
    passed = {name: tally for name, tally in report.invariants.items() if tally.passed and not tally.failed}
    unused = [name for name, t in report.invariants.items() if not (t.passed or t.failed or t.skipped)]
    parts = [_headline(report, violated, passed)]
    parts += [_table("Violated", violated)] if violated else []
    parts += [_table("Skipped", skipped)] if skipped else []
    parts.append(_folded(f"{len(passed)} passed wherever they were judged", _passed(passed)))
    if unused:
        statements = rows((name, report.invariants[name].statement) for name in unused)
        parts.append(_folded(f"{len(unused)} say nothing of such a run", statements))
    return card("invariants", "Invariants", "recomputed from the records, without a model", *parts)


def _headline(report: OracleReport, violated: dict[str, Tally], passed: dict[str, Tally]) -> str:
    checks = sum(tally.passed for tally in report.invariants.values())
    over = f"{report.num_turns:,} turns, {report.num_steps:,} steps"
    if violated:
        title = f"{_counted(len(violated), 'invariant')} violated, {_counted(report.num_violations, 'time')} in all"
        return note("bad", title, [f"{checks:,} checks hold; {over}."])
    if not passed:
        return note("warn", "Nothing was recorded that could be checked", [over])
    return note("good", f"{_counted(len(passed), 'invariant')} hold", [f"{checks:,} checks; {over}."])


def _table(title: str, found: dict[str, Tally]) -> str:
    last = "First witness" if title == "Violated" else "Why skipped"
    head = f'<tr><th>{title}</th><th class="num">passed</th><th class="num">violated</th><th class="num">skipped</th>'
    lines = "".join(_line(name, tally, title == "Violated") for name, tally in found.items())
    return (
        f'<div class="ss-table ss-plain ss-invariants"><table><thead>{head}<th>{last}</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _line(name: str, tally: Tally, is_violated: bool) -> str:
    numbers = "".join(f'<td class="num">{n:,}</td>' for n in (tally.passed, tally.failed, tally.skipped))
    sign = '<b class="ss-differs-sign">≠</b> ' if is_violated else ""
    words, attributes = tally.why_skipped or "not said", ""
    button = ""
    if is_violated and tally.first is not None:
        words = tally.first.witness
        button = _place(tally.first)
        attributes = ' class="violated"'
        if 'data-do="' in button:
            attributes += f' data-do="go:{tally.first.turn}.{tally.first.step}"'
    shown = html_text(shorten(words, LONGEST_WITNESS))
    named = f"{sign}{html_text(name)}{quiet(tally.statement)}"
    return f'<tr{attributes}><td class="ss-wide">{named}</td>{numbers}<td class="ss-wide">{shown}{button}</td></tr>'


def _place(found: Violation) -> str:
    if found.turn is not None and found.step is not None:
        return f"<div>{go_button(found.turn, found.step)}</div>"
    words = [f"turn {found.turn}"] if found.turn is not None else []
    words += [f"line {found.line:,}"] if found.line is not None else ["the file as a whole"]
    return quiet(", ".join(words))


def _passed(found: dict[str, Tally]) -> str:
    return rows((f"{name}  ({tally.passed:,})", tally.statement) for name, tally in found.items())


def _folded(title: str, body: str) -> str:
    return f'<details class="ss-more"><summary>{html_text(title)}</summary>{body}</details>'


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count != 1 else ''}"
