"""Packed matrix products: the numbers of torch's own, weights that change, and which kind runs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.called import specscope
from support.traces import load
from torch import nn

from specscope.engine.backends import products
from specscope.engine.backends.products import (
    choose_products,
    linear_groups,
    multiply,
    pack_products,
    packed_difference,
    packing_problem,
    unpack_products,
)
from specscope.engine.load.models import load_models
from specscope.engine.settings import ModelChoice
from specscope.tracer.errors import UsageError

CPU = torch.device("cpu")
needs_packing = pytest.mark.skipif(
    packing_problem(CPU, torch.float32) is not None, reason="this torch was built without oneDNN"
)


def refuse_warning(text: str) -> None:
    raise AssertionError(f"nothing was to be warned of, got: {text}")


class FedAlike(nn.Module):
    """Three layers that are fed the same, with and without biases."""

    def __init__(self, inputs: int, outputs: tuple[int, int, int], biased: tuple[bool, bool, bool]) -> None:
        super().__init__()
        names = ("q_proj", "k_proj", "v_proj")
        for name, size, bias in zip(names, outputs, biased, strict=True):
            setattr(self, name, nn.Linear(inputs, size, bias=bias))

    @property
    def layers(self) -> list[nn.Linear]:
        return [module for module in self.children() if isinstance(module, nn.Linear)]

    def forward(self, states: torch.Tensor) -> list[torch.Tensor]:
        return [layer(states) for layer in self.layers]


def by_float64(layer: nn.Linear, states: torch.Tensor) -> torch.Tensor:
    product = states.double() @ layer.weight.double().T
    return product if layer.bias is None else product + layer.bias.double()


def assert_right(got: torch.Tensor, layer: nn.Linear, states: torch.Tensor) -> None:
    torch.testing.assert_close(got.double(), by_float64(layer, states), rtol=1e-4, atol=1e-5)


sizes = st.integers(1, 70)


@needs_packing
@settings(max_examples=40, deadline=None)
@given(
    inputs=sizes,
    outputs=st.tuples(sizes, sizes, sizes),
    biased=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    rows=st.integers(1, 40),
    batch=st.lists(st.integers(1, 3), max_size=2),
    seed=st.integers(0, 2**16),
)
def test_packed_products_are_those_of_float64(
    inputs: int,
    outputs: tuple[int, int, int],
    biased: tuple[bool, bool, bool],
    rows: int,
    batch: list[int],
    seed: int,
) -> None:
    model, single = FedAlike(inputs, outputs, biased), nn.Linear(inputs, outputs[0], bias=biased[0])
    assert linear_groups(nn.ModuleList([model, single])) == [model.layers, [single]]
    states = torch.randn(*batch, rows, inputs, generator=torch.Generator().manual_seed(seed))
    for module in (model, single):
        pack_products(module)
    with torch.inference_mode():
        for layer, got in zip(model.layers, model(states), strict=True):
            assert got.shape == (*batch, rows, layer.out_features)
            assert_right(got, layer, states)
        assert_right(single(states), single, states)


@needs_packing
def test_layers_that_are_fed_alike_may_be_called_in_any_order_and_with_other_states() -> None:
    model, states, others = FedAlike(16, (8, 4, 4), (False, False, False)), torch.randn(3, 16), torch.randn(2, 16)
    pack_products(model)
    calls = [("v_proj", states), ("q_proj", others), ("q_proj", states), ("k_proj", others), ("k_proj", states)]
    with torch.inference_mode():
        for name, fed in [*calls, *reversed(calls)]:
            layer = model.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            assert_right(layer(fed), layer, fed)


@needs_packing
def test_threads_that_decode_by_the_same_layers_get_their_own_products() -> None:
    model = FedAlike(64, (32, 32, 32), (False, False, False))
    pack_products(model)

    def decode(seed: int) -> bool:
        with torch.inference_mode():
            states = torch.randn(4, 64, generator=torch.Generator().manual_seed(seed))
            wanted = [by_float64(layer, states) for layer in model.layers]
            return all(
                torch.allclose(got.double(), right, rtol=1e-4, atol=1e-5)
                for _ in range(300)
                for got, right in zip(model(states), wanted, strict=True)
            )

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(decode, range(4)))


@needs_packing
def test_a_weight_that_is_changed_or_replaced_is_packed_anew() -> None:
    model, states = FedAlike(16, (8, 8, 8), (True, False, False)), torch.randn(3, 16)
    pack_products(model)
    layer = model.get_submodule("k_proj")
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        for change in (
            lambda: layer.weight.mul_(2),
            lambda: setattr(layer, "weight", nn.Parameter(torch.randn(8, 16))),
            lambda: setattr(layer.weight, "data", torch.randn(8, 16)),
            lambda: layer.load_state_dict({"weight": torch.randn(8, 16)}),
        ):
            before = model(states)[1]
            change()
            now = model(states)[1]
            assert_right(now, layer, states)
            assert not torch.allclose(now, before)
        with torch.inference_mode():
            layer.weight = nn.Parameter(torch.randn(8, 16), requires_grad=False)  # whose changes nobody can follow
            assert_right(model(states)[1], layer, states)
            layer.weight.mul_(2)
            assert_right(model(states.clone())[1], layer, states)


def test_a_layer_that_computes_otherwise_is_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(states)

    model = nn.Sequential(nn.Linear(4, 4), Doubled(4, 4))
    assert linear_groups(model) == [[model[0]]]


@needs_packing
def test_what_was_packed_can_be_unpacked() -> None:
    model, states = FedAlike(16, (8, 4, 4), (False, False, False)), torch.randn(3, 16)
    before = model(states)
    pack_products(model)
    unpack_products(model)
    assert all(torch.equal(a, b) for a, b in zip(model(states), before, strict=True))
    assert not any("forward" in vars(layer) for layer in model.children())


@pytest.fixture(scope="module")
def teacher() -> Any:
    return load_models(ModelChoice(drafter="none", mode="baseline", products="plain", self_check=False)).teacher


def test_the_eager_path_multiplies_as_torch_does(teacher: Any) -> None:
    assert choose_products("auto", "eager", teacher.model).runs == "plain"
    with pytest.raises(UsageError, match="eager attention, the reference"):
        choose_products("packed", "eager", teacher.model)


@pytest.mark.parametrize(("share", "runs"), [(0.5, "packed"), (0.79, "packed"), (0.81, "plain"), (3.0, "plain")])
def test_what_is_faster_runs_unless_one_is_asked_for(
    teacher: Any, monkeypatch: pytest.MonkeyPatch, share: float, runs: str
) -> None:
    monkeypatch.setattr(products, "packing_problem", lambda device, dtype: None)
    monkeypatch.setattr(products, "_share_of", lambda layers: share)
    assert choose_products("auto", "fused", teacher.model).runs == runs
    assert choose_products("packed", "fused", teacher.model).runs == "packed"
    assert choose_products("plain", "fused", teacher.model).runs == "plain"


def test_a_copy_that_memory_has_no_room_for_is_not_made(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "packing_problem", lambda device, dtype: None)
    monkeypatch.setattr(products, "MOST_OF_MEMORY", 1e-9)
    chosen = choose_products("auto", "fused", teacher.model)
    assert chosen.runs == "plain"
    assert "GiB of memory" in chosen.reason


@needs_packing
def test_both_kinds_are_timed(teacher: Any) -> None:
    groups = linear_groups(teacher.model)
    assert len(groups) == 10 * 4 + 1  # of ten layers: queries to values, output, gate and up, down; the output matrix
    assert products._share_of(groups) > 0


@needs_packing
@pytest.mark.parametrize("form", ["the last input is dropped", "an error"])
def test_wrong_products_are_found_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    def wrong(states: torch.Tensor, packed: torch.Tensor, bias: Any) -> torch.Tensor:
        if form == "an error":
            raise RuntimeError("no such primitive")
        return multiply(states * (torch.arange(states.shape[-1]) < states.shape[-1] - 1), packed, bias)

    monkeypatch.setattr(products, "multiply", wrong)
    warnings: list[str] = []
    choice = ModelChoice(drafter="none", mode="baseline", products="packed")
    models = load_models(choice, warn=warnings.append)
    assert models.teacher.products is not None
    assert models.teacher.products.runs == "plain"
    assert not any("forward" in vars(module) for module in models.teacher.model.modules())
    (warning,) = warnings
    assert "with packed products the teacher's logits differ (" in warning
    assert ("no such primitive" if form == "an error" else "limit 0.001") in warning


@needs_packing
def test_right_products_pass() -> None:
    models = load_models(ModelChoice(products="packed"), warn=refuse_warning)
    assert models.teacher.products is not None
    assert models.teacher.products.runs == "packed"
    assert packed_difference(models.teacher.model) is None


@pytest.mark.parametrize(
    ("device", "dtype", "reason"),
    [("cuda", torch.float32, "the device is cuda"), ("cpu", torch.bfloat16, "the dtype is bfloat16")],
)
def test_what_cannot_be_packed_is_said(device: str, dtype: torch.dtype, reason: str) -> None:
    assert reason in str(packing_problem(torch.device(device), dtype))


@needs_packing
def test_a_run_says_what_multiplied_and_is_equal_to_one_that_multiplied_otherwise(tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"{kind}.jsonl" for kind in ("packed", "plain")}
    for kind, path in paths.items():
        done = specscope("run", "--products", kind, "--max-new-tokens", "24", "--trace", path, "--prompt", "def add(")
        assert done.code == 0, done.err
        assert load(path)[0]["products"] == kind
    packed, plain = (load(path)[0] for path in paths.values())
    assert packed["teacher"]["parameters"] == plain["teacher"]["parameters"]
    assert packed["drafter"]["parameters"] == plain["drafter"]["parameters"]
    assert specscope("diff", *paths.values()).code == 0
    replayed = specscope("replay", paths["packed"], "--out", tmp_path / "again.jsonl")
    assert replayed.code == 0, replayed.err
    assert "matrix products" not in replayed.out + replayed.err  # they are what they were


@needs_packing
def test_a_replay_in_the_other_mode_has_that_modes_own_products(tmp_path: Path) -> None:
    trace, again = tmp_path / "packed.jsonl", tmp_path / "eager.jsonl"
    options = ("--products", "packed", "--max-new-tokens", "8", "--trace", trace, "--prompt", "def add(")
    assert specscope("run", *options).code == 0
    replayed = specscope("replay", trace, "--mode", "eager", "--out", again)
    assert replayed.code == 0, replayed.err
    assert load(again)[0]["products"] == "plain"
    assert "matrix products were packed, are plain" in replayed.out + replayed.err


@needs_packing
def test_doctor_says_what_packing_saves() -> None:
    done = specscope("doctor", "--json")
    assert json.loads(done.out)["products"]["packed_share"] > 0


@needs_packing
def test_packed_products_in_captured_forwards(tmp_path: Path) -> None:
    options = ("run", "--max-new-tokens", "16", "--prompt", "def add(", "--products", "packed")
    captured, plain = tmp_path / "captured.jsonl", tmp_path / "plain.jsonl"
    assert specscope(*options, "--graph", "--trace", captured).code == 0
    assert specscope(*options, "--no-graph", "--trace", plain).code == 0
    assert specscope("diff", captured, plain).code == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--mode", "eager"), "eager attention, the reference"),
        (("--dtype", "bfloat16"), "weights are packed in float32, the dtype is bfloat16"),
    ],
)
def test_packed_products_that_cannot_be_had_are_refused(more: tuple[str, str], message: str) -> None:
    done = specscope("run", "--products", "packed", "--prompt", "x", *more)
    assert done.code == 2
    assert message in " ".join(done.err.split())
