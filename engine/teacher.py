"""The teacher: the one file that knows how transformers wants to be called.

Everything else passes ids, positions and an additive mask, and gets logits and features back.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from specscope.engine.attention import registered_name
from specscope.engine.cache import TreeCache
from specscope.engine.digests import digest_file, digest_files
from specscope.schemas import Teacher as TeacherManifest
from specscope.schemas import Tokenizer as TokenizerManifest
from specscope.tracer.errors import UsageError

TESTED_TRANSFORMERS = ((5, 17), (5, 23))  # first and last minor version that the tests ran with
PREFILL_ROWS = 1024
SNAPSHOT_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


class TeacherOutput:
    """One forward of the teacher."""

    __slots__ = ("features", "logits")

    def __init__(self, logits: torch.Tensor, features: torch.Tensor) -> None:
        self.logits = logits  # (N, V)
        self.features = features  # (N, 3E), or (N, 0) where no features were asked for


@dataclass(frozen=True)
class TeacherOptions:
    """How to load a teacher."""

    dtype: torch.dtype
    device: torch.device
    attention: str  # eager or fused
    allow_remote_code: bool = False
    allow_download: bool = False


def check_transformers_version() -> None:
    """Refuses a transformers whose Cache and mask interfaces were never tried.

    Raises:
        UsageError: naming the installed version and the range that works.
    """
    found = version("transformers")
    installed = tuple(int(part) for part in found.split(".")[:2])
    first, last = TESTED_TRANSFORMERS
    if not first <= installed <= last:
        raise UsageError(
            f"got transformers {found}, wanted {first[0]}.{first[1]} to {last[0]}.{last[1]}: "
            "its cache interface moves between releases; install a version of that range"
        )


def _resolve_folder(name: str, options: TeacherOptions) -> Path:
    """The folder of ``name``: itself, or the snapshot of a model id in the local Hugging Face cache."""
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, local_files_only=not options.allow_download, allow_patterns=SNAPSHOT_FILES))
    except (OSError, ValueError):  # hub errors are one or the other
        raise UsageError(
            f"no teacher at {name!r}: wanted a folder with config.json and safetensors, or the id of a model in the "
            "local Hugging Face cache (nothing is downloaded without --allow-download)"
        ) from None


def _load_config(folder: Path, options: TeacherOptions) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=options.allow_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"cannot read a model configuration in {folder}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _refuse_unsupported(config: Any, name: str) -> None:
    if getattr(config, "use_sliding_window", False) or (
        getattr(config, "sliding_window", None) and config.model_type == "mistral"
    ):
        raise UsageError(f"{name} uses sliding-window attention, whose cache cannot roll a tree back; not supported")
    layer_types = set(getattr(config, "layer_types", None) or [])
    if layer_types - {"full_attention"}:
        raise UsageError(f"{name} has layers of types {sorted(layer_types)}; only full attention is supported")


class Teacher:
    """A causal language model behind one call."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder
        self.config = model.config

    @classmethod
    def load(cls, name: str, options: TeacherOptions) -> Teacher:
        """Loads a Hugging Face folder, or an id from the local cache.

        Raises:
            UsageError: where there is none, or of a kind that cannot verify trees.
        """
        check_transformers_version()
        disable_progress_bar()  # it would stand between the user and the text
        folder = _resolve_folder(name, options)
        _refuse_unsupported(_load_config(folder, options), name)
        common = {"local_files_only": not options.allow_download, "trust_remote_code": options.allow_remote_code}
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=options.dtype,
                attn_implementation=registered_name(options.attention),
                use_safetensors=True,
                **common,
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise UsageError(f"cannot load a teacher from {folder}: {_first_line(error)}") from None
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **common)
        except (OSError, ValueError):
            tokenizer = None
        nn.Module.to(model, options.device)
        return cls(model.eval(), tokenizer, folder)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def embedding(self) -> nn.Module:
        """Token ids to input embeddings; heads borrow it."""
        module: nn.Module = self.model.get_input_embeddings()
        return module

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return int(self.config.num_hidden_layers)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def vocab_size(self) -> int:
        """Rows of the output head."""
        return int(self.config.vocab_size)

    @property
    def max_positions(self) -> int | None:
        """Positions the model was made for; None where it does not say."""
        value = getattr(self.config, "max_position_embeddings", None)
        return int(value) if value else None

    @property
    def eos_token_ids(self) -> list[int]:
        """The ids that end a text."""
        generation = getattr(self.model, "generation_config", None)
        value = getattr(generation, "eos_token_id", None)
        value = self.config.eos_token_id if value is None else value
        if value is None:
            return []
        return [int(v) for v in value] if isinstance(value, list) else [int(value)]

    def new_cache(self, capacity: int) -> TreeCache:
        """An empty cache for one sequence."""
        return TreeCache(self.num_layers, capacity)

    def forward(
        self,
        token_ids: torch.Tensor,
        position_ids: torch.Tensor,
        mask: torch.Tensor,
        cache: TreeCache,
        feature_layers: tuple[int, ...],
        last_row_only: bool = False,
    ) -> TeacherOutput:
        """One forward over N rows, whose keys and values are appended to the cache's tail.

        ``token_ids`` and ``position_ids`` (N,), ``mask`` (1, 1, N, T + N) additive. ``last_row_only`` spares a
        prefill the logits of the rows that nobody reads.
        """
        output = self.model(
            input_ids=token_ids[None],
            attention_mask=mask,
            position_ids=position_ids[None],
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=bool(feature_layers),
            logits_to_keep=1 if last_row_only else 0,
        )
        rows = token_ids.numel()
        features = (
            torch.cat([output.hidden_states[layer][0] for layer in feature_layers], dim=-1)
            if feature_layers
            else output.logits.new_zeros(rows, 0)
        )
        return TeacherOutput(output.logits[0], features)

    def manifest(self) -> TeacherManifest:
        """What the trace says of it."""
        config = self.config
        rope = getattr(config, "rope_parameters", None) or {}
        weights = list(self.folder.glob("*.safetensors")) if self.folder.is_dir() else []
        config_path = self.folder / "config.json"
        return TeacherManifest(
            name=self.folder.name,
            architecture=type(self.model).__name__,
            config_digest=digest_file(config_path) if config_path.is_file() else None,
            weights_digest=digest_files(weights) if weights else None,
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
            max_positions=self.max_positions,
            rope_theta=float(rope["rope_theta"]) if "rope_theta" in rope else None,
        )

    def tokenizer_manifest(self) -> TokenizerManifest | None:
        """The tokenizer's digest, where there is a tokenizer file."""
        path = self.folder / "tokenizer.json"
        if self.tokenizer is None or not path.is_file():
            return None
        return TokenizerManifest(digest=digest_file(path), vocab_size=len(self.tokenizer))
