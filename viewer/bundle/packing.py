"""Many texts that are alike, taken apart so that they pack small: boards differ in little but numbers. Pure.

Every text is cut before and after each tag. A fragment without its numbers is a template, which is stored once; the
numbers of all fragments of one template stand side by side, column by column. What is left of a text is which
templates it is made of, a character for each. ``bundle.js`` puts the texts together again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

#: Where a number stood in a template. A fragment that has it by itself keeps its numbers.
MARK = "\x7f"
#: The characters of a text begin here, and leave out the surrogates.
FIRST, SURROGATES, NUM_SURROGATES = 0x20, 0xD800, 0x800
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_CUT = re.compile(r"(?<=>)|(?=<)")


class Packed(NamedTuple):
    """Texts, taken apart."""

    templates: list[str]
    numbers: list[list[str]]  # by template and column: the numbers, joined by commas; no columns: the template is whole
    texts: list[str]  # a character for each fragment: the place of its template


class _Template(NamedTuple):
    """A fragment without its numbers."""

    text: str
    num_columns: int


def pack(texts: Sequence[str]) -> Packed:
    """Takes ``texts`` apart."""
    fragments: list[list[_Template]] = []
    columns: dict[_Template, list[list[str]]] = {}
    for text in texts:
        templates = []
        for fragment in filter(None, _CUT.split(text)):
            numbers = [] if MARK in fragment else _NUMBER.findall(fragment)
            template = _Template(_NUMBER.sub(MARK, fragment) if numbers else fragment, len(numbers))
            for column, number in zip(columns.setdefault(template, [[] for _ in numbers]), numbers, strict=True):
                column.append(number)
            templates.append(template)
        fragments.append(templates)
    counts = Counter(template for templates in fragments for template in templates)
    order = [template for template, _ in counts.most_common()]  # the most frequent have the shortest characters
    letters = {template: _letter(place) for place, template in enumerate(order)}
    return Packed(
        templates=[template.text for template in order],
        numbers=[[",".join(column) for column in columns[template]] for template in order],
        texts=["".join(letters[template] for template in templates) for templates in fragments],
    )


def _letter(place: int) -> str:
    code = FIRST + place
    return chr(code if code < SURROGATES else code + NUM_SURROGATES)
