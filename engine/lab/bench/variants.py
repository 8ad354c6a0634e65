"""What can be compared: the ways to decode that each ``--compare`` names. The first is what the others are measured
against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

from specscope.engine.settings import CACHE_STRATEGIES, TRACE_LEVELS, ModelChoice, QuantizationName
from specscope.engine.tree.policy import (
    AUTO_LIMIT,
    PRESETS,
    TreePolicy,
    chain_policy,
    parse_policy,
    policy_of_shape,
)
from specscope.schemas.manifest import TraceLevel
from specscope.tracer.errors import UsageError


class Variant(NamedTuple):
    """One way to decode. The first of a comparison is what the others are measured against."""

    name: str
    choice: ModelChoice
    traced: TraceLevel | None = None  # at which level, where at all
    cache_strategy: str = "in-place"
    cache: str = "dense"
    batch_size: int = 1
    grammar: Literal["as-asked", "none"] = "as-asked"  # none: free, although a grammar was asked for


def _baseline(choice: ModelChoice) -> Variant:
    return Variant(name="baseline", choice=replace(choice, mode="baseline"))


def _modes(choice: ModelChoice) -> list[Variant]:
    return [
        _baseline(choice),
        Variant(name="eager", choice=replace(choice, mode="eager")),
        Variant(name="fused", choice=replace(choice, mode="fused")),
        Variant(name="fused, traced", choice=replace(choice, mode="fused"), traced="decisions"),
    ]


def _analysis(choice: ModelChoice) -> list[Variant]:
    return [
        Variant(name="baseline, eager", choice=replace(choice, mode="baseline", baseline_attention="eager")),
        Variant(name="eager", choice=replace(choice, mode="eager")),
    ]


def _strategies(choice: ModelChoice) -> list[Variant]:
    """Each on the dense cache, and the paged one, unless trees are sized by what a step costs on the dense one."""
    variants = [Variant(name=name, choice=choice, cache_strategy=name) for name in CACHE_STRATEGIES]
    if choice.policy.sizing is None and choice.policy.shapes is None:
        variants.append(Variant(name="paged", choice=choice, cache="paged"))
    return variants


def _trees(choice: ModelChoice) -> list[Variant]:
    depth, top_k = choice.policy.depth, choice.policy.top_k
    policies = {
        f"dynamic, budget {m}": TreePolicy(kind="dynamic", depth=depth, top_k=top_k, budget=m) for m in (4, 8, 16, 32)
    }
    auto = TreePolicy(kind="dynamic", depth=depth, top_k=top_k, budget=AUTO_LIMIT, sizing="measure")
    policies["dynamic, budget auto"] = auto
    policies |= {f"chain of {d}": chain_policy(d) for d in (3, 5)}
    policies |= {f"static:{name}": parse_policy(f"static:{name}", depth, top_k, 1) for name in PRESETS}
    drafted = [Variant(name=name, choice=replace(choice, policy=policy)) for name, policy in policies.items()]
    return [_baseline(choice), *drafted]


def _drafters(choice: ModelChoice) -> list[Variant]:
    names = ("eagle3", "ngram", "early-exit")
    trees = ("eagle3", "eagle3+ngram", "ngram", "early-exit")
    drafted = [Variant(name=name, choice=replace(choice, drafter=name)) for name in trees]
    chains = [
        Variant(name=f"{name}, chain", choice=replace(choice, drafter=name, policy=chain_policy(4))) for name in names
    ]
    return [_baseline(choice), *drafted, *chains]


def _quantizations(choice: ModelChoice) -> list[Variant]:
    """The drafter's weights as in its files, and quantised."""
    names: tuple[QuantizationName, ...] = get_args(QuantizationName)
    drafted = [
        Variant(name=f"quantization {name}", choice=replace(choice, drafter_quantization=name)) for name in names
    ]
    return [_baseline(choice), *drafted]


def _guided(choice: ModelChoice) -> list[Variant]:
    """Free and guided, without drafts and with them: what a grammar costs a token, and what it does to acceptance."""
    ways = {"baseline": replace(choice, mode="baseline"), choice.mode: choice}
    guided = [Variant(name=f"{name}, guided", choice=way) for name, way in ways.items()]
    free = [Variant(name=f"{name}, free", choice=way, grammar="none") for name, way in ways.items()]
    return [*guided, *free]


def _verifications(choice: ModelChoice) -> list[Variant]:
    """Chains of drawn drafts, verified token by token and as a block.

    Raises:
        UsageError: where ``choice`` drafts anything else.
    """
    if choice.policy.kind != "chain" or choice.rule.draft != "sampled":
        raise UsageError(
            "got --compare verification without chains of drawn drafts, which are all that can be verified as a block: "
            "give --tree chain --draft-sampling and a --temperature"
        )
    ways = {
        "token by token": replace(choice, rule=replace(choice.rule, rule="sampling")),
        "block": replace(choice, rule=replace(choice.rule, rule="block")),
    }
    return [_baseline(choice), *(Variant(name=name, choice=way) for name, way in ways.items())]


def _batches(choice: ModelChoice) -> list[Variant]:
    """In several rows: without drafts, and as ``choice`` says. Where that is a shape for each step, each shape is also
    tried by itself, in as many rows as were measured."""
    table = choice.policy.shapes
    ways = {"baseline": replace(choice, mode="baseline")}
    if table is None:
        ways[choice.mode] = choice
    else:
        drafting = (shape for shape in table.shapes if shape.kind != "none")
        ways |= {shape.name: replace(choice, policy=policy_of_shape(shape)) for shape in drafting}
        ways["auto"] = choice
    sizes = (1, 2, 4) if table is None else table.all_rows
    return [
        Variant(name=f"{name}, {size} rows", choice=way, batch_size=size)
        for name, way in ways.items()
        for size in sizes
    ]


def _overhead(choice: ModelChoice) -> list[Variant]:
    variants = []
    for mode in ("fused", "eager"):
        plain = Variant(name=mode, choice=replace(choice, mode=mode))
        traced = [plain._replace(name=f"{mode}, {level}", traced=level) for level in TRACE_LEVELS]
        variants += [plain, *traced]
    return variants


#: What can be compared, by the name that ``--compare`` gives it.
COMPARISONS: dict[str, Callable[[ModelChoice], list[Variant]]] = {
    "modes": _modes,
    "analysis": _analysis,
    "cache-strategies": _strategies,
    "trees": _trees,
    "drafters": _drafters,
    "drafter-quantization": _quantizations,
    "batch": _batches,
    "overhead": _overhead,
    "guided": _guided,
    "verification": _verifications,
}


class Sweep(NamedTuple):
    """One setting at several values, beside the baseline."""

    values: tuple[int | None, ...]  # where none are given; None switches the setting off, where it can be off
    changed: Callable[[ModelChoice, int | None], ModelChoice]


def _with_budget(choice: ModelChoice, budget: int | None) -> ModelChoice:
    _check_swept(choice, "budget", budget)
    return replace(choice, policy=replace(choice.policy, budget=budget or 0))


def _with_depth(choice: ModelChoice, depth: int | None) -> ModelChoice:
    if choice.policy.kind == "chain" and depth is not None:
        return replace(choice, policy=chain_policy(depth))
    _check_swept(choice, "depth", depth)
    return replace(choice, policy=replace(choice.policy, depth=depth or 0))


def _with_window(choice: ModelChoice, window: int | None) -> ModelChoice:
    return replace(choice, drafter_window=window)


def _check_swept(choice: ModelChoice, name: str, value: int | None) -> None:
    if value is None:
        raise UsageError(f"got {name} none, wanted a number: every tree has one")
    if choice.policy.kind != "dynamic":
        raise UsageError(f"got a {choice.policy.kind} tree, whose shape gives its {name}: sweep it with --tree dynamic")


#: Settings that ``--compare`` sweeps. ``--values`` gives others.
SWEEPS: dict[str, Sweep] = {
    "budget": Sweep((4, 8, 16, 32), _with_budget),
    "depth": Sweep((2, 3, 5, 7), _with_depth),
    # 128 to 512 for answers of hundreds of tokens; the demo's contexts have 50 to 250.
    "drafter-window": Sweep((16, 32, 64, None), _with_window),
}
NAMES = (*COMPARISONS, *SWEEPS)


def variants_of(name: str, choice: ModelChoice, values: Sequence[int | None] | None = None) -> list[Variant]:
    """The variants that the comparison ``name`` decodes by, made from ``choice``.

    Args:
        values: those of a sweep; None for the ones that it has.

    Raises:
        UsageError: where a value cannot be set, is given twice, or values are given to what is not a sweep.
    """
    if name in COMPARISONS:
        if values is not None:
            raise UsageError(f"got values to compare {name}, which has none: they are for {', '.join(SWEEPS)}")
        return COMPARISONS[name](choice)
    sweep = SWEEPS[name]
    swept = tuple(sweep.values if values is None else values)
    if len(set(swept)) < len(swept):
        raise UsageError("got a value twice: give each of them once")
    drafted = [
        Variant(name=f"{name} {'none' if value is None else value}", choice=sweep.changed(choice, value))
        for value in swept
    ]
    return [_baseline(choice), *drafted]
