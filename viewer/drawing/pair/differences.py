"""What differs between two steps as tables: every difference in the order of the phases, and every node that differs
with its values side by side. Knows records, no pages.

A value that differs carries the sign ≠ between the baseline's and the candidate's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from specscope.schemas import TensorsSection
from specscope.schemas.verdict import Difference
from specscope.tracer.report.values import SideTexts, node_text, value_text
from specscope.tracer.words.text import html_text
from specscope.viewer.drawing.fragments import XHTML, note, quiet
from specscope.viewer.drawing.frames import DIFFERS, row, table
from specscope.viewer.drawing.pair.sides import NodeField, NodePair, PairSide, PairSides
from specscope.viewer.drawing.tables.verdict_card import ARROW
from specscope.viewer.drawing.words.nodes import describe_node

#: Rows of one table; the raw records have the rest.
MOST_ROWS = 400
HEAD = ("", "phase", "field", "node", "baseline", "candidate", "kind", "inputs")
CLASSES = ("ss-first", *["ss-whole-word"] * 2, *["ss-mono"] * 3, *["ss-whole-word"] * 2)
ABSENT = "–"
LOGITS = ("top_logits[0]", "top_logits[1]")
PLACE = "slot and id"  # slots may differ without harm


def difference_table(sides: PairSides, differences: Sequence[Difference], origin: Difference | None) -> str:
    """Every difference; ``origin`` is where the divergence begins, and marked."""
    if not differences:
        return note("good", "Nothing differs between these two steps", ["Floats may, within the noise floor."])
    begins = next((at for at, found in enumerate(differences) if found == origin), None)
    lines = [_difference(sides, found, at == begins) for at, found in enumerate(differences[:MOST_ROWS])]
    return table(HEAD, lines) + _left_out(len(differences))


def node_table(sides: PairSides, differences: Sequence[Difference]) -> str:
    """Every node that differs: how it was fed, and what the teacher and the walk made of it. Whether a logit differs is
    what ``differences`` say: within the noise floor it does not."""
    if not sides.marked:
        return quiet("No node differs.")
    named = ((sides.name_of_path(found.node or []), found) for found in differences if found.field in LOGITS)
    logits = {name: NodeField(found.a, found.b) for name, found in named}
    lines = [_node(sides, node, logits) for node in sides.marked[:MOST_ROWS]]
    return table(("node", "slot", "sees", *FIELDS, "logit"), lines) + _left_out(len(sides.marked))


def pair_note(sides: PairSides, node: NodePair) -> str:
    """What the panel shows of a node: both sides' values, those that differ signed. XHTML of one element."""
    told: dict[str, list[str]] = {}
    for at, (side, slot) in enumerate(((sides.a, node.slot_a), (sides.b, node.slot_b))):
        for name, value in _described(side, slot):
            told.setdefault(name, ["", ""])[at] = value
    both = node.slot_a is not None and node.slot_b is not None
    lines = [_told(name, NodeField(*values), judged=both and sides.compared) for name, values in told.items()]
    head = "<tr><th></th><th>baseline</th><th>candidate</th></tr>"
    where = "both" if both else "the baseline alone" if node.slot_b is None else "the candidate alone"
    title = f'<p><b class="ss-mono">{html_text(sides.label(node))}</b><span>in {where}</span></p>'
    return f'<div xmlns="{XHTML}" class="ss-node"><div>{title}</div><table>{head}{"".join(lines)}</table></div>'


def _described(side: PairSide, slot: int | None) -> list[tuple[str, str]]:
    if slot is None:
        return []
    words = describe_node(side.step, slot, side.texts)
    return [(PLACE, words.aside), *words.rows]


def _told(name: str, field: NodeField, *, judged: bool) -> str:
    differs = judged and field.differs and name != PLACE
    sign = f"{DIFFERS} " if differs else ""
    cells = "".join(f"<td>{html_text(value) if value else ABSENT}</td>" for value in field)
    return f"<tr{_row_kind(differs)}><th>{sign}{html_text(name)}</th>{cells}</tr>"


def _row_kind(is_marked: bool) -> str:
    return ' class="differs"' if is_marked else ""


def _difference(sides: PairSides, found: Difference, begins: bool) -> str:
    texts = SideTexts(sides.a.texts, sides.b.texts)
    name = sides.name_of_path(found.node) if found.node is not None else None
    link = "" if name is None else f' data-node="{html_text(name)}"'
    values = [
        "≠ first" if begins else "",
        found.phase,
        found.field,
        "" if found.node is None else node_text(found.node, texts, arrow=ARROW),
        value_text(found, "a", texts),
        value_text(found, "b", texts),
        found.kind,
        "equal" if found.inputs_equal else "differ",
    ]
    return row([html_text(value) for value in values], CLASSES, f"{link}{_row_kind(begins)}")


def _node(sides: PairSides, node: NodePair, logits: Mapping[str | None, NodeField]) -> str:
    slots = NodeField(*(None if slot is None else str(slot) for slot in (node.slot_a, node.slot_b)))
    slot = slots.a if slots.a == slots.b else f"{slots.a or ABSENT} / {slots.b or ABSENT}"
    cells = f'<td class="ss-mono">{html_text(sides.path(node))}</td><td>{html_text(slot or "")}</td>'
    cells += _field(sides.seen(node)) + "".join(_field(sides.field(node, of)) for of in FIELDS.values())
    own = sides.field(node, _logit)
    cells += _field(logits.get(node.name, NodeField(own.a or own.b, None)))
    begins = node.slot_a is not None and node.slot_a == sides.a.marks.origin
    return f'<tr data-node="{html_text(node.name)}"{_row_kind(begins)}>{cells}</tr>'


def _field(field: NodeField) -> str:
    if field.differs:
        return f'<td class="ss-unequal">{html_text(field.a or "")} {DIFFERS} {html_text(field.b or "")}</td>'
    return f"<td>{html_text(field.a or field.b or ABSENT)}</td>"


def _fed(of: Callable[[TensorsSection], Sequence[int]]) -> Callable[[PairSide, int], str | None]:
    """One of the lists by which nodes were fed."""

    def value(side: PairSide, slot: int) -> str | None:
        values = of(side.step.tensors) if side.step.tensors is not None else ()
        return str(values[slot]) if slot < len(values) else None

    return value


def _wants(side: PairSide, slot: int) -> str | None:
    verify = side.step.verify
    if verify is None or slot >= len(verify.argmax):
        return None
    token = verify.argmax[slot]
    shown = side.texts.shown(token)
    return shown if shown == f"#{token}" else f"{shown} (id {token})"


def _logit(side: PairSide, slot: int) -> str | None:
    rows = (side.step.verify.top_logits if side.step.verify is not None else None) or []
    return f"{rows[slot][0]:.6g}" if slot < len(rows) and rows[slot] else None


def _walk(side: PairSide, slot: int) -> str | None:
    accept = side.step.accept
    if accept is None:
        return None
    return "root" if slot == 0 else "accepted" if slot in accept.path else "rejected"


#: What is told of a node, in the order of the phases.
FIELDS: dict[str, Callable[[PairSide, int], str | None]] = {
    "position": _fed(lambda tensors: tensors.positions),
    "id fed": _fed(lambda tensors: tensors.token_ids),
    "and committed rows": _fed(lambda tensors: tensors.prefix_visible),
    "teacher wants next": _wants,
    "walk": _walk,
}


def _left_out(count: int) -> str:
    return quiet(f"and {count - MOST_ROWS} more") if count > MOST_ROWS else ""
