"""Position sums: they add up, and whatever goes wrong in a cache by itself changes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specscope.engine.cache import custody
from specscope.engine.cache.custody import as_digest, as_digests, layer_sums

LAYERS, HEADS, LENGTH, WIDTH = 3, 2, 9, 8
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def cache_of(dtype: torch.dtype, seed: int = 0, width: int = WIDTH) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(LAYERS, 2, HEADS, LENGTH, width, generator=generator, dtype=torch.float64).to(dtype)


def sums_of(values: torch.Tensor, start: int = 0) -> list[int]:
    return [total % 2**64 for total in layer_sums(values, start).tolist()]


def slow_sums(values: torch.Tensor, start: int) -> list[int]:
    """Word by word, with Python's integers, from the documents' own words."""

    def constant(index: int, salt: int) -> int:
        state = ((salt << 32) + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return (state ^ (state >> 31)) | 1

    sums = []
    for layer in values.view(torch.int32):
        places = layer.movedim(2, 0).reshape(layer.shape[2], -1).tolist()
        total = 0
        for position, words in enumerate(places):
            share = sum(word * constant(place, 0) for place, word in enumerate(words))
            total += share * constant(start + position, 1)
        sums.append(total % 2**64)
    return sums


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("start", [0, 5, 300])
def test_they_are_what_the_documents_say(dtype: torch.dtype, start: int) -> None:
    values = cache_of(dtype)
    assert sums_of(values, start) == slow_sums(values, start)


@given(st.integers(0, LENGTH), st.sampled_from(DTYPES))
def test_they_add_up_over_positions(cut: int, dtype: torch.dtype) -> None:
    values = cache_of(dtype)
    parts = layer_sums(values[:, :, :, :cut]) + layer_sums(values[:, :, :, cut:], cut)
    assert torch.equal(parts, layer_sums(values))


def flip(values: torch.Tensor) -> None:
    """Signs of two numbers: in words of 64 bits, they would cancel out."""
    values[1, 0, 0, 3, 1::2] *= -1


def flip_the_lowest_bit(values: torch.Tensor) -> None:
    values.view(torch.int16)[1, 1, 1, 4, 2] ^= 1


def exchange_positions(values: torch.Tensor) -> None:
    values[1, :, :, [2, 5]] = values[1, :, :, [5, 2]]


def exchange_heads(values: torch.Tensor) -> None:
    values[1] = values[1].flip(1)


def exchange_keys_and_values(values: torch.Tensor) -> None:
    values[1] = values[1].flip(0)


def shift(values: torch.Tensor) -> None:
    values[1] = values[1].roll(1, dims=2)


def zero(values: torch.Tensor) -> None:
    values[1, :, :, 6] = 0


def scale(values: torch.Tensor) -> None:
    values[1, 0] *= 1.01


DAMAGES = [flip, flip_the_lowest_bit, exchange_positions, exchange_heads, exchange_keys_and_values, shift, zero, scale]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_damage_to_a_layer_changes_its_sum_alone(damage: Callable[[torch.Tensor], None], dtype: torch.dtype) -> None:
    values = cache_of(dtype)
    before = sums_of(values)
    damage(values)
    assert [a != b for a, b in zip(before, sums_of(values), strict=True)] == [False, True, False]


def test_exchanged_layers_change_both_sums_and_the_digest_of_all() -> None:
    values = cache_of(torch.float32)
    before = layer_sums(values)
    after = layer_sums(values[[2, 1, 0]])
    assert torch.equal(after, before[[2, 1, 0]])
    assert as_digest(after) != as_digest(before)


@pytest.mark.parametrize("width", [1, 3, 5])
def test_heads_of_odd_width_are_taken_in_smaller_words(width: int) -> None:
    values = cache_of(torch.bfloat16, width=width)
    before = sums_of(values)
    values[0, 0, 0, 0, 0] += 1
    assert [a != b for a, b in zip(before, sums_of(values), strict=True)] == [True, False, False]


def test_nothing_has_the_sum_zero_and_digests_have_sixteen_digits() -> None:
    assert sums_of(cache_of(torch.float32)[:, :, :, :0]) == [0] * LAYERS
    assert as_digests(torch.tensor([0, 255])) == ["0000000000000000", "00000000000000ff"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_a_device_computes_is_the_same(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    values = cache_of(dtype)
    on_host = sums_of(values, 5)
    monkeypatch.setattr(custody, "lies_on_host", lambda tensor: False)
    assert sums_of(values, 5) == on_host == slow_sums(values, 5)
