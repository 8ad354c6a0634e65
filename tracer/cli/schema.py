"""``specscope schema``: the JSON Schema of a published format."""

from __future__ import annotations

import json

import click

from specscope.schemas.published import PUBLISHED


@click.command(short_help="Print the JSON Schema of a format")
@click.option(
    "--of",
    "name",
    type=click.Choice(list(PUBLISHED)),
    default="trace",
    show_default=True,
    help="trace and results: of each line; verdict and bisection: of what diff and bisect print as JSON; profile: of"
    " what bench --calibrate writes.",
)
def schema(name: str) -> None:
    """Print the JSON Schema of a format: by default, the one that each line of a trace satisfies."""
    click.echo(json.dumps(PUBLISHED[name].json_schema(), indent=2, sort_keys=True))
