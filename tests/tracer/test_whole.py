"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from specscope.tracer.files.whole import written_whole


def test_what_was_written_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for text in ("first", "second"):
        with written_whole(path) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() != text, "not before it is whole"
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "state.json"
    path.write_text("before")

    def fail() -> None:
        with written_whole(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with written_whole(path) as first, written_whole(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first", "the last to end, and whole"
