"""The state file: what a bisection has found so far, so that it can go on where it was left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from specscope.schemas.bisection import STATE_SCHEMA, State
from specscope.tracer.errors import UsageError
from specscope.tracer.files.whole import written_whole

#: What makes two bisections the same one.
SAME = ("baseline", "candidate", "turn", "step", "settings")


class StateKeeper:
    """The state and, where the user named one, its file.

    Args:
        path: the file, or None to keep nothing.
        fresh: the state of a bisection that has not begun.

    Raises:
        UsageError: where the file is none, or that of another bisection; it is left as it is.
    """

    def __init__(self, path: Path | None, fresh: State) -> None:
        self._path, self.state = path, fresh
        if path is None:
            return
        if path.exists():
            self.state = _read(path, fresh)
        else:
            self.put()  # before minutes of work, and not after them

    def put(self, **changes: Any) -> None:
        """Takes ``changes`` in, and writes the file whole or not at all.

        Raises:
            UsageError: where it cannot be written.
        """
        self.state = self.state.model_copy(update=changes)
        if self._path is None:
            return
        text = self.state.model_dump_json(by_alias=True, exclude_none=True)
        try:
            with written_whole(self._path) as partial:
                partial.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write the state file {self._path}: {error.strerror}") from None


def _read(path: Path, fresh: State) -> State:
    try:
        state = State.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise UsageError(f"{path} is no state file of a bisection: name another one with --state") from None
    if state.schema_ != STATE_SCHEMA:
        raise UsageError(f"{path} is of {state.schema_[:60]}, wanted {STATE_SCHEMA}: name another file with --state")
    other = [name for name in SAME if getattr(state, name) != getattr(fresh, name)]
    if other:
        raise UsageError(
            f"{path} is the state of another bisection: its {', '.join(other)} is not this one's; name another file "
            "with --state"
        )
    return state
