"""Prints the text of turns as it grows, and counts the time in which any of them runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from specscope.engine.run.prompts import Prompt
from specscope.tracer.cli.console import echo_words
from specscope.tracer.cli.streams import EXIT_BROKEN_PIPE, output_is_read
from specscope.tracer.naming.places import turn_name
from specscope.tracer.naming.text import printable

if TYPE_CHECKING:
    from specscope.engine.run.runner import TurnEvents, TurnReport
    from specscope.engine.teacher.model import Teacher


class RowTime:
    """How long any row was taken: from when a turn begins and none ran, until none runs. Where turns follow one another
    it is the sum of their times; where they run side by side, what they share is counted once. Waiting for requests to
    arrive is not in it.

    Args:
        read: seconds from any beginning, never going back.

    Attributes:
        seconds: so far, until no turn ran.
    """

    def __init__(self, read: Callable[[], float] = time.monotonic) -> None:
        self.seconds = 0.0
        self._read = read
        self._since = 0.0
        self._num_running = 0

    def listening(self, events: TurnEvents) -> TurnEvents:
        """``events``, of which also hears this."""

        def turn_begins(prompt: Prompt, turn: int) -> None:
            if not self._num_running:
                self._since = self._read()
            self._num_running += 1
            events.turn_begins(prompt, turn)

        return events._replace(turn_begins=turn_begins)

    def turn_ends(self) -> None:
        """One of those that ran is over."""
        self._num_running -= 1
        if not self._num_running:
            self.seconds += self._read() - self._since


class Stream:
    """Prints a turn's text as it grows; quiet where the caller wants JSON."""

    def __init__(self, teacher: Teacher, quiet: bool, traced: bool) -> None:
        self._teacher = teacher
        self.quiet = quiet
        self._traced = traced
        self._printed = ""
        self._heading = ""

    def events(self, warn: Callable[[str], None]) -> TurnEvents:
        """What is printed of a run while it decodes."""
        from specscope.engine.run.runner import TurnEvents

        return TurnEvents(self.turn_begins, self.tokens, warn=warn, never_began=self.never_began)

    def never_began(self, prompt: Prompt, prompt_turn: int) -> None:
        """Says which request was cancelled before this turn of it. What never began has no object in JSON."""
        when = f"its turn {prompt_turn} began" if prompt_turn else "a row was free"
        echo_words(f"prompt {printable(prompt.id)} was cancelled before {when}", err=True)

    def turn_begins(self, prompt: Prompt, turn: int) -> None:
        """Keeps the turn's heading until its first token: a prompt that is refused has none."""
        self._printed = ""
        self._heading = f"[{printable(turn_name(turn, prompt.id))}]"

    def tokens(self, prompt: Prompt, output_ids: list[int]) -> None:
        """Prints what is new; half a letter waits for its other half. Where nobody reads it and no trace is written,
        there is nothing left to decode for."""
        if not self._traced and not output_is_read():
            sys.exit(EXIT_BROKEN_PIPE)
        if self.quiet:
            return
        from specscope.engine.run.runner import decode_text

        if self._heading:
            click.secho(self._heading, dim=True)
            self._heading = ""
        text = decode_text(self._teacher, output_ids)
        text = " ".join(map(str, output_ids)) if text is None else text.rstrip("\ufffd")
        if text.startswith(self._printed):
            click.echo(printable(text[len(self._printed) :]), nl=False)
            self._printed = text

    def turn_ends(self, report: TurnReport) -> None:
        """Ends the turn's text; prints it whole where it was not streamed, because others ran beside it."""
        if self.quiet:
            click.secho(f"[{printable(turn_name(report.turn, report.prompt_id))}]", dim=True)
            ids = " ".join(map(str, report.result.output_ids))
            click.echo(printable(ids if report.text is None else report.text), nl=False)
        if report.result.reason == "cancelled":
            click.secho(" [cancelled]", dim=True, nl=False)
        click.echo()
