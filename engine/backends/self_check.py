"""Whether a kernel computes what the eager attention computes, on the device and in the dtype at hand.

Each case is one call whose answer depends on what it is about: the keys that a tree's rows may not see attract them as
strongly as those that they may, and so do keys on both sides of the lengths at which kernels change their blocks. A
kernel that sees a hidden key, misses a visible one or scales otherwise is off by far more than rounding.

Letters: B rows of the batch, P slots, T committed, S = T + P keys, H heads, G key-value heads, W head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from specscope.engine.backends.attention import AttentionFunction, eager_attention
from specscope.engine.backends.windows import narrow_mask
from specscope.engine.tree.tensors import ancestor_table, mask_behind, visible_from_ancestors

#: How far an output may be from the eager one, as a share of its length: rounding, with room for another order.
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
#: Committed keys that attract every query: both sides of where kernels change their blocks.
EDGES = (0, 127, 128, 511, 512, 1023, 1024, 2047, 2048)
PULL = 3.0  # length of what all queries share, in units of a query's own noise per coordinate
KEY_NOISE = 0.5

BUSH = (0, 0, 0, 0, 1, 1, 2, 4, 4)  # three branches, up to four slots deep
DEEP = (0, *range(15), 0, 2, 5)  # a chain of 15 and three short branches
WIDE = (0, *[0] * 12, *[parent for parent in range(1, 13) for _ in range(4)])  # 60 nodes in two levels
CAUSAL = (0, *range(63))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of a kernel."""

    name: str  # as a warning names it
    parents: tuple[int, ...] = BUSH  # of each slot; the root is its own
    lengths: tuple[int, ...] = (24,)  # committed keys of each row
    num_padding: int = 0  # slots of the last row that are padding
    one_query: bool = False  # only the last slot asks
    grouped: bool = False  # several query heads share a key-value head
    masked: bool = True
    window: int | None = None  # of a layer that slides: the last keys that a slot sees
    scale: float = 1.0  # times the usual one


#: Those that test one thing come before those in which several could go wrong.
CASES = (
    Case(name="a tree after 24 keys"),
    Case(name="no mask", masked=False),
    Case(name="a scale of its own", scale=0.5),
    Case(name="one query row", one_query=True),
    Case(name="padded rows", num_padding=4),
    Case(name="rows of unequal length", lengths=(40, 7, 25)),
    Case(name="grouped heads", grouped=True),
    Case(name="a sliding window", lengths=(40, 9), window=8),
    Case(name="a deep tree", parents=DEEP),
    Case(name="a wide tree", parents=WIDE),
    Case(name="a prompt", parents=CAUSAL, lengths=(0,)),
    Case(name="more than 512 keys", lengths=(640,)),
    Case(name="one query row and more than 512 keys", lengths=(640,), one_query=True),
    Case(name="more than 2048 keys", lengths=(2200,)),
    Case(name="everything at once", parents=WIDE, lengths=(2100, 700), num_padding=9, grouped=True),
)


class Heads(NamedTuple):
    """The shape of a model's heads."""

    width: int = 64
    group: int = 1  # query heads per key-value head


class CaseOutcome(NamedTuple):
    """What came of one case."""

    case: str
    error: float  # of the worst query row, as a share of the eager output's length
    reason: str | None = None  # where the kernel raised an error, or gave what is no number


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """What came of all cases."""

    outcomes: tuple[CaseOutcome, ...]
    limit: float

    @property
    def failures(self) -> list[CaseOutcome]:
        """The cases in which the kernel is wrong, in order."""
        return [outcome for outcome in self.outcomes if not outcome.error <= self.limit]


class Call(NamedTuple):
    """The arguments of one call."""

    query: torch.Tensor  # (B, H, Q, W)
    key: torch.Tensor  # (B, G, S, W)
    value: torch.Tensor  # (B, G, S, W)
    mask: torch.Tensor | None  # (B, 1, Q, S) additive
    scale: float


def self_check(
    attention: AttentionFunction,
    *,
    heads: Heads,
    device: torch.device,
    dtype: torch.dtype,
    cases: tuple[Case, ...] = CASES,
) -> SelfCheck:
    """Compares ``attention`` with the eager one in each case; what it raises is an outcome."""
    with torch.inference_mode():
        outcomes = tuple(_outcome(attention, case, build_call(case, heads, device, dtype)) for case in cases)
    return SelfCheck(outcomes=outcomes, limit=LIMITS[dtype])


def build_call(case: Case, heads: Heads, device: torch.device, dtype: torch.dtype) -> Call:
    """The call of ``case``: the same numbers on every device, rounded to ``dtype``."""
    seen = _visible(case)  # (B, P, P)
    num_rows, num_slots = seen.shape[:2]
    num_keys = max(case.lengths) + num_slots
    kv_heads, group = 2, max(heads.group, 2) if case.grouped else 1
    scale = case.scale * heads.width**-0.5
    generator = torch.Generator().manual_seed(0)

    def noise(num_heads: int, length: int) -> torch.Tensor:
        return torch.randn(num_rows, num_heads, length, heads.width, generator=generator)

    shared = torch.nn.functional.normalize(torch.randn(heads.width, generator=generator), dim=0)
    query = noise(kv_heads * group, num_slots) + PULL * shared
    key = KEY_NOISE * noise(kv_heads, num_keys)
    # Such a key weighs as much as all that do not attract, together: nothing is lost among many keys.
    key[:, :, _attracting(case)] += shared * (math.log(num_keys) / (PULL * scale))
    mask = mask_behind(list(case.lengths), seen, torch.float32)
    if case.window is not None:
        mask = narrow_mask(mask, case.window)
    if case.one_query:
        query, mask = query[:, :, -1:], mask[:, :, -1:]
    tensors = (tensor.to(device=device, dtype=dtype) for tensor in (query, key, noise(kv_heads, num_keys), mask))
    query, key, value, mask = tensors
    return Call(query, key, value, mask if case.masked else None, scale)


def _visible(case: Case) -> torch.Tensor:
    parents = torch.tensor([case.parents] * len(case.lengths))
    valid = torch.ones_like(parents, dtype=torch.bool)
    if case.num_padding:
        valid[-1, -case.num_padding :] = False
        parents = parents * valid
    return visible_from_ancestors(ancestor_table(parents, len(case.parents)), valid)


def _attracting(case: Case) -> list[int]:
    """Every row's slots, hidden keys among them, and committed keys at the edges of blocks."""
    slots = {length + slot for length in case.lengths for slot in range(len(case.parents))}
    return sorted({edge for edge in EDGES if edge < max(case.lengths)} | slots)


def _outcome(attention: AttentionFunction, case: Case, call: Call) -> CaseOutcome:
    wanted = eager_attention(*call)
    try:
        got = attention(*call)
    except Exception as error:  # a kernel raises what it likes
        return CaseOutcome(case.name, math.inf, f"{type(error).__name__}: {error}")
    if got.shape != wanted.shape:
        return CaseOutcome(case.name, math.inf, f"returned {list(got.shape)}, wanted {list(wanted.shape)}")
    ours, theirs = got.double().cpu(), wanted.double().cpu()
    if not bool(ours.isfinite().all()):
        return CaseOutcome(case.name, math.inf, "returned what is no finite number")
    errors = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp(min=1e-9)
    return CaseOutcome(case.name, float(errors.max()))
