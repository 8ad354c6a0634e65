"""EAGLE-3 heads on disk: a folder with config.json and safetensors under the public tensor names.

Nothing is loaded leniently: a missing, unexpected or misshapen tensor is an error that names it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from specscope.engine.drafters.eagle3_head import Eagle3Head, HeadConfig
from specscope.tracer.errors import UsageError

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
OTHER_PREFIX = "layers.0."  # in vLLM's and speculators' heads; ours and the authors' is "midlayer."
UNSUPPORTED = ("norm_before_residual", "norm_output", "fc_norm", "input_norm", "rope_scaling")
OPTIONAL_TENSORS = frozenset({"d2t", "t2d"})


@dataclass(frozen=True)
class HeadFiles:
    """A head read from a folder, and what the trace must say of where its settings came from."""

    head: Eagle3Head
    folder: Path
    hidden_state_indices: tuple[int, ...]  # empty: the default for the teacher's depth
    rope_theta_source: str
    vocab_mapping: str  # identity or offset


def default_hidden_state_indices(num_layers: int) -> tuple[int, int, int]:
    """The public default: hidden_states[2], [L // 2] and [L - 3], each the input of that layer.

    Raises:
        UsageError: for fewer than 7 layers, where these collide.
    """
    if num_layers < 7:
        raise UsageError(
            f"got a teacher of {num_layers} layers, wanted at least 7 for the default EAGLE-3 feature layers; "
            "state eagle_config.eagle_aux_hidden_state_layer_ids in the head's config.json"
        )
    return (2, num_layers // 2, num_layers - 3)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no EAGLE-3 head at {folder}: {CONFIG_NAME} is missing") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"cannot read {path}: got {type(config).__name__}, wanted an object")
    return config


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:6])
        raise UsageError(f"no EAGLE-3 head at {folder}: wanted *.safetensors, found {found}")
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        try:
            tensors.update(load_file(path))
        except (OSError, SafetensorError) as error:
            raise UsageError(f"cannot read {path}: {error}") from None
    return {name.replace(OTHER_PREFIX, "midlayer.", 1): tensor for name, tensor in tensors.items()}


def _rope_theta(config: dict[str, Any]) -> tuple[float, str]:
    parameters = config.get("rope_parameters")
    if isinstance(parameters, dict) and "rope_theta" in parameters:
        return float(parameters["rope_theta"]), "rope_parameters.rope_theta"
    if "rope_theta" in config:
        return float(config["rope_theta"]), "rope_theta"
    return 10000.0, "default"


def _head_config(config: dict[str, Any], folder: Path, teacher_hidden: int, teacher_vocab: int) -> HeadConfig:
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return HeadConfig(
            hidden_size=hidden,
            teacher_hidden_size=int(config.get("target_hidden_size") or teacher_hidden),
            intermediate_size=int(config["intermediate_size"]),
            num_heads=heads,
            num_kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            draft_vocab_size=int(config.get("draft_vocab_size") or config["vocab_size"]),
            teacher_vocab_size=int(config.get("vocab_size") or teacher_vocab),
            rope_theta=_rope_theta(config)[0],
            rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
            max_positions=int(config.get("max_position_embeddings", 2048)),
        )
    except KeyError as error:
        raise UsageError(f"{folder / CONFIG_NAME} lacks {error.args[0]!r}") from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{folder / CONFIG_NAME} is not an EAGLE-3 configuration: {error}") from None


def _fit(head: Eagle3Head, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Loads ``tensors`` strictly.

    Raises:
        UsageError: naming the tensors that are missing, unexpected or of another shape.
    """
    wanted = head.state_dict()
    missing = sorted(wanted.keys() - tensors.keys() - OPTIONAL_TENSORS)
    unexpected = sorted(tensors.keys() - wanted.keys())
    shapes = [
        f"{name}: got {list(tensors[name].shape)}, wanted {list(wanted[name].shape)}"
        for name in sorted(wanted.keys() & tensors.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    problems = [f"missing {', '.join(missing)}"] * bool(missing)
    problems += [f"unexpected {', '.join(unexpected)}"] * bool(unexpected)
    problems += shapes
    if problems:
        raise UsageError(f"{folder} does not fit as an EAGLE-3 head: {'; '.join(problems)}")
    head.load_state_dict(tensors, strict=False)  # d2t and t2d may be absent; all else was compared above


def load_head(folder: Path, teacher_hidden: int, teacher_vocab: int) -> HeadFiles:
    """The head in ``folder``, checked against the teacher's hidden size and vocabulary.

    Raises:
        UsageError: where it is missing, unreadable, or made for another teacher (naming the shapes).
    """
    config = _read_config(folder)
    shape = _head_config(config, folder, teacher_hidden, teacher_vocab)
    if shape.teacher_hidden_size != teacher_hidden or shape.hidden_size != teacher_hidden:
        raise UsageError(
            f"the head at {folder} does not fit this teacher: fc.weight wants features of 3 x "
            f"{shape.teacher_hidden_size} and embeddings of {shape.hidden_size}, the teacher gives {teacher_hidden}; "
            "choose the head that was trained for this teacher"
        )
    if shape.teacher_vocab_size != teacher_vocab:
        raise UsageError(
            f"the head at {folder} does not fit this teacher: it covers a vocabulary of {shape.teacher_vocab_size}, "
            f"the teacher has {teacher_vocab}; choose the head that was trained for this teacher"
        )
    refused = [name for name in UNSUPPORTED if config.get(name)]
    if refused:
        raise UsageError(
            f"the head at {folder} sets {', '.join(refused)}, which is not supported: it would draft wrongly"
        )
    tensors = _read_tensors(folder)
    tensors.pop("embed_tokens.weight", None)  # the teacher's, where a checkpoint repeats it
    head = Eagle3Head(shape)
    _fit(head, tensors, folder)
    return HeadFiles(
        head.eval(),
        folder,
        _hidden_state_indices(config, folder),
        _rope_theta(config)[1],
        _vocab_mapping(head, folder, "d2t" in tensors),
    )


def _hidden_state_indices(config: dict[str, Any], folder: Path) -> tuple[int, ...]:
    ids = (config.get("eagle_config") or {}).get("eagle_aux_hidden_state_layer_ids") or []
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        raise UsageError(f"{folder / CONFIG_NAME}: eagle_aux_hidden_state_layer_ids is {ids!r}, wanted three integers")
    return tuple(ids)


def _vocab_mapping(head: Eagle3Head, folder: Path, has_map: bool) -> str:
    shape = head.config
    if not has_map and shape.draft_vocab_size != shape.teacher_vocab_size:
        raise UsageError(
            f"{folder} has no d2t, and its draft vocabulary of {shape.draft_vocab_size} is not the teacher's "
            f"{shape.teacher_vocab_size}"
        )
    mapped = head.teacher_tokens(torch.arange(shape.draft_vocab_size))
    if int(mapped.min()) < 0 or int(mapped.max()) >= shape.teacher_vocab_size:
        raise UsageError(
            f"{folder}: d2t maps outside the teacher's vocabulary: got {int(mapped.min())}..{int(mapped.max())}, "
            f"wanted 0..{shape.teacher_vocab_size - 1}; d2t holds offsets, not absolute ids"
        )
    return "offset" if bool(head.d2t.any()) else "identity"


def save_head(head: Eagle3Head, folder: Path, hidden_state_indices: tuple[int, ...]) -> None:
    """Writes ``head`` as a folder that ``load_head`` and public engines read."""
    shape = head.config
    config = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "hidden_size": shape.hidden_size,
        "target_hidden_size": shape.teacher_hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": 1,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.teacher_vocab_size,
        "draft_vocab_size": shape.draft_vocab_size,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.rms_norm_eps,
        "max_position_embeddings": shape.max_positions,
        "tie_word_embeddings": False,
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": list(hidden_state_indices)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, folder / WEIGHTS_NAME)
