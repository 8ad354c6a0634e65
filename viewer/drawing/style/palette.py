"""The colours and fonts of everything that is drawn, in light and in dark. Knows nothing of traces.

Blue and vermillion come from the Okabe-Ito palette, which colour-blind readers can tell apart; the dark ones are
lighter variants of them. Colour is never the only sign: what is accepted is also filled, what differs is also dashed
and carries a sign.

Drawings name colours as CSS variables (``var(--ss-accepted)``), so that one drawing serves both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Palette:
    """One set of colours."""

    accepted: str  # the accepted path, and whatever is chosen or active
    on_accepted: str  # text on it
    accepted_wash: str  # its background
    divergent: str  # what differs, or is violated
    divergent_wash: str
    probability: str  # a tie; a bit that is missing
    bar: str  # the drafter's probability, on paper
    warning: str
    warning_wash: str
    ink: str
    muted: str  # quiet text
    line: str  # borders of cards and tables
    edge: str  # of what was rejected: edges and boxes of trees
    surface: str  # below the cards, and unset cells
    paper: str  # of the cards


LIGHT = Palette(
    accepted="#0072B2",
    on_accepted="#FFFFFF",
    accepted_wash="#EAF4FA",
    divergent="#C24E00",
    divergent_wash="#FDF0E7",
    probability="#E69F00",
    bar="#B87A00",
    warning="#7A5300",
    warning_wash="#FFF7E3",
    ink="#1F2933",
    muted="#5B6774",
    line="#CBD3DB",
    edge="#8794A1",
    surface="#F4F6F8",
    paper="#FFFFFF",
)
DARK = Palette(
    accepted="#4FA9E2",
    on_accepted="#08151F",
    accepted_wash="#12293A",
    divergent="#FF8F4A",
    divergent_wash="#3A2110",
    probability="#E9B23A",
    bar="#E9B23A",
    warning="#F0C866",
    warning_wash="#33290F",
    ink="#E6EBF0",
    muted="#9DAAB6",
    line="#3D4954",
    edge="#6B7885",
    surface="#0F1419",
    paper="#181F26",
)

MONOSPACE = "'Source Code Pro', ui-monospace, 'DejaVu Sans Mono', monospace"
SANS = "'Source Sans', 'Source Sans Pro', system-ui, sans-serif"


def style_sheet() -> str:
    """The variables, for a whole page: light, and dark where the reader's system asks for it."""
    fonts = f"--ss-mono:{MONOSPACE};--ss-sans:{SANS};"
    dark = f"@media (prefers-color-scheme: dark){{:root{{{_variables(DARK)}}}}}"
    return f":root{{color-scheme:light dark;{fonts}{_variables(LIGHT)}}}{dark}"


def _variables(palette: Palette) -> str:
    return "".join(f"--ss-{name.replace('_', '-')}:{colour};" for name, colour in asdict(palette).items())
