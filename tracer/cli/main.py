"""The ``specscope`` command. Subcommands register as entry points, so that the tracer imports no other room."""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import click

from specscope.tracer.cli.console import echo_words
from specscope.tracer.cli.sections import write_commands
from specscope.tracer.cli.streams import EXIT_BROKEN_PIPE, drop_output, outlive_readers
from specscope.tracer.errors import EXIT_USAGE, SpecScopeError
from specscope.tracer.naming.text import printable, shorten, visible

GROUP = "specscope.commands"
EXIT_INTERRUPTED = 130
TRACEBACK_VARIABLE = "SPECSCOPE_TRACEBACK"
#: What click 8.2 and later raise where a group is called without a command; earlier ones print the help themselves.
NO_ARGUMENTS: tuple[type[click.UsageError], ...] = tuple(
    filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)])
)
MAX_MESSAGE = 1000  # characters of an unexpected error's message


class LazyGroup(click.Group):
    """Loads a subcommand's module only when it is used or listed."""

    def _entries(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        return sorted(self._entries())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded; None where there is none of that name."""
        entry = self._entries().get(cmd_name)
        if entry is None:
            return None
        command: click.Command = entry.load()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands by the question that they answer."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        write_commands({name: command for name, command in commands.items() if command is not None}, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the subcommand. A pipe other than standard output that broke is reported as a shell reports it: click
        itself would exit 1, which says that two traces differ."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            sys.exit(EXIT_BROKEN_PIPE)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("specscope"), prog_name="specscope")
def cli() -> None:
    """Debug tree speculative decoding from traces: record a run, check it, diff two, step through the trees.

    \b
    Exit codes: 0 equal, or only drift and ties
                1 a root difference or a violated invariant
                2 usage, unreadable file, failure
                3 the two runs are not comparable
                4 too little was recorded to judge
                5 what was recorded did not come back (bisect)
    """


def main() -> None:
    """Runs the command line and turns every error into one line and its exit code."""
    outlive_readers()
    try:
        _run()
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        echo_words(printable(_interrupted(error)), err=True)
        sys.exit(EXIT_INTERRUPTED)
    except NO_ARGUMENTS as error:
        error.show()  # the help
        sys.exit(error.exit_code)
    except click.ClickException as error:
        echo_words(f"error: {printable(_usage(error))}", err=True)
        sys.exit(error.exit_code)
    except SpecScopeError as error:
        echo_words(f"error: {printable(str(error))}", err=True)
        sys.exit(error.exit_code)
    except (OSError, UnicodeEncodeError) as error:
        drop_output()
        echo_words(f"error: cannot write the output: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except Exception as error:  # left to Python it would exit 1, which says that two traces differ
        echo_words(f"error: {_missing_extra(error) or _defect(error)}", err=True)
        sys.exit(EXIT_USAGE)


def _run() -> None:
    """The command, and all of its output: what is still held back may not fit on the disk."""
    try:
        cli.main(standalone_mode=False)
    finally:
        sys.stdout.flush()


def _interrupted(error: BaseException) -> str:
    """That a command was interrupted, and what it kept: the notes that it left on the interrupt."""
    interrupt = error.__cause__ or error  # click raises its own from it
    return "; ".join(["interrupted", *getattr(interrupt, "__notes__", [])])


def _usage(error: click.ClickException) -> str:
    """A mistake in the command line on one line, and where to read on."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    more = f"; see  {context.command_path} --help" if context is not None else ""
    return message[:1].lower() + message[1:] + more


def _defect(error: Exception) -> str:
    """An error that no command foresaw, on one line; behind its traceback where the environment asks for it."""
    if os.environ.get(TRACEBACK_VARIABLE):
        click.echo(printable("".join(traceback.format_exception(error))), err=True, nl=False)
    what = shorten(visible(f"{type(error).__name__}: {error}"), MAX_MESSAGE)
    return f"this is a bug in specscope: {what} ({TRACEBACK_VARIABLE}=1 shows where)"


def _missing_extra(error: Exception) -> str | None:
    """What to install, where a module of an extra is missing; None at any other error."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    extras = {
        "torch": "engine",
        "transformers": "engine",
        "safetensors": "engine",
        "tokenizers": "viewer",
        "numpy": "engine",
        "streamlit": "viewer",
        "plotly": "viewer",
        "duckdb": "query",
    }
    name = (error.name or "").split(".")[0]
    if name not in extras:
        return None
    return f"this command needs {name}: install it with  pip install 'specscope[{extras[name]}]'"


if __name__ == "__main__":  # python -m specscope.tracer.cli.main
    main()
