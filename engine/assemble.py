"""From the names on a command line to a teacher, a drafter and a session. Knows where the demo models lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from specscope.engine.drafters.base import Drafter, NoDrafter
from specscope.engine.drafters.eagle3 import Eagle3Drafter
from specscope.engine.drafters.eagle3_files import default_hidden_state_indices, load_head
from specscope.engine.teacher import Teacher, TeacherOptions
from specscope.engine.tree import TreePolicy
from specscope.tracer.errors import UsageError

Mode = Literal["fused", "eager", "baseline"]
DEMO_MODELS = Path(__file__).parent / "demo_models"
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@dataclass(frozen=True)
class ModelChoice:
    """What to load, in the command line's words."""

    teacher: str  # demo, a folder, or an id in the local cache
    drafter: str  # eagle3, eagle3:PATH or none
    mode: Mode
    dtype: str
    device: str  # auto, cpu, cuda or npu
    policy: TreePolicy
    allow_remote_code: bool = False
    allow_download: bool = False

    @property
    def attention(self) -> str:
        """The attention that the mode asks for; the baseline runs on the fused one."""
        return "eager" if self.mode == "eager" else "fused"


@dataclass(frozen=True)
class Models:
    """A loaded teacher and its drafter."""

    teacher: Teacher
    drafter: Drafter


def resolve_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes an accelerator where there is one.

    Raises:
        UsageError: where the device is not there.
    """
    if name == "npu":
        return _npu()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("got device cuda, but this torch sees no CUDA device; use --device cpu")
    return torch.device(name)


def _npu() -> torch.device:
    # Imported here alone: without CANN, importing torch_npu breaks torch itself.
    try:
        import torch_npu  # noqa: F401
    except ImportError:
        raise UsageError("device npu needs torch_npu and CANN: install specscope[npu]; or use --device cpu") from None
    return torch.device("npu")


def load_models(choice: ModelChoice) -> Models:
    """Loads what ``choice`` names.

    Raises:
        UsageError: where something is missing, or the drafter does not fit the teacher.
    """
    device, dtype = resolve_device(choice.device), DTYPES[choice.dtype]
    options = TeacherOptions(dtype, device, choice.attention, choice.allow_remote_code, choice.allow_download)
    name = str(DEMO_MODELS / "teacher") if choice.teacher == "demo" else choice.teacher
    teacher = Teacher.load(name, options)
    return Models(teacher, _load_drafter(choice, teacher, dtype, device))


def _load_drafter(choice: ModelChoice, teacher: Teacher, dtype: torch.dtype, device: torch.device) -> Drafter:
    kind, _, path = choice.drafter.partition(":")
    if choice.mode == "baseline" or choice.drafter == "none":
        return NoDrafter()
    if kind != "eagle3":
        raise UsageError(f"got drafter {choice.drafter!r}, wanted eagle3, eagle3:PATH or none")
    if not path and choice.teacher != "demo":
        raise UsageError("the demo's head fits the demo's teacher alone: give --drafter eagle3:PATH, or none")
    folder = Path(path) if path else DEMO_MODELS / "drafter"
    if not folder.is_dir():
        raise UsageError(f"no EAGLE-3 head at {folder}: give a folder with config.json and safetensors")
    files = load_head(folder, teacher.hidden_size, teacher.vocab_size)
    layers = files.hidden_state_indices or default_hidden_state_indices(teacher.num_layers)
    if max(layers) > teacher.num_layers or min(layers) < 0:
        raise UsageError(f"the head wants hidden states {layers}, the teacher has 0..{teacher.num_layers}")
    return Eagle3Drafter(files, teacher.embedding, layers, choice.policy, choice.attention, dtype, device)
