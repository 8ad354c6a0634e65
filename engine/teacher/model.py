"""The teacher: how a transformers model is called to verify trees. ``files`` says what can be loaded at all.

Everything else passes ids, positions and an additive mask, and gets logits and features back.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from specscope.engine.backends.choice import ChosenAttention
from specscope.engine.backends.products import ChosenProducts
from specscope.engine.backends.windows import shared_windows
from specscope.engine.cache.buffer import CommitStrategy, TreeCache
from specscope.engine.cache.paged import PagedCache
from specscope.engine.digests import digest_file, digest_files
from specscope.engine.teacher.files import TeacherOptions as TeacherOptions  # how callers ask for one
from specscope.engine.teacher.files import load_teacher, sliding_windows
from specscope.engine.teacher.probe import refuse_untreelike
from specscope.schemas import Teacher as TeacherManifest
from specscope.schemas import Tokenizer as TokenizerManifest
from specscope.tracer.errors import UsageError

TESTED_TRANSFORMERS = ((5, 17), (5, 24))  # first and last minor version that the tests ran with
PREFILL_ROWS = 1024
CACHE_CAPACITY = 512  # positions a row before the first growth


class TeacherOutput:
    """One forward of the teacher."""

    __slots__ = ("features", "logits")

    def __init__(self, logits: torch.Tensor, features: torch.Tensor) -> None:
        self.logits = logits  # (B, P, V)
        self.features = features  # (B, P, 3E), or (B, P, 0) where no features were asked for


def check_transformers_version() -> None:
    """Refuses a transformers whose Cache and mask interfaces were never tried.

    Raises:
        UsageError: naming the installed version and the range that works.
    """
    installed_version = version("transformers")
    installed = tuple(int(part) for part in installed_version.split(".")[:2])
    first, last = TESTED_TRANSFORMERS
    if not first <= installed <= last:
        raise UsageError(
            f"got transformers {installed_version}, wanted {first[0]}.{first[1]} to {last[0]}.{last[1]}: "
            "its cache interface moves between releases; install a version of that range"
        )


def cache_argument(module: nn.Module) -> str:
    """What the forward of a model or a layer calls its cache: ``cache`` from transformers 5.24 on, ``past_key_values``
    before, and in code that comes with a checkpoint."""
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"


class Teacher:
    """A causal language model behind one call."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder
        self.config = model.config
        self.attention: ChosenAttention | None = None  # None where nobody chose: what it was loaded with
        self.products: ChosenProducts | None = None  # None where nobody chose: torch's own
        self.parameters: dict[str, str] | None = None  # their digests, where they were taken when it was loaded

    @classmethod
    def load(cls, name: str, options: TeacherOptions) -> Teacher:
        """Loads a Hugging Face folder, or an id from the local cache.

        Raises:
            UsageError: where there is none, or of a kind that cannot verify trees.
        """
        check_transformers_version()
        disable_progress_bar()  # it would stand between the user and the text
        teacher = cls(*load_teacher(name, options))
        refuse_untreelike(teacher, name)
        return teacher

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
    def output_head(self) -> nn.Module:
        """Hidden states after the last norm to logits; exit heads borrow it."""
        module: nn.Module = self.model.get_output_embeddings()
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
    def sliding_windows(self) -> list[int | None] | None:
        """Of each layer, the last positions that it sees, its own among them, or None for all; None where all see all.

        ``probe`` makes sure that the layers say the same to their attention.
        """
        return sliding_windows(self.config)

    @property
    def max_positions(self) -> int | None:
        """Positions the model was made for; None where it does not say."""
        value = getattr(self.config, "max_position_embeddings", None)
        return int(value) if value else None

    @property
    def computes_positions(self) -> bool:
        """Whether the model rotates by a formula; else it looks positions up in a table, which ends."""
        return bool(getattr(self.config, "rope_parameters", None))

    @property
    def eos_token_ids(self) -> list[int]:
        """The ids that end a text."""
        generation = getattr(self.model, "generation_config", None)
        value = getattr(generation, "eos_token_id", None)
        value = self.config.eos_token_id if value is None else value
        if value is None:
            return []
        return [int(v) for v in value] if isinstance(value, list) else [int(value)]

    @property
    def attention_name(self) -> str:
        """What transformers knows its attention by."""
        return str(self.config._attn_implementation)

    @property
    def plan(self) -> dict[str, str] | None:
        """How its modules are divided among ranks, by their names; None where this process has all of it."""
        config = getattr(self.config, "distributed_config", None)
        divided = config is not None and config.tp_size > 1
        return dict(self.model.tp_plan) if divided else None

    def attend_by(self, name: str) -> None:
        """Computes attention by what is registered under ``name``."""
        self.model.set_attn_implementation(name)

    def layer(self, number: int) -> nn.Module:
        """One decoder layer."""
        module: nn.Module = self.model.model.layers[number]
        return module

    def new_cache(self, num_rows: int = 1, strategy: CommitStrategy | None = None) -> TreeCache:
        """An empty cache for ``num_rows`` sequences."""
        return TreeCache(self.num_layers, CACHE_CAPACITY, num_rows, strategy)

    def new_paged_cache(self, num_rows: int, block_size: int) -> TreeCache:
        """An empty cache for ``num_rows`` sequences whose prefixes lie in blocks of ``block_size`` positions."""
        return PagedCache(self.num_layers, block_size, CACHE_CAPACITY, num_rows)

    def forward(
        self,
        token_ids: torch.Tensor,
        position_ids: torch.Tensor,
        mask: torch.Tensor,
        cache: TreeCache,
        feature_layers: tuple[int, ...],
        last_row_only: bool = False,
    ) -> TeacherOutput:
        """One forward over P positions of each row, whose keys and values are appended to the cache's tail.

        ``token_ids`` and ``position_ids`` (B, P), ``mask`` (B, 1, P, S) additive. ``last_row_only`` spares a prefill
        the logits of the positions that nobody reads.
        """
        if self.max_positions is not None and not self.computes_positions:
            # A tree may reach past the last position. What is computed there is never kept, but must exist.
            position_ids = position_ids.clamp(max=self.max_positions - 1)
        with shared_windows():
            output = self.model(
                input_ids=token_ids,
                attention_mask=mask,
                position_ids=position_ids,
                **{cache_argument(self.model): cache},
                use_cache=True,
                output_hidden_states=bool(feature_layers),
                logits_to_keep=1 if last_row_only else 0,
            )
        features = (
            torch.cat([output.hidden_states[layer] for layer in feature_layers], dim=-1)
            if feature_layers
            else output.logits.new_zeros(*token_ids.shape, 0)
        )
        return TeacherOutput(output.logits, features)

    def run_layers(
        self, hidden: torch.Tensor, position_ids: torch.Tensor, mask: torch.Tensor, cache: TreeCache, layers: range
    ) -> torch.Tensor:
        """``hidden`` (B, P, H) through some of the decoder layers; their keys and values go to the cache's tail.

        Running the first layers and then the others gives the bits of the whole forward.
        """
        body = self.model.model
        rotations = {kind: self.rotation(hidden, position_ids, kind) for kind in self.rotations}
        cached = {cache_argument(body.layers[0]): cache}
        with shared_windows():
            for number in layers:
                hidden = body.layers[number](
                    hidden,
                    attention_mask=mask,
                    position_ids=position_ids,
                    **cached,
                    use_cache=True,
                    position_embeddings=rotations[self.rotation_of(number)],
                )
        return hidden

    @cached_property
    def rotations(self) -> list[str | None]:
        """The kinds of layers whose positions are rotated otherwise; None alone where all are rotated alike."""
        rotary = self.model.model.rotary_emb
        typed = "layer_type" in inspect.signature(rotary.forward).parameters
        return sorted(set(self.config.layer_types)) if typed else [None]

    def rotation_of(self, number: int) -> str | None:
        """Which of ``rotations`` a layer has."""
        return None if self.rotations == [None] else str(self.config.layer_types[number])

    def rotation(self, hidden: torch.Tensor, position_ids: torch.Tensor, kind: str | None) -> Any:
        """Cosines and sines (B, P, W) of the positions, as layers of that kind have them."""
        typed = {} if kind is None else {"layer_type": kind}
        return self.model.model.rotary_emb(hidden, position_ids=position_ids, **typed)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (B, P, V) of ``hidden`` (B, P, H) after the last layer."""
        logits: torch.Tensor = self.model.lm_head(self.model.model.norm(hidden))
        return logits

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
            sliding_windows=self.sliding_windows,
            rope_theta=float(rope["rope_theta"]) if "rope_theta" in rope else None,
        )

    def tokenizer_manifest(self) -> TokenizerManifest | None:
        """The tokenizer's digest, where there is a tokenizer file."""
        path = self.folder / "tokenizer.json"
        if self.tokenizer is None or not path.is_file():
            return None
        return TokenizerManifest(digest=digest_file(path), vocab_size=len(self.tokenizer))
