"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

tokenizer_option = click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="tokenizer.json, or its folder, to show token text where the trace holds ids alone.",
)

noise_option = click.option(
    "--noise",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A run known to be good, which differs from BASELINE by noise alone: measures the noise floor.",
)
tolerance_option = click.option(
    "--tolerance", type=click.FloatRange(min=0), help="On logits and log-probabilities.  [default: the noise floor]"
)
allow_option = click.option(
    "--allow", multiple=True, metavar="FIELD", help="Let this manifest field differ, e.g. teacher.weights_digest."
)
