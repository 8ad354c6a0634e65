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

from specscope.viewer.drawing.board import whole_style_sheet
from specscope.viewer.drawing.fragments import quiet
from specscope.viewer.drawing.frames import attribute
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
#: The style sheet is ours, as the template is: only name and body hold what a trace says, and both are markup.
DOCUMENT = """\
<!DOCTYPE html>
<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="{policy}"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{name}</title>
<style>{style}</style>
</head>
<body class="ss-report">
<main class="ss-board">
<h1>{name}</h1>
{body}</main>
</body>
</html>
"""
#: Attributes that only the pages' script reads. Every quote of a text is escaped, so that no text can look like one.
_SCRIPTED = re.compile(r' data-[a-z]+="[^"]*"')


class Part(NamedTuple):
    """A section that the contents lead to."""

    id: str
    title: str
    aside: str
    body: Markup
    sign: str = ""  # before the title: what is wrong there
    gist: str = ""  # in the contents, after the title: what came of it


@dataclass(frozen=True)
class Group:
    """Parts that belong together, such as the steps of a turn."""

    title: str  # empty for none
    aside: str
    lead: Markup  # stands before the parts
    parts: Sequence[Part]


class Written(NamedTuple):
    """A report."""

    page: str  # the whole document
    headline: str  # its verdict in one line


def report_page(title: str, head: Markup, groups: Sequence[Group]) -> str:
    """The document.

    Args:
        title: of the page, and its first heading.
        head: what stands before the contents.
        groups: the rest.
    """
    body = joined([head, _contents(groups), *map(_group, groups)])
    page = DOCUMENT.format(policy=POLICY, name=html_text(title), style=whole_style_sheet(), body=body)
    return static_page(page)


def static_page(page: str) -> str:
    """``page`` without the attributes that only the viewer's script reads, and with what that script would add: what
    scrolls can be reached by keyboard."""
    return _SCRIPTED.sub("", page).replace('<div class="ss-scroll">', '<div class="ss-scroll" tabindex="0">')


def link(target: str, text: str) -> Markup:
    """A link within the page."""
    return markup('<a href="#{target}">{text}</a>', target=html_text(target), text=html_text(text))


def _contents(groups: Sequence[Group]) -> Markup:
    """Links to all parts; nothing where there is only one."""
    if sum(len(group.parts) for group in groups) < 2:
        return NOTHING
    lists = (
        markup("<div>{title}{links}</div>", title=quiet(group.title) if group.title else NOTHING, links=_links(group))
        for group in groups
    )
    return markup('<nav class="ss-box ss-contents"><h2>Contents</h2>{lists}</nav>\n', lists=joined(lists))


def _links(group: Group) -> Markup:
    entries = (
        markup(
            "<li>{sign}{link}{gist}</li>",
            sign=_sign(part),
            link=link(part.id, part.title),
            gist=markup(" {gist}", gist=html_text(part.gist)) if part.gist else NOTHING,
        )
        for part in group.parts
    )
    return markup("<ul>{entries}</ul>", entries=joined(entries))


def _group(group: Group) -> Markup:
    title = markup("<h2>{title}<span>{aside}</span></h2>", title=html_text(group.title), aside=html_text(group.aside))
    return joined([title if group.title else NOTHING, group.lead, markup("\n"), *map(_part, group.parts)])


def _part(part: Part) -> Markup:
    return markup(
        '<article class="ss-part"{id}><h2>{sign}{title}<span>{aside}</span></h2>{body}</article>\n',
        id=attribute("id", part.id),
        sign=_sign(part),
        title=html_text(part.title),
        aside=html_text(part.aside),
        body=part.body,
    )


def _sign(part: Part) -> Markup:
    return markup('<b class="ss-differs">{sign}</b> ', sign=html_text(part.sign)) if part.sign else NOTHING
