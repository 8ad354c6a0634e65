"""``specscope schema``: the JSON Schema of a trace line."""

from __future__ import annotations

import json

import click

from specscope.schemas import trace_json_schema


@click.command()
def schema() -> None:
    """Print the JSON Schema that each line of a trace satisfies."""
    click.echo(json.dumps(trace_json_schema(), indent=2, sort_keys=True))
