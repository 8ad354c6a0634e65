"""The commands to run next, after a diff."""

from __future__ import annotations

import shlex
from pathlib import Path

from specscope.schemas.verdict import Blame, Root

#: Phases whose values come out of a forward that can be run again, layer by layer.
COMPUTED = ("draft", "verify")


def next_commands(
    baseline: Path, candidate: Path, roots: list[Root], violations: list[Blame], incomparable: list[str]
) -> list[str]:
    """What to run next, as lines for a shell."""
    a, b = shlex.quote(str(baseline)), shlex.quote(str(candidate))
    if incomparable:
        field = incomparable[0].partition(":")[0]
        return [f"specscope diff {a} {b} --allow {shlex.quote(field)}"] if " " not in field else []
    if not roots:
        sides = {found.side for found in violations}
        return [f"specscope check {path}" for side, path in (("a", a), ("b", b)) if side in sides]
    place, found = roots[0].place, roots[0].difference
    commands = [
        f"specscope show {b} --turn {place.turn_b} --step {place.step_b}",
        f"specscope view {a} {b}",
    ]
    if found.phase in COMPUTED and not found.kind.endswith("tie"):
        commands.append(f"specscope bisect {a} {b} --at {place.turn}/{place.step_a}")
    return commands
