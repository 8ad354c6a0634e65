"""What a record is made from: the best tokens against a slow path, numbers in their shortest form, one copy a step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from specscope.engine.digests import digest_files
from specscope.engine.record import host
from specscope.engine.record.best import HALF_TIE_ROUNDINGS, MOST_BEST, TIE_ROUNDINGS, best_tokens, summary
from specscope.engine.record.host import array, copied_together, float_lists, floats, on_host

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def slow_best(logits: torch.Tensor) -> list[list[int]]:
    """Row by row, in plain Python."""
    epsilon = torch.finfo(logits.dtype).eps
    reach = TIE_ROUNDINGS if epsilon < 1e-4 else HALF_TIE_ROUNDINGS
    rows = []
    for values in logits.double().tolist():
        ranked = sorted(range(len(values)), key=lambda token: (-values[token], token))
        size = 2.0 ** np.floor(np.log2(max(abs(values[ranked[0]]), 1e-30)))
        near = [token for token in ranked if values[token] >= values[ranked[0]] - reach * epsilon * size]
        rows.append((near if len(near) >= 2 else ranked[:2])[:MOST_BEST])
    return rows


@given(st.integers(0, 10_000), st.sampled_from(DTYPES), st.sampled_from([0.01, 1.0, 30.0]), st.sampled_from([1, 2, 50]))
def test_the_best_tokens_are_those_of_a_slow_search(seed: int, dtype: torch.dtype, scale: float, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(5, size, generator=generator) * scale).to(dtype)
    best = best_tokens(logits)
    assert best.tokens == slow_best(logits)
    for row, tokens in enumerate(best.tokens):
        assert logits[row, tokens].tolist() == torch.tensor(best.logits[row], dtype=torch.float64).to(dtype).tolist()


def test_equal_logits_stand_in_the_order_of_their_ids_and_there_are_at_most_sixteen() -> None:
    logits = torch.zeros(1, 40)
    assert best_tokens(logits).tokens == [list(range(MOST_BEST))]
    logits[0, [7, 3]] = 5.0
    assert best_tokens(logits).tokens == [[3, 7]]
    logits[0, [9, 30]] = 4.0
    assert best_tokens(logits).tokens == [[3, 7]]


@pytest.mark.parametrize("only", [0, 1, 7])
def test_where_all_tokens_but_one_are_forbidden_another_stands_beside_it(only: int) -> None:
    logits = torch.full((1, 8), -torch.inf)
    logits[0, only] = 2.0
    best = best_tokens(logits)
    assert best.tokens == slow_best(logits)
    assert best.logits == [[2.0, -torch.inf]]


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_recorded_as_it_is(spoilt: float) -> None:
    logits = torch.arange(8.0).repeat(2, 1)
    logits[0, 2] = spoilt
    best = best_tokens(logits)
    assert best.tokens[1] == [7, 6]
    assert best.tokens[0][0] == (7 if spoilt == float("-inf") else 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logsumexp_and_entropy_are_those_of_float64(dtype: torch.dtype) -> None:
    logits = (torch.randn(6, 300, generator=torch.Generator().manual_seed(3)) * 4).to(dtype)
    probs = logits.double().softmax(dim=-1)
    for plain in (True, False):
        got = summary(logits, plain=plain)
        np.testing.assert_allclose(got.logsumexp, logits.double().logsumexp(dim=-1).numpy(), rtol=1e-5)
        np.testing.assert_allclose(got.entropy, torch.special.entr(probs).sum(dim=-1).numpy(), rtol=1e-3, atol=1e-5)


def test_a_token_forbidden_by_a_processor_counts_for_nothing() -> None:
    logits = torch.tensor([[1.0, float("-inf"), 1.0]])
    assert summary(logits, plain=False).entropy[0] == pytest.approx(np.log(2), rel=1e-6)


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20), st.lists(st.floats(width=32), max_size=20))
def test_numbers_in_their_shortest_form_restore_every_bit(first: list[float], second: list[float]) -> None:
    parts = [np.array(values, dtype=np.float32) for values in (first, second)]
    together = float_lists(parts)
    for part, restored in zip(parts, together, strict=True):
        np.testing.assert_array_equal(np.array(restored, dtype=np.float32), part)
    assert floats(np.array([0.1], dtype=np.float32)) == [0.1]


def test_half_formats_and_tensors_that_want_gradients_become_arrays() -> None:
    assert array(torch.tensor([1.5], dtype=torch.bfloat16)).tolist() == [1.5]
    assert array(torch.tensor([1.5], requires_grad=True)).tolist() == [1.5]
    tensor = torch.zeros(3)
    array(tensor)[1] = 7
    assert tensor.tolist() == [0, 7, 0], "on the host it is a view"


class Pair(NamedTuple):
    left: torch.Tensor
    right: list[torch.Tensor]


@dataclass(frozen=True)
class Nested:
    pair: Pair
    name: str
    mask: torch.Tensor | None


def test_tensors_of_another_device_come_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if everything lay on a device: the very tensors are packed, copied once, and put back where they were."""
    tensors = [
        torch.arange(5),
        torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16),
        torch.tensor([True, False, True]),
        torch.zeros(0, 4),
        torch.randn(3, 4).t(),
    ]
    calls = []

    def copy(away: list[torch.Tensor]) -> list[torch.Tensor]:
        calls.append(len(away))
        return copied_together(away)

    monkeypatch.setattr(host, "copied_together", copy)
    monkeypatch.setattr(host, "lies_on_host", lambda tensor: False)
    parts = Nested(Pair(tensors[0], tensors[1:4]), "name", tensors[4])
    copied = on_host(parts)
    assert calls == [5]
    assert (copied.name, type(copied.pair)) == ("name", Pair)
    got = [copied.pair.left, *copied.pair.right, copied.mask]
    for before, after in zip(tensors, got, strict=True):
        assert after is not None
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        assert torch.equal(after, before)
        assert after is not before


def test_what_lies_on_the_host_is_left_as_it_is() -> None:
    parts = Nested(Pair(torch.zeros(2), []), "name", None)
    assert on_host(parts) is parts


def test_weights_are_digested_again_where_a_file_has_changed(tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    before = digest_files([first, second])
    assert digest_files([second, first]) == before
    assert before == xxhash.xxh3_128_hexdigest(b"a.safetensorsoneb.safetensorstwo")
    second.write_bytes(b"owt")
    assert digest_files([first, second]) != before
    linked = tmp_path / "folder"
    linked.mkdir()
    (linked / "a.safetensors").symlink_to(first)
    assert digest_files([linked / "a.safetensors"]) == digest_files([first]), "the name is the link's"
