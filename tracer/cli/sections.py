"""Help in sections: commands by the question that they answer, options by what they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click

REST = "Other options"


class CommandSection(NamedTuple):
    """Commands that answer one question."""

    title: str
    commands: tuple[str, ...]
    example: str


COMMAND_SECTIONS = (
    CommandSection(
        "Record a run", ("demo", "run", "merge", "convert"), "specscope run --prompts prompts.jsonl --trace fused.jsonl"
    ),
    CommandSection("Is it sound?", ("check",), "specscope check fused.jsonl"),
    CommandSection(
        "Where do two runs part?", ("diff", "diff-many", "summary"), "specscope diff eager.jsonl fused.jsonl"
    ),
    CommandSection("Look at the trees", ("show", "view", "report"), "specscope view eager.jsonl fused.jsonl"),
    CommandSection("Would another tree be better?", ("metrics", "whatif", "query"), "specscope whatif fused.jsonl"),
    CommandSection(
        "Which operation is wrong?", ("bisect", "replay", "repro"), "specscope bisect eager.jsonl fused.jsonl"
    ),
)
OTHERS = CommandSection("More", (), "specscope selftest")


def write_commands(commands: Mapping[str, click.Command], formatter: click.HelpFormatter) -> None:
    """Writes ``commands``, by their names, in the sections above; those in none of them come last."""
    listed = {name for section in COMMAND_SECTIONS for name in section.commands}
    others = tuple(name for name in commands if name not in listed)
    limit = formatter.width - 6 - max(map(len, commands), default=0)
    for section in (*COMMAND_SECTIONS, OTHERS._replace(commands=others)):
        rows = [(name, commands[name].get_short_help_str(limit)) for name in section.commands if name in commands]
        if rows:
            formatter.write_paragraph()
            formatter.write(f"{section.title}\n")  # a question: write_heading would put a colon after it
            with formatter.indentation():
                formatter.write_dl(rows)
                formatter.write_text(f"$ {section.example}")


class SectionedCommand(click.Command):
    """A command whose help lists its options in sections.

    Args:
        sections: the names of parameters under each title; options in none of them come last.
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options."""
        rows = {option.name: row for option in self.get_params(ctx) if (row := option.get_help_record(ctx)) is not None}
        for title, names in self.sections.items():
            shown = [rows.pop(name) for name in names if name in rows]
            if shown:
                with formatter.section(title):
                    formatter.write_dl(shown)
        if rows:
            with formatter.section(REST):
                formatter.write_dl(list(rows.values()))
