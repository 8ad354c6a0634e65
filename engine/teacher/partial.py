"""Part of a teacher: some of its layers, and the parts before or after them, with nothing else in memory.

The model is laid out without storage; the wanted parts then get theirs, tensor by tensor from the safetensors files,
and the others are taken away. Only for architectures whose forward is known to be embedding, layers, norm and output
matrix one after another: of a part alone that cannot be tried.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaForCausalLM, PreTrainedModel

from specscope.engine.backends.attention import registered_name
from specscope.engine.finite import refuse_nonfinite
from specscope.engine.teacher.files import (
    LoadedTeacher,
    TeacherOptions,
    find_teacher,
    load_tokenizer,
    refuse_unsupported,
)
from specscope.tracer.errors import CheckpointError, UnsupportedModelError

#: Whose forward is embedding, layers, norm and output matrix, and nothing else; the tests compare each with the whole.
ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
EMBEDDING, NORM, OUTPUT = "model.embed_tokens", "model.norm", "lm_head"


@dataclass(frozen=True, kw_only=True)
class TeacherPart:
    """What to load of a teacher."""

    layers: range
    embedding: bool = False
    norm: bool = False
    output: bool = False  # the output matrix

    def modules(self) -> list[str]:
        """Their names in the model."""
        ends = {EMBEDDING: self.embedding, NORM: self.norm, OUTPUT: self.output}
        names = [name for name, wanted in ends.items() if wanted]
        return names + [f"model.layers.{number}" for number in self.layers]


def check_part_loads(config: Any, name: str) -> None:
    """Refuses a teacher that cannot be loaded in parts.

    Raises:
        UnsupportedModelError: naming the architectures that can.
    """
    refuse_unsupported(config, name)
    if config.model_type not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"{name} (model type {config.model_type}) cannot be split into stages, wanted one of "
            f"{', '.join(sorted(ARCHITECTURES))}: whether its layers run apart was not tried; leave out --engine ppsd"
        )


def load_part(name: str, options: TeacherOptions, part: TeacherPart) -> LoadedTeacher:
    """Loads ``part`` of the teacher that ``load_teacher`` would load whole. Its layers are numbered from 0.

    Raises:
        UsageError: where there is none, it cannot be split, or its weights do not fit it or are no finite numbers.
    """
    folder, config = find_teacher(name, options)
    check_part_loads(config, name)
    with torch.device("meta"):
        model = _laid_out(config, options)
    weights = _Weights(folder)
    for module_name in part.modules():
        _fill(model, module_name, weights, options)
    _strip(model, part)
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    model.tie_weights = lambda *_, **__: None  # it would take up what was taken away
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    if not options.allow_nonfinite:
        refuse_nonfinite(model, folder)
    nn.Module.to(model, options.device)
    return LoadedTeacher(model.eval(), load_tokenizer(folder, options), folder)


def _laid_out(config: Any, options: TeacherOptions) -> Any:
    loader: Any = LlamaForCausalLM._from_config if config.model_type == "llama" else AutoModelForCausalLM.from_config
    model: PreTrainedModel = loader(config, dtype=options.dtype, attn_implementation=registered_name(options.attention))
    return model


class _Weights:
    """The tensors of a folder's safetensors files, by name, read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    self._files |= dict.fromkeys(file.keys(), path)
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"cannot read {path}: {error}") from None
        if not self._files:
            raise CheckpointError(f"cannot load a teacher from {folder}: it has no safetensors files")

    def read(self, names: Iterable[str]) -> torch.Tensor:
        """The first of ``names`` that there is."""
        wanted = list(names)
        for name in wanted:
            if name in self._files:
                with safe_open(self._files[name], framework="pt") as file:
                    tensor: torch.Tensor = file.get_tensor(name)
                    return tensor
        raise CheckpointError(f"the weights in {self.folder} do not fit its config.json: missing {wanted[0]}")


def _fill(model: Any, module_name: str, weights: _Weights, options: TeacherOptions) -> None:
    module = model.get_submodule(module_name)
    tied = module_name == OUTPUT and bool(model.config.tie_word_embeddings)
    for name, parameter in list(module.named_parameters()):
        names = [f"{EMBEDDING}.{name}"] if tied else [f"{module_name}.{name}"]
        tensor = weights.read(names).to(options.dtype)
        if tensor.shape != parameter.shape:
            raise CheckpointError(
                f"the weights in {weights.folder} do not fit its config.json: {names[0]}: got {list(tensor.shape)}, "
                f"wanted {list(parameter.shape)}"
            )
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))


def _strip(model: Any, part: TeacherPart) -> None:
    """Takes away what was not filled, and numbers the layers from 0, as the cache counts them."""
    layers = [model.model.layers[number] for number in part.layers]
    for number, layer in enumerate(layers):
        layer.self_attn.layer_idx = number
    model.model.layers = nn.ModuleList(layers)
    if not part.embedding:
        model.model.embed_tokens = nn.Identity()
    if not part.norm:
        model.model.norm = nn.Identity()
    if not part.output:
        model.lm_head = nn.Identity()
