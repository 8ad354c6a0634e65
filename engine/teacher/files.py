"""Teachers on disk: which folder a name means, which are refused, and how each kind is loaded.

Whatever transformers itself implements as a plain decoder with full or sliding attention and rotations that depend on
the position alone; ``probe`` then tries what no configuration tells. openPangu-Embedded, which transformers does not
implement, is Llama with biases under another name, and is loaded as that: its own model code, which requires an NPU at
import, is never run.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging as transformers_logging

from specscope.engine.backends.attention import registered_name
from specscope.engine.finite import refuse_nonfinite
from specscope.engine.pickled import conversion
from specscope.engine.teacher.names import no_teacher
from specscope.tracer.errors import CheckpointError, UnsupportedModelError

SNAPSHOT_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
#: What to do about a model that was refused.
ANOTHER_TEACHER = "give a teacher of another architecture (docs/engine.md lists those that are tested)"
PANGU_ARCHITECTURE = "PanguEmbeddedForCausalLM"
PANGU_MODEL_TYPES = ("PanguEmbedded", "openpangu_dense")
# The fields of an openPangu-Embedded config.json that are LlamaConfig's own; biases and rotation are mapped apart.
PANGU_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
PANGU_OPTIONAL_FIELDS = ("head_dim", "attention_dropout", "initializer_range")
FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
GROWING_ROTATIONS = frozenset({"dynamic", "longrope"})


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """How to load a teacher."""

    dtype: torch.dtype
    device: torch.device
    attention: str  # eager or fused
    allow_remote_code: bool = False
    allow_download: bool = False
    allow_nonfinite: bool = False  # weights that are NaN or infinite
    num_ranks: int = 1  # of the group that this process is in, among which the weights are divided


class LoadedTeacher(NamedTuple):
    """What a teacher's folder holds."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None  # None where there is none that needs no remote code
    folder: Path


def load_teacher(name: str, options: TeacherOptions) -> LoadedTeacher:
    """Loads a Hugging Face folder, or an id from the local cache.

    Raises:
        UsageError: where there is none, or of a kind that cannot verify trees, or its weights do not fit it or are no
            finite numbers.
    """
    folder, config = find_teacher(name, options)
    refuse_unsupported(config, name)
    model = _load_model(folder, config, options)
    if not options.allow_nonfinite:
        refuse_nonfinite(model, folder)
    nn.Module.to(model, options.device)
    return LoadedTeacher(model.eval(), load_tokenizer(folder, options), folder)


def find_teacher(name: str, options: TeacherOptions) -> tuple[Path, Any]:
    """The folder of ``name``, and its configuration.

    Raises:
        UsageError: where there is none.
    """
    folder = _resolve_folder(name, options)
    return folder, _load_config(folder, options)


def _resolve_folder(name: str, options: TeacherOptions) -> Path:
    """The folder of ``name``: itself, or the snapshot of a model id in the local Hugging Face cache."""
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, local_files_only=not options.allow_download, allow_patterns=SNAPSHOT_FILES))
    except (OSError, ValueError):  # hub errors are one or the other
        raise no_teacher(name) from None


def _load_config(folder: Path, options: TeacherOptions) -> Any:
    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        stated = {}  # transformers says what is wrong, below
    if isinstance(stated, dict) and (
        PANGU_ARCHITECTURE in (stated.get("architectures") or []) or stated.get("model_type") in PANGU_MODEL_TYPES
    ):
        return pangu_as_llama(stated, folder)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=options.allow_remote_code)
    except Exception as error:  # configurations are checked by their own code, which raises what it likes
        raise CheckpointError(f"cannot read a model configuration in {folder}: {_first_line(error)}") from None


def pangu_as_llama(stated: dict[str, Any], folder: Path) -> LlamaConfig:
    """The Llama configuration of an openPangu-Embedded ``config.json``.

    Its model is Llama's, but that one flag ``bias`` gives q, k, v and o a bias and the MLP never has one; the tensors
    have Llama's names (Huawei's ``modeling_openpangu_dense.py``; vLLM's ``openpangu.py`` treats it the same way).

    Raises:
        CheckpointError: where a field is missing. Llama's defaults are not openPangu's, so none is guessed.
    """
    rope = {"rope_theta": stated.get("rope_theta"), "rope_type": "default", **(stated.get("rope_parameters") or {})}
    missing = [field for field in (*PANGU_FIELDS, "bias") if field not in stated]
    missing += ["rope_theta"] * (rope["rope_theta"] is None)
    if missing:
        raise CheckpointError(f"{folder / 'config.json'} lacks {', '.join(missing)}, which {PANGU_ARCHITECTURE} needs")
    if stated.get("rope_scaling"):
        raise UnsupportedModelError(
            f"{folder / 'config.json'} sets rope_scaling, which {PANGU_ARCHITECTURE} does not read"
        )
    fields = {field: stated[field] for field in (*PANGU_FIELDS, *PANGU_OPTIONAL_FIELDS) if field in stated}
    try:
        return LlamaConfig(
            **fields,
            rope_parameters=rope,
            architectures=[PANGU_ARCHITECTURE],
            attention_bias=bool(stated["bias"]),
            mlp_bias=False,
        )
    except Exception as error:  # as above
        raise CheckpointError(f"cannot read a model configuration in {folder}: {_first_line(error)}") from None


def refuse_unsupported(config: Any, name: str) -> None:
    """Refuses what cannot verify a tree: a tree's rows are rolled back, and their order is not that of the text.

    Raises:
        UnsupportedModelError: naming the model as ``name``, and why.
    """
    kinds = set(getattr(config, "layer_types", None) or [])
    if kinds - {FULL, SLIDING, CHUNKED}:
        raise UnsupportedModelError(
            f"{name} has layers of types {sorted(kinds)}; only full and sliding attention are supported: the state of "
            "the others cannot be rolled back to a branch"
        )
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if getattr(model_class, "_is_stateful", False):
        raise UnsupportedModelError(
            f"{name} keeps a running state (model type {config.model_type}), which cannot be rolled back to a branch; "
            "only full and sliding attention are supported"
        )
    _refuse_forgetful(config, name)
    if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "num_hidden_layers"):
        raise UnsupportedModelError(
            f"{name} is no plain decoder (model type {config.model_type}); give a causal language model"
        )
    takes = inspect.signature(model_class.forward).parameters if model_class is not None else {}
    if (takes and "position_ids" not in takes) or getattr(config, "alibi", False):
        raise UnsupportedModelError(
            f"{name} takes no position ids (model type {config.model_type}): the branches of a tree share positions, "
            "so they must be given"
        )
    growing = sorted(_rotations(config) & GROWING_ROTATIONS)
    if growing:
        raise UnsupportedModelError(
            f"{name} rotates by rope_type {growing[0]!r}, which changes with the length seen: a branch would be "
            "rotated otherwise than the same text alone; not supported"
        )


def sliding_windows(config: Any) -> list[int | None] | None:
    """Of each layer, how many of the last positions it sees, its own among them, or None for all; None where all layers
    see all, and where a window is as long as the positions are many: it never slides then."""
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    positions = getattr(config, "max_position_embeddings", None)
    if not window or (positions and window >= positions):
        return None
    if not kinds:
        return [int(window)] * int(config.num_hidden_layers) if getattr(config, "use_sliding_window", True) else None
    return [int(window) if kind == SLIDING else None for kind in kinds] if SLIDING in kinds else None


def full_sight(config: Any) -> int | None:
    """The longest text in which every token sees all before it, in tokens; None where it always does, or by a window
    that slides.

    Chunks begin anew at fixed positions, and Doge drops what it scores least: neither is a window.
    """
    kinds = getattr(config, "layer_types", None) or []
    limits = [getattr(config, "attention_chunk_size", None) if CHUNKED in kinds else None]
    limits.append(getattr(config, "keep_window_size", None))
    if (SLIDING in kinds if kinds else getattr(config, "use_sliding_window", True)) and not sliding_windows(config):
        limits.append(getattr(config, "sliding_window", None))
    return min((int(limit) for limit in limits if limit), default=None)


def _refuse_forgetful(config: Any, name: str) -> None:
    """Refuses attention that forgets otherwise than by a window; one that no text makes forget is full attention."""
    limit, positions = full_sight(config), getattr(config, "max_position_embeddings", None)
    if limit is None or (positions and limit >= positions):
        return
    way_out = "give a teacher with full or sliding attention"
    if positions and _rotations(config) <= {"default"}:
        way_out += f", or set max_position_embeddings to {limit} in its config.json, for texts of so many tokens"
    raise UnsupportedModelError(
        f"{name} (model type {config.model_type}) sees all of a text of up to {limit} tokens only, and it has "
        f"{positions} positions; what it drops of longer ones is not by a window, and cannot be told of a branch: "
        f"{way_out}"
    )


def _rotations(config: Any) -> set[str]:
    """The kinds of rotation, of which layers of different types may have different ones."""
    stated = getattr(config, "rope_parameters", None) or {}
    each = [part for part in stated.values() if isinstance(part, dict)] or [stated]
    return {str(part.get("rope_type", "default")) for part in each}


def _load_model(folder: Path, config: Any, options: TeacherOptions) -> PreTrainedModel:
    """The model, every weight of it from the files."""
    renamed = PANGU_ARCHITECTURE in (config.architectures or [])
    loader: Any = LlamaForCausalLM if renamed else AutoModelForCausalLM
    arguments: dict[str, Any] = {"config": config} if renamed else {"trust_remote_code": options.allow_remote_code}
    if options.num_ranks > 1:  # by the plan that the architecture has in transformers
        arguments["distributed_config"] = DistributedConfig(tp_size=options.num_ranks, tp_plan="auto")
    attention = registered_name(options.attention)
    try:
        with _quiet():
            model, info = loader.from_pretrained(
                folder,
                dtype=options.dtype,
                attn_implementation=attention,
                use_safetensors=True,
                local_files_only=not options.allow_download,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
                **arguments,
            )
    except (OSError, ValueError, SafetensorError, RuntimeError, KeyError, ImportError) as error:
        if isinstance(error, KeyError) and error.args == (attention,):
            raise UnsupportedModelError(
                f"{folder} (model type {config.model_type}) cannot verify trees: its code in transformers chooses "
                "among its own kinds of attention and takes no other, so neither eager nor fused would be what ran; "
                f"{ANOTHER_TEACHER}"
            ) from None
        command = None if any(folder.glob("*.safetensors")) else conversion(folder)
        if command is not None:
            raise CheckpointError(
                f"cannot load a teacher from {folder}: its weights are pickled, which are never read; convert them by: "
                f"{command}"
            ) from None
        raise CheckpointError(f"cannot load a teacher from {folder}: {_first_line(error)}") from None
    _check_complete(folder, info, unexpected_allowed=not renamed)
    loaded: PreTrainedModel = model
    return loaded


def _check_complete(folder: Path, info: dict[str, Any], *, unexpected_allowed: bool) -> None:
    """Refuses a model some of whose weights are not the files', which transformers only warns of.

    Unexpected tensors are transformers' to judge, but where the class was our choice.
    """
    problems = [f"missing {', '.join(sorted(info['missing_keys']))}"] * bool(info["missing_keys"])
    problems += [
        f"{name}: got {list(got)}, wanted {list(wanted)}" for name, got, wanted in sorted(info["mismatched_keys"])
    ]
    if info["unexpected_keys"] and not unexpected_allowed:
        problems.append(f"unexpected {', '.join(sorted(info['unexpected_keys']))}")
    if problems:
        raise CheckpointError(f"the weights in {folder} do not fit its config.json: {'; '.join(problems)}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report of the weights: what matters of it becomes an error."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def load_tokenizer(folder: Path, options: TeacherOptions) -> PreTrainedTokenizerBase | None:
    """The folder's tokenizer; None where there is none, or its code is remote and not allowed.

    openPangu's own is such code: a ``tokenizer.json`` beside it, made from it once, is used instead.
    """
    loaders: list[Any] = [AutoTokenizer]
    if (folder / "tokenizer.json").is_file():
        loaders.append(PreTrainedTokenizerFast)
    for loader in loaders:
        try:
            tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(
                folder, local_files_only=not options.allow_download, trust_remote_code=options.allow_remote_code
            )
        except Exception:  # noqa: S112 - tokenizers raise what they like; prompts can be given as ids
            continue
        return tokenizer
    return None


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"it lacks {text}" if isinstance(error, KeyError) else text  # whose text is the key alone
