"""Small pieces of HTML for ``st.html``: facts, notes, rows. Every text given to them is raw, and escaped here.

Nothing of a trace is ever put into Markdown, where a dollar sign or a backtick would come alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from specscope.tracer.words.text import html_text

XHTML = "http://www.w3.org/1999/xhtml"

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


def facts(entries: Iterable[Fact]) -> str:
    """A row of facts that wraps."""
    cells = "".join(
        f'<div class="ss-fact"><div class="ss-name">{html_text(f.name)}</div>'
        f'<div class="ss-value{" ss-mono" if f.is_text else ""}">{html_text(f.value)}'
        f"{f'<span>{html_text(f.note)}</span>' if f.note else ''}</div></div>"
        for f in entries
    )
    return f'<div class="ss-facts">{cells}</div>'


def note(tone: Tone, title: str, lines: Sequence[str] = ()) -> str:
    """A coloured note with a sign, a title and lines of text."""
    body = "".join(f"<div>{html_text(line)}</div>" for line in lines)
    return (
        f'<div class="ss-note ss-{tone}"><b aria-hidden="true">{SIGNS[tone]}</b>'
        f"<div><strong>{html_text(title)}</strong>{body}</div></div>"
    )


def heading(title: str, aside: str = "") -> str:
    """A heading within a page, with a quiet remark."""
    return f'<div class="ss-heading"><h3>{html_text(title)}</h3><span>{html_text(aside)}</span></div>'


def quiet(text: str) -> str:
    """A remark in small print."""
    return f'<div class="ss-quiet">{html_text(text)}</div>'


def rows(entries: Iterable[tuple[str, str]], *, mono: bool = False) -> str:
    """A list of names and values."""
    kind = ' class="ss-mono"' if mono else ""
    cells = "".join(f"<dt>{html_text(name)}</dt><dd{kind}>{html_text(value)}</dd>" for name, value in entries)
    return f'<dl class="ss-rows">{cells}</dl>'


def bars(shares: Sequence[Share]) -> str:
    """Horizontal bars, longest full width."""
    longest = max([share.amount for share in shares], default=0) or 1
    lines = "".join(
        f'<div class="ss-bar"><span>{html_text(s.name)}</span>'
        f'<i><u style="width:{max(0.5, 100 * s.amount / longest):.1f}%"></u></i><em>{html_text(s.shown)}</em></div>'
        for s in shares
    )
    return f'<div class="ss-bars">{lines}</div>'


def commands(lines: Iterable[str]) -> str:
    """Command lines, in monospace."""
    return '<div class="ss-commands">' + "".join(f"<code>{html_text(line)}</code>" for line in lines) + "</div>"


def legend(*, divergent: bool = False, origin: bool = False, violated: bool = False) -> str:
    """What the shapes of the tree mean."""
    differs = '<span><i class="ss-key ss-key-differs"></i>≠ differs</span>' if divergent else ""
    if origin:
        differs = f'<span><i class="ss-key ss-key-origin"></i>≠ first: it begins here</span>{differs}'
    if violated:
        differs += "<span>✗ breaks an invariant</span>"
    return (
        '<div class="ss-legend"><span><i class="ss-key ss-key-on"></i>accepted</span>'
        '<span><i class="ss-key ss-key-bonus"></i>bonus token</span>'
        '<span><i class="ss-key"></i>rejected</span>'
        f'<span><i class="ss-key-bar"></i>draft probability</span>{differs}</div>'
    )
