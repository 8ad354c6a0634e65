"""The commands of ``python -m benchmarks.verdicts``."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.verdicts.judge import judge_all, text_of
from benchmarks.verdicts.picture import draw
from benchmarks.verdicts.record import record_all, record_faults, record_setting
from benchmarks.verdicts.settings import SETTINGS

FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@click.group()
def main() -> None:
    """Honest pairs and small numeric faults: record them, then judge them."""


@main.command()
@FOLDER
@click.option("--only", help="One setting, by name, or 'faults'.")
def record(folder: Path, only: str | None) -> None:
    """Decode what is missing below FOLDER. A run that is there is not run again."""
    record_all(folder, only)


@main.command("record-setting", hidden=True)
@FOLDER
@click.argument("name", type=click.Choice([setting.name for setting in SETTINGS]))
def record_one(folder: Path, name: str) -> None:
    """One setting, in this process."""
    record_setting(folder, next(setting for setting in SETTINGS if setting.name == name))


@main.command("record-faults", hidden=True)
@FOLDER
def record_faulty(folder: Path) -> None:
    """The faults, in this process."""
    record_faults(folder)


@main.command()
@FOLDER
@click.option("--processes", default=1, show_default=True, help="Side by side.")
@click.option("--again", is_flag=True, help="Judge once more what was judged before.")
def judge(folder: Path, processes: int, again: bool) -> None:
    """Judge every pair whose runs are below FOLDER, and print the tables."""
    click.echo(text_of(judge_all(folder, processes, again=again)))


@main.command()
@FOLDER
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
def picture(folder: Path, target: Path) -> None:
    """Draw how far the logits of an honest and of a faulty pair drift, as SVG in TARGET."""
    target.write_text(draw(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
