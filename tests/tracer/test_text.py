"""Token text is hostile: nothing of it may move a cursor, reorder a line, or be read as markup."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specscope.tracer.naming.text import figures, html_text, printable, shorten, visible

HOSTILE = ["\x1b[31m", "\u202eevil", "<script>alert(1)</script>", "a\u0000b", "\u200b", "\u2028", "\ud800", "\r"]


@given(st.text())
def test_visible_text_has_no_hidden_character_and_one_line(text: str) -> None:
    assert not {unicodedata.category(c) for c in visible(text)} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text())
def test_html_text_has_no_markup_of_its_own(text: str) -> None:
    shown = html_text(text)
    assert not set(shown) & set("<>\"'")
    assert (
        shown.replace("&amp;", "")
        .replace("&lt;", "")
        .replace("&gt;", "")
        .replace("&quot;", "")
        .replace("&#x27;", "")
        .count("&")
        == 0
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_escaped(text: str) -> None:
    for hidden in ("\x1b", "\u202e", "\u0000", "\u200b", "\u2028", "\ud800", "\r"):
        assert hidden not in visible(text)
        assert hidden not in printable(text)


def test_spaces_and_newlines_are_seen() -> None:
    assert visible("  a b\n") == "··a b⏎"
    assert visible("   ") == "···"
    assert visible("\t") == "⇥"
    assert printable("a\n\tb\x07") == "a\n\tb\\u0007"


def test_shorten_marks_its_cut() -> None:
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("number", "digits", "words"),
    [
        (110.6, 2, "110"),
        (1773.2, 3, "1,770"),
        (999_999, 3, "1,000,000"),
        (0.0038, 3, "0.0038"),
        (2.345, 2, "2.3"),
        (0.0, 3, "0"),
        (1.5e-9, 3, "1.5e-09"),
        (2e12, 3, "2e+12"),
        (-1773.2, 3, "-1,770"),
        (99.5, 3, "99.5"),
        (123_456.7, 6, "123,457"),
    ],
)
def test_figures_need_no_exponent(number: float, digits: int, words: str) -> None:
    assert figures(number, digits) == words
