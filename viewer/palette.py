"""The colours of every drawing. Knows nothing of traces.

Blue and vermillion come from the Okabe-Ito palette, which colour-blind readers can tell apart. A colour never stands
alone: what is accepted is also filled, what differs is also dashed and carries a sign.
"""

from __future__ import annotations

ACCEPTED = "#0072B2"
DIVERGENT = "#D55E00"
ORIGIN = "#FBDCC6"
PROBABILITY = "#E69F00"
INK = "#1F2933"
MUTED = "#5B6774"
REJECTED_TEXT = "#4A5561"
LINE = "#CBD3DB"
SURFACE = "#F4F6F8"
PAPER = "#FFFFFF"

MONOSPACE = "'Source Code Pro', ui-monospace, 'DejaVu Sans Mono', monospace"
SANS = "'Source Sans', 'Source Sans Pro', system-ui, sans-serif"
