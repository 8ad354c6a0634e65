"""A drafter with quantised weights: what its layers compute, that the output stays the teacher's, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bisections import bisected
from support.drafting import choice_of, decode, teachers_own
from support.tiny_models import build_head
from torch import nn

from specscope.engine.backends.quantized import GROUP, Int4Linear, Int8Linear, quantize
from specscope.engine.lab.bench.variants import variants_of
from specscope.engine.lab.rerun.recorded_run import Overrides, load_recorded
from specscope.engine.load.models import load_models
from specscope.engine.record.manifest import settings_of
from specscope.engine.settings import QUANTIZATIONS, ModelChoice
from specscope.tracer import TraceReader
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.errors import UsageError

QUANTIZED = [name for name in QUANTIZATIONS if name != "none"]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random head whose MLP can be cut into groups."""
    return build_head(tmp_path_factory.mktemp("head"), intermediate=64)


@pytest.fixture(scope="module")
def traces(teacher_folder: Path, head: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with each, by its name; the output of every one is the teacher's own, and the oracle passes it."""
    folder = tmp_path_factory.mktemp("traces")
    paths = {}
    for name in QUANTIZATIONS:
        choice = choice_of(teacher_folder, f"eagle3:{head}", drafter_quantization=name)
        paths[name] = folder / f"{name}.jsonl"
        assert decode(choice, paths[name], batch_size=2) == teachers_own(teacher_folder)
    return paths


def random_layer(num_outputs: int, num_inputs: int, seed: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(num_inputs, num_outputs, bias=bias)


@settings(max_examples=30, deadline=None)
@given(
    outputs=st.integers(1, 4), groups=st.integers(1, 3), rows=st.integers(1, 9), seed=st.integers(0, 99),
    bias=st.booleans(),
)  # fmt: skip
def test_products_are_those_of_weights_that_are_off_by_half_a_step(
    outputs: int, groups: int, rows: int, seed: int, bias: bool
) -> None:
    """Each weight by half a scale at most, and each input, scale and sum by bfloat16's rounding."""
    layer = random_layer(16 * outputs, GROUP * groups, seed, bias=bias)
    states = torch.randn(2, rows, GROUP * groups)
    weight = layer.weight.detach()
    steps = {
        Int8Linear: weight.abs().amax(1, keepdim=True).expand_as(weight) / 127,
        Int4Linear: (
            (g := weight.view(len(weight), -1, GROUP)).amax(2, keepdim=True) - g.amin(2, keepdim=True)
        ).expand_as(g).reshape(weight.shape) / 15,
    }  # fmt: skip
    with torch.inference_mode():
        wanted = layer(states)
        for kind, step in steps.items():
            got = kind(layer)(states)
            most = states.abs() @ (0.51 * step + 2**-7 * weight.abs().amax()).T + 2**-7 * wanted.abs() + 1e-3
            assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
            assert ((got - wanted).abs() <= most).all()


def test_int4_is_of_the_mlp_alone_and_int8_of_all(head: Path, teacher_folder: Path) -> None:
    kinds = {}
    for name in QUANTIZED:
        module = load_models(choice_of(teacher_folder, f"eagle3:{head}", drafter_quantization=name)).drafter.module
        assert module is not None
        kinds[name] = {type(layer) for layer in module.modules() if "Linear" in type(layer).__name__}
        inside = {type(layer) for layer in module.get_submodule("midlayer.mlp").children()}
        assert inside == {Int8Linear if name == "int8" else Int4Linear}
    assert kinds == {"int8": {Int8Linear}, "int4-mlp": {Int4Linear, nn.Linear}}


def test_layers_of_equal_weights_and_of_none_do_not_divide_by_nothing() -> None:
    layer = random_layer(16, 32, 0)
    with torch.no_grad():
        layer.weight.zero_()
        for kind in (Int8Linear, Int4Linear):
            assert torch.equal(kind(layer)(torch.ones(1, 32)), torch.zeros(1, 16))
        layer.weight.fill_(0.5)
        assert torch.allclose(Int4Linear(layer)(torch.ones(1, 32)), torch.full((1, 16), 16.0))


def test_the_manifest_says_it_and_gives_it_back(traces: dict[str, Path]) -> None:
    for name, path in traces.items():
        with TraceReader(path) as reader:
            manifest = reader.manifest
        assert manifest.drafter.quantization == name
        choice = settings_of(manifest).choice
        assert choice.drafter_quantization == name
        # Run again, it has the very weights that it ran with.
        again = load_recorded(manifest, Overrides()).models.drafter.module
        assert again is not None
        assert {n for n, _ in (*again.named_parameters(), *again.named_buffers())} == set(
            manifest.drafter.parameters or {}
        )


def test_two_quantised_runs_are_equal_and_another_weight_is_no_fault_of_anybody(traces: dict[str, Path]) -> None:
    """Drafts differ because the weights do: the pair is incomparable, and where that is let, drafts are not judged."""
    assert diff_traces(traces["int8"], traces["int8"]).verdict == "equal"
    for name in QUANTIZED:
        refused = diff_traces(traces["none"], traces[name])
        assert refused.verdict == "incomparable"
        assert refused.incomparable == [f"drafter.quantization: none -> {name}"]
        let = diff_traces(traces["none"], traces[name], DiffOptions(allowed=frozenset({"drafter.quantization"})))
        assert let.verdict == "equal"
        assert not let.roots


@pytest.mark.parametrize("side", ["baseline", "candidate"])
def test_a_trace_that_does_not_say_it_is_not_blamed_either(tmp_path: Path, traces: dict[str, Path], side: str) -> None:
    """As one of another engine, or of an earlier version."""
    silent = tmp_path / "silent.jsonl"
    silent.write_text(traces["none"].read_text().replace('"quantization":"none",', "", 1))
    pair = (silent, traces["int8"]) if side == "baseline" else (traces["int8"], silent)
    verdict = diff_traces(*pair)
    assert verdict.verdict == "incomparable"
    assert verdict.incomparable[0].startswith("drafter.quantization: ")


def test_a_run_of_a_quantised_drafter_is_bisected(traces: dict[str, Path]) -> None:
    assert bisected(traces["int8"], traces["int8"]).culprit is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"drafter": "ngram"}, "got a drafter quantization with drafter ngram: only eagle3 has one"),
    ],
)
def test_what_cannot_be_quantised_is_refused(teacher_folder: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_models(choice_of(teacher_folder, asked["drafter"], drafter_quantization="int8"))


def test_a_name_that_there_is_not_and_shapes_that_do_not_fit_are_refused(teacher_folder: Path, tmp_path: Path) -> None:
    name: Any = "int5"
    with pytest.raises(UsageError, match="got drafter quantization 'int5', wanted one of none, int8, int4-mlp"):
        ModelChoice(drafter_quantization=name)
    odd = build_head(tmp_path, intermediate=48)
    with pytest.raises(UsageError, match="got a layer of 48 inputs and 32 outputs, wanted multiples of 32 and 16"):
        load_models(choice_of(teacher_folder, f"eagle3:{odd}", drafter_quantization="int4-mlp"))
    with pytest.raises(UsageError, match="which are for a CPU, and the device is meta"):
        quantize(nn.Linear(32, 16, device="meta"), "int8")


def test_bench_compares_them_beside_the_teacher_alone() -> None:
    variants = variants_of("drafter-quantization", ModelChoice())
    assert [variant.name for variant in variants] == ["baseline", *(f"quantization {name}" for name in QUANTIZATIONS)]
    assert [variant.choice.drafter_quantization for variant in variants[1:]] == list(QUANTIZATIONS)
