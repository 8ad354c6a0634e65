"""The formats by name, and reports written to files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from specscope.tracer.errors import UsageError
from specscope.tracer.report import github, html, json, junit, markdown, text
from specscope.tracer.report.report import Report


@dataclass(frozen=True)
class Format:
    """How a report is put into words."""

    render: Callable[[Report], str]
    render_error: Callable[[str], str]  # of a diff that came to no verdict


FORMATS = {
    "text": Format(text.render, text.render_error),
    "json": Format(json.render, json.render_error),
    "junit": Format(junit.render, junit.render_error),
    "github": Format(github.render, github.render_error),
    "markdown": Format(markdown.render, markdown.render_error),
    "html": Format(html.render, html.render_error),
}


@dataclass(frozen=True)
class Target:
    """A report to write: its format's name and its file."""

    form: str
    path: Path


def parse_target(value: str) -> Target:
    """``FORMAT=FILE`` as given to ``--out``.

    Raises:
        UsageError: where it has another shape or names no format.
    """
    form, equals, file = value.partition("=")
    if not equals or not file or form not in FORMATS:
        raise UsageError(f"got --out {value!r}, wanted FORMAT=FILE, with a format of {', '.join(FORMATS)}")
    return Target(form, Path(file))


def check_targets(targets: Iterable[Target], inputs: Iterable[Path]) -> None:
    """Says before anything is compared what would keep a report from being written.

    Raises:
        UsageError: where a target's folder does not exist, the target is no regular file, two targets are one file, or
            a target is one of ``inputs`` or a link that leads nowhere.
    """
    read = {Path(os.path.realpath(path)) for path in inputs}  # resolve() raises at a loop of links
    seen: set[Path] = set()
    for target in targets:
        path = Path(os.path.realpath(target.path))
        if path.is_symlink():  # still, behind realpath
            raise UsageError(f"cannot write {target.path}: its links lead in a circle")
        if path.exists() and not path.is_file():
            raise UsageError(f"cannot write {target.path}: it is no regular file")
        if not path.parent.is_dir():
            raise UsageError(f"cannot write {target.path}: the folder {target.path.parent} does not exist")
        if path in read:
            raise UsageError(f"cannot write {target.path}: it is one of the traces")
        if path in seen:
            raise UsageError(f"two reports for the one file {target.path}: give each its own")
        seen.add(path)


def write_whole(path: Path, content: str) -> None:
    """Writes ``path`` whole or not at all; replaces what is there, keeps its mode, and follows a link to it.

    Raises:
        UsageError: where the folder cannot be written to, or the disk is full.
    """
    path = Path(os.path.realpath(path))  # resolve() raises at a loop of links
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_text(content, encoding="utf-8", newline="\n")
        if path.exists():
            draft.chmod(path.stat().st_mode)
        draft.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
