"""The unit of drift: roundings, the distance of neighbouring numbers of a dtype at a given size.

An honest kernel sums in another order, and every sum rounds. How far that moves a value depends on how large the
numbers are that it is made of, and on the dtype; counted in roundings it is much the same for all of them.
"""

from __future__ import annotations

import math

from specscope.schemas import Manifest
from specscope.tracer.naming.text import shorten, visible

#: Distance of 1 to the next number.
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
#: What other engines call them.
SHORT_NAMES = {
    **{"f32": "float32", "fp32": "float32", "float": "float32"},
    **{"f16": "float16", "fp16": "float16", "half": "float16", "bf16": "bfloat16"},
}
#: Of a dtype that is not known.
USUAL_DTYPE = "float32"
#: Values near 0 are differences of larger ones: below this size they round no finer.
LEAST_SIZE = 1.0
#: The size at which floors are stated in a verdict.
STATED_SIZE = 16.0


def epsilon_of(dtype: str) -> float:
    """Distance of 1 to the next number of ``dtype``."""
    return EPSILON.get(full_name(dtype) or USUAL_DTYPE, EPSILON[USUAL_DTYPE])


def coarser(dtype: str, other: str) -> str:
    """Of two dtypes the one that rounds more."""
    return max(dtype, other, key=epsilon_of)


def compared_in(a: Manifest, b: Manifest) -> str:
    """The dtype in whose roundings two runs are compared: the coarser of theirs, or that of a cache which rounds more
    still, where the two are not known to round their keys and values alike.

    A number format that is no dtype, such as q8_0, has no roundings to count in: its noise has to be measured.
    """
    dtype = coarser(a.dtype, b.dtype)
    caches = {full_name(name) for name in (a.kv_dtype, b.kv_dtype)}
    for cached in caches if len(caches) > 1 else ():
        dtype = coarser(dtype, cached) if cached in EPSILON else dtype
    return dtype


def dtype_remarks(a: Manifest, b: Manifest) -> list[str]:
    """Which side computes in a dtype whose roundings nobody knows."""
    return [
        f"the {side} computes in {shorten(visible(manifest.dtype), 40)}, whose roundings are not known: noise is "
        f"counted in those of {USUAL_DTYPE}, and may be larger; --noise FILE, another run of that side, measures it"
        for side, manifest in (("baseline", a), ("candidate", b))
        if manifest.knows("dtype") and full_name(manifest.dtype) not in EPSILON
    ]


def cache_remarks(a: Manifest, b: Manifest) -> list[str]:
    """In words, where a cache's dtype widens what counts as noise."""
    usual, counted = coarser(a.dtype, b.dtype), compared_in(a, b)
    if counted == usual:
        return []
    names = " and ".join(
        f"the {side} has {manifest.kv_dtype}" if manifest.kv_dtype is not None else f"the {side} does not say"
        for side, manifest in (("baseline", a), ("candidate", b))
    )
    return [f"noise is counted in roundings of {counted}, not of {usual}, because of the caches: {names}"]


def full_name(dtype: str | None) -> str | None:
    """A dtype by torch's name, whatever another engine calls it."""
    return None if dtype is None else SHORT_NAMES.get(dtype.lower(), dtype)


def same_format(a: str, b: str) -> bool:
    """Whether two names of number formats mean the same."""
    return full_name(a) == full_name(b)


def is_half(dtype: str) -> bool:
    """Whether the dtype has so few digits that most honest values are equal, or neighbours."""
    return is_half_epsilon(epsilon_of(dtype))


def is_half_epsilon(epsilon: float) -> bool:
    """Whether a dtype with that epsilon is such a one."""
    return epsilon > 1e-4


def spacings(sizes: list[float]) -> list[float]:
    """``spacing`` of each; none of them is negative."""
    if not math.isfinite(sum(sizes)):
        return list(map(spacing, sizes))
    return [math.ldexp(0.5, math.frexp(size if size > LEAST_SIZE else LEAST_SIZE)[1]) for size in sizes]


def spacing(size: float) -> float:
    """Distance of neighbouring numbers at ``size``, as a multiple of the dtype's epsilon: a power of two.

    Not finite where ``size`` is not.
    """
    size = max(abs(size), LEAST_SIZE)
    return math.ldexp(0.5, math.frexp(size)[1]) if math.isfinite(size) else math.inf
