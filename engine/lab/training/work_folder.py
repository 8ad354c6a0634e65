"""What a work folder was begun for. Its texts and all that is trained on them belong to one teacher, and to one token
that ends a text: with another of either, what lies there would be taken up as if it were that one's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specscope.engine.lab.training.plan import TrainingPlan
from specscope.engine.lab.training.start import weights_digest
from specscope.tracer.errors import CheckpointError, UsageError
from specscope.tracer.files.whole import written_whole

NOTE_NAME = "begun_for.json"
STREAM_NAME = "train.npy"  # the first file of a training that is written to the work folder for good


def note_teacher(plan: TrainingPlan) -> None:
    """Writes which teacher the work folder is for."""
    plan.work.mkdir(parents=True, exist_ok=True)
    note = {"teacher_weights_digest": weights_digest(plan.teacher_folder)}
    with written_whole(plan.work / NOTE_NAME) as partial:
        partial.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def check_teacher(plan: TrainingPlan) -> None:
    """Holds the teacher to the one that the work folder was begun for.

    Raises:
        CheckpointError: where it cannot be read which that was.
        UsageError: where it was another, or texts lie there and nothing says whose they are.
    """
    noted, teacher = _noted_teacher(plan.work / NOTE_NAME), weights_digest(plan.teacher_folder)
    if noted is None:
        of_this_folder = plan.given_teacher is None and (plan.teacher_folder / "tokenizer.json").exists()
        if (plan.work / STREAM_NAME).exists() and not of_this_folder:
            raise UsageError(
                f"{plan.work} holds texts and does not say for which teacher they were made: give another --work"
            )
    elif noted != teacher:
        is_there = any(plan.teacher_folder.glob("*.safetensors"))
        asked = f"{teacher} at {plan.teacher_folder}" if is_there else "one that is to be trained"
        raise UsageError(
            f"{plan.work} was begun for a teacher with the weights {noted}, got {asked}: give that teacher, or another "
            "--work"
        )


def check_end_of_text(work: Path, end: int) -> None:
    """Holds ``end`` to the token that joins the texts in ``work``, if there are any: it is the last one of them.

    Raises:
        UsageError: where it is another.
    """
    if not (work / STREAM_NAME).exists():
        return
    stream: NDArray[np.int64] = np.load(work / STREAM_NAME, mmap_mode="r")
    if stream[-1] != end:
        raise UsageError(
            f"the texts in {work} are joined by token {stream[-1]}, and the teacher's tokenizer ends a text with token "
            f"{end}: give another --work"
        )


def _noted_teacher(path: Path) -> str | None:
    """None where nothing is noted."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))["teacher_weights_digest"]
        if not isinstance(noted, str):
            raise TypeError(f"got {noted!r}, wanted a text")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"cannot read {path} ({error}): correct it, or give another --work") from None
    return noted
