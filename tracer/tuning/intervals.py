"""How far a mean may be off: a bootstrap over clusters of steps, because steps of one turn resemble each other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

NUM_RESAMPLES = 400
LOW, HIGH = 0.025, 0.975
#: Fewer turns than this are divided into stretches of steps, which are resampled instead.
LEAST_TURNS = 8
STRETCH = 12  # steps
SEED = 0  # the same trace has the same intervals


class Cluster(NamedTuple):
    """Steps that are drawn together."""

    total: float  # of what is averaged
    size: float  # how much that is: steps, or seconds


class Mean(NamedTuple):
    """A mean with its interval."""

    value: float
    low: float  # 95 % of the resampled means lie between these two
    high: float
    size: float  # steps, or whatever was averaged


def clusters_of(turns: Sequence[Sequence[float]]) -> list[Cluster]:
    """The values of each turn as clusters: whole turns where there are enough of them, else stretches of steps."""
    rows = [row for row in turns if row]
    if len(rows) < LEAST_TURNS:
        rows = [row[at : at + STRETCH] for row in rows for at in range(0, len(row), STRETCH)]
    return [Cluster(sum(row), len(row)) for row in rows]


def mean_of(clusters: Sequence[Cluster]) -> Mean | None:
    """The mean over all clusters and its interval; None where nothing was counted."""
    clusters = [cluster for cluster in clusters if cluster.size]
    size = sum(cluster.size for cluster in clusters)
    if not size:
        return None
    value = sum(cluster.total for cluster in clusters) / size
    means = sorted(_resampled(clusters, random.Random(SEED)))  # noqa: S311  (statistics, no secret)
    return Mean(value, means[int(LOW * NUM_RESAMPLES)], means[int(HIGH * NUM_RESAMPLES)], size)


def _resampled(clusters: Sequence[Cluster], draw: random.Random) -> list[float]:
    means = []
    for _ in range(NUM_RESAMPLES):
        chosen = draw.choices(clusters, k=len(clusters))
        means.append(sum(cluster.total for cluster in chosen) / sum(cluster.size for cluster in chosen))
    return means


def ratio_of(candidate: Sequence[Cluster], baseline: Sequence[Cluster]) -> Mean | None:
    """The mean of ``candidate`` over that of ``baseline``, resampled in pairs where both have the same clusters, such
    as one per prompt, else apart. None where one has no mean, or that of the baseline is 0."""
    if not candidate or not baseline or not sum(cluster.total for cluster in baseline):
        return None
    draw = random.Random(SEED)  # noqa: S311
    in_pairs = len(candidate) == len(baseline)
    ratios = []
    for _ in range(NUM_RESAMPLES):
        rows = draw.choices(range(len(baseline)), k=len(baseline))
        others = rows if in_pairs else draw.choices(range(len(candidate)), k=len(candidate))
        below = _mean([baseline[at] for at in rows])
        if below:
            ratios.append(_mean([candidate[at] for at in others]) / below)
    ratios.sort()
    low, high = (ratios[int(share * len(ratios))] for share in (LOW, HIGH))
    return Mean(_mean(candidate) / _mean(baseline), low, high, sum(cluster.size for cluster in candidate))


def value_at(ascending: Sequence[float], share: float) -> float:
    """The value below which such a ``share`` of them lies, 0 to 1: one of them, of the upper two where it lies between.
    There is at least one."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def _mean(clusters: Sequence[Cluster]) -> float:
    return sum(cluster.total for cluster in clusters) / max(1, sum(cluster.size for cluster in clusters))
