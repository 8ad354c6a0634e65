"""Numbers in words: sizes, decimals, durations, and accepted lengths with their tokens per step. Pure."""

from __future__ import annotations

from specscope.viewer.drawing.fragments import Fact

NOT_RECORDED = "not recorded"


def decimals(value: float | None, num_digits: int) -> str:
    """A number with that many digits after the point; None was not recorded."""
    return NOT_RECORDED if value is None else f"{value:,.{num_digits}f}"


def size_text(num_bytes: int) -> str:
    """A size for people, in powers of 1,000: ``228 kB``, ``1.2 GB``."""
    amount = float(num_bytes)
    unit = "bytes"
    for bigger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount /= 1000
        unit = bigger
    return f"{num_bytes:,} bytes" if unit == "bytes" else f"{amount:.{1 if amount < 9.95 else 0}f} {unit}"


def about_seconds(seconds: float | None) -> str:
    """How long something may take: ``about 3 s``."""
    return f"about {max(1, round(seconds or 0))} s"


def tokens_per_step(accepted_length: float | None) -> float | None:
    """A mean accepted length with the bonus token counted; None where it was not recorded."""
    return None if accepted_length is None else accepted_length + 1


def length_facts(num_turns: int, num_steps: int, accepted_length: float | None) -> list[Fact]:
    """How much was decoded, and how well it was drafted; ``accepted_length`` is the mean over all steps."""
    return [
        Fact("turns", f"{num_turns:,}"),
        Fact("steps", f"{num_steps:,}"),
        Fact("mean accepted length", decimals(accepted_length, 3), "nodes per step, without root and bonus token"),
        Fact(
            "tokens per step",
            decimals(tokens_per_step(accepted_length), 3),
            "with the bonus token: accepted length + 1",
        ),
    ]
