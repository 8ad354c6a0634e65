"""The card of a verdict in words: rows of a name and a value, in the order in which a person acts on them.

Knows no format. Every value is on one line, visible and of bounded length, whatever the traces hold, so that a format
has only its own syntax left to escape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from specscope.schemas.phases import COMPARED_PHASES
from specscope.schemas.verdict import TIES, Blame, Difference, Impact, Place, Root, Verdict
from specscope.tracer.compare.commands import COMPUTED
from specscope.tracer.compare.coverage import DECISIVE
from specscope.tracer.compare.prefill import is_of_prefill
from specscope.tracer.naming.places import turns_name
from specscope.tracer.naming.rules import LOSSY
from specscope.tracer.naming.text import counted, shorten, visible
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.report.report import Report
from specscope.tracer.report.sentences import root_sentence
from specscope.tracer.report.sizes import drift_text, floor_texts, sensitivity_text, size_rows
from specscope.tracer.report.values import SideTexts, ids_of, node_text, same_texts, value_names, value_text

HEADLINES = {
    "equal": "EQUAL: no decision differs",
    "ties": "TIES: every difference is a tie within the noise floor",
    "different": "DIFFERENT",
    "incomparable": "INCOMPARABLE: these runs were not meant to be equal",
    "uncovered": "NOT JUDGED: too little was recorded",
}
#: Invariants by which a cache is not what it was left as.
CUSTODY = frozenset({"commit.prefix-kept", "draft.cache-kept"})
SIDES = {"a": "the baseline", "b": "the candidate"}
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


@dataclass(frozen=True, kw_only=True)
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
    if verdict.verdict == "different":
        if leading is None:
            return _violated(verdict)
        return one_line(f"{HEADLINES['different']}: {root_sentence(leading, texts)}", MAX_TITLE)
    if verdict.verdict == "equal" and not _is_whole(verdict):
        outcome = "OUTPUTS EQUAL" if verdict.impact.tokens_equal else "NO DIFFERENCE FOUND"
        return f"{outcome}: {_share_text(verdict)}"
    if verdict.verdict == "ties" and verdict.exit_code:
        return HEADLINES["ties"] + ", and ties were asked to fail"
    if verdict.verdict == "equal" and verdict.remarks:
        return HEADLINES["equal"] + "; see the remark"
    if verdict.verdict == "uncovered" and verdict.uncovered:
        return one_line(f"NOT JUDGED: {_agreement(verdict)}{verdict.uncovered[0]}", MAX_TITLE)
    within = " over what both runs had to emit" if verdict.verdict == "equal" and verdict.num_beyond else ""
    return HEADLINES[verdict.verdict] + within


def _violated(verdict: Verdict) -> str:
    """A verdict without a root that fails all the same."""
    if verdict.loaded and not verdict.violations:
        return f"{HEADLINES['different']}: the same files were loaded into other parameters"
    if verdict.roots:
        return "VIOLATED: the runs differ in ties alone, and break an invariant"
    if _is_whole(verdict):
        return "VIOLATED: the runs agree, and break an invariant"
    return f"VIOLATED: an invariant is broken; {_share_text(verdict)}"


def _is_whole(verdict: Verdict) -> bool:
    """Whether the decisions of every step were compared."""
    compared = num_decisions(verdict)
    return compared == verdict.num_steps > 0 and not verdict.num_regrouped and not verdict.uncovered


def num_decisions(verdict: Verdict) -> int:
    """In how many pairs of steps the decisions were compared: what was drafted, accepted and kept."""
    return min(verdict.compared.get(phase, 0) for phase in DECISIVE)


def _agreement(verdict: Verdict) -> str:
    """What can be said of a pair that is not judged: that all which was compared agrees."""
    if verdict.roots or not verdict.num_steps or num_decisions(verdict) != verdict.num_steps:
        return ""
    if verdict.num_steps == 1:
        return "equal in the only pair of steps compared, but "
    return f"equal in all {counted(verdict.num_steps, 'pair of steps')} compared, but "


def _share_text(verdict: Verdict) -> str:
    compared = num_decisions(verdict)
    if not compared:
        return "no decision was compared"
    alone = f", {verdict.num_regrouped} steps have no partner" if verdict.num_regrouped else ""
    return f"decisions were compared in {compared} of {verdict.num_steps} pairs of steps{alone}"


def compared_text(verdict: Verdict) -> str:
    """What was compared, counted: turns, pairs of steps, and the phases in them."""
    counts = [counted(verdict.num_turns, "turn"), counted(verdict.num_steps, "pair of steps")]
    counts += [f"{counted(verdict.num_regrouped, 'step')} without a partner"] if verdict.num_regrouped else []
    counts += [f"{counted(verdict.num_beyond, 'step')} beyond the other run's end"] if verdict.num_beyond else []
    apart = _num_apart(verdict)
    counts += [f"{counted(apart, 'step')} in turns that continue from different texts"] if apart > 0 else []
    return "; ".join([", ".join(counts), *_phase_counts(verdict)])


def _num_apart(verdict: Verdict) -> int:
    """Steps of turns that both runs have, and whose prompts differ because an earlier turn's output does."""
    if verdict.num_beyond or verdict.incomparable:  # the impact leaves those steps out, or nothing was aligned
        return 0
    of_both = verdict.impact.num_steps_a + verdict.impact.num_steps_b
    return of_both - 2 * verdict.num_steps - verdict.num_regrouped


def _phase_counts(verdict: Verdict) -> list[str]:
    """The phases by the number of pairs in which they were compared, most first."""
    if not verdict.num_steps:
        return []
    by_count: dict[int, list[str]] = {}
    for phase in COMPARED_PHASES:
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


def where_text(place: Place, field: str) -> str:
    """The place of a difference in ``field`` for people."""
    steps = f"step {place.step_a}" if place.step_a == place.step_b else f"steps {place.step_a} and {place.step_b}"
    steps = "prefill" if is_of_prefill(field) else steps
    position = "position not known" if place.position is None else f"position {place.position}"
    return f"{turns_name(place.turn, place.turn_b, place.prompt_id)}, {steps}, {position}"


def field_text(root: Root, texts: TokenTexts) -> str:
    """The phase, the field and the node that a root differs in."""
    difference = root.difference
    if difference.node is None:
        return f"{difference.phase}: {difference.field}"
    return f"{difference.phase}: {difference.field}  node {node_text(difference.node, same_texts(texts))}"


def blame_text(blame: Blame) -> str:
    """Who violates what."""
    return f"{SIDES[blame.side]} violates {blame.invariant}: {blame.witness}"


def first_blames(root: Root) -> list[Blame]:
    """The first violated invariant of each side: what follows from it says little more."""
    firsts = {blame.side: blame for blame in reversed(root.blame)}
    return [firsts[side] for side in ("a", "b") if side in firsts]


def impact_text(impact: Impact) -> str:
    """Whether it matters, in numbers: baseline -> candidate."""
    lengths = (impact.accepted_length_a, impact.accepted_length_b)
    shown = ["-" if length is None else f"{length:.3f}" for length in lengths]
    counts = ["not known" if count is None else str(count) for count in (impact.num_tokens_a, impact.num_tokens_b)]
    outcome = "not compared" if impact.tokens_compared is False else "different"
    tokens = "equal" if impact.tokens_equal else f"{outcome} ({counts[0]} -> {counts[1]})"
    steps = f"steps {impact.num_steps_a} -> {impact.num_steps_b}"
    beyond = [
        f"{count} tokens of {SIDES[side]} lie beyond the other run's end, and are not counted"
        for side, count in (("a", impact.num_beyond_a), ("b", impact.num_beyond_b))
        if count
    ]
    return "; ".join([f"accepted length {shown[0]} -> {shown[1]}, {steps}, output tokens {tokens}", *beyond])


def reuse_texts(impact: Impact) -> list[str]:
    """What one run took from its cache and the other ran again; empty where they are at one."""
    if impact.num_reused_a == impact.num_reused_b:
        return []
    counts = f"{impact.num_reused_a} -> {impact.num_reused_b}"
    return [f"{counts} tokens of the prompts were taken from an earlier turn's cache: this costs only time"]


def roots_text(verdict: Verdict) -> str:
    """How many roots there are, and what follows from them."""
    return f"{counted(len(verdict.roots), 'root')}, {verdict.num_inherited} inherited"


def root_line(number: int, root: Root) -> RootLine:
    """One root as a line of a list."""
    place, difference = root.place, root.difference
    at, at_b = f"{place.turn}/{place.step_a}", f"{place.turn_b}/{place.step_b}"
    at = at if at == at_b else f"{at} ({at_b})"
    prompt = one_line(place.prompt_id, MAX_PROMPT)
    return RootLine(
        number=number,
        at=at,
        prompt=prompt,
        phase=difference.phase,
        field=one_line(difference.field),
        kind=difference.kind,
        inherited=root.inherited,
    )


def _safe(rows: list[Row]) -> list[Row]:
    return [Row(row.name, one_line(row.value)) for row in rows]


def _rows(verdict: Verdict, leading: Root | None, texts: TokenTexts) -> list[Row]:
    rows = _rest("remark", verdict.remarks)
    rows += [Row("rule", verdict.rule)] if LOSSY in verdict.rule else []
    if leading is not None:
        rows += _root_rows(leading, texts)
        rows += _rest("loaded", loaded_texts(verdict))
    else:
        rows.append(Row("compared", compared_text(verdict)))
        rows += _rest("loaded", loaded_texts(verdict))
        rows += _rest("not comparable", verdict.incomparable) + _rest("not judged", verdict.uncovered)
        for violation in verdict.violations[:SHOWN_ROOTS]:
            rows.append(Row("violated", f"{SIDES[violation.side]}: {violation.invariant}: {violation.witness}"))
    if verdict.verdict != "incomparable":
        rows.append(Row("impact", impact_text(verdict.impact)))
        rows += [Row("reuse", line) for line in reuse_texts(verdict.impact)]
    if leading is not None:
        rows.append(Row("roots", roots_text(verdict)))
    return rows


def loaded_texts(verdict: Verdict) -> list[str]:
    """What was loaded differently on the two sides."""
    return [f"{name} holds other values on the two sides, although the files are the same" for name in verdict.loaded]


def _root_rows(root: Root, texts: TokenTexts) -> list[Row]:
    difference, names = root.difference, value_names(root)
    rows = [
        Row("where", where_text(root.place, difference.field)),
        Row("phase", field_text(root, texts)),
        Row(names.a, value_text(difference, "a", same_texts(texts))),
        Row(names.b, value_text(difference, "b", same_texts(texts))),
        Row("kind", f"{difference.kind}; {inputs_text(difference, root.blame)}"),
    ]
    rows += [Row("drift", drift_text(root.drift))] if root.drift is not None else []
    rows += [Row(*size) for size in size_rows(root, same_texts(texts))]
    rows += [Row("tie break", difference.tie_break)] if difference.tie_break is not None else []
    rows += [Row("recurs", f"at {counted(root.recurs, 'later step')}, each from equal state")] if root.recurs else []
    rows += [Row("wrong", blame_text(blame)) for blame in first_blames(root)]
    rows += [] if root.blame else [Row("wrong", "neither side violates an invariant at this step")]
    rows += [Row("to decide", line) for line in root.deciding]
    hint = ids_hint(root, texts)
    return rows if hint is None else [*rows, Row("token ids", hint)]


def inputs_text(difference: Difference, blame: Sequence[Blame] = ()) -> str:
    """Whether what a value was made of is equal, as far as that was recorded: of what a forward reads, caches are
    recorded by their digests at most, and two runs' are not compared; a tree may come without what was drafted for it.

    ``blame`` is of the root that begins with the difference.
    """
    if not difference.inputs_equal:
        return "inputs differ, or are not recorded"
    if any(entry.invariant in CUSTODY for entry in blame):
        return "recorded inputs equal, except what a cache holds"
    return "recorded inputs equal" if difference.phase in (*COMPUTED, "tree") else "inputs equal"


def ids_hint(root: Root, texts: TokenTexts) -> str | None:
    """How to see texts where a root names tokens by their ids; None where all have one."""
    if all(texts.has_text(token) for token in ids_of(root.difference)):
        return None
    if texts.redacted:
        return "a trace is redacted: its ids have no text"
    return "--tokenizer FOLDER shows their texts, as does recording with --trace-text"


def _notes(verdict: Verdict, leading: Root | None, texts: TokenTexts) -> list[Row]:
    rows = [Row("acceptance rule", verdict.rule)]
    unsaid = _unsaid(verdict)
    rows += _rest("compared across", [line for line in verdict.axis if _side_silent(line) is None]) + unsaid
    if leading is None:
        rows += _rest(
            "tie", [f"{field_text(r, texts)} at {where_text(r.place, r.difference.field)}" for r in verdict.roots]
        )
    else:
        rows += _rest("not judged", verdict.uncovered)
        shown = {(blame.side, blame.invariant) for blame in first_blames(leading)}
        others = [blame for blame in verdict.violations if (blame.side, blame.invariant) not in shown]
        rows += _rest("also violated", [blame_text(blame) for blame in others])
    rows += _rest("not recorded", verdict.unjudged)
    rows += _rest("unknown field", verdict.unknown)
    rows += [Row("noise floor", line) for line in floor_texts(verdict.floors)]
    sees = sensitivity_text(verdict)
    rows += [Row("sees", sees)] if sees is not None else []
    rows += _rest("drift", [f"{d.field}: {counted(d.count, 'value')}, at most {d.largest:.3g}" for d in verdict.drift])
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
