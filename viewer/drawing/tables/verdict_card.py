"""The verdict of a comparison as markup: the card that a person can act on, the proof that the two runs belong
together, and the commands to run next. Knows verdicts, no steps. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from specscope.schemas import Manifest
from specscope.schemas.verdict import Difference, NoiseFloor, Root, Side, Verdict, VerdictKind
from specscope.tracer.naming.rules import LOSSY
from specscope.tracer.naming.text import counted
from specscope.tracer.report.card import (
    HEADLINES,
    SIDES,
    SOURCES,
    blame_text,
    compared_text,
    drift_text,
    first_blames,
    headline,
    impact_text,
    leading_root,
    loaded_texts,
    margin_text,
    one_line,
    roots_text,
    sensitivity_text,
    where_text,
)
from specscope.tracer.report.sentences import root_sentence
from specscope.tracer.report.values import SideTexts, node_text, value_text
from specscope.viewer.drawing.board import card
from specscope.viewer.drawing.fragments import quiet, rows
from specscope.viewer.drawing.frames import folded, kind_attribute
from specscope.viewer.drawing.labels.manifest import drafter_text, teacher_text, tree_text
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup

ARROW = " › "  # between the nodes of a path
VALUES: tuple[tuple[str, Side], ...] = (("baseline", "a"), ("candidate", "b"))
SIGNS: dict[VerdictKind, str] = {"equal": "✓", "ties": "≈", "different": "≠", "incomparable": "!", "uncovered": "?"}
#: Lines of a list that are shown; the command line's JSON has the rest.
SHOWN_LINES = 12
SHOWN_ROOTS = 40


def verdict_card(verdict: Verdict, root: Root | None, texts: SideTexts) -> Markup:
    """The card: the verdict, and the given root where there is one."""
    calm = " ss-calm" if verdict.verdict in ("equal", "ties") and not verdict.exit_code else ""
    return markup(
        '<section{kind}><h2><span class="ss-sign" aria-hidden="true">{sign}</span>{title}</h2>{body}</section>',
        kind=kind_attribute(f"ss-box ss-card{calm}"),
        sign=html_text(_sign(verdict)),
        title=html_text(one_line(_title(verdict, root, texts), 200)),
        body=joined(_body(verdict, root, texts)),
    )


def _title(verdict: Verdict, root: Root | None, texts: SideTexts) -> str:
    if root is not None and leading_root(verdict) is not None and verdict.verdict == "different":
        return f"{HEADLINES['different']}: {root_sentence(root, texts)}"
    return headline(verdict, texts)


def _body(verdict: Verdict, root: Root | None, texts: SideTexts) -> list[Markup]:
    parts = [
        _rows(_first("remark", verdict.remarks)) if verdict.remarks else NOTHING,
        _rows(_first("loaded", loaded_texts(verdict))) if verdict.loaded else NOTHING,
    ]
    if root is None or leading_root(verdict) is None:  # what fails the comparison comes before the ties
        parts.append(_plain_body(verdict))
    if root is not None:
        parts.append(_root_body(verdict, root, texts))
    if verdict.roots:
        parts.append(root_list(verdict, root))
    return parts


def _sign(verdict: Verdict) -> str:
    """Runs that agree, or differ only in ties, and fail by a violated invariant have the sign of a violation."""
    return "✗" if verdict.verdict == "different" and leading_root(verdict) is None else SIGNS[verdict.verdict]


def _root_body(verdict: Verdict, root: Root, texts: SideTexts) -> Markup:
    difference = root.difference
    where = f"{where_text(root.place)}; {difference.phase}: {difference.field}"
    if difference.node is not None:
        where += f", node {node_text(difference.node, texts, arrow=ARROW)}"
    matters = ("does it matter", impact_text(verdict.impact))
    return joined(
        [
            _rows([("rule", verdict.rule)]) if LOSSY in verdict.rule else NOTHING,
            markup('<p class="ss-where">{where}</p>', where=html_text(one_line(where))),
            _values(difference, texts),
            _rows([*_blame_rows(root), matters, *_further_rows(root)]),
        ]
    )


def root_rows(root: Root) -> list[tuple[str, str]]:
    """What is known of one root: who is wrong, of what kind it is, and what follows."""
    return [*_blame_rows(root), *_further_rows(root)]


def _blame_rows(root: Root) -> list[tuple[str, str]]:
    blames = [blame_text(blame) for blame in first_blames(root)]
    lines = [("who is wrong", words) for words in blames or ["neither side violates an invariant at this step"]]
    return lines + [("to decide", words) for words in root.deciding]


def _further_rows(root: Root) -> list[tuple[str, str]]:
    difference = root.difference
    margin = margin_text(root)
    lines = [("kind", f"{difference.kind}; inputs {'equal' if difference.inputs_equal else 'differ'}")]
    lines += [("drift", drift_text(root.drift))] if root.drift is not None else []
    lines += [("margin", margin)] if margin is not None else []
    lines += [("tie break", difference.tie_break)] if difference.tie_break is not None else []
    lines += [("recurs", f"at {counted(root.recurs, 'later step')}, each from equal state")] if root.recurs else []
    here = counted(root.also, "further difference")
    later = f"{counted(root.inherited, 'later step')} {'follows' if root.inherited == 1 else 'follow'} from it"
    return [*lines, ("what follows", f"{here} in this step; {later}")]


def _values(difference: Difference, texts: SideTexts) -> Markup:
    cells = (
        markup(
            "<div><p>{role}</p><code>{value}</code></div>",
            role=html_text(role),
            value=html_text(one_line(value_text(difference, side, texts))),
        )
        for role, side in VALUES
    )
    return markup('<div class="ss-values">{cells}</div>', cells=joined(cells))


def _plain_body(verdict: Verdict) -> Markup:
    lines = [("compared", compared_text(verdict))]
    lines += [("rule", verdict.rule)] if LOSSY in verdict.rule else []
    lines += _first("not comparable", verdict.incomparable)
    lines += _first("not judged", verdict.uncovered)
    lines += _first("violated", [f"{SIDES[v.side]}: {v.invariant}: {v.witness}" for v in verdict.violations])
    if verdict.incomparable:
        lines.append(("what to do", "record both runs alike, or let a field differ: specscope diff --allow FIELD"))
    elif verdict.num_turns:
        lines.append(("does it matter", impact_text(verdict.impact)))
    return _rows(lines)


def root_list(verdict: Verdict, shown: Root | None) -> Markup:
    """Every root with what follows from it, folded; a click on one asks for ``root:N``, N counted from 0."""
    entries = (_root_entry(at, root, is_here=root is shown) for at, root in enumerate(verdict.roots[:SHOWN_ROOTS]))
    more = len(verdict.roots) - SHOWN_ROOTS
    rest = quiet(f"and {more} more: ≠ Next goes from one to the next") if more > 0 else NOTHING
    listed = markup("<ol>{entries}</ol>", entries=joined(entries))
    return folded(roots_text(verdict), listed, rest, kind="ss-roots")


def _root_entry(at: int, root: Root, *, is_here: bool) -> Markup:
    difference = root.difference
    where = f"{where_text(root.place)}: {difference.phase} {difference.field}, {difference.kind}"
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


def next_commands(verdict: Verdict, root: Root | None) -> list[str]:
    """What to type next; for another root than the first, what shows that one."""
    if root is None or not verdict.roots or root == verdict.roots[0]:
        return list(verdict.next or [f"specscope check {shlex.quote(verdict.candidate)}"])
    candidate, place = shlex.quote(verdict.candidate), root.place
    return [
        f"specscope show {candidate} --turn {place.turn_b} --step {place.step_b}",
        f"specscope view {shlex.quote(verdict.baseline)} {candidate} --at {place.turn}/{place.step_a}",
    ]


def command_names(lines: Sequence[str]) -> dict[str, str]:
    """The commands by the names that their copy buttons call them."""
    return {f"command-{number}": line for number, line in enumerate(lines)}


def command_card(lines: Sequence[str]) -> Markup:
    """The commands, each with a button that copies it; the board's raw texts must hold ``command_names``."""
    entries = (
        markup(
            '<div><code>{line}</code><button type="button" data-copy="{name}">Copy</button></div>',
            line=html_text(line),
            name=html_text(name),
        )
        for name, line in command_names(lines).items()
    )
    listed = markup('<div class="ss-commands ss-copied">{entries}</div>', entries=joined(entries))
    return card("next", "Next", "in a terminal", listed)


def _first(name: str, lines: Sequence[str]) -> list[tuple[str, str]]:
    """The first lines, and how many more there are."""
    entries = [(name, line) for line in lines[:SHOWN_LINES]]
    more = len(lines) - SHOWN_LINES
    entries += [(name, f"and {more} more: specscope diff --format json lists them")] if more > 0 else []
    return entries


def _rows(lines: Sequence[tuple[str, str]]) -> Markup:
    """Rows whose values are on one line each, and bounded, whatever the traces hold."""
    return rows((name, one_line(value)) for name, value in lines)
