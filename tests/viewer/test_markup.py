"""Markup comes from literals, numbers and escaped text only: what the type checker cannot see is checked here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.traces import ROOT

from specscope.viewer.drawing.markup import NOTHING, html_text, joined, markup

VIEWER = ROOT / "viewer"
HOME = VIEWER / "drawing" / "markup.py"


def calls_of(name: str) -> Iterator[tuple[Path, ast.Call]]:
    """Every call of the function ``name`` in the viewer, but in the file that defines it."""
    for path in sorted(VIEWER.rglob("*.py")):
        if path == HOME:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield path, node


def test_every_template_is_a_literal() -> None:
    templates = [(path, call) for path, call in calls_of("markup")]
    assert len(templates) > 100
    for path, call in templates:
        assert len(call.args) == 1, f"{path}:{call.lineno}"
        assert isinstance(call.args[0], ast.Constant), f"{path}:{call.lineno}"
        assert isinstance(call.args[0].value, str), f"{path}:{call.lineno}"


def test_nothing_else_makes_text_into_markup() -> None:
    assert [(path, call.lineno) for path, call in calls_of("Markup")] == []
    for path in sorted(VIEWER.rglob("*.py")):
        if path != HOME and path.is_relative_to(VIEWER / "drawing"):
            assert "words.text import html_text" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("raw", "shown"), [("<b>", "&lt;b&gt;"), ("\"'&", "&quot;&#x27;&amp;"), ("\u202e", "\\u202e"), ("{x}", "{x}")]
)
def test_text_is_escaped_once_and_stays_as_it_is_within_templates(raw: str, shown: str) -> None:
    assert html_text(raw) == shown
    assert markup("<p>{text}</p>", text=html_text(raw)) == f"<p>{shown}</p>"


def test_numbers_are_formatted_by_the_template() -> None:
    assert markup('<rect x="{x:.1f}" y="{y}"/>', x=2.25, y=3) == '<rect x="2.2" y="3"/>'


def test_parts_are_joined() -> None:
    assert joined([]) == NOTHING == ""
    assert joined([markup("a"), markup("b")]) == "ab"
    assert joined([markup("a"), markup("b")], markup("&#10;")) == "a&#10;b"
