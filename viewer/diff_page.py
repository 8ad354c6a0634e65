"""The Diff page: the verdict's card first, then both trees at the root's step."""

from __future__ import annotations

from specscope.viewer.session import Arguments
from specscope.viewer.view import View


def show_diff_page(arguments: Arguments, view: View) -> None:
    """The whole page."""
