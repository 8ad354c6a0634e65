"""The options that name a grammar, which ``run`` and ``bench`` share. Loads no torch: mistakes show early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from specscope.engine.cli.computing import all_of
from specscope.engine.settings import GrammarChoice
from specscope.tracer.errors import UsageError

GRAMMAR_SECTIONS = {"Guided decoding": ("grammar", "json_schema", "regex")}
MOST_BYTES = 1 << 20  # of a grammar's file


#: The options that say what every turn's output is a text of.
grammar_options = all_of(
    click.option(
        "--grammar",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Every turn's output follows this context-free grammar, in llguidance's form of Lark.",
    ),
    click.option(
        "--json-schema",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Every turn's output is JSON that fits this schema.",
    ),
    click.option("--regex", metavar="TEXT", help="Every turn's output matches this regular expression as a whole."),
)


def build_grammar(options: dict[str, Any]) -> GrammarChoice | None:
    """What the options say; None where they name no grammar.

    Raises:
        UsageError: where several are given, a file cannot be read, or the text is no grammar.
    """
    given = {name: options[name] for name in ("grammar", "json_schema", "regex") if options[name] is not None}
    if not given:
        return None
    if len(given) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"got {names}, wanted one of them: an output follows one grammar")
    if "regex" in given:
        choice = GrammarChoice("regex", given["regex"])
    elif "grammar" in given:
        choice = GrammarChoice("lark", _text_of(given["grammar"]))
    else:
        choice = GrammarChoice("json-schema", _text_of(given["json_schema"]))
    from specscope.engine.guided.grammar import check_grammar

    check_grammar(choice)
    return choice


def _text_of(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UsageError(f"{path} has {size:,} bytes, wanted a grammar of at most {MOST_BYTES:,}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read a grammar from {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"cannot read a grammar from {path}: it is not UTF-8 text") from None
