"""Fixtures of the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_models import build_head, build_teacher


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama teacher."""
    return build_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def head_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random EAGLE-3 head for it."""
    return build_head(tmp_path_factory.mktemp("head"))
