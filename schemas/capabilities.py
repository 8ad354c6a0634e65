"""What a writer can promise of its steps: a section, or one field of a section."""

from __future__ import annotations

from functools import cache
from typing import get_args

from specscope.schemas.base import Record, Section
from specscope.schemas.step import Step


@cache
def is_known_capability(capability: str) -> bool:
    """Whether it names a section of a step, or a field of one, as this version has them."""
    section, dot, field = capability.partition(".")
    known = Step.model_fields.get(section)
    if known is None or section in Record.model_fields:
        return False
    kinds = [kind for union in get_args(known.annotation) for kind in get_args(union) or (union,)]  # of a list, its own
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
    return bool(models) and (not dot or field in models[0].model_fields)
