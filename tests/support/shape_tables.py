"""Tables of shapes and profiles, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specscope.engine.tree.policy import PRESETS
from specscope.schemas import LoadTimes, Manifest, ShapeTable, TreeShape
from specscope.schemas.profile import AcceptedAt, MeasuredShape, MeasuredStep, Profile, ProfiledTexts, Spread

NONE, CHAIN, BUSH = "none", "chain-3", "bush-16"


def shape(number: int, tokens: float) -> TreeShape:
    """The shape of that number: none, then chains, each one node longer."""
    if number == 0:
        return TreeShape(name=NONE, kind="none", depth=0, top_k=0, budget=0, tokens_per_step=tokens)
    depth = number + 2
    return TreeShape(
        name=f"chain-{depth}",
        kind="chain",
        depth=depth,
        top_k=1,
        budget=depth,
        choices=[[0] * length for length in range(1, depth + 1)],
        tokens_per_step=tokens,
    )


def table(times: Mapping[tuple[int, int], Sequence[float]], tokens: Sequence[float], hysteresis: float) -> ShapeTable:
    """A table of as many shapes as ``tokens``, with the times of each by rows and context."""
    return ShapeTable(
        profile="0" * 32,
        hysteresis=hysteresis,
        shapes=[shape(number, each) for number, each in enumerate(tokens)],
        loads=[
            LoadTimes(rows=rows, context=context, step_ms=list(ms)) for (rows, context), ms in sorted(times.items())
        ],
    )


def falling(hysteresis: float = 0.05) -> ShapeTable:
    """A bush pays for one row, a chain for two, and nothing for three."""
    chains = table({(1, 10): [10, 10, 10], (2, 10): [10, 12, 40], (3, 10): [10, 60, 90]}, [1.0, 2.0, 3.0], hysteresis)
    choices = PRESETS[BUSH]
    bush = TreeShape(
        name=BUSH,
        kind="static",
        depth=max(map(len, choices)),
        top_k=1 + max(max(node) for node in choices),
        budget=len(choices),
        choices=choices,
        tokens_per_step=3.0,
    )
    return chains.model_copy(update={"shapes": [*chains.shapes[:2], bush]})


def profile_of(
    manifest: Manifest, loads: Sequence[tuple[int, int]] = ((1, 50), (1, 150), (4, 50), (4, 150))
) -> Profile:
    """A profile of a run's models, in which every time is a sum that ``step_ms`` computes."""
    shapes = [shape(number, 1 + number / 2) for number in range(3)]
    return Profile(
        created="2026-01-01T00:00:00+00:00",
        engine=manifest.engine,
        versions=manifest.versions,
        device=manifest.device,
        mode="fused",
        attention=manifest.attention,
        dtype=manifest.dtype,
        graph="none",
        cache_strategy="in-place",
        teacher=manifest.teacher,
        drafter=manifest.drafter,
        sampling=manifest.sampling,
        texts=ProfiledTexts(name="none", digest="0" * 32),
        rounds=3,
        shapes=[MeasuredShape(**each.model_dump(), num_samples=3, deviation=0.5) for each in shapes],
        steps=[_measured(each, rows, context) for rows, context in loads for each in shapes],
        acceptance=[AcceptedAt(depth=1, rank=0, tried=9, accepted=4)],
    )


def step_ms(depth: int, budget: int, rows: int, context: int) -> float:
    """What a step takes by ``profile_of``: in all of these numbers along a line."""
    return (2 + depth) + rows * (budget + 1) + context / 10 + REST


REST = 1.5


def _measured(each: TreeShape, rows: int, context: int) -> MeasuredStep:
    def always(ms: float) -> Spread:
        return Spread(median_ms=ms, low_ms=ms, high_ms=ms)

    return MeasuredStep(
        shape=each.name,
        rows=rows,
        context=context,
        num_samples=3,
        step=always(step_ms(each.depth, each.budget, rows, context)),
        draft=always(2 + each.depth),
        verify=always(rows * (each.budget + 1) + context / 10),
    )
