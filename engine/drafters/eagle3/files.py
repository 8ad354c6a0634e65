"""EAGLE-3 heads on disk: a folder with config.json and safetensors under the public tensor names.

Nothing is loaded leniently: a missing, unexpected or misshapen tensor is an error that names it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from specscope.engine.drafters.draft_vocab import DraftVocab
from specscope.engine.drafters.eagle3.config import LAYER_IDS, read_statement
from specscope.engine.drafters.eagle3.head import Eagle3Head, HeadConfig
from specscope.engine.finite import refuse_nonfinite
from specscope.engine.pickled import conversion
from specscope.tracer.errors import CheckpointError, UsageError

Tensors = dict[str, torch.Tensor]

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
#: The first layer's: of vLLM and speculators, whose later ones are "layers.1." and so on; of the authors and SGLang.
OTHER_PREFIX, OUR_PREFIX = "layers.0.", "midlayer."
LAYER_NAME = re.compile(r"(midlayer|layers\.\d+)\.")
VOCAB_TENSORS = ("d2t", "t2d")
TEACHER_PREFIX = "verifier_"  # speculators keeps some of the teacher's weights beside the head's, for training alone
INVERSE_FREQUENCIES = "rotary_emb.inv_freq"
# Tensors that come with a switch: where it is off they are unexpected, and the error says which switch it would be.
SWITCHED = {"input_norm.": "norm_before_fc", "fc_norm.": "fc_norm", "_proj.bias": "attention_bias"}
#: What later layers have by two pull requests of SGLang's (18112 and 18175), which were closed.
OTHER_LAYERS = re.compile(r"layers\.[1-9]\d*\.hidden_norm|additional_layers\.")


@dataclass(frozen=True, kw_only=True)
class HeadFiles:
    """A head read from a folder, and what the trace must say of where its settings came from."""

    head: Eagle3Head
    folder: Path
    hidden_state_indices: tuple[int, ...]  # empty: the default for the teacher's depth
    hidden_state_source: str
    rope_theta_source: str
    vocab: DraftVocab

    @property
    def vocab_mapping(self) -> str:
        """``identity`` or ``offset``."""
        return self.vocab.mapping

    @property
    def max_positions(self) -> int | None:
        """Positions the head was made for; None where its config does not say."""
        return self.head.config.max_positions

    def embedding(self, teacher_embedding: nn.Module) -> nn.Module:
        """What turns token ids into the head's input embeddings: its own, or the teacher's where it brings none."""
        return teacher_embedding if self.head.embed_tokens is None else self.head.embed_tokens

    def feature_layers(self, num_layers: int) -> tuple[int, ...]:
        """The transformers hidden_states indices to feed it, for a teacher of ``num_layers``.

        Raises:
            CheckpointError: where the teacher has no such states.
        """
        layers = self.hidden_state_indices or default_hidden_state_indices(num_layers)
        if max(layers) >= num_layers:
            # hidden_states[num_layers] exists, but after the final norm; heads that name it want it before.
            raise CheckpointError(
                f"the head at {self.folder} wants hidden states {list(layers)} ({self.hidden_state_source}), this "
                f"teacher has the inputs of layers 0..{num_layers - 1}"
            )
        return layers


def default_hidden_state_indices(num_layers: int) -> tuple[int, int, int]:
    """The public default: hidden_states[2], [L // 2] and [L - 3], each the input of that layer.

    Raises:
        CheckpointError: for fewer than 7 layers, where these collide.
    """
    if num_layers < 7:
        raise CheckpointError(
            f"got a teacher of {num_layers} layers, wanted at least 7 for the default EAGLE-3 feature layers; "
            "state eagle_config.eagle_aux_hidden_state_layer_ids in the head's config.json"
        )
    return (2, num_layers // 2, num_layers - 3)


def load_head(folder: Path, teacher_hidden: int, teacher_vocab: int, *, allow_nonfinite: bool = False) -> HeadFiles:
    """The head in ``folder``, in float32, checked against the teacher's hidden size and vocabulary.

    Raises:
        CheckpointError: where it is missing, unreadable, or made for another teacher (naming the shapes), or weights
            are not finite and ``allow_nonfinite`` is off.
    """
    config, tensors = _read_config(folder), _read_tensors(folder)
    statement = read_statement(config, set(tensors), f"{folder / CONFIG_NAME}")
    shape = statement.shape
    _check_teacher(shape, folder, teacher_hidden, teacher_vocab)
    _take_inverse_frequencies(tensors, shape, folder)
    _check_layers(tensors, shape, folder)
    vocab = _vocab(tensors, shape, folder)
    with torch.device("meta"):  # every value comes from the files: what did not would fail at its first use
        head = Eagle3Head(shape)
    _fit(head, tensors, vocab, folder)
    if not allow_nonfinite:
        refuse_nonfinite(head, folder)
    return HeadFiles(
        head=head.eval(),
        folder=folder,
        hidden_state_indices=statement.layer_ids.indices,
        hidden_state_source=statement.layer_ids.source,
        rope_theta_source=statement.rope_theta_source,
        vocab=vocab,
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no EAGLE-3 head at {folder}: {CONFIG_NAME} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"cannot read {path}: got {type(config).__name__}, wanted an object")
    return config


def _read_tensors(folder: Path) -> Tensors:
    """The tensors of all safetensors files, under our names."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        command = conversion(folder)
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:6])
        raise CheckpointError(
            f"no EAGLE-3 head at {folder}: wanted *.safetensors, found {names}; pickled weights (.bin, .pt) are never "
            f"read{'' if command is None else f', convert them by: {command}'}"
        )
    tensors: Tensors = {}
    for path in paths:
        try:
            read = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from None
        for name, tensor in read.items():
            ours = name.removeprefix("model.")
            if ours.startswith(OTHER_PREFIX):
                ours = OUR_PREFIX + ours.removeprefix(OTHER_PREFIX)
            if ours in tensors:
                raise CheckpointError(f"{folder} holds the tensor {ours} twice, again as {name} in {path.name}")
            if not ours.startswith(TEACHER_PREFIX):
                tensors[ours] = tensor
    return tensors


def _check_teacher(shape: HeadConfig, folder: Path, teacher_hidden: int, teacher_vocab: int) -> None:
    if shape.teacher_hidden_size != teacher_hidden or (shape.hidden_size != teacher_hidden and not shape.own_embedding):
        raise CheckpointError(
            f"the head at {folder} does not fit this teacher: fc.weight wants features of 3 x "
            f"{shape.teacher_hidden_size} and embeddings of {shape.hidden_size}, the teacher gives {teacher_hidden}; "
            "choose the head that was trained for this teacher"
        )
    if shape.teacher_vocab_size != teacher_vocab:
        raise CheckpointError(
            f"the head at {folder} does not fit this teacher: it covers a vocabulary of {shape.teacher_vocab_size}, "
            f"the teacher has {teacher_vocab}; choose the head that was trained for this teacher"
        )


def _check_layers(tensors: Tensors, shape: HeadConfig, folder: Path) -> None:
    """Refuses a head whose files hold other layers than its config says: one left out, or made up, drafts wrongly."""
    wanted = {"midlayer", *(f"layers.{number}" for number in range(1, shape.num_layers))}
    held = {name.group(1) for name in map(LAYER_NAME.match, tensors) if name is not None}
    if held and len(held) != len(wanted):
        raise CheckpointError(
            f"{folder / CONFIG_NAME} states num_hidden_layers {shape.num_layers}, the files hold tensors of "
            f"{len(held)} ({', '.join(sorted(held))}): correct it, or get the tensors that are missing. The authors' "
            "code has one layer, whatever is stated"
        )


def _take_inverse_frequencies(tensors: Tensors, shape: HeadConfig, folder: Path) -> None:
    """Removes the rotation's frequencies, which old checkpoints keep, and holds the config to them."""
    for name in [name for name in tensors if name.endswith(INVERSE_FREQUENCIES)]:
        kept = tensors.pop(name).double()
        stated = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
        if kept.shape != stated.shape or not torch.allclose(kept, stated, rtol=1e-2):
            raise CheckpointError(
                f"{folder}: {name} is not that of rope_theta {shape.rope_theta:g} and head_dim {shape.head_dim}, as "
                f"{CONFIG_NAME} states them: correct it"
            )


def _vocab(tensors: Tensors, shape: HeadConfig, folder: Path) -> DraftVocab:
    """The draft vocabulary of ``d2t``, or of equal vocabularies where there is none; takes both tensors out."""
    d2t, t2d = (tensors.pop(name, None) for name in VOCAB_TENSORS)
    for name, tensor, length in (
        ("d2t", d2t, shape.draft_vocab_size),
        ("t2d", t2d, shape.teacher_vocab_size),
    ):
        if tensor is not None and (tensor.is_floating_point() or list(tensor.shape) != [length]):
            raise CheckpointError(
                f"{folder} does not fit as an EAGLE-3 head: {name}: got {list(tensor.shape)} of {tensor.dtype}, wanted "
                f"[{length}] of integers or booleans"
            )
    if d2t is None and shape.draft_vocab_size != shape.teacher_vocab_size:
        raise CheckpointError(
            f"{folder} has no d2t, and its draft vocabulary of {shape.draft_vocab_size} is not the teacher's "
            f"{shape.teacher_vocab_size}"
        )
    offsets = torch.zeros(shape.draft_vocab_size, dtype=torch.int64) if d2t is None else d2t
    try:
        return DraftVocab.from_offsets(offsets.numpy(), None if t2d is None else t2d.numpy(), shape.teacher_vocab_size)
    except UsageError as error:
        raise CheckpointError(f"{folder}: {error}") from None


def _fit(head: Eagle3Head, tensors: Tensors, vocab: DraftVocab, folder: Path) -> None:
    """Loads ``tensors`` strictly, in float32.

    Raises:
        CheckpointError: naming the tensors that are missing, unexpected, of another shape or no floating-point numbers.
    """
    wanted = {name: tensor for name, tensor in head.state_dict().items() if name not in VOCAB_TENSORS}
    missing = sorted(wanted.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - wanted.keys())
    problems = [f"missing {', '.join(missing)}"] * bool(missing)
    problems += [f"unexpected {', '.join(unexpected)}{_hint(unexpected)}"] * bool(unexpected)
    problems += [
        f"{name}: got {list(tensors[name].shape)}, wanted {list(wanted[name].shape)}"
        for name in sorted(wanted.keys() & tensors.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    problems += [
        f"{name}: got {tensors[name].dtype}, wanted floating-point numbers (heads are quantised as they are loaded, "
        "by --drafter-quantization)"
        for name in sorted(wanted.keys() & tensors.keys())
        if not tensors[name].is_floating_point()
    ]
    if problems:
        raise CheckpointError(f"{folder} does not fit as an EAGLE-3 head: {'; '.join(problems)}")
    state = {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}
    state |= {"d2t": torch.from_numpy(vocab.d2t()), "t2d": torch.from_numpy(vocab.t2d())}
    head.load_state_dict(state, strict=True, assign=True)


def _hint(unexpected: list[str]) -> str:
    if any(map(OTHER_LAYERS.match, unexpected)):
        return (
            " (after the first layer, plain ones are read, with one norm before attention, as vLLM and speculators do)"
        )
    switches = sorted({switch for part, switch in SWITCHED.items() if any(part in name for name in unexpected)})
    return f" ({CONFIG_NAME} does not set {' or '.join(switches)})" if switches else ""


def save_head(head: Eagle3Head, folder: Path, hidden_state_indices: tuple[int, ...]) -> None:
    """Writes ``head`` as a folder that ``load_head`` and public engines read."""
    shape = head.config
    ids = list(hidden_state_indices)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "hidden_size": shape.hidden_size,
        "target_hidden_size": shape.teacher_hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.teacher_vocab_size,
        "draft_vocab_size": shape.draft_vocab_size,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.rms_norm_eps,
        "max_position_embeddings": shape.max_positions,
        "tie_word_embeddings": False,
    }
    switches = {
        "attention_bias": shape.qkv_bias,
        "norm_before_residual": shape.norm_before_residual,
        "norm_before_fc": shape.norm_before_fc,
        "fc_norm": shape.fc_norm,
        "norm_output": shape.norm_output,
    }
    config |= {name: True for name, on in switches.items() if on}
    # vLLM reads the ids at the top, SGLang those in eagle_config, where a leading 1 would mean something else.
    config[LAYER_IDS] = ids
    if ids[:1] != [1]:
        config["eagle_config"] = {LAYER_IDS: ids}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # The authors and SGLang have one layer and know it as midlayer; who reads several counts them.
    first = OUR_PREFIX if shape.num_layers == 1 else OTHER_PREFIX
    tensors = {name.replace(OUR_PREFIX, first, 1): tensor.contiguous() for name, tensor in head.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_NAME)
