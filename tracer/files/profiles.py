"""Profiles on disk: read, and made into the table that shapes of trees are chosen from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import xxhash
from pydantic import ValidationError

from specscope.schemas import LoadTimes, ShapeTable, TreeShape
from specscope.schemas.profile import PROFILE_SCHEMA, MeasuredShape, Profile
from specscope.tracer.errors import UsageError

#: No profile is so large.
MOST_BYTES = 64 << 20
HYSTERESIS = 0.05


class ProfileFile(NamedTuple):
    """A profile, and which file it was read from."""

    path: Path
    digest: str  # xxh3_128 of the file
    profile: Profile

    def table(self, hysteresis: float = HYSTERESIS) -> ShapeTable:
        """What shapes are chosen from by this profile."""
        return table_of(self.profile, self.digest, hysteresis)


def read_profile(path: Path) -> ProfileFile:
    """The profile at ``path``.

    Raises:
        UsageError: where there is none, or it is of another version.
    """
    try:
        content = path.read_bytes() if path.stat().st_size <= MOST_BYTES else None
    except OSError as error:
        raise UsageError(f"cannot read a profile from {path}: {error.strerror or error}") from None
    if content is None:
        raise UsageError(f"{path} is larger than any profile: wanted a file of specscope bench --calibrate")
    try:
        profile = Profile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(
            f"{path} is not a profile ({PROFILE_SCHEMA}): {place}: {first['msg']}; wanted a file of specscope bench "
            "--calibrate"
        ) from None
    return ProfileFile(path, xxhash.xxh3_128_hexdigest(content), profile)


def table_of(profile: Profile, digest: str, hysteresis: float = HYSTERESIS) -> ShapeTable:
    """The shapes of ``profile``, and what a step of each takes at every load that was measured: the median."""
    times = {(step.shape, step.rows, step.context): step.step.median_ms for step in profile.steps}
    loads = sorted({(step.rows, step.context) for step in profile.steps})
    names = [shape.name for shape in profile.shapes]
    return ShapeTable(
        profile=digest,
        hysteresis=hysteresis,
        shapes=[_as_shape(shape) for shape in profile.shapes],
        loads=[
            LoadTimes(rows=rows, context=context, step_ms=[times[name, rows, context] for name in names])
            for rows, context in loads
        ],
    )


def _as_shape(measured: MeasuredShape) -> TreeShape:
    """Without how it was measured."""
    return TreeShape(**{name: getattr(measured, name) for name in TreeShape.model_fields})
