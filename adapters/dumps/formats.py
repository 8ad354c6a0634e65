"""The dumps that can be read, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from specscope.adapters.dumps.aiperf import read_aiperf
from specscope.adapters.dumps.llama_server import read_llama_server
from specscope.adapters.dumps.requests import Dump
from specscope.adapters.dumps.sglang import read_sglang
from specscope.adapters.dumps.vllm import read_vllm
from specscope.tracer.errors import UsageError

READERS: dict[str, Callable[[Path], Dump]] = {
    "vllm": read_vllm,
    "sglang": read_sglang,
    "llama-server": read_llama_server,
    "aiperf": read_aiperf,
}


def read_dump(path: Path, form: str) -> Dump:
    """The requests in the dump at ``path``, of the format ``form``.

    Raises:
        UsageError: where it cannot be read as one.
    """
    try:
        return READERS[form](path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{path} is nested too deeply for a dump of {form}") from None
