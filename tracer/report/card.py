"""The card of a verdict in words: rows of a name and a value, in the order in which a person acts on them.

Knows no format. Every value is on one line, visible and of bounded length, whatever the traces hold, so that a format
has only its own syntax left to escape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from specscope.schemas.verdict import TIES, Blame, Impact, NoiseFloor, Place, Root, Verdict
from specscope.tracer.places import turns_name
from specscope.tracer.report.report import Report
from specscope.tracer.report.sentences import root_sentence
from specscope.tracer.report.values import SideTexts, ids_of, node_text, same_texts, value_text
from specscope.tracer.rules import LOSSY
from specscope.tracer.text import counted, shorten, visible
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
MAX_TITLE = 200  # characters of the headline

Tone = Literal["good", "bad", "unsure"]


class Row(NamedTuple):
    """One line of the card."""

    name: str
    value: str


class RootLine(NamedTuple):
    """One root in the list of them."""

    number: int
    at: str  # turn and step as ``--at`` takes them; the candidate's behind them, where they are others
    prompt: str
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
    commands: list[str]  # what to run next, a line for a shell each
    notes: list[Row]  # what surrounds it: axis, floors, drift, coverage
    roots: list[RootLine]  # the first of several roots; empty where the rows say it all
    num_roots: int

    @property
    def command_rows(self) -> list[Row]:
        """The commands as rows, for a format that lists them among the others."""
        return [Row("next" if at == 0 else "", command) for at, command in enumerate(self.commands)]


def card_of(report: Report) -> Card:
    """The card of ``report``."""
    verdict = report.verdict
    leading = leading_root(verdict)
    listed = verdict.roots[:SHOWN_ROOTS] if leading is not None and len(verdict.roots) > 1 else []
    return Card(
        title=headline(verdict, same_texts(report.texts)),
        tone=tone(verdict),
        rows=_safe(_rows(verdict, leading, report.texts)),
        commands=[one_line(command) for command in verdict.next],
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


def headline(verdict: Verdict, texts: SideTexts) -> str:
    """The verdict, and in one sentence the root that leads it."""
    leading = leading_root(verdict)
    if verdict.verdict == "different" and leading is not None:
        return one_line(f"{HEADLINES['different']}: {root_sentence(leading, texts)}", MAX_TITLE)
    if verdict.verdict == "different":
        how = "differ in ties alone" if verdict.roots else "agree"
        return f"VIOLATED: the runs {how}, and break an invariant"
    if verdict.verdict == "ties" and verdict.exit_code:
        return HEADLINES["ties"] + ", and ties were asked to fail"
    return HEADLINES[verdict.verdict]


def tone(verdict: Verdict) -> Tone:
    """Whether the verdict is good news."""
    if verdict.verdict in ("incomparable", "uncovered"):
        return "unsure"
    return "bad" if verdict.exit_code else "good"


def one_line(text: str, limit: int = MAX_VALUE) -> str:
    """``text`` visible, on one line, at most ``limit`` characters."""
    return shorten(visible(shorten(text, limit)), limit)


def where_text(place: Place) -> str:
    """A place for people."""
    steps = f"step {place.step_a}" if place.step_a == place.step_b else f"steps {place.step_a} and {place.step_b}"
    return f"{turns_name(place.turn, place.turn_b, place.prompt_id)}, {steps}, position {place.position}"


def field_text(root: Root, texts: TokenTexts) -> str:
    """The phase, the field and the node that a root differs in."""
    found = root.difference
    if found.node is None:
        return f"{found.phase}: {found.field}"
    return f"{found.phase}: {found.field}  node {node_text(found.node, same_texts(texts))}"


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
    return f"accepted length {shown[0]} -> {shown[1]}, {steps}, output tokens {tokens}"


def floor_text(floor: NoiseFloor) -> str:
    """A noise floor with where it comes from."""
    source = SOURCES[floor.source]
    sample = f", {counted(floor.sample_size, 'value')}" if floor.sample_size else ""
    median = f", median {floor.median:.3g}" if floor.median is not None else ""
    return f"{floor.quantity}: {floor.floor:.3g} ({source}{sample}{median})"


def compared_text(verdict: Verdict) -> str:
    """How much was compared."""
    return f"{counted(verdict.num_turns, 'turn')}, {counted(verdict.num_steps, 'pair of steps')}"


def roots_text(verdict: Verdict) -> str:
    """How many roots there are, and what follows from them."""
    return f"{counted(len(verdict.roots), 'root')}, {verdict.num_inherited} inherited"


def root_line(number: int, root: Root) -> RootLine:
    """One root as a line of a list."""
    place, found = root.place, root.difference
    at, at_b = f"{place.turn}/{place.step_a}", f"{place.turn_b}/{place.step_b}"
    at = at if at == at_b else f"{at} ({at_b})"
    prompt = one_line(place.prompt_id, MAX_PROMPT)
    return RootLine(number, at, prompt, found.phase, one_line(found.field), found.kind, root.inherited)


def _safe(rows: list[Row]) -> list[Row]:
    return [Row(row.name, one_line(row.value)) for row in rows]


def _rows(verdict: Verdict, leading: Root | None, texts: TokenTexts) -> list[Row]:
    rows = [Row("rule", verdict.rule)] if LOSSY in verdict.rule else []
    if leading is not None:
        rows += _root_rows(leading, texts)
    else:
        rows.append(
            Row("compared", f"{counted(verdict.num_turns, 'turn')}, {counted(verdict.num_steps, 'pair of steps')}")
        )
        rows += _rest("not comparable", verdict.incomparable) + _rest("not judged", verdict.uncovered)
        for found in verdict.violations[:SHOWN_ROOTS]:
            rows.append(Row("violated", f"{SIDES[found.side]}: {found.invariant}: {found.witness}"))
    if verdict.verdict != "incomparable":
        rows.append(Row("impact", impact_text(verdict.impact)))
    if leading is not None:
        rows.append(Row("roots", roots_text(verdict)))
    return rows


def _root_rows(root: Root, texts: TokenTexts) -> list[Row]:
    found = root.difference
    inputs = "equal" if found.inputs_equal else "differ"
    rows = [
        Row("where", where_text(root.place)),
        Row("phase", field_text(root, texts)),
        Row("baseline", value_text(found, "a", same_texts(texts))),
        Row("candidate", value_text(found, "b", same_texts(texts))),
        Row("kind", f"{found.kind}; inputs {inputs}"),
    ]
    margin = margin_text(root)
    rows += [Row("margin", margin)] if margin is not None else []
    rows += [Row("tie break", found.tie_break)] if found.tie_break is not None else []
    rows += [Row("recurs", f"at {counted(root.recurs, 'later step')}, each from equal state")] if root.recurs else []
    rows += [Row("wrong", blame_text(blame)) for blame in first_blames(root)]
    rows += [] if root.blame else [Row("wrong", "neither side violates an invariant at this step")]
    rows += [Row("to decide", line) for line in root.deciding]
    hint = ids_hint(root, texts)
    return rows if hint is None else [*rows, Row("token ids", hint)]


def ids_hint(root: Root, texts: TokenTexts) -> str | None:
    """How to see texts where a root names tokens by their ids; None where all have one."""
    if all(texts.has_text(token) for token in ids_of(root.difference)):
        return None
    if texts.redacted:
        return "a trace is redacted: its ids have no text"
    return "--tokenizer FOLDER shows their texts, as does recording with --trace-text"


def _notes(verdict: Verdict, leading: Root | None, texts: TokenTexts) -> list[Row]:
    rows = [Row("acceptance rule", verdict.rule)]
    rows += _rest("compared across", verdict.axis)
    if leading is None:
        rows += _rest("tie", [f"{field_text(r, texts)} at {where_text(r.place)}" for r in verdict.roots])
    else:
        rows += _rest("not judged", verdict.uncovered)
        shown = {(blame.side, blame.invariant) for blame in first_blames(leading)}
        others = [blame for blame in verdict.violations if (blame.side, blame.invariant) not in shown]
        rows += _rest("also violated", [blame_text(blame) for blame in others])
    rows += _rest("not recorded", verdict.unjudged)
    rows += [Row("noise floor", floor_text(floor)) for floor in verdict.floors]
    rows += _rest("drift", [f"{d.field}: {counted(d.count, 'value')}, at most {d.largest:.3g}" for d in verdict.drift])
    steps = f"{counted(verdict.num_regrouped, 'step')} without a partner"
    return [*rows, Row("compared", f"{compared_text(verdict)}, {steps}")]


def _rest(name: str, lines: list[str]) -> list[Row]:
    """The first lines, and how many more there are."""
    rows = [Row(name, line) for line in lines[:SHOWN_LINES]]
    more = len(lines) - SHOWN_LINES
    return [*rows, Row(name, f"and {more} more; the json report lists them")] if more > 0 else rows
