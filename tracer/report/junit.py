"""The report as JUnit XML, as Jenkins and GitLab read it: ``testsuites/testsuite/testcase``.

One suite per diff. Its cases: the runs were meant to be equal; everything was recorded; each root; the invariants. A
case has a ``<failure>`` exactly where the verdict fails, at exit code 1, 3 or 4; where there is no verdict, at exit
code 2 (a file that cannot be read, a noise file of another run), the one case has an ``<error>``. So a suite with
neither means exit code 0. What was not judged since an earlier case failed is skipped.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as Xml  # builds XML here, and parses none
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

from specscope.schemas.verdict import TIES, Root, Verdict
from specscope.tracer.naming.text import counted, printable, shorten
from specscope.tracer.report import text
from specscope.tracer.report.card import (
    blame_text,
    card_of,
    field_text,
    headline,
    impact_text,
    inputs_text,
    one_line,
    where_text,
)
from specscope.tracer.report.report import Report
from specscope.tracer.report.sentences import root_sentence
from specscope.tracer.report.sizes import size_rows
from specscope.tracer.report.values import same_texts, value_names, value_text

MAX_CASES = 200  # roots that get a case of their own
MAX_NAME = 80
Outcome = Literal["passed", "failure", "error", "skipped"]


@dataclass
class _Case:
    """One testcase: a name safe for files and links, and its outcome."""

    name: str
    outcome: Outcome = "passed"
    message: str = ""
    body: list[str] = field(default_factory=list)


def render(report: Report) -> str:
    """The XML document."""
    verdict = report.verdict
    cases = [_comparable(verdict), _covered(verdict), *_roots(report), *_invariants(verdict)]
    if verdict.exit_code and not any(case.outcome == "failure" for case in cases):
        cases.append(_Case("verdict", "failure", headline(verdict, same_texts(report.texts))))
    names = f"{PurePath(verdict.baseline).stem}.{PurePath(verdict.candidate).stem}"
    suite = _suite(f"specscope.diff.{safe_name(names)}", cases, report.seconds)
    Xml.SubElement(suite, "system-out").text = printable(text.render(report))
    block = Xml.Element("properties")
    for row in card_of(report).notes:
        Xml.SubElement(block, "property", name=row.name, value=row.value)
    suite.insert(0, block)
    return _document(suite)


def render_error(error: str) -> str:
    """Why there is no verdict: one case with an error."""
    case = _Case("verdict", "error", one_line(error), [printable(error)])
    return _document(_suite("specscope.diff", [case], 0.0))


def safe_name(name: str) -> str:
    """``name`` with letters, digits, dots, dashes and underscores alone, and not too long."""
    return shorten(re.sub(r"[^A-Za-z0-9._-]+", "_", name), MAX_NAME).replace("…", "_")


def _comparable(verdict: Verdict) -> _Case:
    if not verdict.incomparable:
        return _Case("comparable", body=[*(f"remark: {line}" for line in verdict.remarks), *verdict.axis])
    return _Case("comparable", "failure", "the runs were not meant to be equal", verdict.incomparable)


def _covered(verdict: Verdict) -> _Case:
    if not verdict.uncovered:
        return _Case("covered", body=[f"not recorded: {line}" for line in verdict.unjudged])
    return _Case("covered", "failure", "too little was recorded", [f"not judged: {line}" for line in verdict.uncovered])


def _roots(report: Report) -> list[_Case]:
    verdict = report.verdict
    if verdict.incomparable:
        return [_Case("no-root-difference", "skipped", "the runs are not comparable")]
    if not verdict.roots:
        return [_Case("no-root-difference", body=[impact_text(verdict.impact)])]
    ties_fail = verdict.verdict == "ties" and verdict.exit_code != 0
    seen: Counter[str] = Counter()
    cases = []
    for root in verdict.roots[:MAX_CASES]:
        case = _root_case(root, report, ties_fail)
        seen[case.name] += 1
        case.name += f"-{seen[case.name]}" if seen[case.name] > 1 else ""
        cases.append(case)
    more = verdict.roots[MAX_CASES:]
    if more:
        failed = ties_fail or any(root.difference.kind not in TIES for root in more)
        cases.append(_Case("more-roots", "failure" if failed else "passed", f"{len(more)} more roots"))
    return cases


def _root_case(root: Root, report: Report, ties_fail: bool) -> _Case:
    difference, place = root.difference, root.place
    name = f"{safe_name(place.prompt_id)}.turn-{place.turn}.step-{place.step_a}"
    what = field_text(root, report.texts)
    texts = same_texts(report.texts)
    a, b = value_text(difference, "a", texts), value_text(difference, "b", texts)
    lines = [root_sentence(root, texts), where_text(place, difference.field), what]
    names = value_names(root)
    lines += [f"{names.a}: {a}", f"{names.b}: {b}"]
    lines.append(f"{difference.kind}; {inputs_text(difference, root.blame)}")
    lines += [f"{size.name} {size.value}" for size in size_rows(root, texts)]
    lines += [blame_text(blame) for blame in root.blame]
    lines += [f"{counted(root.also, 'further difference')} in this step; later steps inherited: {root.inherited}"]
    fails = difference.kind not in TIES or ties_fail
    message = f"{what} at {where_text(place, difference.field)}: {a} -> {b}"
    return _Case(
        f"{difference.phase}.{safe_name(difference.field)}.{name}", "failure" if fails else "passed", message, lines
    )


def _invariants(verdict: Verdict) -> list[_Case]:
    if verdict.incomparable:
        return [_Case("invariants", "skipped", "the runs are not comparable")]
    if not verdict.violations:
        return [_Case("invariants")]
    sides = {"a": "baseline", "b": "candidate"}
    return [
        _Case(f"invariants.{sides[blame.side]}.{safe_name(blame.invariant)}", "failure", blame_text(blame))
        for blame in verdict.violations
    ]


def _suite(name: str, cases: list[_Case], seconds: float) -> Xml.Element:
    counts = Counter(case.outcome for case in cases)
    suite = Xml.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time=f"{seconds:.3f}",
    )
    for at, case in enumerate(cases):
        # The files are read once, for all cases together; readers that add the cases up shall get the right sum.
        time = seconds if at == 0 else 0.0
        element = Xml.SubElement(suite, "testcase", classname=name, name=case.name, time=f"{time:.3f}")
        body = "\n".join(one_line(line) for line in case.body if line)
        if case.outcome != "passed":
            Xml.SubElement(element, case.outcome, message=one_line(case.message)).text = body
        elif body or case.message:
            Xml.SubElement(element, "system-out").text = body or one_line(case.message)
    return suite


def _document(suite: Xml.Element) -> str:
    counts = {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped", "time")}
    root = Xml.Element("testsuites", {"name": "specscope", **counts})
    root.append(suite)
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"
