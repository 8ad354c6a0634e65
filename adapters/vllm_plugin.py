"""vLLM recorded where it serves: an entry point that it calls in each of its processes (``vllm.general_plugins``).

    SPECSCOPE_VLLM_TRACE=served.jsonl vllm serve teacher --speculative-config ...

Without that variable nothing happens. With it, the requests of the process that has the model become the turns of that
trace, named by their ids. The trace ends with the process.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing import util
from pathlib import Path
from typing import Any

VARIABLE = "SPECSCOPE_VLLM_TRACE"
#: What stands in place of a runner's method, so that no watch is set on a watch.
_WRAPPERS: list[Callable[..., Any]] = []


def record_where_asked() -> None:
    """The entry point. May be called more than once."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    kind: Any = import_module("vllm.v1.worker.gpu_model_runner").GPUModelRunner
    plain = kind._sample
    if plain in _WRAPPERS:
        return

    @functools.wraps(plain)
    def sample(runner: Any, logits: Any, metadata: Any) -> Any:
        call = functools.partial(plain, runner)
        runner._sample = call  # from now on, or watched
        if _is_first_rank():
            runner._sample = functools.partial(_watching(runner, Path(path)).sample, call)
        return runner._sample(logits, metadata)

    kind._sample = sample
    _WRAPPERS.append(sample)


def _watching(runner: Any, path: Path) -> Any:
    """A watch on ``runner`` that writes to ``path`` and ends with the process."""
    from specscope.adapters.vllm import Watch
    from specscope.tracer.files.recorder import Recorder

    watch = Watch(runner, lambda about: Recorder(path, **about), lambda _number, request: request, tell=_tell)
    # What atexit knows is not called in a forked child, such as vLLM's engine where one process has the model.
    util.Finalize(None, _end, args=(watch,), exitpriority=0)
    return watch


def _end(watch: Any) -> None:
    """Ends the trace, and says what is not in it."""
    from specscope.tracer.errors import SpecScopeError

    try:
        watch.close()
        watch.check()
    except SpecScopeError as error:
        _tell(str(error))


def _tell(text: str) -> None:
    """Says it where the server's own messages go."""
    with suppress(OSError, ValueError):  # there may be nowhere to say it
        print(f"specscope: {text}", file=sys.stderr)


def _is_first_rank() -> bool:
    """Of those that share the model's tensors, all of which sample the same."""
    state: Any = import_module("vllm.distributed.parallel_state")
    return bool(state.get_tp_group().rank_in_group == 0)
