"""The keys of the pages, as ``?`` shows them, and the palette of commands."""

from __future__ import annotations

FIND = "<dt>/</dt><dd>finds steps</dd>"
KEYS = (
    '<dialog class="keys" open hidden aria-label="Keys"><h2>Keys</h2><dl>'
    "<dt>← →</dt><dd>previous, next step; at the end of a turn, the next turn</dd>"
    "<dt>Home End</dt><dd>first, last step of the turn</dd>"
    "<dt>PgUp PgDn, [ ]</dt><dd>previous, next turn</dd>"
    "<dt>Space</dt><dd>plays the steps of the turn, until a key is pressed</dd>"
    "<dt>&lt; &gt;</dt><dd>slower, faster, while steps are played</dd>"
    "<dt>P N</dt><dd>previous, next divergence or violation</dd>"
    f"{FIND}"
    "<dt>Tab ←↑↓→ Enter</dt><dd>into the tree, through it, select</dd>"
    "<dt>+ - 0</dt><dd>larger, smaller, the whole tree; on a node of a large tree + and - unfold and fold</dd>"
    "<dt>Ctrl K</dt><dd>all that the page can do, found by typing; a number goes to that step</dd>"
    "<dt>Esc</dt><dd>leaves the tree, lets go of the selected node</dd>"
    "<dt>?</dt><dd>shows these keys, and hides them</dd></dl></dialog>"
    '<dialog class="palette" open hidden aria-label="Commands"><input type="text" role="combobox" aria-expanded="true" '
    'aria-controls="ss-commands" aria-autocomplete="list" aria-label="Command, or the number of a step" '
    'autocomplete="off" spellcheck="false" placeholder="A command, a step such as 12, or turn and step such as 1/12"/>'
    '<div role="listbox" id="ss-commands" aria-label="Commands"></div></dialog>'
    '<div class="live" role="status" aria-live="polite"></div>'
)
#: The same of a bundle, which has no page that finds.
KEYS_OF_BUNDLE = KEYS.replace(FIND, "")
