"""The verdict of a comparison as HTML: the card that a person can act on, and what surrounds it. Pure."""

from __future__ import annotations

import shlex

from specscope.schemas.verdict import Difference, Root, Verdict
from specscope.tracer.report.card import (
    SIDES,
    blame_text,
    floor_text,
    headline,
    impact_text,
    leading_root,
    margin_text,
    roots_text,
    where_text,
)
from specscope.tracer.rules import LOSSY
from specscope.tracer.text import html_text
from specscope.tracer.tokens import TokenTexts
from specscope.viewer.drawing.fragments import commands, rows

#: Fields whose value is one token id.
TOKEN_FIELDS = ("argmax", "bonus_token", "prefill.pending_token", "token_ids")


def verdict_card(verdict: Verdict, root: Root | None, texts: TokenTexts) -> str:
    """The first card: the verdict, and the given root where there is one."""
    calm = " ss-calm" if verdict.verdict in ("equal", "ties") else ""
    title = headline(verdict)
    leads = leading_root(verdict) is not None
    if root is not None and leads and verdict.verdict == "different":
        title += f" in phase {root.difference.phase}: {root.difference.field}"
    body = _root_body(verdict, root, texts) if root is not None else ""
    if root is None or not leads:  # what fails the comparison stands before the ties
        body = _plain_body(verdict) + body
    return f'<div class="ss-card{calm}"><h2>{html_text(title)}</h2>{body}</div>'


def _root_body(verdict: Verdict, root: Root, texts: TokenTexts) -> str:
    found = root.difference
    where = [("rule", verdict.rule)] if LOSSY in verdict.rule else []
    where += [("where", where_text(root.place))]
    if found.node is not None:
        where.append(("node", node_text(found.node, texts)))
    after = [("kind", f"{found.kind}; inputs {'equal' if found.inputs_equal else 'differ'}")]
    margin = margin_text(root)
    after += [("margin", margin)] if margin is not None else []
    after += [("tie break", found.tie_break)] if found.tie_break is not None else []
    after += [("who is wrong", blame_text(blame)) for blame in root.blame[:3]]
    if not root.blame:
        after.append(("who is wrong", "neither side violates an invariant at this step"))
    after += [("impact", impact_text(verdict.impact)), ("roots", roots_text(verdict))]
    here = f"{root.also} further differences in this step, {root.inherited} later steps follow from it"
    after.append(("this root", here))
    return rows(where) + _values(found, texts) + rows(after)


def _values(found: Difference, texts: TokenTexts) -> str:
    cells = (
        f"<div><p>{name}</p><code>{html_text(value_text(found.field, value, texts))}</code></div>"
        for name, value in (("baseline", found.a), ("candidate", found.b))
    )
    return f'<div class="ss-values">{"".join(cells)}</div>'


def _plain_body(verdict: Verdict) -> str:
    lines = [("compared", f"{verdict.num_turns} turns, {verdict.num_steps} pairs of steps")]
    lines += [("rule", verdict.rule)] if LOSSY in verdict.rule else []
    lines += [("not comparable", line) for line in verdict.incomparable]
    lines += [("not judged", line) for line in verdict.uncovered]
    lines += [("violated", f"{SIDES[v.side]}: {v.invariant}: {v.witness}") for v in verdict.violations[:6]]
    if verdict.incomparable:
        lines.append(("next", "record both runs alike, or allow a field: specscope diff --allow FIELD"))
    return rows(lines)


def next_commands(verdict: Verdict, root: Root | None) -> str:
    """What to type next."""
    if root is None or root == verdict.roots[0]:
        return commands(verdict.next or [f"specscope check {shlex.quote(verdict.candidate)}"])
    where = f"--turn {root.place.turn_b} --step {root.place.step_b}"
    lines = [f"specscope show {shlex.quote(verdict.candidate)} {where}"]
    return commands(lines)


def surroundings(verdict: Verdict) -> str:
    """The axis of comparison, noise floors, impact and coverage."""
    lines = [("compared across", line) for line in verdict.axis] or [("compared across", "nothing was meant to differ")]
    lines.append(("acceptance rule", verdict.rule))
    lines += [("noise floor", floor_text(floor)) for floor in verdict.floors]
    lines.append(("impact", impact_text(verdict.impact)))
    lines.append(("steps", f"{verdict.num_steps} pairs, {verdict.num_regrouped} steps without a partner"))
    lines += [("not judged", line) for line in verdict.uncovered]
    lines += [("not recorded", line) for line in verdict.unjudged]
    return rows(lines)


def node_text(node: list[int], texts: TokenTexts) -> str:
    """A path key for people."""
    return " › ".join(texts.shown(token) for token in node) or "root"


def value_text(field: str, value: str, texts: TokenTexts) -> str:
    """A value, with the token's text where the value is a token id."""
    if field in TOKEN_FIELDS and value.isascii() and value.isdecimal() and len(value) <= 9:
        return f"{texts.shown(int(value))}  (id {value})"
    return value
