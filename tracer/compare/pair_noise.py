"""What is noise in a pair of runs: given, or measured on a run that is known to be good, or on the pair itself."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from specscope.schemas.verdict import NoiseFloor
from specscope.tracer.compare.allowed import Consequences
from specscope.tracer.compare.drift import Drift, measure_bits, measure_drift
from specscope.tracer.compare.excess import UniformDrift, movement, uniform_drift
from specscope.tracer.compare.manifests import compare_manifests
from specscope.tracer.compare.noise import given_floors, measured_floors, noise_floors
from specscope.tracer.compare.roundings import compared_in, same_format
from specscope.tracer.compare.sides import Sides, first_violations
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace


class PairNoise(NamedTuple):
    """What is noise in this pair, and what of the pair is none on the whole."""

    floors: list[NoiseFloor]
    drift: UniformDrift | None


def given_noise(sides: Sides, tolerance: float) -> PairNoise:
    """The floors that the user gave; nothing is measured."""
    return PairNoise(given_floors(compared_in(sides.a.manifest, sides.b.manifest), tolerance), None)


def noise_of_pair(sides: Sides, expected: Consequences) -> PairNoise:
    """As it is measured on the pair itself."""
    drift = _drift(sides, expected)
    floors = measured_floors(drift, sides.a.manifest.teacher.num_layers)
    return PairNoise(floors, uniform_drift(drift, floors, "dtype"))


def _drift(sides: Sides, expected: Consequences) -> Drift:
    """Of the pair; without the scores of two drafters that may differ, which equal inputs do not make equal."""
    drift = measure_drift(sides.a, sides.b, sides.is_broken)
    if "draft" in expected.phases:
        drift.leave_out("draft-scores")
    return drift


def noise_of_run(sides: Sides, expected: Consequences, path: Path, allowed: frozenset[str]) -> PairNoise:
    """As it is measured between the baseline and the run at ``path``, which must be good.

    Raises:
        TraceError: where it cannot be read.
        UsageError: where it cannot tell the noise of this pair.
    """
    a, b = sides.a, sides.b
    drift = _drift(sides, expected)
    with TraceReader(path) as other:
        problem = _not_noise(sides, other, allowed)
        if problem is not None:
            raise UsageError(f"{path} cannot tell the noise of {a.path}: {problem}; record an honest run once more")
        same_mode = other.manifest.attention == b.manifest.attention
        noise = measure_drift(a, other, dtype=drift.dtype)
        floors = noise_floors(drift, noise, a.manifest.teacher.num_layers, same_mode=same_mode)
        excess = uniform_drift(drift, floors, "noise-file")
        if excess is None:
            excess = movement(other.manifest, b.manifest, measure_bits(other, b))
        return PairNoise(floors, excess)


def _not_noise(sides: Sides, other: TraceReader, allowed: frozenset[str]) -> str | None:
    """Why ``other`` is not a run that differs from the baseline only by noise, as far as can be known."""
    for name, reader in (("baseline", sides.a), ("candidate", sides.b)):
        if other.manifest.run_id == reader.manifest.run_id:
            return f"it is the {name} itself"
    if other.manifest.fault is not None:
        return f"it has fault {other.manifest.fault} in"
    of_candidate, of_other = sides.b.manifest, other.manifest
    for name, wanted, got in (
        ("kv_dtype", of_candidate.kv_dtype, of_other.kv_dtype),
        ("teacher.quantization", of_candidate.teacher.quantization, of_other.teacher.quantization),
    ):
        if wanted is not None and got is not None and not same_format(wanted, got):
            return f"its {name} is {got}, that of the candidate, whose noise is asked for, is {wanted}"
    problems = compare_manifests(sides.a.manifest, other.manifest, allowed).incomparable
    if problems:
        return problems[0]
    violations = first_violations("b", check_trace(other.path))
    return f"it violates {violations[0].invariant}: {violations[0].witness}" if violations else None
