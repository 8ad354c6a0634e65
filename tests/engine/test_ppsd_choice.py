"""What a pipeline is made of: the exit head for the layer asked for, and what carries its messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch.distributed as dist

from specscope.engine.drafters import names
from specscope.engine.drafters.names import demo_exit_heads
from specscope.engine.ppsd import choice
from specscope.engine.ppsd.carrier import carrier_of, usable_carrier
from specscope.engine.ppsd.choice import PipelineChoice, check_split, head_folder
from specscope.engine.settings import DEMO_MODELS, ModelChoice, Settings
from specscope.tracer.errors import UsageError


@pytest.fixture
def three_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Demo models with exit heads after layers 4, 2 and 6, and a folder that holds none."""
    for name, layer in (("exit_head", 4), ("exit_head_2", 2), ("exit_head_6", 6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"exit_layer": layer}))
    (tmp_path / "exit_head_state").mkdir()
    (tmp_path / "exit_head_state" / "config.json").write_text("[]")
    for module in (names, choice):
        monkeypatch.setattr(module, "DEMO_MODELS", tmp_path)
    return tmp_path


def test_the_layer_asked_for_chooses_the_head(three_heads: Path) -> None:
    chosen = {layer: head_folder("", layer).name for layer in (None, 2, 4, 6)}
    assert chosen == {None: "exit_head", 2: "exit_head_2", 4: "exit_head", 6: "exit_head_6"}
    assert head_folder("my/head", 2) == Path("my/head"), "a folder that the user names is what is taken"


def test_a_layer_without_a_head_is_refused_and_the_others_are_named(three_heads: Path) -> None:
    with pytest.raises(UsageError, match=r"got --exit-layer 3, but the demo has no exit head .* only after 2, 4, 6: "):
        head_folder("", 3)
    settings = Settings(choice=ModelChoice(drafter="early-exit", device="cpu"))
    with pytest.raises(UsageError, match="got --exit-layer 3"):
        check_split(settings, PipelineChoice(num_stages=2, exit_layer=3))


def test_the_demos_heads_are_where_their_configurations_say() -> None:
    heads = demo_exit_heads()
    assert heads[4] == DEMO_MODELS / "exit_head"
    for layer, folder in heads.items():
        assert json.loads((folder / "config.json").read_text())["exit_layer"] == layer
        assert (folder / "model.safetensors").is_file()


def test_the_device_chooses_what_carries_messages() -> None:
    assert [carrier_of(name) for name in ("cpu", "cuda", "npu")] == ["gloo", "nccl", "hccl"]
    assert usable_carrier("cpu") == "gloo"
    with pytest.raises(UsageError, match=r"got stages on device mps.* wanted cpu, cuda, npu"):
        usable_carrier("mps")


@pytest.mark.parametrize(("device_type", "carrier"), [("cpu", "gloo"), ("cuda", "nccl"), ("npu", "hccl")])
def test_a_torch_without_the_carrier_is_refused_by_name(
    device_type: str, carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "is_backend_available", lambda name: name != carrier)
    with pytest.raises(UsageError, match=f"device {device_type}, whose messages {carrier} carries.* built without"):
        usable_carrier(device_type)
    monkeypatch.setattr(dist, "is_backend_available", lambda name: name == carrier)
    assert usable_carrier(device_type) == carrier
