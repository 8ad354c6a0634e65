"""The files of a bundle as text: one page, its script, and a file of packed boards for each turn. Pure."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from specscope.tracer.naming.text import shorten
from specscope.viewer.bundle.packing import pack
from specscope.viewer.drawing.board import Board, whole_style_sheet
from specscope.viewer.drawing.markup import Markup, html_text
from specscope.viewer.screens.keys import KEYS_OF_BUNDLE
from specscope.viewer.screens.scripts import inspector_script

#: A script may come from beside the page: a folder that is opened from a disk has no origin.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'self' file:; img-src data: blob:; base-uri 'none';"
    " form-action 'none'"
)
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>{style}{more}</style>
</head>
<body class="ss-bundle" data-name="{name}">
<header><h1>{name}</h1><label>Turn <select id="turn"></select></label><span>? shows the keys</span></header>
<main class="inspector"><div class="strip"></div><div class="body"></div><div class="pop" hidden></div>{keys}</main>
<script type="application/json" id="turns">{turns}</script>
<script type="application/json" id="roots">{roots}</script>
<script src="bundle.js"></script>
</body>
</html>
"""
STYLE = (
    "body.ss-bundle{margin:0;padding:14px 28px 48px;background:var(--ss-surface);color:var(--ss-ink);"
    "font:13px/1.45 var(--ss-sans)}.ss-bundle header{display:flex;gap:8px 20px;align-items:baseline;flex-wrap:wrap;"
    "margin-bottom:10px}.ss-bundle h1{font-size:20px;margin:0;overflow-wrap:anywhere}"
    ".ss-bundle header span{color:var(--ss-muted);font-size:12px}.ss-raw,.ss-below,"
    "[data-do=unfold],[data-do^=open],.ss-tree .branch.open{display:none}.ss-tree .branch{pointer-events:none}"
)
MOST_NAME = 120
#: Boards are cut here: a piece that several have is stored once.
_PIECES = re.compile(r"(?=<section|<details|<dt>)")
#: How a piece begins: pieces of one kind are packed side by side, since a packer looks back only 32 kB.
_KIND = re.compile(r'<[a-z]+( class="[^"]*")?')


class BundledTurn(NamedTuple):
    """One turn."""

    turn: int
    name: str  # for people
    strip: Markup
    boards: Sequence[Board]
    stops: Sequence[int]  # steps at which something is wrong


class RootPlace(NamedTuple):
    """Where a root lies."""

    turn: int
    step: int


def site_page(name: str, turns: Sequence[Mapping[str, Any]], roots: Sequence[RootPlace]) -> str:
    """The page; ``turns`` are those of ``turn_entry``."""
    return PAGE.format(
        policy=POLICY,
        name=html_text(shorten(name, MOST_NAME)),
        style=whole_style_sheet(),
        more=STYLE,
        keys=KEYS_OF_BUNDLE,
        turns=_script_json(turns),
        roots=_script_json(roots),
    )


def turn_entry(turn: BundledTurn) -> dict[str, Any]:
    """What the page knows of a turn before its file is loaded."""
    return {"turn": turn.turn, "name": turn.name, "size": len(turn.boards), "stops": list(turn.stops)}


def turn_script(turn: BundledTurn) -> str:
    """The file of one turn: its boards, packed, then what they say of their nodes. Raw records are left out."""
    cut = [_PIECES.split(board.html) for board in turn.boards]
    kinds: dict[str, list[str]] = {}
    for piece in dict.fromkeys(piece for board in cut for piece in board):
        kinds.setdefault(_kind(piece), []).append(piece)
    pieces = {piece: at for at, piece in enumerate(piece for alike in kinds.values() for piece in alike)}
    notes = [json.dumps(dict(board.notes), ensure_ascii=False) for board in turn.boards]
    boards = [[pieces[piece] for piece in html] for html in cut]
    content = {"strip": turn.strip, "boards": boards, **pack([*pieces, *notes])._asdict()}
    page = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(page.encode(), 9)).decode()
    return f'bundle({turn.turn}, "{packed}");\n'


def _kind(piece: str) -> str:
    start = _KIND.match(piece)
    return start[0] if start is not None else ""


def site_script() -> str:
    """The script of the page: the inspector of the viewer, and what loads boards for it."""
    shared, _, _ = inspector_script().partition("export default")
    return shared + Path(__file__).with_name("bundle.js").read_text(encoding="utf-8")


def _script_json(value: Any) -> str:
    """JSON that ends no script element, whatever it holds."""
    return json.dumps(value, ensure_ascii=True).replace("<", "\\u003c").replace("&", "\\u0026")
