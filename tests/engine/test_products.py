"""Packed matrix products: the numbers of torch's own, weights that change, and which kind runs."""

from __future__ import annotations

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
    PackedLinear,
    ProductsTrial,
    choose_products,
    linear_layers,
    multiply,
    pack_products,
    packing_problem,
)
from specscope.engine.load.models import load_models
from specscope.engine.settings import ModelChoice, ProductsChoice
from specscope.tracer.errors import UsageError

CPU = torch.device("cpu")
needs_packing = pytest.mark.skipif(
    packing_problem(CPU, torch.float32) is not None, reason="this torch was built without oneDNN"
)


def refuse_warning(text: str) -> None:
    raise AssertionError(f"nothing was to be warned of, got: {text}")


@needs_packing
@settings(max_examples=40, deadline=None)
@given(
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    rows=st.integers(1, 40),
    batch=st.lists(st.integers(1, 3), max_size=2),
    bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_packed_products_are_those_of_float64(
    inputs: int, outputs: int, rows: int, batch: list[int], bias: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(inputs, outputs, bias=bias)
    states = torch.randn(*batch, rows, inputs, generator=generator)
    wanted = states.double() @ layer.weight.double().T
    if bias:
        wanted = wanted + layer.bias.double()
    with torch.inference_mode():
        got = PackedLinear(layer)(states)
    assert got.shape == (*batch, rows, outputs)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)


@needs_packing
def test_a_weight_that_is_changed_or_replaced_is_packed_anew() -> None:
    layer, states = nn.Linear(16, 8), torch.randn(3, 16)
    pack_products(layer)
    with torch.no_grad():
        for change in (
            lambda: layer.weight.mul_(2),
            lambda: setattr(layer, "weight", nn.Parameter(torch.randn(8, 16))),
            lambda: setattr(layer.weight, "data", torch.randn(8, 16)),
            lambda: layer.load_state_dict({"weight": torch.randn(8, 16), "bias": torch.randn(8)}),
        ):
            before = layer(states)
            change()
            wanted = states.double() @ layer.weight.double().T + layer.bias.double()
            torch.testing.assert_close(layer(states).double(), wanted, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(layer(states), before)


def test_a_layer_that_computes_otherwise_is_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(states)

    model = nn.Sequential(nn.Linear(4, 4), Doubled(4, 4))
    assert linear_layers(model) == [model[0]]


@pytest.fixture(scope="module")
def teacher() -> Any:
    return load_models(ModelChoice(drafter="none", mode="baseline", products="plain", self_check=False)).teacher


def test_the_eager_path_multiplies_as_torch_does(teacher: Any) -> None:
    assert choose_products("auto", "eager", teacher.model, warn=refuse_warning).runs == "plain"
    with pytest.raises(UsageError, match="eager attention, the reference"):
        choose_products("packed", "eager", teacher.model, warn=refuse_warning)


@pytest.mark.parametrize(("share", "runs"), [(0.5, "packed"), (0.79, "packed"), (0.81, "plain"), (3.0, "plain")])
def test_what_is_faster_runs_unless_one_is_asked_for(
    teacher: Any, monkeypatch: pytest.MonkeyPatch, share: float, runs: str
) -> None:
    monkeypatch.setattr(products, "packing_problem", lambda device, dtype: None)
    monkeypatch.setattr(products, "_trial_of", lambda layers: ProductsTrial(share, None))
    assert choose_products("auto", "fused", teacher.model, warn=refuse_warning).runs == runs
    assert choose_products("packed", "fused", teacher.model, warn=refuse_warning).runs == "packed"
    assert choose_products("plain", "fused", teacher.model, warn=refuse_warning).runs == "plain"


def test_a_copy_that_memory_has_no_room_for_is_not_made(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "packing_problem", lambda device, dtype: None)
    monkeypatch.setattr(products, "MOST_OF_MEMORY", 1e-9)
    chosen = choose_products("auto", "fused", teacher.model, warn=refuse_warning)
    assert chosen.runs == "plain"
    assert "GiB of memory" in chosen.reason


@needs_packing
def test_wrong_products_are_found_before_they_are_used(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def last_input_dropped(states: torch.Tensor, packed: torch.Tensor, bias: Any) -> torch.Tensor:
        return multiply(states * (torch.arange(states.shape[-1]) < states.shape[-1] - 1), packed, bias)

    monkeypatch.setattr(products, "_TRIALS", {})
    monkeypatch.setattr(products, "multiply", last_input_dropped)
    warnings: list[str] = []
    both: tuple[ProductsChoice, ProductsChoice] = ("auto", "packed")
    for asked in both:
        assert choose_products(asked, "fused", teacher.model, warn=warnings.append).runs == "plain"
    assert len(warnings) == 2
    assert "packed products differ from torch's own with 1 rows, 256 inputs and" in warnings[0]


@needs_packing
def test_right_products_pass_the_trial() -> None:
    generator = torch.Generator().manual_seed(1)
    trial = products._try([torch.randn(shape, generator=generator) for shape in ((64, 32), (32, 64), (1, 5), (7, 1))])
    assert trial.failure is None
    assert trial.share > 0


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
