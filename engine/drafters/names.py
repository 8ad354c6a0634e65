"""What a drafter may be called, checked before anything is loaded. Imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from specscope.engine.settings import DEMO_MODELS, DRAFTER_NAMES
from specscope.tracer.errors import UsageError

#: The drafters by name, with what is loaded from a folder, where that is a head of the teacher's.
HEADS = {"eagle3": "EAGLE-3 head", "eagle3+ngram": "EAGLE-3 head", "early-exit": "exit head"}


#: In place of an exit head's folder: the teacher's own last norm reads the layer's output.
UNTRAINED = "untrained"


class DrafterName(NamedTuple):
    """A drafter as ``--drafter`` names it: ``kind`` or ``kind:path``."""

    kind: str
    path: str  # empty where none is named


def parse_drafter(text: str, teacher: str) -> DrafterName:
    """The drafter that ``text`` names, for the teacher that ``--teacher`` names.

    Raises:
        UsageError: where there is none of that name, or it lacks the folder that it is loaded from.
    """
    name = DrafterName(*text.partition(":")[::2])
    if name.kind not in DRAFTER_NAMES:
        raise UsageError(f"got drafter {text!r}, wanted {', '.join(DRAFTER_NAMES)}, with :PATH where it has weights")
    if name.kind == "model" and not name.path:
        raise UsageError("got drafter model without a model: give --drafter model:PATH, a folder or a cached model id")
    head = HEADS.get(name.kind)
    if head is None:
        return name
    if not name.path and teacher != "demo":
        raise UsageError(
            f"the demo's {head} fits only the demo's teacher: give --drafter {name.kind}:PATH, or a drafter that needs "
            "no head: --drafter ngram, --drafter model:PATH with a smaller model of the same tokenizer, or --drafter "
            "none for the teacher by itself"
        )
    if name.path and name != ("early-exit", UNTRAINED) and not Path(name.path).is_dir():
        raise UsageError(
            f"no {head} at {name.path}: give a folder with config.json and safetensors, or a drafter that needs no "
            "head, such as --drafter ngram"
        )
    return name


def demo_exit_heads() -> dict[int, Path]:
    """The folders of the demo's exit heads, by the layer that each was trained after."""
    heads: dict[int, Path] = {}
    for config in sorted(DEMO_MODELS.glob("exit_head*/config.json")):
        layer = stated_number(config, "exit_layer")
        if layer is not None:
            heads[layer] = config.parent
    return dict(sorted(heads.items()))


def stated_number(config: Path, field: str) -> int | None:
    """The whole number that ``field`` of the JSON file ``config`` states; None where it cannot be read."""
    try:
        value = json.loads(config.read_text(encoding="utf-8")).get(field)
    except (OSError, ValueError, AttributeError):
        return None
    return value if type(value) is int else None
