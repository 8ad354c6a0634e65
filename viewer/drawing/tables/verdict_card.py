"""The verdict of a comparison as markup: the card that a person can act on, the proof that the two runs belong
together, and the commands to run next. Knows verdicts, no steps. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import get_args

from specscope.schemas import Manifest
from specscope.schemas.verdict import NoiseFloor, Root, Side, Verdict, VerdictKind
from specscope.tracer.naming.rules import LOSSY
from specscope.tracer.naming.text import counted
from specscope.tracer.report.advice import advice_for
from specscope.tracer.report.card import (
    HEADLINES,
    SIDES,
    blame_text,
    compared_text,
    first_blames,
    headline,
    impact_text,
    inputs_text,
    leading_root,
    loaded_texts,
    one_line,
    where_text,
)
from specscope.tracer.report.causes import WRONG, Cause, causes_of
from specscope.tracer.report.sentences import root_sentence
from specscope.tracer.report.sizes import SOURCES, drift_text, sensitivity_text, side_scores, size_row, size_rows
from specscope.tracer.report.values import SideTexts, node_text, value_names, value_text
from specscope.viewer.drawing.board import card
from specscope.viewer.drawing.fragments import quiet, rows
from specscope.viewer.drawing.frames import folded, kind_attribute
from specscope.viewer.drawing.labels.manifest import drafter_text, teacher_text, tree_text
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup

ARROW = " › "  # between the nodes of a path
SIGNS: dict[VerdictKind, str] = {"equal": "✓", "ties": "≈", "different": "≠", "incomparable": "!", "uncovered": "?"}
#: Lines of a list that are shown; the command line's JSON has the rest.
SHOWN_LINES = 12
SHOWN_ROOTS = 40


def verdict_card(verdict: Verdict, root: Root | None, texts: SideTexts, *, below: Markup = NOTHING) -> Markup:
    """The card: the verdict, and the given root where there is one; ``below`` stands at its end."""
    calm = " ss-calm" if verdict.verdict in ("equal", "ties") and not verdict.exit_code else ""
    return markup(
        '<section{kind}><p class="ss-verdict">{badge}</p>'
        '<h2><span class="ss-sign" aria-hidden="true">{sign}</span>{title}</h2>{body}</section>',
        kind=kind_attribute(f"ss-box ss-card{calm}"),
        badge=_badge(verdict, root),
        sign=html_text(_sign(verdict)),
        title=html_text(one_line(_title(verdict, root, texts), 200)),
        body=joined([*_body(verdict, root, texts), below]),
    )


def _title(verdict: Verdict, root: Root | None, texts: SideTexts) -> str:
    if _leads(verdict, root):
        assert root is not None
        sentence = root_sentence(root, texts)
        return sentence[:1].upper() + sentence[1:]
    return headline(verdict, texts)


def _leads(verdict: Verdict, root: Root | None) -> bool:
    """Whether the card is about ``root``."""
    return root is not None and leading_root(verdict) is not None and verdict.verdict == "different"


def _badge(verdict: Verdict, root: Root | None) -> Markup:
    """Verdict and wrong side in few words; nothing where the headline says it."""
    if not _leads(verdict, root):
        return NOTHING
    assert root is not None
    return markup("<b>{words}</b>", words=html_text(f"{HEADLINES['different']}: {WRONG[root.wrong]}"))


def _body(verdict: Verdict, root: Root | None, texts: SideTexts) -> list[Markup]:
    parts = [
        _rows(_first("remark", verdict.remarks)) if verdict.remarks else NOTHING,
        _rows(_first("loaded", loaded_texts(verdict))) if verdict.loaded else NOTHING,
    ]
    if root is None or leading_root(verdict) is None:  # what fails the comparison comes before the ties
        parts.append(_plain_body(verdict))
    if root is not None:
        parts.append(_root_body(verdict, root, texts))
    return parts


def _sign(verdict: Verdict) -> str:
    """Runs that agree, or differ only in ties, and fail by a violated invariant have the sign of a violation."""
    return "✗" if verdict.verdict == "different" and leading_root(verdict) is None else SIGNS[verdict.verdict]


def _root_body(verdict: Verdict, root: Root, texts: SideTexts) -> Markup:
    difference = root.difference
    where = f"{where_text(root.place, difference.field)}; {difference.phase}: {difference.field}"
    if difference.node is not None:
        where += f", node {node_text(difference.node, texts, arrow=ARROW)}"
    matters = ("does it matter", impact_text(verdict.impact))
    size = filter(None, [size_row(root)])
    return joined(
        [
            _rows([("rule", verdict.rule)]) if LOSSY in verdict.rule else NOTHING,
            markup('<p class="ss-where">{where}</p>', where=html_text(one_line(where))),
            _values(root, texts),
            _rows([*size, *_advice_rows(verdict, root), *_blame_rows(root), matters, *_further_rows(root)]),
        ]
    )


def _advice_rows(verdict: Verdict, root: Root) -> list[tuple[str, str]]:
    advice = advice_for(root, runs_again=verdict.runs_again)
    causes = [("usual causes", "; ".join(advice.causes))] if advice.causes else []
    return [("what to do", advice.do), *causes]


def root_rows(root: Root, texts: SideTexts) -> list[tuple[str, str]]:
    """What is known of one root besides its values: how large it is, who is wrong, of what kind it is, what follows."""
    return [*size_rows(root, texts), *_blame_rows(root), *_further_rows(root)]


def _blame_rows(root: Root) -> list[tuple[str, str]]:
    blames = [blame_text(blame) for blame in first_blames(root)]
    lines = [("who is wrong", words) for words in blames or ["neither side violates an invariant at this step"]]
    return lines + [("to decide", words) for words in root.deciding]


def _further_rows(root: Root) -> list[tuple[str, str]]:
    difference = root.difference
    lines = [("kind", f"{difference.kind}; {inputs_text(difference, root.blame)}")]
    lines += [("drift", drift_text(root.drift))] if root.drift is not None else []
    lines += [("tie break", difference.tie_break)] if difference.tie_break is not None else []
    lines += [("recurs", f"at {counted(root.recurs, 'later step')}, each from equal state")] if root.recurs else []
    here = f"{counted(root.also, 'further difference')} in this step"
    if root.drift is not None:  # of the whole run
        here = f"{root.also} of the other quantities {'drifts' if root.also == 1 else 'drift'} too"
    later = f"{counted(root.inherited, 'later step')} {'follows' if root.inherited == 1 else 'follow'} from it"
    return [*lines, ("what follows", f"{here}; {later}")]


def _values(root: Root, texts: SideTexts) -> Markup:
    names = value_names(root)
    cells = (
        markup(
            "<div><p>{role}</p><code>{value}</code><small>{scores}</small></div>",
            role=html_text(role),
            value=html_text(one_line(value_text(root.difference, side, texts))),
            scores=html_text(one_line(side_scores(root.difference, side, texts) or "")),
        )
        for role, side in zip(names, get_args(Side), strict=True)
    )
    return markup('<div class="ss-values">{cells}</div>', cells=joined(cells))


def _plain_body(verdict: Verdict) -> Markup:
    lines = [("compared", compared_text(verdict))]
    lines += [("rule", verdict.rule)] if LOSSY in verdict.rule else []
    lines += _first("not comparable", verdict.incomparable)
    lines += _first("not judged", verdict.uncovered)
    lines += _first("violated", [f"{SIDES[v.side]}: {v.invariant}: {v.witness}" for v in verdict.violations])
    if verdict.incomparable:
        lines.append(("what to do", "record both runs alike, or let a field differ: --allow FIELD"))
    elif verdict.num_turns:
        lines.append(("does it matter", impact_text(verdict.impact)))
    return _rows(lines)


def differing_fields(verdict: Verdict) -> tuple[str, ...]:
    """What the two would have to be allowed to differ in; empty where no field is in the way, or something else is."""
    fields = [line.partition(":")[0] for line in verdict.incomparable]
    return () if any(" " in field for field in fields) else tuple(fields)


def allow_buttons(verdict: Verdict, allow: Sequence[str]) -> Markup:
    """Offers to compare all the same, asked for by ``allow:all``, or where that was done to take it back."""
    parts = []
    fields = differing_fields(verdict)
    if fields:
        words = f"Compare all the same, letting {one_line(', '.join(fields), 200)} differ"
        parts.append(markup('<button type="button" data-do="allow:all">{words}</button>', words=html_text(words)))
    if verdict.incomparable:
        parts.append(markup(' <button type="button" data-do="metrics">Metrics of both</button>'))
    if allow:
        words = f"{one_line(', '.join(allow), 200)} may differ here: what follows from that is not compared."
        parts += [quiet(words), markup('<button type="button" data-do="allow:none">Let nothing differ</button>')]
    return joined(parts)


def root_list(verdict: Verdict, shown: Root | None) -> Markup:
    """Every root by its cause, folded; a click on one asks for ``root:N``, N counted from 0."""
    causes = causes_of(verdict.roots)
    left = SHOWN_ROOTS
    parts = []
    for cause in causes:
        entries = [_root_entry(at, verdict.roots[at], is_here=verdict.roots[at] is shown) for at in cause.roots[:left]]
        left -= len(entries)
        if entries:
            title = markup('<p class="ss-cause">{words}</p>', words=html_text(_cause_text(cause)))
            parts += [title, markup("<ol>{entries}</ol>", entries=joined(entries))]
    more = len(verdict.roots) - SHOWN_ROOTS
    rest = quiet(f"and {more} more: ≠ Next goes from one to the next") if more > 0 else NOTHING
    return folded(causes_text(verdict), *parts, rest, kind="ss-roots")


def causes_text(verdict: Verdict) -> str:
    """How many causes and roots there are, and what follows from them."""
    follow = f"{counted(verdict.num_inherited, 'later step')} {'follows' if verdict.num_inherited == 1 else 'follow'}"
    return f"{counted(len(causes_of(verdict.roots)), 'cause')}, {counted(len(verdict.roots), 'root')}; {follow}"


def _cause_text(cause: Cause) -> str:
    return f"{one_line(cause.name, 200)}: {counted(len(cause.roots), 'place')}"


def _root_entry(at: int, root: Root, *, is_here: bool) -> Markup:
    where = f"{where_text(root.place, root.difference.field)}: {root.difference.field}"
    return markup(
        '<li{kind}><button type="button" data-do="root:{at}">Root {number}</button> '
        "<span>{where}</span> <em>{follow}</em></li>",
        kind=kind_attribute("here" if is_here else ""),
        at=at,
        number=at + 1,
        where=html_text(one_line(where, 300)),
        follow=html_text(f"{counted(root.inherited, 'step')} inherited" if root.inherited else "nothing follows"),
    )


#: The name of what neither manifest states.
NEITHER = "stated by neither run"
#: Fields of the manifest that two runs must share: the name for people, and the field.
SHARED = (
    ("teacher", "teacher"),
    ("drafter", "drafter"),
    ("dtype", "dtype"),
    ("tree policy", "tree_policy"),
    ("sampling", "sampling"),
    ("seed", "seed"),
    ("stop rules", "stop_rules"),
    ("tokenizer", "tokenizer"),
    ("prompts", "prompt"),
)


def proof(verdict: Verdict, manifest: Manifest) -> Markup:
    """Why the two may be compared: what agrees, across what they were compared, and how far.

    Args:
        verdict: of the comparison.
        manifest: the baseline's, which says what agrees.
    """
    differing = {_field_of(line) for line in [*verdict.axis, *verdict.incomparable]}
    texts = _shared_texts(verdict, manifest)
    shared = {name: texts[field] for name, field in SHARED if field not in differing}
    agree = {name: text for name, text in shared.items() if text is not None}
    unknown = [name for name, text in shared.items() if text is None]
    values = [(f"✓ {name}", text or "the same") for name, text in agree.items()]
    values += [(NEITHER, ", ".join(unknown))] if unknown else []
    rest = f"; {len(unknown)} not stated by either run" if unknown else ""
    summary = f"✓ {len(agree)} of {len(SHARED)} that must agree do: {', '.join(agree)}{rest}"
    drift = folded(summary, _rows([*values, *_drift_rows(verdict)]), kind="ss-proof")
    return joined([surroundings(verdict), drift])


def _drift_rows(verdict: Verdict) -> list[tuple[str, str]]:
    lines = [f"{drift.field}: {counted(drift.count, 'value')}, at most {drift.largest:.3g}" for drift in verdict.drift]
    floats = "no float differs" if verdict.compared.keys() & {"draft", "verify"} else "no float was compared"
    return _first("drift within the floor", lines) or [("drift", floats)]


def _shared_texts(verdict: Verdict, manifest: Manifest) -> dict[str, str | None]:
    """What two manifests that do not differ say of each shared field; None where they say nothing."""
    stored = manifest.drafter.kind not in ("none", "ngram")  # these have no weights
    return {
        "teacher": teacher_text(manifest) + _weights_text(manifest.teacher.weights_digest),
        "drafter": drafter_text(manifest) + (_weights_text(manifest.drafter.weights_digest) if stored else ""),
        "dtype": manifest.dtype,
        "tree_policy": tree_text(manifest.tree_policy),
        "sampling": verdict.rule,
        "seed": None if manifest.seed is None else str(manifest.seed),
        "stop_rules": None if manifest.stop_rules is None else "",
        "tokenizer": None if manifest.tokenizer is None else "",
        "prompt": counted(verdict.num_turns, "turn") if verdict.num_turns else None,
    }


def _weights_text(digest: str | None) -> str:
    return "" if digest is not None else "; its weights are not identified"


def surroundings(verdict: Verdict) -> Markup:
    """The axis of comparison, the noise floors with their sources, and coverage."""
    lines = [("compared across", "; ".join(verdict.axis) or "nothing: both were recorded alike")]
    lines += [("noise floor", line) for line in _floor_lines(verdict.floors)]
    sees = sensitivity_text(verdict)
    lines += [("sees", sees)] if sees is not None else []
    lines.append(("compared", compared_text(verdict)))
    if leading_root(verdict) is not None:  # else the card says it
        lines += _first("not judged", verdict.uncovered)
    lines += _first("not recorded", verdict.unjudged)
    lines += _first("unknown field", verdict.unknown)
    return _rows(lines)


def _floor_lines(floors: Sequence[NoiseFloor]) -> list[str]:
    """One line per source: most comparisons have all floors from the same."""
    by_source: dict[str, list[str]] = {}
    for floor in floors:
        sample = f" ({counted(floor.sample_size, 'value')})" if floor.sample_size else ""
        size = f"{floor.floor:.3g}" if floor.rounding is None else f"{floor.floor / floor.rounding:.3g} roundings"
        by_source.setdefault(SOURCES[floor.source], []).append(f"{floor.quantity} {size}{sample}")
    return [f"{', '.join(shown)}; {source}" for source, shown in by_source.items()]


def _field_of(line: str) -> str:
    """The manifest's field that a line of the proof is about; ``prompt`` for what turns were given."""
    name = line.partition(":")[0].partition(".")[0].partition(" ")[0]
    return "prompt" if name in ("turn", "turns") else name


#: What the page itself shows, and shows better.
_SHOWN_HERE = ("specscope show ", "specscope view ")
#: What a command will tell, by its name.
REMARKS = {
    "bisect": "narrows the step to the layer and the operation",
    "replay": "runs the recorded steps again: a third opinion",
    "repro": "runs the step that failed again, from its record",
    "check": "recomputes every invariant of a run",
    "report": "this comparison as one HTML file, to keep or to send",
    "diff": "compares all the same, and says what cannot be judged then",
}


def next_commands(verdict: Verdict, root: Root | None) -> list[str]:
    """What to type next about ``root``, or without one about the two runs: only what tells more than the page does."""
    baseline, candidate = shlex.quote(verdict.baseline), shlex.quote(verdict.candidate)
    lines = [line for line in verdict.next if not line.startswith(_SHOWN_HERE)]
    if root is not None and verdict.roots and root != verdict.roots[0]:
        lines = [re.sub(r"--at \S+$", f"--at {root.place.turn}/{root.place.step_a}", line) for line in lines]
        same = (root.difference.phase, root.wrong) == (verdict.roots[0].difference.phase, verdict.roots[0].wrong)
        lines = lines if same else []
    if not verdict.incomparable:
        report = f"specscope report {baseline} {candidate} -o report.html"
        lines = [report, *lines] if root is not None and _is_handed_over(root) else [*lines, report]
    return lines or [f"specscope check {candidate}"]


def _is_handed_over(root: Root) -> bool:
    """Whether it lies in what the drafter is fed, tokens, rows or positions: no forward made these, so that narrowing
    one down comes last."""
    difference = root.difference
    return difference.phase == "draft" and difference.field.startswith("inputs.") and difference.kind == "structural"


def command_names(lines: Sequence[str]) -> dict[str, str]:
    """The commands by the names that their copy buttons call them."""
    return {f"command-{number}": line for number, line in enumerate(lines)}


#: Asks for what is seen as a file, or copies the way to it.
TO_PASS_ON = markup(
    '<div><button type="button" data-do="save:report">Save the report as HTML</button> '
    '<button type="button" data-do="save:verdict">Save the verdict as JSON</button> '
    '<button type="button" data-copy="address" aria-label="Copy the link to this place">Copy the link</button></div>'
)


def command_card(lines: Sequence[str]) -> Markup:
    """The commands, each with a button that copies it; the board's raw texts must hold ``command_names``."""
    entries = (
        markup(
            '<div><code>{line}</code><button type="button" data-copy="{name}" aria-label="Copy {line}">Copy</button>'
            "</div>{remark}",
            line=html_text(line),
            name=html_text(name),
            remark=quiet(REMARKS.get(line.split()[1], "")),
        )
        for name, line in command_names(lines).items()
    )
    listed = markup('<div class="ss-commands ss-copied">{entries}</div>', entries=joined(entries))
    return card("next", "Next", "in a terminal", joined([listed, TO_PASS_ON]))


def _first(name: str, lines: Sequence[str]) -> list[tuple[str, str]]:
    """The first lines, and how many more there are."""
    entries = [(name, line) for line in lines[:SHOWN_LINES]]
    more = len(lines) - SHOWN_LINES
    entries += [(name, f"and {more} more: specscope diff --format json lists them")] if more > 0 else []
    return entries


def _rows(lines: Sequence[tuple[str, str]]) -> Markup:
    """Rows whose values are on one line each, and bounded, whatever the traces hold."""
    return rows((name, one_line(value)) for name, value in lines)
