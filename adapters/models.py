"""What a manifest says of a model that transformers loaded. Knows no torch: it reads attributes and files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import xxhash

CHUNK_BYTES = 1 << 24


def describe_teacher(model: Any) -> dict[str, Any]:
    """The manifest's ``teacher`` of a transformers model; digests where it was loaded from a folder."""
    return describe_config(model.config, type(model).__name__)


def describe_config(config: Any, architecture: str) -> dict[str, Any]:
    """The manifest's ``teacher`` of a model of that class with this configuration of transformers."""
    name, config = str(config.name_or_path), config.get_text_config()
    sizes = {
        "num_layers": getattr(config, "num_hidden_layers", None),
        "hidden_size": getattr(config, "hidden_size", None),
        "max_positions": getattr(config, "max_position_embeddings", None),
    }
    return {
        "name": Path(name).name or architecture,
        "architecture": architecture,
        "vocab_size": config.vocab_size,
        **{field: size for field, size in sizes.items() if size is not None},
        **digests_of(Path(name)),
    }


def digests_of(folder: Path) -> dict[str, str]:
    """Digests of a model's configuration and weights, as the format defines them; none where it is not a folder."""
    config, weights = folder / "config.json", sorted(folder.glob("*.safetensors"))
    if not folder.is_dir() or not config.is_file() or not weights:
        return {}
    digest = xxhash.xxh3_128()
    for path in weights:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    return {
        "config_digest": xxhash.xxh3_128_hexdigest(config.read_bytes()),
        "weights_digest": digest.hexdigest(),
    }


def version_of(package: str) -> str:
    """Of a package that is loaded."""
    return str(getattr(sys.modules.get(package), "__version__", "unknown"))
