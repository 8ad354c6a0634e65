"""The NPU's attention against an emulation of its operator: within the documented constraints, and right; and silent
faults of the operator are caught by the self-check. Nothing here has been run on hardware."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support.npu_operator import Fault, Operator, RefusedError
from support.tiny_models import teacher_config

from specscope.engine import decode
from specscope.engine.backends import npu
from specscope.engine.backends.attention import add_kernel, eager_attention
from specscope.engine.backends.choice import checked
from specscope.engine.backends.devices import backend_of, resolve_device
from specscope.engine.backends.kernels import register_kernel
from specscope.engine.backends.self_check import CASES, Case, Heads, build_call, self_check
from specscope.tracer import TraceReader, check_trace
from specscope.tracer.errors import UsageError

CPU = torch.device("cpu")
HEADS = Heads(width=32, group=4)
Kernel = Callable[..., torch.Tensor]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Operator]:
    """Puts an emulated torch_npu in place, with the faults that are named."""

    def put(*faults: Fault) -> Operator:
        operator = Operator(frozenset(faults))
        module = ModuleType("torch_npu")
        module.npu_fused_infer_attention_score = operator  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch_npu", module)
        return operator

    return put


def failed(
    kernel: Kernel, heads: Heads = HEADS, dtype: torch.dtype = torch.bfloat16, cases: tuple[Case, ...] = CASES
) -> list[str]:
    return [outcome.case for outcome in self_check(kernel, heads=heads, device=CPU, dtype=dtype, cases=cases).failures]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("heads", [HEADS, Heads(128, 1), Heads(64, 7)])
def test_it_computes_what_the_eager_attention_does_within_every_constraint(
    install: Callable[..., Operator], dtype: torch.dtype, heads: Heads
) -> None:
    operator = install()
    result = self_check(add_kernel(npu.KERNEL), heads=heads, device=CPU, dtype=dtype)
    assert result.failures == []
    assert {layout for layout, _ in operator.calls} == {"BNSD"}


def test_one_row_with_a_mask_is_asked_as_two(install: Callable[..., Operator]) -> None:
    operator = install()
    (case,) = [case for case in CASES if case.name == "one query row"]
    call = build_call(case, HEADS, CPU, torch.bfloat16)
    assert call.mask is not None
    npu.attention(call.query, call.key, call.value, call.mask == 0, call.scale)
    assert operator.calls == {("BNSD", 2): 1}
    npu.attention(call.query, call.key, call.value, None, call.scale)
    assert operator.calls["BNSD", 1] == 1


def test_a_tree_of_more_than_16_rows_goes_in_two_parts(install: Callable[..., Operator]) -> None:
    operator = install()
    for rows, calls in ((16, 1), (17, 2)):
        operator.calls.clear()
        case = Case(name="", parents=tuple([0] * rows), lengths=(50,))
        call = build_call(case, HEADS, CPU, torch.float16)
        assert call.mask is not None
        got = npu.attention(call.query, call.key, call.value, call.mask == 0, call.scale)
        assert operator.calls == {("BNSD", rows): calls}
        assert (got - eager_attention(*call)).norm() < 0.01 * got.norm()


def tensors(dtype: torch.dtype = torch.float16, rows: int = 4, width: int = 16, heads: int = 2) -> list[torch.Tensor]:
    return [torch.randn(1, heads, n, width).to(dtype) for n in (rows, 9, 9)]


MASK = torch.zeros(1, 1, 4, 9, dtype=torch.bool)
TND = {"input_layout": "TND", "actual_seq_lengths": [4], "actual_seq_lengths_kv": [9]}
#: The constraint that a call breaks: what it is given otherwise than a sound one.
BROKEN_CALLS: dict[str, dict[str, Any]] = {
    "float16 or bfloat16": {"dtype": torch.float32},
    "one dtype": {"key": torch.zeros(1, 2, 9, 16).bfloat16()},
    "key and value have one shape": {"value": torch.zeros(1, 2, 8, 16).half()},
    "are contiguous": {"key": torch.zeros(1, 2, 16, 9).half().transpose(2, 3)},
    "num_heads is the query's N": {"num_heads": 4},
    "num_key_value_heads is the key's N": {"num_key_value_heads": 1},
    "is 1 to 64": {"num_key_value_heads": 3},
    "D is a multiple of 16": {"width": 24},
    "D is at most 512": {"width": 528},
    "N is at most 256": {"heads": 257, "num_heads": 257},
    "atten_mask is bool": {"atten_mask": MASK.float()},
    "is none of": {"atten_mask": MASK[..., 1:].contiguous()},
    "sparse_mode 1 needs a mask": {"sparse_mode": 1},
    "compressed mask of 2048": {"atten_mask": MASK, "sparse_mode": 3},
    "9 is for MLA": {"atten_mask": MASK, "sparse_mode": 9},
    "sparse_mode is 0 to 4": {"sparse_mode": 5},
    "inner_precise is 0 to 3": {"inner_precise": 4},
    "inner_precise is 0 or 1": {"rows": 1, "inner_precise": 2},
    "layout BSH is not emulated": {"input_layout": "BSH"},
    "TND: sparse_mode 0 without a mask": {**TND, "atten_mask": MASK},
    "actual_seq_lengths_kv are given": {"input_layout": "TND"},
    "lengths are cumulative": {**TND, "actual_seq_lengths": [4, 2]},
    "TND: bfloat16 only": TND,
    "D is 192": {**TND, "dtype": torch.bfloat16},
    "at most 16 query rows": {**TND, "dtype": torch.bfloat16, "width": 192, "rows": 17, "actual_seq_lengths": [17]},
}


def call(operator: Operator, **given: Any) -> torch.Tensor:
    """A sound call, but for what is given."""
    sizes = {name: given.pop(name) for name in ("dtype", "rows", "width", "heads") if name in given}
    named: dict[str, Any] = dict(zip(("query", "key", "value"), tensors(**sizes), strict=True)) | {
        "num_heads": 2,
        "input_layout": "BNSD",
    }
    named |= given
    if named["input_layout"] == "TND":
        named |= {name: named[name][0].transpose(0, 1).contiguous() for name in ("query", "key", "value")}
    output, _ = operator(**named)
    return output


def test_a_sound_call_passes() -> None:
    for sound in ({}, {"atten_mask": MASK, "inner_precise": 2}, {"rows": 1}, {"num_key_value_heads": 2}):
        assert call(Operator(), **sound).isfinite().all()
    assert call(Operator(), **TND, dtype=torch.bfloat16, width=192).isfinite().all()


@pytest.mark.parametrize("constraint", BROKEN_CALLS)
def test_the_emulation_refuses_a_call_that_breaks_a_constraint(constraint: str) -> None:
    with pytest.raises(RefusedError, match=constraint):
        call(Operator(), **BROKEN_CALLS[constraint])


def test_the_emulations_scale_is_1_unless_it_is_given() -> None:
    q, k, v = tensors()
    default, _ = Operator()(q, k, v, num_heads=2, input_layout="BNSD")
    wanted = eager_attention(q.float(), k.float(), v.float(), None, 1.0)
    assert (default.float() - wanted).abs().max() < 0.01


# Kernels as people write them, and what is reported to become of them.


def bnsd(operator: Operator, **settings: object) -> Kernel:
    """One call with the mask as it is, whatever the number of rows."""

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float) -> torch.Tensor:
        masked = None if m is None else (m != 0).contiguous()
        heads = {"num_heads": q.shape[1], "num_key_value_heads": k.shape[1], "input_layout": "BNSD"}
        output, _ = operator(q, k, v, **{"atten_mask": masked, "scale": scale, **heads, **settings})  # type: ignore[arg-type]
        return output

    return kernel


def without_scale(operator: Operator) -> Kernel:
    return bnsd(operator, scale=1.0)


def tnd_where_unmasked(operator: Operator) -> Kernel:
    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: torch.Tensor | None, scale: float) -> torch.Tensor:
        if m is not None:
            return bnsd(operator)(q, k, v, m, scale)
        flat = [t[0].transpose(0, 1).contiguous() for t in (q, k, v)]
        lengths: dict[str, Any] = {"actual_seq_lengths": [q.shape[2]], "actual_seq_lengths_kv": [k.shape[2]]}
        output, _ = operator(*flat, num_heads=q.shape[1], scale=scale, input_layout="TND", **lengths)
        return output.transpose(0, 1)[None]

    return kernel


SILENT: dict[str, tuple[tuple[Fault, ...], Callable[[Operator], Kernel], Heads, str]] = {
    "mask ignored past 512 keys": (
        ("one-row-mask-ends-at-512",),
        bnsd,
        HEADS,
        "one query row and more than 512 keys",
    ),
    "uniform average": (("tnd-without-mask-is-uniform",), tnd_where_unmasked, Heads(192, 1), "no mask"),
    "scale left out": ((), without_scale, HEADS, "a tree after 24 keys"),
    "one-row kernel": (("one-row-ignores-masks",), bnsd, HEADS, "one query row"),
}


@pytest.mark.parametrize("name", SILENT)
def test_the_self_check_catches_each_silent_fault_and_only_that(name: str) -> None:
    faults, make, heads, case = SILENT[name]
    cases = tuple(c for c in CASES if not c.grouped) if heads.group == 1 else CASES
    assert failed(make(Operator(frozenset(faults))), heads, cases=cases)[0] == case
    if faults:
        assert failed(make(Operator()), heads, cases=cases) == []


@pytest.mark.parametrize("fault", ["one-row-mask-ends-at-512", "tnd-without-mask-is-uniform", "one-row-ignores-masks"])
def test_our_calls_avoid_the_silent_faults(install: Callable[..., Operator], fault: Fault) -> None:
    install(fault)
    assert failed(add_kernel(npu.KERNEL)) == []


def test_an_operator_that_ignores_every_mask_past_512_keys_is_caught(install: Callable[..., Operator]) -> None:
    install("masks-end-at-512")
    assert failed(add_kernel(npu.KERNEL))[0] == "more than 512 keys"


def test_a_head_width_that_the_operator_does_not_take_is_said(install: Callable[..., Operator]) -> None:
    install()
    query, key, value = tensors(width=24)
    with pytest.raises(UsageError, match="got heads of width 24, the NPU's attention requires a multiple of 16"):
        npu.attention(query, key, value, None, 0.2)


def test_float32_runs_eager_and_the_reason_is_the_dtype(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = teacher_config("llama")
    assert isinstance(config, LlamaConfig)
    model = LlamaForCausalLM(config)
    add_kernel(npu.KERNEL)
    warnings: list[str] = []
    chosen = checked("fused", npu.KERNEL, model, warn=warnings.append)
    assert chosen.runs == "eager"
    assert "takes bfloat16 and float16, got float32" in warnings[0]


def test_whole_turns_are_sound_and_equal_the_eager_ones(install: Callable[..., Operator], tmp_path: Path) -> None:
    operator = install()
    attend = npu.attention
    attend.mask_form = "visible"  # type: ignore[attr-defined]
    settings: dict[str, Any] = {"dtype": "bfloat16", "max_new_tokens": 8, "batch_size": 2}
    turns = {}
    for name, attention in (("npu", register_kernel(attend, "npu-emulated")), ("eager", "eager")):
        turns[name] = decode(
            ["a = 1\n", "def f(x):\n    return x"], attention=attention, trace=tmp_path / name, **settings
        )
    assert operator.calls
    assert check_trace(tmp_path / "npu").num_violations == 0
    with TraceReader(tmp_path / "npu") as reader:
        kernel = reader.manifest.kernel
    assert kernel is not None
    assert kernel.self_check is not None
    assert kernel.self_check.outcome == "passed"
    ids = {name: [turn.result.output_ids for turn in reports] for name, reports in turns.items()}
    assert [a[0] for a in ids["npu"]] == [b[0] for b in ids["eager"]]


def test_a_machine_without_the_extension_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with pytest.raises(UsageError, match="needs torch_npu and CANN: install"):
        resolve_device("npu")
    assert backend_of("npu").kernel is npu.KERNEL


def test_only_the_npus_file_imports_its_extension() -> None:
    engine = Path(npu.__file__).parents[1]
    importing = [path.name for path in engine.rglob("*.py") if 'import_module("torch_npu")' in path.read_text("utf-8")]
    assert importing == ["npu.py"]
    assert not [path for path in engine.rglob("*.py") if "import torch_npu" in path.read_text("utf-8")]
