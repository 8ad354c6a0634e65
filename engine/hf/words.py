"""Errors of the engine in the words of ``TreeGenerate``: a caller of ``generate`` has no command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from specscope.tracer.errors import UsageError

#: A value of an option as messages write it: up to the next blank or the end of a clause.
VALUE = r"([^\s,;]+)"
#: Options of ``specscope run`` that messages name, and what stands for them here. Those with a value come first.
ARGUMENTS = (
    (rf"--drafter {VALUE}", r'drafter="\1"'),
    (rf"--tree {VALUE}", r'policy="\1"'),
    (rf"--trace-level {VALUE}", r'trace_level="\1"'),
    (r"--redact", "redact"),
    (r"--overwrite( \(overwrite=True in Python\))?", "overwrite=True"),
    (r"--allow-nonfinite( \(allow_nonfinite=True in Python\))?", "allow_nonfinite=True"),
    (r"--temperature", "temperature"),
)
#: What only the command line has; said of a model that is named, it is advice for nobody here.
COMMAND_LINE_ONLY = (r" \(nothing is downloaded without --allow-download\)",)


def in_own_words(message: str) -> str:
    """``message`` with the arguments of ``TreeGenerate`` in place of options."""
    for pattern in COMMAND_LINE_ONLY:
        message = re.sub(pattern, "", message)
    for pattern, argument in ARGUMENTS:
        message = re.sub(pattern, argument, message)
    return message


@contextmanager
def own_words() -> Iterator[None]:
    """Inside, a usage error names arguments."""
    try:
        yield
    except UsageError as error:
        error.args = tuple(in_own_words(arg) if isinstance(arg, str) else arg for arg in error.args)
        raise
