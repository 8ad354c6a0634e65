"""The report as one HTML document: contents, sections, styles. No script, nothing fetched; light and dark by the
reader's setting, fit for print. Pure; knows no traces.

The markup is that of the pages, less what only their script reads. It is XHTML throughout, so that any XML parser can
tell whether a text was not escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from specscope.tracer.words.text import html_text
from specscope.viewer.drawing.board import whole_style_sheet
from specscope.viewer.drawing.fragments import XHTML, quiet

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
#: Attributes that only the pages' script reads. Every quote of a text is escaped, so that no text can look like one.
_SCRIPTED = re.compile(r' data-[a-z]+="[^"]*"')


class Part(NamedTuple):
    """A section that the contents lead to. Title and aside are raw text."""

    id: str
    title: str
    aside: str
    body: str  # markup
    sign: str = ""  # before the title: what is wrong there


@dataclass(frozen=True)
class Group:
    """Parts that belong together, such as the steps of a turn."""

    title: str  # raw text; empty for none
    aside: str
    lead: str  # markup that stands before the parts
    parts: Sequence[Part]


class Written(NamedTuple):
    """What a report comes to."""

    page: str  # HTML
    headline: str  # its verdict in one line


def report_page(title: str, head: str, groups: Sequence[Group]) -> str:
    """The document.

    Args:
        title: raw text of the title and of the first heading.
        head: markup of what stands before the contents.
        groups: the rest.
    """
    body = static_markup(head + _contents(groups) + "".join(map(_group, groups)))
    name = html_text(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en" xmlns="{XHTML}">\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{name}</title>\n<style>{whole_style_sheet()}</style>\n</head>\n"
        f'<body class="ss-report">\n<main class="ss-board">\n<h1>{name}</h1>\n{body}</main>\n</body>\n</html>\n'
    )


def static_markup(markup: str) -> str:
    """``markup`` without the attributes that only the pages' script reads."""
    return _SCRIPTED.sub("", markup)


def link(target: str, text: str) -> str:
    """A link within the page; ``text`` is raw."""
    return f'<a href="#{target}">{html_text(text)}</a>'


def _contents(groups: Sequence[Group]) -> str:
    """Links to all parts; nothing where there is one alone."""
    if sum(len(group.parts) for group in groups) < 2:
        return ""
    lists = "".join(f"<div>{quiet(group.title) if group.title else ''}{_links(group)}</div>" for group in groups)
    return f'<nav class="ss-box ss-contents"><h2>Contents</h2>{lists}</nav>\n'


def _links(group: Group) -> str:
    entries = (f"<li>{_sign(part)}{link(part.id, part.title)}</li>" for part in group.parts)
    return f"<ul>{''.join(entries)}</ul>"


def _group(group: Group) -> str:
    heading = f"<h2>{html_text(group.title)}<span>{html_text(group.aside)}</span></h2>" if group.title else ""
    return f"{heading}{group.lead}\n{''.join(map(_part, group.parts))}"


def _part(part: Part) -> str:
    title = f"<h2>{_sign(part)}{html_text(part.title)}<span>{html_text(part.aside)}</span></h2>"
    return f'<article class="ss-part" id="{html_text(part.id)}">{title}{part.body}</article>\n'


def _sign(part: Part) -> str:
    return f'<b class="ss-differs">{html_text(part.sign)}</b> ' if part.sign else ""
