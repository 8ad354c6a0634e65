"""The card of a verdict in words: rows of a name and a value, in the order in which a person acts on them.

Knows no format. Every value is on one line, visible and of bounded length, whatever the traces hold, so that a format
has only its own syntax left to escape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from specscope.schemas.verdict import TIES, Blame, Impact, NoiseFloor, Place, Root, Verdict
from specscope.tracer.compare.coverage import COMPARED, DECISIVE
from specscope.tracer.report.report import Report
from specscope.tracer.rules import LOSSY
from specscope.tracer.text import shorten, visible
from specscope.tracer.tokens import TokenTexts

HEADLINES = {
    "equal": "EQUAL: no decision differs",
    "ties": "TIES: every difference is a tie within the noise floor",
    "different": "DIFFERENT",
    "incomparable": "INCOMPARABLE: these runs were not meant to be equal",
    "uncovered": "NOT JUDGED: too little was recorded",
}
SIDES = {"a": "the baseline", "b": "the candidate"}
SOURCES = {
    "given": "given by --tolerance",
    "noise-file": "measured between the baseline and the run of --noise",
    "this-pair": "measured on values of this pair with equal inputs",
    "dtype": "by dtype; too few values to measure it on",
}
SHOWN_ROOTS = 5
SHOWN_LINES = 20  # of each kind of note
MAX_VALUE = 1000  # characters of a row's value
MAX_PROMPT = 120  # characters of a prompt's id in a list of roots

Tone = Literal["good", "bad", "unsure"]


class Row(NamedTuple):
    """One line of the card."""

    name: str
    value: str


class RootLine(NamedTuple):
    """One root in the list of them."""

    number: int
    prompt: str
    step: str
    phase: str
    field: str
    kind: str
    inherited: int


@dataclass(frozen=True)
class Card:
    """A verdict in words."""

    title: str
    tone: Tone
    rows: list[Row]  # what to act on
    notes: list[Row]  # what surrounds it: axis, floors, drift, coverage
    roots: list[RootLine]  # the first of several roots; empty where the rows say it all
    num_roots: int


def card_of(report: Report) -> Card:
    """The card of ``report``."""
    verdict = report.verdict
    leading = leading_root(verdict)
    listed = verdict.roots[:SHOWN_ROOTS] if leading is not None and len(verdict.roots) > 1 else []
    return Card(
        title=headline(verdict),
        tone=tone(verdict),
        rows=_safe(_rows(verdict, leading, report.texts)),
        notes=_safe(_notes(verdict, leading, report.texts)),
        roots=[root_line(number, root) for number, root in enumerate(listed, start=1)],
        num_roots=len(verdict.roots),
    )


def leading_root(verdict: Verdict) -> Root | None:
    """The root that the card is about: the first. None where there is none, or where every root is a tie and an
    invariant is violated: what fails the comparison is the violation then."""
    if not verdict.roots:
        return None
    all_ties = all(root.difference.kind in TIES for root in verdict.roots)
    return None if all_ties and verdict.violations else verdict.roots[0]


def headline(verdict: Verdict) -> str:
    """The verdict in words of ours alone."""
    compared = num_decisions(verdict)
    whole = compared == verdict.num_steps > 0 and not verdict.num_regrouped and not verdict.uncovered
    if verdict.verdict == "different" and leading_root(verdict) is None:
        if verdict.roots:
            return "VIOLATED: the runs differ in ties alone, and break an invariant"
        if whole:
            return "VIOLATED: the runs agree, and break an invariant"
        return f"VIOLATED: an invariant is broken; {_share_text(verdict)}"
    if verdict.verdict == "equal" and not whole:
        found = "OUTPUTS EQUAL" if verdict.impact.tokens_equal else "NO DIFFERENCE FOUND"
        return f"{found}: {_share_text(verdict)}"
    if verdict.verdict == "ties" and verdict.exit_code:
        return HEADLINES["ties"] + ", and ties were asked to fail"
    if verdict.verdict == "equal" and verdict.remarks:
        return HEADLINES["equal"] + "; see the remark"
    within = " over what both runs had to emit" if verdict.verdict == "equal" and verdict.num_beyond else ""
    return HEADLINES[verdict.verdict] + within


def num_decisions(verdict: Verdict) -> int:
    """In how many pairs of steps the decisions were compared: what was drafted, accepted and kept."""
    return min(verdict.compared.get(phase, 0) for phase in DECISIVE)


def _share_text(verdict: Verdict) -> str:
    compared = num_decisions(verdict)
    if not compared:
        return "no decision was compared"
    alone = f", {verdict.num_regrouped} steps have no partner" if verdict.num_regrouped else ""
    return f"decisions were compared in {compared} of {verdict.num_steps} pairs of steps{alone}"


def compared_text(verdict: Verdict) -> str:
    """What was compared, counted: turns, pairs of steps, and the phases in them."""
    counts = [f"{verdict.num_turns} turns", f"{verdict.num_steps} pairs of steps"]
    counts += [f"{verdict.num_regrouped} steps without a partner"] if verdict.num_regrouped else []
    counts += [f"{verdict.num_beyond} steps beyond the other run's end"] if verdict.num_beyond else []
    return "; ".join([", ".join(counts), *_phase_counts(verdict)])


def _phase_counts(verdict: Verdict) -> list[str]:
    """The phases by the number of pairs in which they were compared, most first."""
    if not verdict.num_steps:
        return []
    by_count: dict[int, list[str]] = {}
    for phase in COMPARED:
        by_count.setdefault(verdict.compared.get(phase, 0), []).append(phase)
    words = {0: "in none", verdict.num_steps: "in all"}
    return [f"{', '.join(by_count[n])} {words.get(n, f'in {n}')}" for n in sorted(by_count, reverse=True)]


def tone(verdict: Verdict) -> Tone:
    """Whether the verdict is good news."""
    if verdict.verdict in ("incomparable", "uncovered") or (verdict.remarks and not verdict.exit_code):
        return "unsure"
    return "bad" if verdict.exit_code else "good"


def one_line(text: str, limit: int = MAX_VALUE) -> str:
    """``text`` visible, on one line, at most ``limit`` characters."""
    return shorten(visible(shorten(text, limit)), limit)


def where_text(place: Place) -> str:
    """A place for people."""
    steps = f"step {place.step_a}" if place.step_a == place.step_b else f"steps {place.step_a} and {place.step_b}"
    return f"{place.prompt_id} turn {place.prompt_turn + 1}, {steps}, position {place.position}"


def field_text(root: Root, texts: TokenTexts) -> str:
    """The phase, the field and the node that a root differs in."""
    found = root.difference
    if found.node is None:
        return f"{found.phase}: {found.field}"
    return f"{found.phase}: {found.field}  node " + (" > ".join(texts.shown(t) for t in found.node) or "root")


def blame_text(blame: Blame) -> str:
    """Who violates what."""
    return f"{SIDES[blame.side]} violates {blame.invariant}: {blame.witness}"


def first_blames(root: Root) -> list[Blame]:
    """The first violated invariant of each side: what follows from it says little more."""
    firsts = {blame.side: blame for blame in reversed(root.blame)}
    return [firsts[side] for side in ("a", "b") if side in firsts]


def margin_text(root: Root) -> str | None:
    """The margins and the noise floor that they were held against; None where the difference has neither."""
    found, parts = root.difference, []
    if found.margin_a is not None and found.margin_b is not None:
        parts.append(f"{found.margin_a:.6g} in the baseline, {found.margin_b:.6g} in the candidate")
    if found.floor is not None:
        parts.append(f"noise floor {found.floor:.3g}")
    return "; ".join(parts) or None


def impact_text(impact: Impact) -> str:
    """Whether it matters, in numbers: baseline -> candidate."""
    lengths = (impact.accepted_length_a, impact.accepted_length_b)
    shown = ["-" if length is None else f"{length:.3f}" for length in lengths]
    tokens = "equal" if impact.tokens_equal else f"different ({impact.num_tokens_a} -> {impact.num_tokens_b})"
    steps = f"steps {impact.num_steps_a} -> {impact.num_steps_b}"
    beyond = [
        f"{count} tokens of {SIDES[side]} lie beyond the other run's end, and are not counted"
        for side, count in (("a", impact.num_beyond_a), ("b", impact.num_beyond_b))
        if count
    ]
    return "; ".join([f"accepted length {shown[0]} -> {shown[1]}, {steps}, output tokens {tokens}", *beyond])


def floor_text(floor: NoiseFloor) -> str:
    """A noise floor with where it comes from."""
    source = SOURCES[floor.source]
    sample = f", {floor.sample_size} values" if floor.sample_size else ""
    median = f", median {floor.median:.3g}" if floor.median is not None else ""
    return f"{floor.quantity}: {floor.floor:.3g} ({source}{sample}{median})"


def roots_text(verdict: Verdict) -> str:
    """How many roots there are, and what follows from them."""
    many = "s" if len(verdict.roots) != 1 else ""
    return f"{len(verdict.roots)} root{many}, {verdict.num_inherited} inherited"


def root_line(number: int, root: Root) -> RootLine:
    """One root as a line of a list."""
    place, found = root.place, root.difference
    prompt = one_line(f"{shorten(place.prompt_id, MAX_PROMPT)} turn {place.prompt_turn + 1}")
    return RootLine(number, prompt, str(place.step_b), found.phase, one_line(found.field), found.kind, root.inherited)


def _safe(rows: list[Row]) -> list[Row]:
    return [Row(row.name, one_line(row.value)) for row in rows]


def _rows(verdict: Verdict, leading: Root | None, texts: TokenTexts) -> list[Row]:
    rows = _rest("remark", verdict.remarks)
    rows += [Row("rule", verdict.rule)] if LOSSY in verdict.rule else []
    if leading is not None:
        rows += _root_rows(leading, texts)
    else:
        rows.append(Row("compared", compared_text(verdict)))
        rows += _rest("not comparable", verdict.incomparable) + _rest("not judged", verdict.uncovered)
        for found in verdict.violations[:SHOWN_ROOTS]:
            rows.append(Row("violated", f"{SIDES[found.side]}: {found.invariant}: {found.witness}"))
    if verdict.verdict != "incomparable":
        rows.append(Row("impact", impact_text(verdict.impact)))
    if leading is not None:
        rows.append(Row("roots", roots_text(verdict)))
    return rows + [Row("next" if at == 0 else "", command) for at, command in enumerate(verdict.next)]


def _root_rows(root: Root, texts: TokenTexts) -> list[Row]:
    found = root.difference
    inputs = "equal" if found.inputs_equal else "differ"
    rows = [
        Row("where", where_text(root.place)),
        Row("phase", field_text(root, texts)),
        Row("baseline", found.a),
        Row("candidate", found.b),
        Row("kind", f"{found.kind}; inputs {inputs}"),
    ]
    margin = margin_text(root)
    rows += [Row("margin", margin)] if margin is not None else []
    rows += [Row("tie break", found.tie_break)] if found.tie_break is not None else []
    rows += [Row("recurs", f"at {root.recurs} later steps, each from equal state")] if root.recurs else []
    rows += [Row("wrong", blame_text(blame)) for blame in first_blames(root)]
    return rows if root.blame else [*rows, Row("wrong", "neither side violates an invariant at this step")]


def _notes(verdict: Verdict, leading: Root | None, texts: TokenTexts) -> list[Row]:
    rows = [Row("acceptance rule", verdict.rule)]
    unsaid = _unsaid(verdict)
    rows += _rest("compared across", [line for line in verdict.axis if _side_silent(line) is None]) + unsaid
    if leading is None:
        rows += _rest("tie", [f"{field_text(r, texts)} at {where_text(r.place)}" for r in verdict.roots])
    else:
        rows += _rest("not judged", verdict.uncovered)
        shown = {(blame.side, blame.invariant) for blame in first_blames(leading)}
        others = [blame for blame in verdict.violations if (blame.side, blame.invariant) not in shown]
        rows += _rest("also violated", [blame_text(blame) for blame in others])
    rows += _rest("not recorded", verdict.unjudged)
    rows += _rest("unknown field", verdict.unknown)
    rows += [Row("noise floor", floor_text(floor)) for floor in verdict.floors]
    rows += _rest("drift", [f"{d.field}: {d.count} values, at most {d.largest:.3g}" for d in verdict.drift])
    return [*rows, Row("compared", compared_text(verdict))] if leading is not None else rows


def _unsaid(verdict: Verdict) -> list[Row]:
    """What only one of the two manifests says, a line a side."""
    fields: dict[str, list[str]] = {}
    for line in verdict.axis:
        side = _side_silent(line)
        if side is not None:
            fields.setdefault(side, []).append(line.partition(": ")[0])
    return [Row("not said", f"{side} does not say {', '.join(names)}") for side, names in fields.items()]


def _side_silent(line: str) -> str | None:
    """Whose manifest says nothing, of a line ``field: baseline -> candidate``; None where both say something."""
    values = line.partition(": ")[2]
    if values.startswith("absent -> "):
        return SIDES["a"]
    return SIDES["b"] if values.endswith(" -> absent") else None


def _rest(name: str, lines: list[str]) -> list[Row]:
    """The first lines, and how many more there are."""
    rows = [Row(name, line) for line in lines[:SHOWN_LINES]]
    more = len(lines) - SHOWN_LINES
    return [*rows, Row(name, f"and {more} more; the json report lists them")] if more > 0 else rows
