"""What transformers calls the parts of a Llama, Qwen or like model: the one file that knows."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from specscope.engine.teacher.model import Teacher
from specscope.tracer.errors import UnsupportedModelError, UsageError

#: The operations of a layer in the order in which they run, and the modules that they are.
IN_LAYER = {
    "input norm": "input_layernorm",
    "attention": "self_attn",
    "post-attention norm": "post_attention_layernorm",
    "MLP": "mlp",
}
LAYER_OUTPUT = "layer output"
#: What runs before and after the layers, and the modules that they are, from the model down.
BEFORE = {"embedding": "model.embed_tokens", "rotation": "model.rotary_emb"}
BEHIND = {"final norm": "model.norm", "output head": "lm_head"}


class Part(NamedTuple):
    """One part of a model."""

    layer: int | None  # None before and after the layers
    name: str


def model_parts(teacher: Teacher, layers: range) -> dict[Part, nn.Module]:
    """The modules of ``teacher`` before, in some of its layers, and after them; a layer's output last in it.

    Raises:
        UnsupportedModelError: where the model is not laid out like the ones whose names are known.
    """
    try:
        body = list(teacher.model.model.layers)
        ends = {name: teacher.model.get_submodule(path) for name, path in (BEFORE | BEHIND).items()}
        if teacher.rotations != [None]:
            del ends["rotation"]  # one module with an output for each kind of layer: it is part of their attention
    except AttributeError as error:
        kind = type(teacher.model).__name__
        raise UnsupportedModelError(
            f"the parts of {kind} have other names than a Llama's ({error}): not narrowed"
        ) from None
    parts: dict[Part, nn.Module] = {Part(None, name): ends[name] for name in BEFORE if name in ends}
    for number in layers:
        in_layer = {name: getattr(body[number], path) for name, path in IN_LAYER.items() if hasattr(body[number], path)}
        parts |= {Part(number, name): module for name, module in {**in_layer, LAYER_OUTPUT: body[number]}.items()}
    return parts | {Part(None, name): ends[name] for name in BEHIND}


def named_parts(teacher: Teacher, layers: range) -> dict[str, nn.Module]:
    """The same by name alone; none where the names are not known."""
    try:
        parts = model_parts(teacher, layers)
    except UsageError:
        return {}
    return {p.name if p.layer is None else f"layer {p.layer} {p.name}": module for p, module in parts.items()}
