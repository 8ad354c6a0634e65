"""A model that somebody else has loaded, as a teacher: for as long as it decodes, its attention is this engine's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakSet

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from specscope.engine.backends.attention import registered_name
from specscope.engine.finite import refuse_nonfinite
from specscope.engine.load.models import DEMO_MODELS
from specscope.engine.teacher.files import ANOTHER_TEACHER, full_sight
from specscope.engine.teacher.model import Teacher
from specscope.engine.teacher.probe import refuse_untreelike
from specscope.schemas import Teacher as TeacherManifest
from specscope.tracer.errors import UnsupportedModelError

#: Models whose weights were read once and found to be finite, and those that were tried once on a small tree.
_finite: WeakSet[PreTrainedModel] = WeakSet()
_tried: WeakSet[PreTrainedModel] = WeakSet()


class GivenTeacher(Teacher):
    """A model as it lies in memory: it may have been changed since it was loaded."""

    def __init__(self, model: PreTrainedModel) -> None:
        name = str(model.name_or_path)
        folder = _local_folder(name)
        super().__init__(model, None, folder or Path(name or model.config.model_type))
        is_demo = folder is not None and folder.resolve() == (DEMO_MODELS / "teacher").resolve()
        self.source = "demo" if is_demo else name
        self._has_files = folder is not None

    @property
    def max_positions(self) -> int | None:
        """None where positions are computed: ``generate`` goes on after the last one that the model was made for. It
        must not go on where its attention would forget otherwise than by a sliding window."""
        return full_sight(self.config) if self.computes_positions else super().max_positions

    def manifest(self) -> TeacherManifest:
        """What the trace says of it; the files' digests only where the model still is what they hold."""
        recorded = super().manifest().model_copy(update={"max_positions": super().max_positions})
        if self._has_files and _holds_files(self.model, self.folder):
            return recorded
        return recorded.model_copy(update={"config_digest": None, "weights_digest": None})


def _local_folder(name: str) -> Path | None:
    """The folder that a model of that name was loaded from, where it is known and on this machine."""
    if not name:
        return None
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):  # hub errors are one or the other
        return None


def _holds_files(model: PreTrainedModel, folder: Path) -> bool:
    """Whether the first row of every tensor in the folder's files is the model's own: quick to read, and enough to see
    weights that were trained, merged or quantised since."""
    state = model.state_dict()
    files = list(folder.glob("*.safetensors"))
    try:
        for file in files:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 - it is no mapping
                    part = stored.get_slice(name)
                    if list(state[name].shape) != part.get_shape():
                        return False
                    row = part[:1] if part.get_shape() else stored.get_tensor(name)
                    mine = state[name][:1] if part.get_shape() else state[name]
                    if not torch.equal(row.to(mine.dtype), mine.cpu()):
                        return False
    except (KeyError, OSError, SafetensorError):
        return False
    return bool(files)


def check_once(teacher: GivenTeacher, *, allow_nonfinite: bool) -> None:
    """Refuses weights that are no finite numbers, unless allowed, and a model that cannot verify trees. Neither is
    looked at again at the next call.

    Raises:
        UsageError: naming the tensor.
        UnsupportedModelError: naming the model, and why.
    """
    model = teacher.model
    if not allow_nonfinite and model not in _finite:
        refuse_nonfinite(model, teacher.folder)
        _finite.add(model)
    if model not in _tried:
        refuse_untreelike(teacher, str(model.name_or_path) or type(model).__name__)
        _tried.add(model)


@contextmanager
def own_attention(model: PreTrainedModel, attention: str) -> Iterator[None]:
    """Inside, ``model`` runs the attention of that name in ``ATTENTION``; afterwards the one that it had.

    Raises:
        UnsupportedModelError: where the model's attention cannot be exchanged.
    """
    before, wanted = model.config._attn_implementation, registered_name(attention)
    model.set_attn_implementation(wanted)
    try:
        if model.config._attn_implementation != wanted:
            raise UnsupportedModelError(
                f"{type(model).__name__} does not let its attention be exchanged, and would not take a tree's mask; "
                f"{ANOTHER_TEACHER}"
            )
        yield
    finally:
        model.set_attn_implementation(before)
