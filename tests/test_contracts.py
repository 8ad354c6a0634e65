"""What a module's docstring says that it knows nothing of, it does not import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.traces import ROOT

#: A word after "Knows no" or "Knows nothing of", and what a module that says so may not import.
FORBIDDEN = {
    "cache": ("specscope.engine.cache",),
    "figures": ("plotly",),
    "file format": ("specscope.schemas", "specscope.tracer.files"),
    "files": ("pathlib", "safetensors", "specscope.tracer.files"),
    "format": ("specscope.tracer.report.formats", "specscope.tracer.report.html", "json"),
    "model": ("specscope.engine.teacher", "specscope.engine.drafters"),
    "pages": ("streamlit", "specscope.viewer.screens"),
    "pixels": ("specscope.viewer.drawing.svg.tree",),
    "records": ("specscope.schemas",),
    "server": ("streamlit", "specscope.viewer.serve.server"),
    "streamlit": ("streamlit",),
    "tokenizer": ("tokenizers", "specscope.tracer.naming.tokens"),
    "tokens": ("specscope.tracer.naming.tokens",),
    "torch": ("torch",),
    "traces": ("specscope.schemas", "specscope.tracer.files"),
    "transformers": ("transformers",),
}
#: Names of settings and phases, which the format shares with the engine.
SHARED_NAMES = {"Attention", "FailedPhase", "Mode", "RuleName", "TraceLevel"}
CLAIM = re.compile(r"[Kk]nows (?:no|nothing of(?: the)?) ([^.:;]+)")


def claims(path: Path) -> list[str]:
    """The words that the module's docstring says that it knows nothing of."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    words = []
    for claim in CLAIM.findall(docstring.replace("\n", " ")):
        phrase = claim.partition(" itself")[0]
        words += [word.removeprefix("no ").strip() for word in re.split(r",\s*(?:and |or )?|\s+(?:and|or)\s+", phrase)]
    return [word.lower() for word in words if word]


CLAIMING = sorted(
    path
    for room in ("schemas", "tracer", "adapters", "engine", "viewer")
    for path in (ROOT / room).rglob("*.py")
    if claims(path)
)


def imported(path: Path) -> Iterator[str]:
    """What the module imports when it runs, a name at a time; not what only the type checker sees."""

    def walk(nodes: list[ast.stmt]) -> Iterator[str]:
        for node in nodes:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import):
                    yield from (alias.name for alias in inner.names)
                elif isinstance(inner, ast.ImportFrom) and inner.module is not None:
                    yield from (f"{inner.module}.{alias.name}" for alias in inner.names)

    return walk(ast.parse(path.read_text(encoding="utf-8")).body)


def test_there_are_claims_to_hold() -> None:
    assert len(CLAIMING) >= 15


@pytest.mark.parametrize("path", CLAIMING, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_it_knows_nothing_of_it_does_not_import(path: Path) -> None:
    names = {name for name in imported(path) if name.rpartition(".")[2] not in SHARED_NAMES}
    for word in claims(path):
        assert word in FORBIDDEN, f"nothing says what {word!r} forbids: add it to FORBIDDEN, or say it in other words"
        for module in FORBIDDEN[word]:
            assert not [name for name in names if name == module or name.startswith(f"{module}.")], word
