"""Both attention paths against a float64 loop over heads, and the log of what ran."""

from __future__ import annotations

import threading

import pytest
import torch

from specscope.engine.backends.attention import ATTENTION, dispatch_log


def slow_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    out = torch.zeros(q.shape, dtype=torch.float64)
    groups = q.shape[1] // k.shape[1]
    for head in range(q.shape[1]):
        keys, values = k[0, head // groups].double(), v[0, head // groups].double()
        for row in range(q.shape[2]):
            scores = keys @ q[0, head, row].double() * scale + mask[0, 0, row].double()
            weights = (scores - scores.max()).exp()
            out[0, head, row] = weights / weights.sum() @ values
    return out


@pytest.mark.parametrize("name", ["eager", "fused"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 0.05)]
)
def test_attention_equals_the_slow_reference(name: str, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 4, 6, 8, generator=generator).to(dtype)
    k = torch.randn(1, 2, 15, 8, generator=generator).to(dtype)
    v = torch.randn(1, 2, 15, 8, generator=generator).to(dtype)
    mask = torch.zeros(1, 1, 6, 15, dtype=dtype)
    hidden = torch.rand(6, 15, generator=generator) < 0.4
    hidden[:, 0] = False
    mask[0, 0].masked_fill_(hidden, -float("inf"))
    got = ATTENTION[name](q, k, v, mask, 8**-0.5)
    assert (got.double() - slow_attention(q, k, v, mask, 8**-0.5)).abs().max() < tolerance


def test_what_ran_is_counted_and_nothing_outside_the_log() -> None:
    q = torch.randn(1, 2, 3, 4)
    mask = torch.zeros(1, 1, 3, 3)
    ATTENTION["eager"](q, q, q, mask, 0.5)
    with dispatch_log() as log:
        ATTENTION["eager"](q, q, q, mask, 0.5)
        ATTENTION["fused"](q, q, q, mask, 0.5)
    ATTENTION["fused"](q, q, q, mask, 0.5)
    assert log["eager"] == 1
    assert log.total() == 2
    assert {name.split("-")[0] for name in log} == {"eager", "sdpa"}


def test_logs_nest_and_an_outer_one_has_all_that_an_inner_one_has() -> None:
    q = torch.randn(1, 2, 3, 4)
    mask = torch.zeros(1, 1, 3, 3)
    with dispatch_log() as outer:
        ATTENTION["eager"](q, q, q, mask, 0.5)
        with dispatch_log() as inner:
            ATTENTION["eager"](q, q, q, mask, 0.5)
        ATTENTION["eager"](q, q, q, mask, 0.5)
    assert (inner["eager"], outer["eager"]) == (1, 3)


def test_a_log_counts_nothing_of_another_thread() -> None:
    q = torch.randn(1, 2, 3, 4)
    mask = torch.zeros(1, 1, 3, 3)
    with dispatch_log() as log:
        other = threading.Thread(target=ATTENTION["eager"], args=(q, q, q, mask, 0.5))
        other.start()
        other.join()
    assert not log
