"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

tokenizer_option = click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="tokenizer.json, or its folder, to show token text where the trace holds ids alone.",
)
