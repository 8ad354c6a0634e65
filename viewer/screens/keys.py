"""The keys of the pages, as ``?`` shows them."""

from __future__ import annotations

KEYS = (
    '<dialog class="keys" open hidden aria-label="Keys"><h2>Keys</h2><dl>'
    "<dt>← →</dt><dd>previous, next step; at the end of a turn, the next turn</dd>"
    "<dt>Home End</dt><dd>first, last step of the turn</dd>"
    "<dt>PgUp PgDn, [ ]</dt><dd>previous, next turn</dd>"
    "<dt>Space</dt><dd>plays the steps of the turn, until a key is pressed</dd>"
    "<dt>P N</dt><dd>previous, next divergence or violation</dd>"
    "<dt>/</dt><dd>finds steps</dd>"
    "<dt>Tab ←↑↓→ Enter</dt><dd>into the tree, through it, select</dd>"
    "<dt>+ - 0</dt><dd>larger, smaller, the whole tree; on a node of a large tree + and - unfold and fold</dd>"
    "<dt>Esc</dt><dd>leaves the tree, lets go of the selected node</dd>"
    "<dt>?</dt><dd>shows these keys, and hides them</dd></dl></dialog>"
    '<div class="live" role="status" aria-live="polite"></div>'
)
