"""Whether a loaded model can verify trees: tried once on a small tree, for any architecture.

Three forwards, over 3, 7 and 18 tokens. They show that every layer calls the attention function that it was given, that
the tree's mask and the layer's sliding window reach it, and that each branch comes out as the same tokens do by
themselves, with the model's own attention and no cache. Sliding windows are shorter than usual meanwhile, so that they
end within the tree. The model is what is tried, not a kernel: the tree's attention is the reference, eager, whatever
the run will use. What ``files`` refuses by its configuration never gets here.

Letters: P prefix tokens, N slots, R root-to-leaf paths, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from specscope.engine.backends.attention import eager_attention, register_attention
from specscope.engine.teacher.files import ANOTHER_TEACHER
from specscope.tracer.errors import UnsupportedModelError

if TYPE_CHECKING:
    from specscope.engine.teacher.model import Teacher

NUM_PREFIX = 3
#: Of layers with a sliding window, during the trial: less than the prefix, and more than the root alone.
WINDOW = 2
#: The parents of the slots: a root, three children, and one child of each of these.
PARENTS = (0, 0, 0, 0, 1, 2, 3)
DEPTHS = (0, 1, 1, 1, 2, 2, 2)
PATHS = ((0, 1, 4), (0, 2, 5), (0, 3, 6))
#: The slots that are not where they would be if the slots were a text: only a model that takes trees gets them right.
BRANCHED = (2, 3, 4, 5, 6)
#: How far apart, relative to their spread, the logits of a branch and of the same tokens alone may be: a thousand times
#: what rounding was seen to do in float32 (1e-6), five times in half precision (1e-2). With the sight of a sibling they
#: were apart by 0.08 to 0.4, with a position too far by 2e-3 to 0.9.
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3}
HALF_TOLERANCE = 0.05
#: Options of transformers' attention interface that change what is computed and that this engine's functions ignore.
UNSUPPORTED_OPTIONS = {"softcap": "caps its scores", "s_aux": "has attention sinks"}


class _Call(NamedTuple):
    """One call of the attention function."""

    layer: int | None  # where the module says it
    window: int | None  # that it gave
    mask_hides: bool  # what the given mask hides
    options: frozenset[str]  # of those that are unsupported


class _Listener(NamedTuple):
    """Who is told of attention calls."""

    hidden: torch.Tensor  # (1, 1, Q, S) bool: what the forward's mask hides
    calls: list[_Call]


_LISTENER: ContextVar[_Listener | None] = ContextVar("listener to attention calls", default=None)


def refuse_untreelike(teacher: Teacher, name: str) -> None:
    """Tries ``teacher``, which the user called ``name``, on a small tree.

    Raises:
        UnsupportedModelError: where it cannot verify one.
    """
    try:
        with torch.inference_mode():
            problem = _problem(teacher)
    except Exception as error:  # a model's own code raises what it likes
        first_line = (str(error).strip() or "no reason given").splitlines()[0]
        problem = f"failed on a small one in {_name(teacher.dtype)} ({type(error).__name__}: {first_line})"
    if problem is not None:
        raise UnsupportedModelError(
            f"{name} cannot verify trees: {type(teacher.model).__name__} {problem}; {ANOTHER_TEACHER}"
        )


def _problem(teacher: Teacher) -> str | None:
    windows = teacher.sliding_windows
    with _short_windows(teacher) if windows is not None else nullcontext():
        tree, calls = _run_tree(teacher)
        problem = _attention_problem(calls, teacher.num_layers) or _window_problem(calls, windows)
        return problem or _branch_problem(tree, _run_paths(teacher), teacher.dtype)


def _attention_problem(calls: list[_Call], num_layers: int) -> str | None:
    """What is wrong with how the tree's forward called attention; None where nothing is."""
    if len(calls) < num_layers:
        count = "none" if not calls else f"only {len(calls)}"
        return (
            f"computes attention by its own code: {count} of its {num_layers} layers called the attention function "
            "that it was given, so neither eager nor fused would be what ran"
        )
    options = sorted(frozenset[str]().union(*(call.options for call in calls)))
    if options:
        what = " and ".join(f"{UNSUPPORTED_OPTIONS[option]} ({option})" for option in options)
        return f"{what}, which neither eager nor fused attention computes here"
    if not all(call.mask_hides for call in calls):
        return "does not hand the tree's mask on to its attention, so a branch would see its siblings"
    return None


def _window_problem(calls: list[_Call], windows: list[int | None] | None) -> str | None:
    """Which layer gives its attention a sliding window that its configuration does not say, or none where it says one;
    None where they agree."""
    if windows is None:
        return None  # of those that never slide nothing is seen
    for call in calls:
        slides = call.layer is not None and windows[call.layer] is not None
        if call.window != (WINDOW if slides else None):
            return (
                f"gives the attention of layer {call.layer} {'a' if call.window else 'no'} sliding window, and its "
                f"configuration says that it has {'a window' if slides else 'none'}"
            )
    return None


@contextmanager
def _short_windows(teacher: Teacher) -> Iterator[None]:
    """Inside, sliding windows are so short that the small tree fills them."""
    holders: list[Any] = [teacher.config, *teacher.model.modules()]
    stated = [(holder, holder.sliding_window) for holder in holders if getattr(holder, "sliding_window", None)]
    try:
        for holder, _ in stated:
            holder.sliding_window = WINDOW
        yield
    finally:
        for holder, window in stated:
            holder.sliding_window = window


def _branch_problem(tree: torch.Tensor, alone: torch.Tensor, dtype: torch.dtype) -> str | None:
    """How far the logits of ``tree`` (N, V) are from those of the same tokens ``alone`` (N, V); None where rounding
    explains it, or one of them is no number: those weights were let in on request.

    The middle slot counts, because rounding may send a token of one slot to another expert.
    """
    if not bool(tree.isfinite().all() and alone.isfinite().all()):
        return None
    spread = (alone - alone.mean(dim=-1, keepdim=True)).norm(dim=-1).clamp_min(1e-30)
    apart = ((tree - alone).norm(dim=-1) / spread)[list(BRANCHED)]
    allowed = TOLERANCE.get(dtype, HALF_TOLERANCE)
    middle = float(apart.median())
    if middle <= allowed:
        return None
    return (
        "gives the branches of a tree other logits than the same tokens without a tree (off by "
        f"{middle:.2g} of their spread in the middle slot, rounding in {_name(dtype)} explains {allowed:g}): it mixes "
        "tokens by something else than the attention, positions and mask that it was given"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _run_tree(teacher: Teacher) -> tuple[torch.Tensor, list[_Call]]:
    """Logits (N, V) in float32 of the tree after the prefix, and the attention calls of its forward."""
    ids = _token_ids(teacher)
    cache = teacher.new_cache()
    prefix = torch.arange(NUM_PREFIX, device=ids.device)[None]
    before = _additive(prefix[0][:, None] >= prefix[0], teacher)
    mask = _additive(_visible(ids.device), teacher)
    positions = NUM_PREFIX + torch.tensor([DEPTHS], device=ids.device)
    with _attending(teacher, _noted_attention()):
        teacher.forward(ids[None, :NUM_PREFIX], prefix, before, cache, feature_layers=())
        cache.commit_length([NUM_PREFIX])
        with _listening(mask) as calls:
            output = teacher.forward(ids[None, NUM_PREFIX:], positions, mask, cache, feature_layers=())
    return output.logits[0].float(), calls


def _run_paths(teacher: Teacher) -> torch.Tensor:
    """Logits (N, V) in float32 of the same tokens, each at the end of its own path, by transformers alone."""
    ids = _token_ids(teacher)
    rows = [[*range(NUM_PREFIX), *(NUM_PREFIX + slot for slot in path)] for path in PATHS]
    positions = torch.arange(len(rows[0]), device=ids.device).expand(len(rows), -1)
    tokens = ids[torch.tensor(rows, device=ids.device)]
    with _attending(teacher, "eager"):
        output = teacher.model(input_ids=tokens, position_ids=positions, use_cache=False)
    logits = output.logits.float()
    place = {slot: (row, NUM_PREFIX + depth) for row, path in enumerate(PATHS) for depth, slot in enumerate(path)}
    return torch.stack([logits[place[slot]] for slot in range(len(PARENTS))])


def _token_ids(teacher: Teacher) -> torch.Tensor:
    """(P + N,) ids, all different where the vocabulary allows it, away from its ends: there are the special ones."""
    count = NUM_PREFIX + len(PARENTS)
    ids = [(number + 2) * teacher.vocab_size // (count + 4) for number in range(count)]
    return torch.tensor(ids, device=teacher.device)


def _visible(device: torch.device) -> torch.Tensor:
    """(N, P + N) bool: a slot sees the prefix, its ancestors and itself."""
    seen = torch.zeros(len(PARENTS), NUM_PREFIX + len(PARENTS), dtype=torch.bool)
    seen[:, :NUM_PREFIX] = True
    for path in PATHS:
        for end, slot in enumerate(path):
            seen[slot, [NUM_PREFIX + ancestor for ancestor in path[: end + 1]]] = True
    return seen.to(device)


def _additive(seen: torch.Tensor, teacher: Teacher) -> torch.Tensor:
    """(1, 1, Q, S): 0 where ``seen``, -inf elsewhere."""
    mask = torch.zeros(seen.shape, dtype=teacher.dtype, device=seen.device)
    return mask.masked_fill_(~seen, -torch.inf)[None, None]


@contextmanager
def _attending(teacher: Teacher, name: str) -> Iterator[None]:
    """Inside, attention is what transformers knows as ``name``."""
    before = teacher.attention_name
    teacher.attend_by(name)
    try:
        yield
    finally:
        teacher.attend_by(before)


@functools.cache
def _noted_attention() -> str:
    """The name under which transformers knows eager attention that notes its calls while somebody listens."""
    name = register_attention("probe", eager_attention)
    eager: Any = ALL_ATTENTION_FUNCTIONS[name]

    def noted(module: nn.Module, *tensors: torch.Tensor | None, **options: Any) -> Any:
        listener = _LISTENER.get()
        if listener is not None:
            mask = tensors[3] if len(tensors) > 3 else options.get("attention_mask")
            unsupported = frozenset(option for option in UNSUPPORTED_OPTIONS if options.get(option) is not None)
            layer, window = getattr(module, "layer_idx", None), options.get("sliding_window")
            listener.calls.append(_Call(layer, window, _hides(mask, listener.hidden), unsupported))
        return eager(module, *tensors, **options)

    ALL_ATTENTION_FUNCTIONS.register(name, noted)
    return name


@contextmanager
def _listening(mask: torch.Tensor) -> Iterator[list[_Call]]:
    """The attention calls made inside, in this thread, of a forward that is given ``mask``."""
    token = _LISTENER.set(_Listener(mask.isneginf(), []))
    try:
        listener = _LISTENER.get()
        assert listener is not None
        yield listener.calls
    finally:
        _LISTENER.reset(token)


def _hides(mask: torch.Tensor | None, hidden: torch.Tensor) -> bool:
    """Whether ``mask`` hides all that is ``hidden`` (1, 1, Q, S); it may add to the rest, as biases of heads do."""
    if mask is None or mask.shape[-2:] != hidden.shape[-2:]:
        return False
    hides = ~mask if mask.dtype == torch.bool else mask <= torch.finfo(mask.dtype).min / 2
    return bool((hides | ~hidden).all())
