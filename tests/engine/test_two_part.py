"""Attention in two parts: what one masked softmax gives, whatever the tree, the batch, the heads; recorded, judged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from support.attention_calls import calls

from specscope.engine import decode
from specscope.engine.backends import two_part
from specscope.engine.backends.attention import eager_attention, fused_attention
from specscope.engine.backends.kernels import find_kernel, register_kernel
from specscope.engine.backends.self_check import Case, Heads, build_call, self_check
from specscope.engine.backends.two_part import Part, attention, merge, split_by
from specscope.schemas import Step
from specscope.tracer import TraceReader, check_trace, diff_traces
from specscope.tracer.errors import UsageError

CPU = torch.device("cpu")
PROMPT = "def parse(line):\n    "
PROMPTS = [PROMPT, PROMPT * 3]


@given(call=calls())
def test_it_equals_one_masked_softmax(call: tuple[torch.Tensor, ...]) -> None:
    query, key, value, mask = call
    wanted = eager_attention(query, key, value, mask, scale=0.7)
    assert (attention(query, key, value, mask, scale=0.7) - wanted).abs().max() < 1e-12
    explicit = two_part._explicit(*_rows(query, key), value, mask.repeat(1, 1, query.shape[1] // key.shape[1], 1), 0.7)
    assert (explicit.output.reshape(query.shape) - wanted).abs().max() < 1e-12


def _rows(query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return query.reshape(query.shape[0], key.shape[1], -1, query.shape[3]), key


def seen_by_all(mask: torch.Tensor) -> int:
    """Keys from the first on, one by one."""
    common = 0
    while common < mask.shape[3] and not (mask[:, 0, :, common] != 0).any():
        common += 1
    return common


@given(call=calls())
def test_the_first_part_is_what_every_row_sees(call: tuple[torch.Tensor, ...]) -> None:
    mask = call[3]
    split, common = split_by(mask, group=1), seen_by_all(mask)
    assert split.start == (common if 2 * common >= mask.shape[3] else 0)
    if split.seen is None:
        assert common == mask.shape[3]
    else:
        assert torch.equal(split.seen, mask[..., split.start :])
        unseeing = [[bool((row != 0).all()) for row in sequence[0]] for sequence in split.seen]
        assert any(map(any, unseeing)) == (split.unseeing is not None)
        if split.unseeing is not None:
            assert split.unseeing[:, 0, :, 0].tolist() == unseeing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("place", ["kernel", "single operations"])
def test_it_passes_the_self_check(dtype: torch.dtype, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "single operations":
        monkeypatch.setattr(two_part, "lies_on_host", lambda tensor: False)
    assert not self_check(attention, heads=Heads(width=16, group=2), device=CPU, dtype=dtype).failures


def test_a_mask_that_is_another_one_is_looked_at_again() -> None:
    """Even where it lies in the memory of the last, as the next step's may."""
    case = build_call(Case(name="", lengths=(24,)), Heads(width=16), CPU, torch.float32)
    assert case.mask is not None
    for closed in (0, 5, 11):
        mask = case.mask.clone()
        mask[..., :closed] = -torch.inf
        wanted = eager_attention(case.query, case.key, case.value, mask, case.scale)
        assert torch.allclose(attention(case.query, case.key, case.value, mask, case.scale), wanted, atol=1e-6)
        del mask


def test_parts_are_merged_as_if_they_were_one() -> None:
    """Against float64 over all keys at once, in a row whose second part outweighs the first by far."""
    scores, values = torch.tensor([3.0, -2.0, 40.0, 38.0], dtype=torch.float64), torch.randn(4, 8, dtype=torch.float64)
    parts = []
    for part in (slice(0, 2), slice(2, 4)):
        output = (scores[part].softmax(0) @ values[part])[None, None, None].float()
        parts.append(Part(output, scores[part].logsumexp(0).float().reshape(1, 1, 1, 1)))
    whole = scores.softmax(0) @ values
    assert (merge(*parts)[0, 0, 0].double() - whole).abs().max() < 1e-6
    nothing = Part(torch.zeros(1, 1, 1, 8), torch.full((1, 1, 1, 1), -torch.inf))
    assert torch.equal(merge(nothing, parts[1]), parts[1].output)
    assert torch.equal(merge(parts[1], nothing), parts[1].output)


def verified(step: Step) -> dict[str, int]:
    """The attention calls of its verification."""
    assert step.verify is not None
    assert step.verify.dispatch is not None
    return step.verify.dispatch


def test_a_run_with_it_is_recorded_and_equal(tmp_path: Path) -> None:
    traces = {}
    for name, mode in (("eager", "eager"), ("two-part", "fused")):
        traces[name] = tmp_path / f"{name}.jsonl"
        attention = name if mode == "fused" else None
        decode(PROMPTS, mode=mode, attention=attention, max_new_tokens=24, batch_size=2, trace=traces[name])
        assert check_trace(traces[name]).num_violations == 0
    assert diff_traces(traces["eager"], traces["two-part"]).verdict in ("equal", "ties")
    with TraceReader(traces["two-part"]) as reader:
        assert reader.manifest.attention == "two-part"
        kernels = {name for turn in reader.turns for step in reader.steps(turn) for name in verified(step)}
    assert kernels == {"two-part"}


def test_a_merge_that_forgets_the_weights_is_refused_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(two_part, "merge", lambda a, b: (a.output + b.output) / 2)
            return attention(query, key, value, mask, scale)

    name = register_kernel(forgetful, "two-part-unweighted")
    with pytest.raises(UsageError, match="differs from the eager attention in the case 'a tree after 24 keys'"):
        decode([PROMPT], attention=name, max_new_tokens=8)
    eager, broken = tmp_path / "eager.jsonl", tmp_path / "forgetful.jsonl"
    decode([PROMPT], mode="eager", max_new_tokens=8, trace=eager)
    decode([PROMPT], attention=name, self_check=False, max_new_tokens=8, trace=broken)
    assert diff_traces(eager, broken).verdict == "different"


def test_it_is_not_captured(tmp_path: Path) -> None:
    assert not find_kernel("two-part").capturable
    with pytest.raises(UsageError, match="got --graph with attention two-part, which cannot be captured"):
        decode([PROMPT], attention="two-part", graph="on", max_new_tokens=4)


def test_it_is_fused_attention_where_nothing_is_hidden() -> None:
    query, key, value = (torch.randn(1, heads, length, 16) for heads, length in ((4, 3), (2, 50), (2, 50)))
    wanted = fused_attention(query, key, value, None, 0.25)
    for mask in (None, torch.zeros(1, 1, 3, 50)):
        assert torch.allclose(attention(query, key, value, mask, 0.25), wanted, atol=1e-6)
