"""How a rank's process ends: with a word to the launcher, and at once. Loads no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from specscope.engine.ranks.lifeline import LastWords, Lifeline
from specscope.tracer.errors import EXIT_USAGE, EngineError, SpecScopeError, UsageError, ViolationError

EXIT_INTERRUPTED = 130


class RankLostError(EngineError):
    """Another rank is gone or does not answer: why, that rank says, or the launcher."""


def ending(lifeline: Lifeline, work: Callable[[], None]) -> None:
    """Runs ``work``; what goes wrong is said to the launcher, which has one line for all ranks."""
    try:
        work()
        words = LastWords("", 0, is_common=False, is_echo=False)
    except KeyboardInterrupt:
        words = LastWords("interrupted", EXIT_INTERRUPTED, is_common=False, is_echo=True)
    except SystemExit as leaves:  # nobody reads the output any more: the run ends so, and has nothing to say
        code = leaves.code if isinstance(leaves.code, int) else EXIT_USAGE
        words = LastWords("" if leaves.code == code else str(leaves.code), code, is_common=False, is_echo=False)
    except SpecScopeError as error:
        is_common = isinstance(error, UsageError | ViolationError)
        words = LastWords(str(error), error.exit_code, is_common=is_common, is_echo=isinstance(error, RankLostError))
        if lifeline.folder is None:
            raise
    except Exception as error:  # a process that ends without a word leaves the launcher nothing to say
        words = LastWords(f"{type(error).__name__}: {error}", EXIT_USAGE, is_common=False, is_echo=False)
        if lifeline.folder is None:
            raise
    lifeline.leave(words)
    with suppress(OSError):  # whoever read it may be gone
        sys.stdout.flush()
    os._exit(words.exit_code)  # threads that listen to ranks that are gone would keep the interpreter
