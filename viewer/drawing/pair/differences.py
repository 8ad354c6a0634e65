"""What differs between two steps as tables: every difference in the order of the phases, and every node that differs
with its values side by side. Knows records, no pages.

A value that differs carries the sign ≠ between the baseline's and the candidate's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from specscope.schemas import TensorsSection, Trial
from specscope.schemas.verdict import Difference
from specscope.tracer.compare.coverage import not_compared
from specscope.tracer.naming.text import counted, legible
from specscope.tracer.report.card import inputs_text
from specscope.tracer.report.sizes import difference_size
from specscope.tracer.report.values import SideTexts, node_text, value_text
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import DIFFERS, attribute, folded, kind_attribute, row, table
from specscope.viewer.drawing.labels.nodes import describe_node, trial_of
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.pair.sides import NodeField, NodePair, PairSide, PairSides
from specscope.viewer.drawing.tables.verdict_card import ARROW

#: What there is to say of a node of one side; None where it was not recorded.
NodeValue = Callable[[PairSide, int], str | None]
#: Rows of one table; the raw records have the rest.
MOST_ROWS = 400
HEAD = ("≠", "phase", "field", "node", "baseline", "candidate", "apart by", "in noise floors", "kind", "inputs")
CLASSES = ("ss-first", *["ss-whole-word"] * 2, *["ss-mono"] * 3, "num", "num", *["ss-whole-word"] * 2)
NUMBERS = ("apart by", "in noise floors")
#: Differences of one field that are one line, at least; and how many noise floors a full bar is, at least.
FEWEST_IN_GROUP, FULL_BAR = 3, 100.0
#: Entries beside the first that differs, where a value is a list.
BESIDE = 2
ABSENT = "–"
LOGITS = ("top_logits[0]", "top_logits[1]")
PLACE = "slot and id"  # slots may differ without harm


def difference_table(sides: PairSides, differences: Sequence[Difference], origin: Difference | None) -> Markup:
    """Every difference, those of one field in one line; ``origin`` is where the divergence begins, and marked."""
    absent = not_compared(sides.a.step, sides.b.step)
    if not differences:
        title = "Nothing that both record differs" if absent else "Nothing differs"
        return note("good", f"{title} between these two steps", ["Floats may differ within the noise floor.", *absent])
    first = next((at for at, difference in enumerate(differences) if difference == origin), None)
    begins = None if first is None else differences[first]
    shown = differences[:MOST_ROWS]
    groups = _groups(shown, begins)
    scale = _Scale.of(shown)
    lines = [_line(sides, group, scale, begins=group.farthest is begins) for group in groups]
    parts = [table(HEAD, lines, numbers=NUMBERS), scale.legend]
    if len(groups) < len(shown):
        every = [_line(sides, _Group((entry,)), scale, begins=entry is begins) for entry in shown]
        parts.append(folded(f"All {len(shown)} by themselves", table(HEAD, every, numbers=NUMBERS, kind="ss-every")))
    parts.append(_left_out(len(differences)))
    parts += [quiet(line) for line in absent]
    return markup("<div>{parts}</div>", parts=joined(parts))


class _Group(NamedTuple):
    """Differences of one field that are one line."""

    differences: tuple[Difference, ...]

    @property
    def farthest(self) -> Difference:
        """The one whose values are farthest apart; the first where that is no matter of size."""
        return max(self.differences, key=lambda entry: (_floors(entry) or 0.0, _apart(entry) or 0.0))


class _Kind(NamedTuple):
    """What differences of one line have in common."""

    phase: str
    field: str
    kind: str
    inputs_equal: bool

    @classmethod
    def of(cls, difference: Difference) -> _Kind:
        """That of one."""
        return cls(difference.phase, difference.field, difference.kind, difference.inputs_equal)


def _groups(differences: Sequence[Difference], begins: Difference | None) -> list[_Group]:
    """``differences`` in the order in which their fields first come; where the divergence begins stands by itself, and
    so do the few of a field."""
    by_kind: dict[_Kind, list[Difference]] = {}
    for entry in differences:
        if entry is not begins and entry.node is not None:
            by_kind.setdefault(_Kind.of(entry), []).append(entry)
    groups = []
    for entry in differences:
        alike = [] if entry is begins else by_kind.get(_Kind.of(entry), [])
        if len(alike) < FEWEST_IN_GROUP or entry.node is None:
            groups.append(_Group((entry,)))
        elif alike[0] is entry:
            groups.append(_Group(tuple(alike)))
    return groups


class _Scale(NamedTuple):
    """How many noise floors a full bar is; None where no bar is drawn."""

    most: float | None

    @classmethod
    def of(cls, differences: Sequence[Difference]) -> _Scale:
        """The scale for bars of ``differences``."""
        floors = [floors for floors in map(_floors, differences) if floors is not None]
        return cls(max(FULL_BAR, *floors) if floors else None)

    def bar(self, floors: float | None) -> Markup:
        """From the floor on, by powers of ten; within the floor it is empty."""
        if self.most is None or floors is None:
            return NOTHING
        width = 100 * math.log10(max(1.0, floors)) / math.log10(self.most)
        return markup('<i class="ss-floors" aria-hidden="true"><u style="width:{width:.0f}%"></u></i>', width=width)

    @property
    def legend(self) -> Markup:
        """What a bar means."""
        if self.most is None:
            return NOTHING
        return quiet(f"Bars begin at the noise floor and grow by powers of ten; a full one is {self.most:,.0f} floors.")


def node_table(sides: PairSides, differences: Sequence[Difference]) -> Markup:
    """Every node that differs: how it was fed, and what the teacher and the walk made of it. Whether a logit differs is
    what ``differences`` say: within the noise floor it does not."""
    if not sides.marked:
        return quiet("No node differs.")
    of_logits = (difference for difference in differences if difference.field in LOGITS)
    logits = {sides.name_of_path(entry.node or []): NodeField(entry.a, entry.b) for entry in of_logits}
    fields = {**FIELDS, **(TRIED if _are_drawn(sides) else {})}
    lines = [_node(sides, node, logits, fields) for node in sides.marked[:MOST_ROWS]]
    return joined([table(("node", "slot", "sees", *fields, "logit"), lines), _left_out(len(sides.marked))])


def pair_note(sides: PairSides, node: NodePair) -> Markup:
    """What the panel shows of a node: both sides' values, with a sign where they differ. XHTML of one element."""
    by_name: dict[str, list[str]] = {}
    for at, (side, slot) in enumerate(((sides.a, node.slot_a), (sides.b, node.slot_b))):
        for name, value in _described(side, slot):
            by_name.setdefault(name, ["", ""])[at] = value
    in_both = node.slot_a is not None and node.slot_b is not None
    judged = in_both and sides.compared
    lines = [_note_row(name, NodeField(*values), judged=judged) for name, values in by_name.items()]
    where = "both" if in_both else "the baseline only" if node.slot_b is None else "the candidate only"
    return markup(
        '<div xmlns="http://www.w3.org/1999/xhtml" class="ss-node">'
        '<div><p><b class="ss-mono">{label}</b><span>in {where}</span></p></div>'
        "<table><tr><th>what</th><th>baseline</th><th>candidate</th></tr>{lines}</table></div>",
        label=html_text(legible(sides.label(node))),
        where=html_text(where),
        lines=joined(lines),
    )


def _described(side: PairSide, slot: int | None) -> list[tuple[str, str]]:
    if slot is None:
        return []
    words = describe_node(side, slot)
    return [(PLACE, words.aside), *words.rows]


def _note_row(name: str, field: NodeField, *, judged: bool) -> Markup:
    differs = judged and field.differs and name != PLACE
    return markup(
        "<tr{kind}><th>{sign}{name}</th><td>{a}</td><td>{b}</td></tr>",
        kind=_row_kind(differs),
        sign=joined([DIFFERS, markup(" ")]) if differs else NOTHING,
        name=html_text(name),
        a=html_text(field.a or ABSENT),
        b=html_text(field.b or ABSENT),
    )


def _row_kind(is_marked: bool) -> Markup:
    return kind_attribute("differs" if is_marked else "")


def _line(sides: PairSides, group: _Group, scale: _Scale, *, begins: bool) -> Markup:
    """A group of differences by the one that is farthest apart."""
    difference = group.farthest
    texts = SideTexts(sides.a.texts, sides.b.texts)
    name = sides.name_of_path(difference.node) if difference.node is not None else None
    apart, floors = _apart(difference), _floors(difference)
    cells = [
        html_text("≠ first" if begins else ""),
        html_text(difference.phase),
        html_text(difference.field),
        html_text(_where(group, texts)),
        *_values(difference, texts),
        html_text("" if apart is None else f"{apart:.3g}"),
        NOTHING if floors is None else joined([scale.bar(floors), _times(floors)]),
        html_text(difference.kind),
        html_text(inputs_text(difference)),
    ]
    link = NOTHING if name is None else attribute("data-node", name)
    return row(cells, CLASSES, joined([link, _row_kind(begins)]))


def _times(floors: float) -> Markup:
    return markup('<span class="ss-times">{times}</span>', times=html_text(f"{floors:.3g}"))


def _where(group: _Group, texts: SideTexts) -> str:
    """The node, and how many others the line stands for."""
    difference = group.farthest
    if difference.node is None:
        return ""
    node = node_text(difference.node, texts, arrow=ARROW)
    others = len(group.differences) - 1
    return f"{node} and {counted(others, 'other')}" if others else node


def _values(difference: Difference, texts: SideTexts) -> list[Markup]:
    """Both values: numbers to six digits, with the rest where they are pointed at or saved."""
    if difference_size(difference) is None or difference.tokens_a or difference.tokens_b:
        return [html_text(words) for words in _words(difference, texts)]
    return [_number(value) for value in (difference.a, difference.b)]


def _number(exact: str) -> Markup:
    short = f"{float(exact):.6g}"
    if short == exact:
        return html_text(exact)
    attributes = joined([attribute("title", exact), attribute("data-exact", exact)])
    return markup("<span{attributes}>{short}</span>", attributes=attributes, short=html_text(short))


def _words(difference: Difference, texts: SideTexts) -> list[str]:
    """Both values as texts, and of two long lists what is around the first entry that differs."""
    words = [value_text(difference, "a", texts), value_text(difference, "b", texts)]
    if difference.field == "mask":
        return words
    lists = (difference.tokens_a, difference.tokens_b)
    entries: list[list[str]] = []
    for raw, tokens in zip((difference.a, difference.b), lists, strict=True):
        if tokens is None:
            entries.append(_entries(raw))
        else:
            entries.append([texts.shown(entry) if isinstance(entry, int) else str(entry) for entry in tokens])
    return _around(*entries) or words


def _entries(raw: str) -> list[str]:
    """The entries of a value that is a flat list; empty where it is none."""
    flat = raw.startswith("[") and raw.endswith("]") and "[" not in raw[1:]
    return [entry.strip() for entry in raw[1:-1].split(",")] if flat and len(raw) > 2 else []


def _around(a: Sequence[str], b: Sequence[str]) -> list[str] | None:
    """Two long lists around their first difference; None where they are short, or not both lists."""
    if min(len(a), len(b)) <= 2 * BESIDE + 1:
        return None
    at = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start, end = max(0, at - BESIDE), at + BESIDE + 1
    return [
        f"[{at}]: {'… ' if start else ''}{' '.join(row[start:end])}{' …' if end < len(row) else ''}" for row in (a, b)
    ]


def _apart(difference: Difference) -> float | None:
    """How far two floats are apart; None where it is no matter of size."""
    size = difference_size(difference)
    return None if difference.kind == "structural" or difference.tokens_a is not None else size


def _floors(difference: Difference) -> float | None:
    """How many noise floors they are apart; None where none is known."""
    apart = _apart(difference)
    return apart / difference.floor if apart is not None and difference.floor else None


def _node(
    sides: PairSides, node: NodePair, logits: Mapping[str | None, NodeField], fields: Mapping[str, NodeValue]
) -> Markup:
    slot_a, slot_b = (ABSENT if slot is None else str(slot) for slot in (node.slot_a, node.slot_b))
    logit = sides.field(node, _logit)
    cells = [
        _field(sides.seen(node)),
        *(_field(sides.field(node, of)) for of in fields.values()),
        _field(logits.get(node.name, NodeField(logit.a or logit.b, None))),
    ]
    begins = node.slot_a is not None and node.slot_a == sides.a.marks.origin
    return markup(
        '<tr{name}{kind}><td class="ss-mono">{path}</td><td>{slot}</td>{cells}</tr>',
        name=attribute("data-node", node.name),
        kind=_row_kind(begins),
        path=html_text(sides.path(node)),
        slot=html_text(slot_a if slot_a == slot_b else f"{slot_a} / {slot_b}"),
        cells=joined(cells),
    )


def _field(field: NodeField) -> Markup:
    if field.differs:
        return markup(
            '<td class="ss-unequal">{a} {sign} {b}</td>',
            a=html_text(field.a or ""),
            sign=DIFFERS,
            b=html_text(field.b or ""),
        )
    return markup("<td>{value}</td>", value=html_text(field.a or field.b or ABSENT))


def _fed(of: Callable[[TensorsSection], Sequence[int]]) -> Callable[[PairSide, int], str | None]:
    """One of the lists by which nodes were fed."""

    def value(side: PairSide, slot: int) -> str | None:
        values = of(side.step.tensors) if side.step.tensors is not None else ()
        return str(values[slot]) if slot < len(values) else None

    return value


def _top_token(side: PairSide, slot: int) -> str | None:
    verify = side.step.verify
    if verify is None or slot >= len(verify.argmax):
        return None
    token = verify.argmax[slot]
    shown = legible(side.texts.shown(token))
    return shown if shown == f"#{token}" else f"{shown} (id {token})"


def _logit(side: PairSide, slot: int) -> str | None:
    rows = (side.step.verify.top_logits if side.step.verify is not None else None) or []
    return f"{rows[slot][0]:.6g}" if slot < len(rows) and rows[slot] else None


def _walk(side: PairSide, slot: int) -> str | None:
    accept = side.step.accept
    if accept is None:
        return None
    return "root" if slot == 0 else "accepted" if slot in accept.path else "rejected"


#: What is said of a node, in the order of the phases.
FIELDS: dict[str, NodeValue] = {
    "position": _fed(lambda tensors: tensors.positions),
    "id fed": _fed(lambda tensors: tensors.token_ids),
    "and committed rows": _fed(lambda tensors: tensors.prefix_visible),
    "teacher's top token": _top_token,
    "walk": _walk,
}


def _of_trial(of: Callable[[Trial], float | None]) -> NodeValue:
    """One of the numbers by which a child was tried."""

    def value(side: PairSide, slot: int) -> str | None:
        trial = trial_of(side.step.accept, slot) if side.step.accept is not None else None
        number = of(trial) if trial is not None else None
        return None if number is None else f"{number:.4g}"

    return value


#: What is said besides where tokens are drawn.
TRIED: dict[str, NodeValue] = {
    "coin": _of_trial(lambda trial: trial.coin),
    "teacher p": _of_trial(lambda trial: trial.target_prob),
    "threshold": _of_trial(lambda trial: trial.threshold),
}


def _are_drawn(sides: PairSides) -> bool:
    accepts = (side.step.accept for side in (sides.a, sides.b))
    return any(visit.trials for accept in accepts if accept is not None for visit in accept.visited or [])


def _left_out(count: int) -> Markup:
    return quiet(f"and {count - MOST_ROWS} more") if count > MOST_ROWS else NOTHING
