"""Options that several commands share."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click

from specscope.tracer.errors import UsageError
from specscope.tracer.naming.places import StepPlace

tokenizer_option = click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="tokenizer.json, or its folder, to show token text where the trace holds only ids.",
)

noise_option = click.option(
    "--noise",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A run known to be good, which differs from BASELINE by noise alone: measures the noise floor.",
)


def _finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """Refuses infinity and NaN, which ``click`` takes for numbers above 0."""
    if value is not None and not math.isfinite(value):
        raise UsageError(f"got tolerance {value}, wanted a number")
    return value


tolerance_option = click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    callback=_finite,
    help="On logits and log-probabilities.  [default: the noise floor]",
)
fail_on_option = click.option(
    "--fail-on", type=click.Choice(["real", "near-tie"]), default="real", show_default=True, help="near-tie: ties, too."
)
allow_option = click.option(
    "--allow", multiple=True, metavar="FIELD", help="Let this manifest field differ, e.g. teacher.weights_digest."
)
out_option = click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Where to write it; an existing file is kept.",
)


class StepPlaceType(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic since click 8.5
    """``TURN/STEP``, as ``--at`` takes it."""

    name = "TURN/STEP"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> StepPlace:
        """The step that ``value`` names.

        Raises:
            UsageError: where it names none.
        """
        if isinstance(value, StepPlace):
            return value
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value, re.ASCII)
        if match is None:
            raise UsageError(f"got --at {value!r}, wanted TURN/STEP, such as 0/7: both count from 0")
        return StepPlace(int(match[1]), int(match[2]))


STEP_PLACE = StepPlaceType()
