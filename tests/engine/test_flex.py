"""FlexAttention: what one masked softmax gives, as written on a CPU; elsewhere torch is asked to compile it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from support.attention_calls import calls
from torch.nn.attention.flex_attention import flex_attention

from specscope.engine import decode
from specscope.engine.backends import flex
from specscope.engine.backends.attention import eager_attention
from specscope.engine.backends.self_check import Heads, self_check
from specscope.tracer import TraceReader, check_trace, diff_traces
from specscope.tracer.errors import UsageError

CPU = torch.device("cpu")
PROMPT = "def parse(line):\n    "


@settings(max_examples=40)
@given(call=calls())
def test_it_equals_one_masked_softmax(call: tuple[torch.Tensor, ...]) -> None:
    query, key, value, mask = call
    for shared in (mask, mask[:1], None):
        wanted = eager_attention(query, key, value, shared, scale=0.7)
        assert (flex.attention(query, key, value, shared, scale=0.7) - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_passes_the_self_check(dtype: torch.dtype) -> None:
    assert not self_check(flex.attention, heads=Heads(width=16, group=2), device=CPU, dtype=dtype).failures


def test_a_mask_put_in_the_wrong_place_fails_the_self_check(monkeypatch: pytest.MonkeyPatch) -> None:
    adding = flex._adding
    monkeypatch.setattr(flex, "_adding", lambda mask: adding(mask.roll(1, dims=3)))
    assert self_check(flex.attention, heads=Heads(width=16, group=2), device=CPU, dtype=torch.float32).failures


def test_off_the_cpu_torch_is_asked_to_compile_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compile_(function: object, *, dynamic: bool) -> object:
        asked.append((function, dynamic))
        return lambda query, *others, **settings: query

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(flex, "lies_on_host", lambda tensor: False)
    flex._compiled.cache_clear()
    query, key = torch.randn(1, 2, 3, 16), torch.randn(1, 2, 9, 16)
    for _ in range(2):
        assert flex.attention(query, key, key, None, scale=0.25) is query
    flex._compiled.cache_clear()
    assert asked == [(flex_attention, True)]


def test_a_run_with_it_is_recorded_and_equal(tmp_path: Path) -> None:
    eager, fused = tmp_path / "eager.jsonl", tmp_path / "flex.jsonl"
    decode([PROMPT], mode="eager", max_new_tokens=12, trace=eager)
    decode([PROMPT], attention="flex", max_new_tokens=12, trace=fused)
    assert check_trace(fused).num_violations == 0
    assert diff_traces(eager, fused).verdict in ("equal", "ties")
    with TraceReader(fused) as reader:
        step = next(reader.steps(reader.turns[0]))
        assert step.verify is not None
        assert set(step.verify.dispatch or {}) == {"flex"}


def test_it_is_not_captured() -> None:
    with pytest.raises(UsageError, match="got --graph with attention flex, which cannot be captured"):
        decode([PROMPT], attention="flex", graph="on", max_new_tokens=4)
