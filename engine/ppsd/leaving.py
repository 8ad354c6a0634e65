"""How a rank's process ends: with a word to the launcher, and at once. Loads no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from specscope.engine.ppsd.lifeline import LastWords, Lifeline
from specscope.tracer.errors import EXIT_USAGE, SpecScopeError, UsageError

EXIT_INTERRUPTED = 130


def ending(lifeline: Lifeline, work: Callable[[], None]) -> None:
    """Runs ``work``; what goes wrong is said to the launcher, which has one line for all ranks."""
    try:
        work()
        words = LastWords("", 0, is_usage=False, is_echo=False)
    except KeyboardInterrupt:
        words = LastWords("interrupted", EXIT_INTERRUPTED, is_usage=False, is_echo=True)
    except SpecScopeError as error:
        is_echo = type(error).__name__ == "StageLostError"  # its module loads torch, and this rank may not have yet
        words = LastWords(str(error), error.exit_code, is_usage=isinstance(error, UsageError), is_echo=is_echo)
        if lifeline.folder is None:
            raise
    except Exception as error:  # a process that ends without a word leaves the launcher nothing to say
        words = LastWords(f"{type(error).__name__}: {error}", EXIT_USAGE, is_usage=False, is_echo=False)
        if lifeline.folder is None:
            raise
    lifeline.leave(words)
    with suppress(OSError):  # whoever read it may be gone
        sys.stdout.flush()
    os._exit(words.exit_code)  # threads that listen to ranks that are gone would keep the interpreter
