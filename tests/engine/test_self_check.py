"""The self-check: each of its cases catches a kernel that is wrong in that case, and none cries wolf."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from specscope.engine.backends.attention import eager_attention, fused_attention
from specscope.engine.backends.self_check import CASES, Case, Heads, SelfCheck, build_call, self_check
from specscope.engine.load.models import load_models
from specscope.engine.settings import ModelChoice

CPU = torch.device("cpu")
HEADS = Heads(width=16, group=2)
Wrong = Callable[..., torch.Tensor]


def where(condition: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], bool], wrong: Wrong) -> Wrong:
    """A kernel that is wrong only in calls of which ``condition`` holds of query, key and mask."""

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float) -> torch.Tensor:
        return (wrong if condition(q, k, m) else fused_attention)(q, k, v, m, scale)

    return kernel


def unmasked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float) -> torch.Tensor:
    return fused_attention(q, k, v, None, scale)


def uniform(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float) -> torch.Tensor:
    return v.mean(dim=2, keepdim=True).repeat_interleave(q.shape[1] // k.shape[1], dim=1).expand_as(q)


def usual_scale(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float
) -> torch.Tensor:
    return fused_attention(q, k, v, m, q.shape[3] ** -0.5)


def other_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float) -> torch.Tensor:
    """Query head h reads key-value head h % G, not h // (H // G)."""
    groups = q.shape[1] // k.shape[1]
    return fused_attention(q, k.repeat(1, groups, 1, 1), v.repeat(1, groups, 1, 1), m, scale)


def few_ancestors(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """A slot loses those of its ancestors that are more than eight slots before it."""
    assert m is not None
    m, slots = m.clone(), q.shape[2]
    start = m.shape[3] - slots
    for slot in range(9, slots):
        m[:, :, slot, start : start + slot - 8] = -torch.inf
    return fused_attention(q, k, v, m, scale)


def few_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float) -> torch.Tensor:
    """Rows after the 32nd get the mask of the 32nd."""
    assert m is not None
    m = m.clone()
    m[:, :, 32:] = m[:, :, 31:32]
    return fused_attention(q, k, v, m, scale)


def first_row(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float) -> torch.Tensor:
    """Every row of the batch gets the mask of the first."""
    assert m is not None
    return fused_attention(q, k, v, m[:1].expand_as(m), scale)


def unmasked_padding(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """A slot that sees nothing of the tree but itself, other than the root, sees all of it."""
    if m is not None and q.shape[0] == 1 and q.shape[2] > 1:
        m = m.clone()
        tree = m[..., -q.shape[2] :]
        lonely = (tree == 0).sum(-1) == 1
        lonely[..., 0] = False
        tree[lonely] = 0
    return fused_attention(q, k, v, m, scale)


def old_keys_too(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Every slot sees what is before the first key that it may see."""
    return fused_attention(q, k, v, m if m is None else m.masked_fill((m == 0).cumsum(-1) == 0, 0), scale)


def only_prompts(mask: torch.Tensor | None) -> bool:
    return mask is not None and mask.shape[2] == mask.shape[3]


#: A kernel for each case that is wrong there; where it is wrong in others too, they come later.
BROKEN: dict[str, Wrong] = {
    "a tree after 24 keys": where(lambda q, k, m: m is not None and k.shape[2] < 64, unmasked),
    "no mask": where(lambda q, k, m: m is None, uniform),
    "a scale of its own": usual_scale,
    "one query row": where(lambda q, k, m: q.shape[2] == 1, unmasked),
    "padded rows": unmasked_padding,
    "rows of unequal length": where(lambda q, k, m: q.shape[0] > 1, first_row),
    "grouped heads": where(lambda q, k, m: q.shape[1] > k.shape[1], other_head),
    "a sliding window": old_keys_too,
    "a deep tree": where(lambda q, k, m: m is not None and 9 < q.shape[2] < 30, few_ancestors),
    "a wide tree": where(lambda q, k, m: m is not None and q.shape[2] > 32 and not only_prompts(m), few_rows),
    "a prompt": where(lambda q, k, m: only_prompts(m), unmasked),
    "more than 512 keys": where(lambda q, k, m: k.shape[2] > 512, unmasked),
    "one query row and more than 512 keys": where(lambda q, k, m: k.shape[2] > 512 and q.shape[2] == 1, unmasked),
    "more than 2048 keys": where(lambda q, k, m: k.shape[2] > 2048, unmasked),
    "everything at once": where(lambda q, k, m: q.shape[0] > 1 and k.shape[2] > 2048, first_row),
}


def check(kernel: Wrong, dtype: torch.dtype = torch.float32, cases: tuple[Case, ...] = CASES) -> SelfCheck:
    return self_check(kernel, heads=HEADS, device=CPU, dtype=dtype, cases=cases)


def test_every_case_has_a_kernel_that_it_catches() -> None:
    assert list(BROKEN) == [case.name for case in CASES]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", BROKEN)
def test_a_case_catches_its_kernel_and_is_the_first_to_be_named(name: str, dtype: torch.dtype) -> None:
    failures = check(BROKEN[name], dtype).failures
    assert failures
    assert failures[0].case == name
    assert failures[0].error > 2 * check(BROKEN[name], dtype, cases=()).limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [Heads(8, 1), Heads(32, 2), Heads(64, 4), Heads(80, 1)])
def test_torchs_own_kernel_passes(dtype: torch.dtype, heads: Heads) -> None:
    result = self_check(fused_attention, heads=heads, device=CPU, dtype=dtype)
    assert result.failures == []
    assert len(result.outcomes) == len(CASES)
    assert max(outcome.error for outcome in result.outcomes) < 0.7 * result.limit


def test_a_query_sees_hidden_keys_that_would_attract_it() -> None:
    """What the check rests on: a key that is hidden would weigh more than all that do not attract together."""
    for case in CASES:
        call = build_call(case, HEADS, CPU, torch.float32)
        if call.mask is None:
            continue
        scores = eager_weights(call.query, call.key, call.scale, None)
        hidden = scores.masked_fill(call.mask == 0, 0).sum(-1)
        rows = (call.mask != 0).any(-1).expand_as(hidden)
        assert hidden[rows].median() > 0.2, case.name


def eager_weights(query: torch.Tensor, key: torch.Tensor, scale: float, mask: torch.Tensor | None) -> torch.Tensor:
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return (query @ key.transpose(-1, -2) * scale).softmax(-1)


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (lambda q, k, v, m, scale: q * torch.nan, "returned what is no finite number"),
        (lambda q, k, v, m, scale: q[:, :1], "returned [1, 1, 9, 16], wanted [1, 2, 9, 16]"),
        (lambda q, k, v, m, scale: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_a_kernel_does_instead_is_the_reason(kernel: Wrong, reason: str) -> None:
    assert check(kernel, cases=CASES[:1]).failures[0].reason == reason


def test_the_check_is_made_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from specscope.engine.backends import choice

    checked = []

    def counting(kernel: Wrong, **_: object) -> SelfCheck:
        checked.append(kernel)
        return check(eager_attention, cases=CASES[:1])

    monkeypatch.setattr(choice, "self_check", counting)
    choice._self_check.cache_clear()
    for mode in ("fused", "fused", "eager"):
        load_models(ModelChoice(mode=mode, drafter="none"))
    load_models(ModelChoice(drafter="none", self_check=False))
    assert len(checked) == 1
    choice._self_check.cache_clear()
