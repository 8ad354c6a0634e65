"""Devices by name: what there is, what is refused, and a device that only an extension knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from support.called import specscope

from specscope.engine.backends import devices, kernels
from specscope.engine.backends.accelerator import Accelerator
from specscope.engine.backends.base import SDPA
from specscope.engine.backends.cpu import Cpu
from specscope.engine.backends.devices import backend_of, present_devices, resolve_device
from specscope.tracer.errors import UsageError

CPU = torch.device("cpu")
#: A process of its own, because a type is renamed once and for ever.
EXTENSION = """
import types, torch
torch.utils.rename_privateuse1_backend("fancy")
module = types.ModuleType("fancy")
module.is_available, module.device_count = lambda: True, lambda: 2
module.get_device_name = lambda device: f"Fancy {device.index}"
torch._register_device_module("fancy", module)
from specscope.engine.backends.devices import backend_of, present_devices, resolve_device
from specscope.tracer.errors import UsageError
print(resolve_device("fancy"), resolve_device("fancy:1"), present_devices())
print(backend_of("fancy").describe(torch.device("fancy:1")))
try:
    resolve_device("fancy:2")
except UsageError as error:
    print(error)
"""


def test_a_device_that_only_an_extension_knows_is_found_by_its_name() -> None:
    done = subprocess.run([sys.executable, "-c", EXTENSION], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "fancy fancy:1 ['cpu', 'fancy:0', 'fancy:1']",
        "Fancy 1",
        "got device fancy:2, but this torch sees only fancy:0, fancy:1; there is cpu, fancy:0, fancy:1",
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cuda", "no cuda device"),
        ("mps", "no mps device"),
        ("xpu:3", "no xpu device"),
        ("meta", "no meta device"),
        ("tpu", "no tpu device"),
        ("cpu:1", "wanted cpu, without a number"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_what_is(name: str, says: str) -> None:
    if name.partition(":")[0] in {device.partition(":")[0] for device in present_devices()} - {"cpu"}:
        pytest.skip("there is one")
    with pytest.raises(UsageError) as caught:
        resolve_device(name)
    assert says in str(caught.value)
    assert "; there is cpu" in str(caught.value)


@pytest.mark.parametrize("device", ["npu:3", "tpu", "2"])
def test_training_takes_devices_by_name_and_refuses_what_is_not_there(device: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    done = specscope("train", "--work", work, "--device", device)
    assert (done.code, work.exists()) == (2, False)
    assert f"got device {device}" in done.err.replace("'", "")


def fake(monkeypatch: pytest.MonkeyPatch, **functions: object) -> ModuleType:
    module: ModuleType = SimpleNamespace(**functions)  # type: ignore[assignment]
    monkeypatch.setattr(torch, "get_device_module", lambda name: module)
    return module


def test_an_accelerator_is_asked_for_what_it_offers_and_done_without_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    device = torch.device("cuda:1")
    fake(
        monkeypatch,
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_name=lambda d: f"Card {d.index}",
        synchronize=waited.append,
        memory_allocated=lambda d: 5,
        mem_get_info=lambda d: (1, 7),
    )
    cards = Accelerator("cuda")
    assert cards.devices() == ["cuda:0", "cuda:1"]
    assert cards.device("cuda:1") == device
    assert (cards.describe(device), cards.memory(device)) == ("Card 1", (5, 7))
    cards.synchronise(device)
    assert waited == [device]
    fake(monkeypatch, is_available=lambda: True)
    assert cards.devices() == ["cuda:0"]
    assert (cards.describe(device), cards.memory(device)) == ("cuda", (0, None))
    cards.synchronise(device)


def test_the_cpu_has_nothing_to_wait_for_and_knows_its_memory() -> None:
    cpu = Cpu()
    cpu.synchronise(CPU)
    memory = cpu.memory(CPU)
    assert memory.total is not None
    assert 1e6 < memory.used < memory.total
    assert (cpu.kernel, backend_of("xpu").kernel) == (SDPA, SDPA)


def test_an_installed_backend_serves_its_device_type(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Cpu):
        name = "mine"

        def device(self, name: str) -> torch.device:
            return CPU

        def devices(self) -> list[str]:
            return ["mine"]

    entry = SimpleNamespace(name="device.mine", load=lambda: Mine)
    monkeypatch.setattr(kernels, "_all_entries", lambda: {"device.mine": entry})
    assert resolve_device("mine") == CPU
    assert "mine" in devices.present_devices()
    with pytest.raises(UsageError, match=r"wanted eager, fused, "):
        kernels.check_kernel_name("device.mine")
