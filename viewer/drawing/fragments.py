"""Small pieces of HTML for ``st.html``: facts, notes, rows. Every text given to them is raw, and escaped here.

Nothing of a trace is ever put into Markdown, where a dollar sign or a backtick would come alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup

Tone = Literal["good", "bad", "parted", "warn", "info"]
#: ✗ is wrong by itself, ≠ differs from the other run.
SIGNS: dict[Tone, str] = {"good": "✓", "bad": "✗", "parted": "≠", "warn": "!", "info": "i"}


class Fact(NamedTuple):
    """A number or word with its name."""

    name: str
    value: str
    note: str = ""
    is_text: bool = False  # token text, shown in monospace


class Share(NamedTuple):
    """A part of a whole, drawn as a bar."""

    name: str
    amount: float
    shown: str


def facts(entries: Iterable[Fact]) -> Markup:
    """A row of facts that wraps."""
    return markup('<div class="ss-facts">{cells}</div>', cells=joined(map(_fact, entries)))


def _fact(fact: Fact) -> Markup:
    aside = markup("<span>{note}</span>", note=html_text(fact.note)) if fact.note else NOTHING
    return markup(
        '<div class="ss-fact"><div class="ss-name">{name}</div><div class="ss-value{kind}">{value}{aside}</div></div>',
        name=html_text(fact.name),
        kind=markup(" ss-mono") if fact.is_text else NOTHING,
        value=html_text(fact.value),
        aside=aside,
    )


def note(tone: Tone, title: str, lines: Sequence[str] = ()) -> Markup:
    """A coloured note with a sign, a title and lines of text."""
    return markup(
        '<div class="ss-note ss-{tone}"><b aria-hidden="true">{sign}</b>'
        "<div><strong>{title}</strong>{lines}</div></div>",
        tone=html_text(tone),
        sign=html_text(SIGNS[tone]),
        title=html_text(title),
        lines=joined(markup("<div>{line}</div>", line=html_text(line)) for line in lines),
    )


def heading(title: str, aside: str = "") -> Markup:
    """A heading within a page, with a quiet remark."""
    return markup(
        '<div class="ss-heading"><h2>{title}</h2><span>{aside}</span></div>',
        title=html_text(title),
        aside=html_text(aside),
    )


def quiet(text: str) -> Markup:
    """A remark in small print."""
    return markup('<div class="ss-quiet">{text}</div>', text=html_text(text))


def rows(entries: Iterable[tuple[str, str]]) -> Markup:
    """A list of names and values."""
    cells = (
        markup("<dt>{name}</dt><dd>{value}</dd>", name=html_text(name), value=html_text(value))
        for name, value in entries
    )
    return markup('<dl class="ss-rows">{cells}</dl>', cells=joined(cells))


def bars(shares: Sequence[Share]) -> Markup:
    """Horizontal bars, the longest at full width."""
    longest = max([share.amount for share in shares], default=0) or 1
    lines = (
        markup(
            '<div class="ss-bar"><span>{name}</span><i><u style="width:{width:.1f}%"></u></i><em>{shown}</em></div>',
            name=html_text(share.name),
            width=max(0.5, 100 * share.amount / longest),
            shown=html_text(share.shown),
        )
        for share in shares
    )
    return markup('<div class="ss-bars">{lines}</div>', lines=joined(lines))


def commands(lines: Iterable[str]) -> Markup:
    """Command lines, in monospace."""
    code = joined(markup("<code>{line}</code>", line=html_text(line)) for line in lines)
    return markup('<div class="ss-commands">{code}</div>', code=code)


def legend(
    *,
    divergent: bool = False,
    origin: bool = False,
    inherited: bool = False,
    violated: bool = False,
    rejected: bool = True,
    drafted: bool = True,
    by_teacher: bool = False,
    ghost: bool = False,
) -> Markup:
    """What the shapes of the tree mean, of those that are in it."""
    keys = [
        markup('<span><i class="ss-key ss-key-on"></i>accepted</span>'),
        markup('<span><i class="ss-key ss-key-bonus"></i>bonus token</span>'),
    ]
    if rejected:
        keys.append(markup('<span><i class="ss-key"></i>rejected</span>'))
    if drafted:
        keys.append(markup('<span><i class="ss-key-bar"></i>draft probability</span>'))
    if by_teacher:
        keys.append(markup('<span><i class="ss-key-bar ss-key-by-t"></i>teacher\'s probability, above</span>'))
    if ghost:
        keys.append(markup('<span><i class="ss-key ss-key-ghost"></i>the teacher\'s choice, left out</span>'))
    if origin:
        keys.append(markup('<span><i class="ss-key ss-key-origin"></i>≠ first: the divergence begins here</span>'))
    if divergent:
        keys.append(markup('<span><i class="ss-key ss-key-differs"></i>≠ differs</span>'))
    if inherited:
        keys.append(markup('<span><i class="ss-key ss-key-inherits"></i>differs because others do</span>'))
    if violated:
        keys.append(markup("<span>✗ violates an invariant</span>"))
    return markup('<div class="ss-legend">{keys}</div>', keys=joined(keys))
