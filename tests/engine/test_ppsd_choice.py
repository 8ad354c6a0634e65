"""What a pipeline is made of: the exit head for the layer asked for, and what carries its messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch.distributed as dist

from specscope.engine.drafters import names
from specscope.engine.drafters.names import demo_exit_heads
from specscope.engine.ppsd import choice
from specscope.engine.ppsd.carrier import Carrier, choose_carrier
from specscope.engine.ppsd.choice import PipelineChoice, check_split, head_folder
from specscope.engine.ppsd.placement import device_names, place_stages
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


def anything(name: str) -> bool:
    return True


def test_the_devices_choose_what_carries_hidden_states() -> None:
    def chosen(asked: str | None, *names: str) -> Carrier:
        return choose_carrier(asked, names, is_built_with=anything)

    assert chosen(None, "cpu", "cpu") == chosen("gloo", "cpu", "cpu") == Carrier("gloo")
    assert chosen(None, "cuda:0", "cuda:1") == chosen("nccl", "cuda:0", "cuda:1") == Carrier("nccl")
    assert chosen(None, "npu:0", "npu:1", "npu:2") == Carrier("hccl")
    staged = Carrier("gloo", is_staged=True)
    assert (
        chosen("gloo", "cuda:0", "cuda:1") == chosen(None, "xpu:0", "xpu:1") == chosen(None, "mps:0", "mps:0") == staged
    )


def test_direct_carriers_share_their_group_with_the_headers_gloo() -> None:
    assert Carrier("nccl").group_backend("cuda") == "cpu:gloo,cuda:nccl"
    assert Carrier("hccl").group_backend("npu") == "cpu:gloo,npu:hccl"
    assert Carrier("gloo", is_staged=True).group_backend("xpu") == Carrier("gloo").group_backend("cpu") == "gloo"


def test_stages_that_share_a_device_are_staged_with_a_warning_and_refused_where_that_was_not_asked_for() -> None:
    names = ["cuda:0", "cuda:1", "cuda:0"]
    carrier = choose_carrier(None, names, is_built_with=anything)
    assert carrier[:2] == ("gloo", True)
    assert carrier.warning == (
        "nccl refuses two ranks on one device: got 3 stages, wanted at most 2, the number of their devices: hidden "
        "states go through the host's memory, carried by gloo"
    )
    with pytest.raises(UsageError, match=r"got 3 stages, wanted at most 2.* fewer --stages, or --carrier gloo"):
        choose_carrier("nccl", names, is_built_with=anything)
    assert choose_carrier("gloo", names, is_built_with=anything).warning is None


@pytest.mark.parametrize(
    ("asked", "kind", "wanted"),
    [
        ("nccl", "cpu", "gloo"),
        ("hccl", "cuda", "nccl or gloo"),
        ("nccl", "npu", "hccl or gloo"),
        ("nccl", "xpu", "gloo"),
    ],
)
def test_a_carrier_that_such_devices_do_not_have_is_refused(asked: str, kind: str, wanted: str) -> None:
    with pytest.raises(UsageError, match=rf"got --carrier {asked} with stages on device {kind}, wanted {wanted}$"):
        choose_carrier(asked, [f"{kind}:0", f"{kind}:1"], is_built_with=anything)


@pytest.mark.parametrize(("device_type", "carrier"), [("cpu", "gloo"), ("cuda", "nccl"), ("npu", "hccl")])
def test_a_torch_without_the_carrier_is_refused_by_name(
    device_type: str, carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [device_type] if device_type == "cpu" else [f"{device_type}:0", f"{device_type}:1"]
    monkeypatch.setattr(dist, "is_backend_available", lambda name: name != carrier)
    with pytest.raises(
        UsageError, match=f"device {device_type}, whose messages {carrier} carries.* built without"
    ) as caught:
        choose_carrier(None, names)
    assert ("give --carrier gloo, " in str(caught.value)) == (carrier != "gloo"), "what there is instead"
    monkeypatch.setattr(dist, "is_backend_available", lambda name: name in (carrier, "gloo"))
    assert choose_carrier(None, names) == Carrier(carrier)
    monkeypatch.setattr(
        dist, "is_backend_available", lambda name: name not in ("gloo", carrier) or name == carrier != "gloo"
    )
    with pytest.raises(UsageError, match="whose messages gloo carries"):  # headers go by it, whatever carries rows
        choose_carrier(None, names)


def test_each_stage_takes_its_own_device_and_all_take_the_one_that_is_named() -> None:
    assert device_names("cuda", ["cuda:0", "cuda:1", "cuda:2"], 2) == ["cuda:0", "cuda:1"]
    assert device_names("cuda", ["cuda:0", "cuda:1"], 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert device_names("cuda", ["cuda:0"], 2) == device_names("cuda:0", ["cuda:0", "cuda:1"], 2) == ["cuda:0"] * 2
    assert [place.name for place in place_stages("cpu", 3)] == ["cpu"] * 3
