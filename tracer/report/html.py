"""The report as one page of HTML: no script, nothing fetched, light and dark by the reader's setting."""

from __future__ import annotations

from collections.abc import Iterable

from specscope.tracer.naming.text import html_text
from specscope.tracer.report.card import Card, Row, card_of, one_line
from specscope.tracer.report.report import Report

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #5b6774; --line: #cbd3db; --paper: #fff; --sheet: #f4f6f8;
  --good: #00684a; --bad: #b3400a; --unsure: #7a5b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --muted: #a3afba; --line: #3d4852; --paper: #1b2127;
  --sheet: #12161a; --good: #5cc9a4; --bad: #ff9a66; --unsure: #e0b94a; } }
body { margin: 0; padding: 1.5rem; background: var(--sheet); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 68rem; margin: auto; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: 1rem 1.25rem;
  margin-bottom: 1rem; overflow-x: auto; }
.card { border-left: 5px solid var(--tone); }
h1 { margin: 0 0 .75rem; font-size: 1.25rem; color: var(--tone); }
h2 { margin: 0 0 .5rem; font-size: 1rem; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .2rem 1.25rem .2rem 0; }
th { font-weight: normal; color: var(--muted); white-space: nowrap; }
td { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
"""


def render(report: Report) -> str:
    """The page."""
    card = card_of(report)
    parts = [
        f'<section class="card"><h1>{html_text(card.title)}</h1>{_rows([*card.rows, *card.command_rows])}</section>',
        _roots(card) if card.roots else "",
        f"<section><h2>What was compared</h2>{_rows(card.notes)}</section>",
    ]
    return _page(card.title, card.tone, parts)


def render_error(error: str) -> str:
    """Why there is no verdict."""
    body = f'<section class="card"><h1>No verdict</h1><p>{html_text(one_line(error))}</p></section>'
    return _page("no verdict", "unsure", [body])


def _page(title: str, tone: str, parts: Iterable[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>specscope diff: {html_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f'<body style="--tone: var(--{tone})">\n<main>\n' + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def _rows(rows: Iterable[Row]) -> str:
    cells = (f"<tr><th>{html_text(row.name)}</th><td>{html_text(row.value)}</td></tr>" for row in rows)
    return f"<table>{''.join(cells)}</table>"


def _roots(card: Card) -> str:
    names = ("root", "at", "prompt", "phase", "field", "kind", "inherited")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html_text(str(cell))}</td>" for cell in root) + "</tr>" for root in card.roots
    )
    more = card.num_roots - len(card.roots)
    rest = f"<p>and {more} more; the json report lists them</p>" if more else ""
    return f"<section><h2>Roots</h2><table><tr>{head}</tr>{body}</table>{rest}</section>"
