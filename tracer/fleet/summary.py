"""The outcome of many pairs: totals that add up, the first roots by field, and the pairs to look at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from specscope.schemas.base import Float, Section
from specscope.schemas.pair_result import Judged, PairResult
from specscope.tracer.errors import SEVERITY, worst_code
from specscope.tracer.naming.text import counted
from specscope.tracer.report.card import blame_text, one_line, where_text
from specscope.tracer.report.markdown import MAX_BYTES, code, escape

VERDICTS: tuple[Judged, ...] = ("equal", "ties", "different", "incomparable", "uncovered", "error")
SHOWN_PAIRS = 20
MAX_TEXT = 300


class PairLine(Section):
    """One pair that asks to be looked at."""

    name: str
    verdict: str
    what: str


class Summary(Section):
    """Many results in numbers."""

    num_pairs: int
    exit_code: int
    by_verdict: dict[str, int]  # adds up to num_pairs
    by_first_root: dict[str, int]  # phase: field -> pairs whose first root is there; adds up to different and ties
    num_roots: int
    num_inherited: int
    num_other_tokens: int  # pairs whose output tokens differ
    seconds: Float
    num_failing: int  # pairs whose exit code is not 0
    failing: list[PairLine]  # the worst of them
    num_remarked: int  # pairs whose verdict has a remark, as that both are one file
    remarked: list[PairLine]  # the first of them


def summarise(results: Iterable[PairResult]) -> Summary:
    """The summary of ``results``, one a pair."""
    pairs = list(results)
    verdicts = Counter(pair.verdict for pair in pairs)
    places = Counter(_place(pair) for pair in pairs if pair.verdict in ("different", "ties"))
    failing = [pair for pair in pairs if pair.exit_code]
    # By name, as failing ones are: results lie in the order in which workers were done.
    remarked = sorted((pair for pair in pairs if pair.remarks), key=lambda pair: pair.name)
    failing.sort(key=lambda pair: (-SEVERITY.index(pair.exit_code), pair.name))
    return Summary(
        num_pairs=len(pairs),
        exit_code=worst_code(pair.exit_code for pair in pairs),
        by_verdict={name: verdicts[name] for name in VERDICTS},
        by_first_root=dict(sorted(places.items(), key=lambda item: (-item[1], item[0]))),
        num_roots=sum(pair.num_roots for pair in pairs),
        num_inherited=sum(pair.num_inherited for pair in pairs),
        num_other_tokens=sum(pair.impact is not None and not pair.impact.tokens_equal for pair in pairs),
        seconds=math.fsum(pair.seconds for pair in pairs),
        num_failing=len(failing),
        failing=[_line(pair) for pair in failing[:SHOWN_PAIRS]],
        num_remarked=len(remarked),
        remarked=[_remark(pair) for pair in remarked[:SHOWN_PAIRS]],
    )


def _place(pair: PairResult) -> str:
    if pair.first_root is None:
        return f"{_no_root(pair)}: an invariant is violated"
    return one_line(f"{pair.first_root.phase}: {pair.first_root.field}", MAX_TEXT)


def _no_root(pair: PairResult) -> str:
    return "ties alone" if pair.num_roots else "no root"


def _line(pair: PairResult) -> PairLine:
    what = pair.error or ""
    if pair.verdict in ("different", "ties"):
        what = _place(pair)
    if pair.first_root is None and pair.first_violation is not None:
        what = f"{_no_root(pair)}: {blame_text(pair.first_violation)}"
    if pair.first_root is not None:
        what += f" at {where_text(pair.first_root.place, pair.first_root.field)}"
    return PairLine(name=one_line(pair.name, MAX_TEXT), verdict=pair.verdict, what=one_line(what, MAX_TEXT))


def _remark(pair: PairResult) -> PairLine:
    what = one_line("; ".join(pair.remarks), MAX_TEXT)
    return PairLine(name=one_line(pair.name, MAX_TEXT), verdict=pair.verdict, what=what)


def text_of(summary: Summary) -> str:
    """The summary for people."""
    counts = ", ".join(f"{count} {name}" for name, count in summary.by_verdict.items() if count)
    lines = [f"{counted(summary.num_pairs, 'pair')}: {counts or 'none'}"]
    lines.append(
        f"  {counted(summary.num_roots, 'root')}, {summary.num_inherited} inherited; output tokens differ in "
        f"{summary.num_other_tokens}; {summary.seconds:.1f} s of comparing"
    )
    lines += [f"  first root {name}: {count}" for name, count in summary.by_first_root.items()]
    lines += [f"  {line.verdict:<12} {line.name}" + f"  {line.what}" * bool(line.what) for line in summary.failing]
    more = summary.num_failing - len(summary.failing)
    lines += [f"  and {more} more"] * (more > 0)
    lines += [f"  {'remark':<12} {line.name}  {line.what}" for line in summary.remarked]
    more = summary.num_remarked - len(summary.remarked)
    return "\n".join(lines + [f"  and {more} more with a remark"] * (more > 0)) + "\n"


def json_of(summary: Summary) -> str:
    """The summary as JSON."""
    return summary.model_dump_json(indent=2) + "\n"


def markdown_of(summary: Summary) -> str:
    """The summary as a page for a CI job; nothing of a trace can become markup in it."""
    sign = "❌" if summary.exit_code else "✅"
    lines = [f"## {sign} specscope: {counted(summary.num_pairs, 'pair')}", "", "| verdict | pairs |", "| --- | ---: |"]
    lines += [f"| {name} | {count} |" for name, count in summary.by_verdict.items()]
    if summary.by_first_root:
        lines += ["", "| first root | pairs |", "| --- | ---: |"]
        places = list(summary.by_first_root.items())
        lines += [f"| {code(name)} | {count} |" for name, count in places[:SHOWN_PAIRS]]
        rest = sum(count for _, count in places[SHOWN_PAIRS:])
        lines += [f"| others | {rest} |"] if rest else []
    if summary.failing:
        lines += ["", "| pair | verdict | where |", "| --- | --- | --- |"]
        lines += [f"| {code(line.name)} | {escape(line.verdict)} | {code(line.what)} |" for line in summary.failing]
    more = summary.num_failing - len(summary.failing)
    lines += ["", f"and {more} more"] if more > 0 else []
    if summary.remarked:
        lines += ["", "| pair | verdict | remark |", "| --- | --- | --- |"]
        lines += [f"| {code(line.name)} | {escape(line.verdict)} | {code(line.what)} |" for line in summary.remarked]
    page = "\n".join(lines) + "\n"
    assert len(page.encode()) < MAX_BYTES  # three times SHOWN_PAIRS rows of at most MAX_TEXT characters a cell
    return page
