"""Line 1 of a trace: from settings and models to the manifest, and from a manifest back to settings."""

from __future__ import annotations

import platform
from dataclasses import fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import NamedTuple, cast, get_args

import torch

from specscope.engine.accept.processors import Processors
from specscope.engine.backends.devices import device_section
from specscope.engine.digests import digest_parameters
from specscope.engine.drafters.base import Drafter
from specscope.engine.guided.grammar import LIBRARY, Grammar
from specscope.engine.load.decoding import graph_policy
from specscope.engine.loop.stopping import StopRules
from specscope.engine.ranks.group import carrier_of
from specscope.engine.settings import (
    QUANTIZATIONS,
    GraphChoice,
    ModelChoice,
    ProcessorChoice,
    ProductsChoice,
    QuantizationName,
    SamplingRule,
    Settings,
    choose_attention,
)
from specscope.engine.teacher.model import Teacher
from specscope.engine.tree.policy import TreePolicy as GrowthPolicy
from specscope.engine.tree.policy import static_policy
from specscope.schemas import SCHEMA_VERSION, Manifest, Sampling, TensorParallel, TreePolicy
from specscope.schemas import StopRules as StopRulesManifest
from specscope.schemas.manifest import Kernel, Mode, SelfCheck, TraceLevel
from specscope.tracer.errors import UsageError

CAPABILITIES = [
    "draft",
    "tree",
    "tensors",
    "verify",
    "accept",
    "commit",
    "commit.source_checksums",
    "commit.prefix_before",
    "stop",
    "invariants",
    "timing",
]


class RunFacts(NamedTuple):
    """What line 1 tells of a run besides its models."""

    settings: Settings
    level: TraceLevel
    rules: StopRules  # with the ids that end a turn
    processors: Processors | None  # as built; their description is recorded
    grammar: Grammar | None = None  # as compiled


def build_manifest(run_id: str, facts: RunFacts, teacher: Teacher, drafter: Drafter) -> Manifest:
    """Line 1 of the trace."""
    settings = facts.settings
    choice = settings.choice
    drafts_by_shape = choice.policy.shapes is not None and choice.drafter_source != "none"
    policy = choice.policy if drafts_by_shape else drafter.policy
    return Manifest(
        seq=0,
        schema=str(SCHEMA_VERSION),
        run_id=run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        engine=f"specscope {version('specscope')}",
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
            **({LIBRARY: version(LIBRARY)} if facts.grammar is not None else {}),
        },
        mode=choice.mode,
        attention=choice.attention,
        kernel=_kernel(choice, teacher),
        graph=_graph(settings, teacher),
        products=teacher.products.runs if teacher.products is not None else None,
        dtype=choice.dtype,
        device=device_section(teacher.device),
        teacher=teacher.manifest().model_copy(
            update={"source": choice.teacher or None, "parameters": _parameters(teacher)}
        ),
        drafter=drafter.manifest().model_copy(
            update={
                "source": choice.drafter_source or None,
                "quantization": None if drafter.module is None else choice.drafter_quantization,
                "parameters": _own_parameters(drafter),
            }
        ),
        tokenizer=teacher.tokenizer_manifest(),
        tree_policy=TreePolicy(
            kind=policy.kind,
            depth=policy.depth,
            top_k=policy.top_k,
            budget=policy.budget,
            name=policy.name,
            choices=[list(node) for node in policy.choices] or None,
            adaptive=_drafts_fewer(drafter),
            costs=policy.costs,
            shapes=policy.shapes,
        ),
        sampling=_sampling(facts),
        grammar=None if facts.grammar is None else facts.grammar.manifest(),
        stop_rules=StopRulesManifest(
            max_new_tokens=facts.rules.max_new_tokens,
            eos_token_ids=facts.rules.eos_token_ids,
            stop_strings=facts.rules.stop_strings,
        ),
        cache_strategy=settings.cache_strategy,
        cache=settings.cache,
        block_size=settings.paged_by,
        tensor_parallel=_tensor_parallel(settings, teacher),
        batch_size=settings.batch_size if settings.batch_size > 1 else None,
        arrivals_clock=None if settings.arrivals_clock == "steps" else settings.arrivals_clock,
        seed=settings.seed,
        level=facts.level,
        capabilities=CAPABILITIES
        + ["verify.windows"] * (teacher.sliding_windows is not None)
        + ["verify.block_table", "commit.blocks"] * (settings.paged_by is not None)
        + ["shape"] * drafts_by_shape
        + ["guided"] * (facts.grammar is not None)
        + ["ranks"] * (teacher.plan is not None),
        fault=settings.fault,
    )


def _kernel(choice: ModelChoice, teacher: Teacher) -> Kernel | None:
    """What the teacher computes attention by, as far as it is known to be what the settings ask for."""
    chosen = teacher.attention
    if chosen is not None and chosen.asked == choice.attention:
        return chosen.manifest()
    if choice.self_check or choice.attention == "eager":
        return None
    return Kernel(name=choice.attention, self_check=SelfCheck(outcome="skipped"))


def _parameters(teacher: Teacher) -> dict[str, str]:
    """Digests of the teacher's; where it is divided, those that all ranks took together when they loaded it."""
    return digest_parameters(teacher.model) if teacher.parameters is None else teacher.parameters


def _tensor_parallel(settings: Settings, teacher: Teacher) -> TensorParallel | None:
    if teacher.plan is None:
        return None
    return TensorParallel(
        world_size=settings.choice.num_ranks,
        plan=teacher.plan,
        backend=carrier_of(teacher.device.type),
        acceptance=settings.acceptance,
    )


def _graph(settings: Settings, teacher: Teacher) -> str:
    policy = graph_policy(settings, teacher)
    return "none" if policy is None else policy.graphs.kind


def _own_parameters(drafter: Drafter) -> dict[str, str] | None:
    """Of the drafter's own module; None where it has none."""
    module = drafter.module
    return None if module is None else digest_parameters(module)


def _drafts_fewer(drafter: Drafter) -> bool | None:
    """Whether a step may draft less than the policy allows, as a lookup that finds little; None: nothing is drafted."""
    kind = drafter.manifest().kind
    return None if kind == "none" else kind == "ngram" or drafter.policy.costs is not None


def _sampling(facts: RunFacts) -> Sampling:
    rule = facts.settings.choice.rule
    processors = facts.processors.described if facts.processors is not None else None
    if rule.rule == "greedy":
        return Sampling(rule="greedy", lossless=True, processors=processors)
    typical = rule.rule == "typical"
    return Sampling(
        rule=rule.rule,
        lossless=rule.lossless,
        temperature=rule.temperature,
        top_k=rule.top_k,
        top_p=rule.top_p,
        draft=rule.draft,
        epsilon=rule.epsilon if typical else None,
        delta=rule.delta if typical else None,
        processors=processors,
    )


def _mode_of(manifest: Manifest) -> Mode:
    for mode in get_args(Mode):
        if mode == manifest.mode:
            return cast(Mode, mode)
    raise UsageError(f"got mode {manifest.mode[:80]!r}, wanted {', '.join(get_args(Mode))}: another engine's run")


def settings_of(manifest: Manifest) -> Settings:
    """The settings that a run was recorded with; what was chosen by itself comes back as what was chosen. A model
    whose source the manifest does not name is the empty text; without stop rules, the length is the default one. What
    several ranks computed comes back as a run of one process.

    Raises:
        UsageError: where the manifest names what no settings have a word for.
    """
    if manifest.pipeline is not None:
        raise UsageError(
            "the run was made by --engine ppsd, whose stages cannot be run again from a trace: run the command anew, "
            "or compare the trace with one of the tree engine by specscope diff"
        )
    if manifest.grammar is not None:
        raise UsageError(
            f"the run was guided by a {manifest.grammar.kind}, of which a trace holds only the digest, so that its "
            "steps cannot be run again from it: decode its prompts anew with the same grammar, and compare the traces "
            "with specscope diff"
        )
    rules = manifest.stop_rules
    attention = choose_attention(None, manifest.attention)
    check = manifest.kernel.self_check if manifest.kernel is not None else None
    settings = Settings(
        choice=ModelChoice(
            teacher=manifest.teacher.source or "",
            drafter="none" if manifest.drafter.kind == "none" else manifest.drafter.source or "",
            mode=_mode_of(manifest),
            dtype=manifest.dtype,
            device=manifest.device.backend,
            policy=_policy_of(manifest.tree_policy),
            rule=_rule_of(manifest.sampling),
            baseline_attention=attention.baseline_attention,
            kernel=attention.kernel,
            self_check=check is None or check.outcome != "skipped",
            graph=_graph_choice(manifest.graph),
            products=_products_choice(manifest.products),
            drafter_window=(manifest.drafter.settings or {}).get("window"),
            drafter_quantization=_quantization_of(manifest),
        ),
        batch_size=manifest.batch_size or 1,
        arrivals_clock=manifest.arrivals_clock or "steps",
        cache_strategy=manifest.cache_strategy or "in-place",
        cache=manifest.cache or "dense",
        block_size=manifest.block_size,
        processors=_processors_of(manifest.sampling),
        seed=manifest.seed,
        fault=manifest.fault,
    )
    if rules is None:
        return settings
    return replace(settings, max_new_tokens=rules.max_new_tokens, stop_strings=tuple(rules.stop_strings))


def _quantization_of(manifest: Manifest) -> QuantizationName:
    recorded = manifest.drafter.quantization or "none"
    for name in get_args(QuantizationName):
        if name == recorded:
            return cast(QuantizationName, name)
    raise UsageError(
        f"got a drafter with quantization {recorded[:80]!r}, wanted {', '.join(QUANTIZATIONS)}: another engine's run"
    )


def _graph_choice(recorded: str | None) -> GraphChoice:
    if recorded is None:
        return "auto"
    return "off" if recorded == "none" else "on"


def _products_choice(recorded: str | None) -> ProductsChoice:
    known: dict[str | None, ProductsChoice] = {"plain": "plain", "packed": "packed"}
    return known.get(recorded, "auto")


def _policy_of(recorded: TreePolicy) -> GrowthPolicy:
    if recorded.choices is not None and (recorded.kind == "static" or recorded.kind == "chain"):
        return static_policy(recorded.choices, recorded.name or recorded.kind, recorded.kind)
    return GrowthPolicy(
        kind=recorded.kind,
        depth=recorded.depth,
        top_k=recorded.top_k,
        budget=recorded.budget,
        name=recorded.name,
        sizing=recorded.costs,
        shapes=recorded.shapes,
    )


def _rule_of(recorded: Sampling) -> SamplingRule:
    names = ("temperature", "top_k", "top_p", "epsilon", "delta", "draft")
    if recorded.rule == "match":
        raise UsageError("the run drew at every node and accepted what matched, which this engine does not")
    if recorded.rule == "unknown":
        raise UsageError("the trace does not say how its run accepted tokens: it was not written by this engine")
    stated = {name: getattr(recorded, name) for name in names if getattr(recorded, name) is not None}
    return SamplingRule(recorded.rule, **stated)


def _processors_of(recorded: Sampling) -> ProcessorChoice:
    described = recorded.processors or {}
    strange = sorted(described.keys() - {field.name for field in fields(ProcessorChoice)})
    if strange:
        raise UsageError(f"the run changed its logits by {strange[0]}, which cannot be built from a trace")
    return ProcessorChoice(**described)
