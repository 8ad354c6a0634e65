"""What the config.json of an EAGLE-3 head says of its shape. Reads no file.

Two layouts are in use: the authors', SGLang's and ModelOpt's, everything at the top and some switches in
``eagle_config``; and speculators', the layer's shape in ``transformer_layer_config`` and the rest at the top (its
``models/eagle3/config.py``; vLLM's ``transformers_utils/configs/speculators`` reads it the same way).

What would make the head compute something else than ours does is refused by name.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from specscope.engine.drafters.eagle3.head import HeadConfig
from specscope.tracer.errors import CheckpointError, UnsupportedModelError

LAYER_CONFIG = "transformer_layer_config"
LAYER_IDS = "eagle_aux_hidden_state_layer_ids"
EMBEDDING = "embed_tokens.weight"
OUTPUT_BIAS = "midlayer.self_attn.o_proj.bias"
DEFAULT_ROPE_THETA = 10000.0  # of the authors' code, where a config states none

# What some configs call the same switch: TensorRT-LLM's and SGLang's older name.
ALIASES = {"norm_output": "return_hidden_post_norm", "fc_norm": "use_aux_norm"}

# (key, what its value must be, why it is refused otherwise); a key that is absent or null is right.
WANTED: tuple[tuple[str, object, str], ...] = (
    ("hidden_act", "silu", "the MLP is SwiGLU"),
    ("mlp_bias", False, "the MLP has no biases"),
    ("bias", False, "engines disagree which of fc, attention and MLP then have one: say attention_bias"),
    ("logit_scale", 1, "logits are not scaled"),
    ("num_aux_hidden_states", 3, "the head is fed three hidden states"),
    ("use_aux_hidden_state", True, "the head is fed three hidden states through fc"),
    ("eh_proj_before_attn", False, "embedding and hidden are joined in the attention"),
    ("parallel_drafting", False, "a draft step needs the one before"),
    ("use_sliding_window", False, "the head attends to all pairs"),
    ("partial_rotary_factor", 1, "all of a head's dimensions are rotated"),
)


class LayerIds(NamedTuple):
    """The teacher's hidden states that a head is fed."""

    indices: tuple[int, ...]  # of transformers' hidden_states; empty: the default for the teacher's depth
    source: str  # which field said so, and how it was read


class HeadStatement(NamedTuple):
    """What a config.json says, resolved."""

    shape: HeadConfig
    layer_ids: LayerIds
    rope_theta_source: str


def read_statement(config: dict[str, Any], tensor_names: set[str], place: str) -> HeadStatement:
    """The statement of ``config``; ``tensor_names`` tell which optional tensors the head has. ``place`` is for errors.

    Raises:
        CheckpointError: where it lacks something or contradicts itself.
        UnsupportedModelError: where it asks for what is not supported.
    """
    layer = _section(config, LAYER_CONFIG, place) or config
    eagle = _section(config, "eagle_config", place)
    _refuse_unsupported({**eagle, **config, **layer}, place)
    theta, source = _rope_theta(layer, place)
    prefix = "" if layer is config or source == "default" else f"{LAYER_CONFIG}."
    switches = {
        name: _switch(name, config, eagle, place)
        for name in ("norm_before_residual", "norm_before_fc", "fc_norm", "norm_output")
    }
    if switches["norm_before_fc"] and switches["fc_norm"]:
        raise CheckpointError(
            f"{place} sets norm_before_fc and fc_norm, wanted one of them at most: both norm fc's input"
        )
    shape = _shape(config, layer, theta=theta, tensor_names=tensor_names, switches=switches, place=place)
    return HeadStatement(shape, _layer_ids(config, eagle, place), prefix + source)


def _section(config: dict[str, Any], name: str, place: str) -> dict[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise CheckpointError(f"{place}: {name} is {value!r}, wanted an object")
    return value


def _shape(
    config: dict[str, Any],
    layer: dict[str, Any],
    theta: float,
    tensor_names: set[str],
    switches: dict[str, bool],
    place: str,
) -> HeadConfig:
    try:
        hidden, heads = int(layer["hidden_size"]), int(layer["num_attention_heads"])
        teacher_vocab = int(config.get("target_vocab_size") or layer["vocab_size"])
        positions = layer.get("max_position_embeddings")
        num_layers = layer.get("num_hidden_layers")
        bias = bool(layer.get("attention_bias"))
        return HeadConfig(
            hidden_size=hidden,
            teacher_hidden_size=int(config.get("target_hidden_size") or hidden),
            intermediate_size=int(layer["intermediate_size"]),
            num_heads=heads,
            num_kv_heads=int(layer.get("num_key_value_heads") or heads),
            head_dim=int(layer.get("head_dim") or hidden // heads),
            draft_vocab_size=int(config.get("draft_vocab_size") or teacher_vocab),
            teacher_vocab_size=teacher_vocab,
            rope_theta=theta,
            rms_norm_eps=float(layer.get("rms_norm_eps", 1e-6)),
            max_positions=int(positions) if positions else None,
            num_layers=1 if num_layers is None else _checked_layers(num_layers, place),
            qkv_bias=bias,
            output_bias=bias and OUTPUT_BIAS in tensor_names,  # Llama's layer then has it, Qwen2's has not
            own_embedding=EMBEDDING in tensor_names,
            **switches,
        )
    except KeyError as error:
        raise CheckpointError(f"{place} lacks {error.args[0]!r}") from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{place} is not an EAGLE-3 configuration: {error}") from None


def _refuse_unsupported(settings: dict[str, Any], place: str) -> None:
    reasons = [
        f"{key} to {settings[key]!r}, wanted {wanted!r} ({why})"
        for key, wanted, why in WANTED
        if settings.get(key) is not None and settings[key] != wanted
    ]
    if str(settings.get("model_type", "")).startswith("llama4"):
        reasons.append("model_type to a Llama 4 (its heads are rotated in interleaved pairs, ours in halves)")
    other = set(settings.get("layer_types") or []) - {"full_attention"}
    if other:
        reasons.append(f"layer_types to {sorted(other)} (the head attends to all pairs)")
    for key in ("rope_scaling", "rope_parameters"):
        reason = _rope_reason(settings.get(key))
        if reason:
            reasons.append(f"{key} to {reason}")
    if reasons:
        raise UnsupportedModelError(f"{place} sets {'; '.join(reasons)}: not supported, the head would draft wrongly")


def _rope_reason(value: Any) -> str | None:
    """Why a rope section is refused; None where it is absent or plain."""
    if not value:
        return None
    if not isinstance(value, dict) or any(isinstance(v, dict) for v in value.values()):
        return f"{value!r} (wanted one rotation for the one layer)"
    kind = value.get("rope_type", value.get("type", "default"))
    if kind != "default":
        return f"type {kind!r} (positions are rotated by the plain formula, type 'default')"
    if value.get("partial_rotary_factor", 1) != 1:
        return "a part of a head's dimensions (all are rotated)"
    return None


def _rope_theta(layer: dict[str, Any], place: str) -> tuple[float, str]:
    """The base of the rotation, and the field that says so."""
    stated = {
        f"{key}.rope_theta": layer[key]["rope_theta"]
        for key in ("rope_parameters", "rope_scaling")
        if isinstance(layer.get(key), dict) and layer[key].get("rope_theta") is not None
    }
    if layer.get("rope_theta") is not None:
        stated["rope_theta"] = layer["rope_theta"]
    if not stated:
        return DEFAULT_ROPE_THETA, "default"
    if len(set(stated.values())) > 1:
        raise CheckpointError(f"{place} contradicts itself: {stated}; keep the one that the head was trained with")
    source, theta = next(iter(stated.items()))
    try:
        return float(theta), source
    except (TypeError, ValueError):
        raise CheckpointError(f"{place}: {source} is {theta!r}, wanted a number") from None


def _switch(name: str, config: dict[str, Any], eagle: dict[str, Any], place: str) -> bool:
    """Whether a switch is on: engines read it at the top, in ``eagle_config``, or in both."""
    on = False
    for key in (name, ALIASES.get(name, name)):
        stated = [section[key] for section in (config, eagle) if section.get(key) is not None]
        if any(not isinstance(value, bool) for value in stated) or len(set(stated)) > 1:
            raise CheckpointError(
                f"{place}: {key} is {stated} (at the top and in eagle_config), wanted one true or false"
            )
        on = on or stated[:1] == [True]
    return on


def _layer_ids(config: dict[str, Any], eagle: dict[str, Any], place: str) -> LayerIds:
    """Indices of transformers' hidden_states, each the input of that layer.

    At the top (speculators) the ids are such indices: vLLM captures the input of the layer with that number. In
    ``eagle_config`` trainers write the numbers of layers whose *output* is meant where the first is 1 (SpecForge's
    default is 1, L/2 - 1, L - 4), and indices otherwise: SGLang's rule since its pull request 25454.
    """
    top, nested = (_checked_ids(section.get(LAYER_IDS), place) for section in (config, eagle))
    if not nested:
        return LayerIds(top, LAYER_IDS) if top else LayerIds((), "default")
    outputs = nested[0] == 1
    indices = tuple(i + 1 for i in nested) if outputs else nested
    if top and top not in (nested, indices):
        raise CheckpointError(f"{place} contradicts itself: {LAYER_IDS} is {list(top)}, in eagle_config {list(nested)}")
    return LayerIds(indices, f"eagle_config.{LAYER_IDS}" + (", numbers of layers whose output is meant" * outputs))


def _checked_layers(stated: Any, place: str) -> int:
    if type(stated) is not int or stated < 1:
        raise CheckpointError(f"{place}: num_hidden_layers is {stated!r}, wanted an integer of at least 1")
    return stated


def _checked_ids(ids: Any, place: str) -> tuple[int, ...]:
    if not ids:
        return ()
    if not isinstance(ids, list) or len(ids) != 3 or not all(type(i) is int and i >= 0 for i in ids):
        raise CheckpointError(f"{place}: {LAYER_IDS} is {ids!r}, wanted three integers")
    return tuple(ids)
