"""The options that ``run`` and ``bench`` share: models, trees, acceptance. Imports nothing heavy before it must."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import click

from specscope.engine.cli.computing import SYNONYMS, all_of, computing_options
from specscope.engine.drafters.names import parse_drafter
from specscope.engine.settings import (
    ACCEPTANCES,
    DEFAULT_TREE,
    DRAFTER_NAMES,
    GREEDY,
    QUANTIZATIONS,
    TRACE_LEVELS,
    GraphChoice,
    ModelChoice,
    ProcessorChoice,
    SamplingRule,
    choose_attention,
)
from specscope.engine.teacher.names import check_teacher_path
from specscope.engine.tree.policy import AUTO_LIMIT, PRESETS, TreePolicy, auto_policy, parse_policy, refuse_drawn
from specscope.schemas import StepCosts
from specscope.tracer.cli.console import echo_words
from specscope.tracer.errors import UsageError
from specscope.tracer.files.profiles import HYSTERESIS, ProfileFile, read_profile
from specscope.tracer.files.reader import TraceReader

AUTO = "auto"
GRAPHS: dict[bool | None, GraphChoice] = {None: "auto", True: "on", False: "off"}
#: The sections of a help text that lists the options below.
CHOICE_SECTIONS = {
    "Models": (
        *("teacher", "drafter", "mode", "attention", "self_check", "graph", "products", "dtype", "device"),
        *("drafter_window", "drafter_quantization", "allow_download", "allow_remote_code", "allow_nonfinite"),
    ),
    "Draft tree": ("tree", "depth", "top_k", "budget", "costs", "profile", "hysteresis"),
    "Acceptance": ("temperature", "sample_top_k", "top_p", "draft_sampling", "block_verification", "typical"),
    "Logits processors": ("repetition_penalty", "min_new_tokens", "no_repeat_ngram", "bad_words"),
}


@cache
def warn_once(text: str) -> None:
    """A warning on standard error, the first time that it is given."""
    echo_words(f"warning: {text}", err=True)


class Budget(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # as above
    """A number of drafted nodes, or ``auto``."""

    name = "budget"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The number, or ``auto``."""
        return AUTO if value == AUTO else int(click.INT.convert(value, param, ctx))


BUDGET = Budget()
model_options = all_of(
    computing_options,
    click.option(
        "--teacher", default="demo", show_default=True, help="demo, a Hugging Face folder, or a cached model id."
    ),
    click.option(
        "--drafter",
        default="eagle3",
        show_default=True,
        envvar="SPECSCOPE_DRAFTER",
        show_envvar=True,
        help=", ".join(name + more for name, more in DRAFTER_NAMES.items()) + ".",
    ),
    click.option(
        "--drafter-window",
        type=click.IntRange(min=1),
        help="Pairs that each row of an eagle3 head sees at most, the last ones.  [default: all]",
    ),
    click.option(
        "--drafter-quantization",
        type=click.Choice(QUANTIZATIONS),
        default="none",
        show_default=True,
        help="Weights of an eagle3 head, on a CPU: all linear layers in int8, or those of its MLPs in int4 (int4-mlp).",
    ),
    click.option("--allow-download", is_flag=True, help="Let transformers download a model that is not in the cache."),
    click.option("--allow-remote-code", is_flag=True, help="Run code that comes with a model's folder."),
    click.option("--allow-nonfinite", is_flag=True, help="Run even if weights contain NaN or infinity."),
)

pipeline_options = all_of(
    click.option(
        "--engine",
        type=click.Choice(["tree", "ppsd"]),
        default="tree",
        show_default=True,
        help="tree: draft trees in this process. ppsd: a pipeline of processes that verifies while it drafts.",
    ),
    click.option("--stages", type=int, help="ppsd: processes, each with a part of the teacher's layers."),
    click.option("--exit-layer", type=int, help="ppsd: layers before the exit head.  [default: the head's own]"),
    click.option("--window", type=int, help="ppsd: tokens in flight at most.  [default: as many as pay]"),
    click.option(
        "--stage-timeout",
        type=float,
        help="ppsd: seconds without a sign of life after which a stage counts as hung.  [default: 7]",
    ),
    click.option(
        "--carrier",
        type=click.Choice(["gloo", "nccl", "hccl"]),
        help="ppsd: what carries hidden states; gloo: through the host's memory.  [default: by the stages' devices]",
    ),
)

rank_options = all_of(
    click.option(
        "--tensor-parallel",
        type=click.IntRange(min=1),
        metavar="N",
        default=1,
        show_default=True,
        help="Processes among which the teacher's weights are divided; each drafts and accepts by itself.",
    ),
    click.option(
        "--acceptance",
        type=click.Choice(ACCEPTANCES),
        default="replicated",
        show_default=True,
        help="With --tensor-parallel: every process accepts for all rows, or each for its share of a batch (sharded).",
    ),
)

tree_options = all_of(
    click.option(
        "--tree",
        default="dynamic",
        show_default=True,
        help=f"dynamic, chain, static:NAME ({', '.join(PRESETS)}), static:FILE, a JSON list of child-rank paths, or "
        "auto: one of a profile's shapes for each step.",
    ),
    click.option(
        "--depth",
        default=DEFAULT_TREE.depth,
        show_default=True,
        help="Deepest level of a tree, in edges from the root.",
    ),
    click.option(
        "--top-k", default=DEFAULT_TREE.top_k, show_default=True, help="Children per node, and nodes kept per level."
    ),
    click.option(
        "--budget",
        type=BUDGET,
        metavar="INTEGER|auto",
        default=DEFAULT_TREE.budget,
        show_default=True,
        help="Drafted nodes per tree; the root is not one. auto: as many as pay, by what a step takes on this device, "
        f"at most {AUTO_LIMIT}.",
    ),
    click.option(
        "--costs",
        type=click.Path(path_type=Path),
        metavar="TRACE",
        help="For --budget auto: the costs that this trace was recorded with, and not those of this device now.",
    ),
    click.option(
        "--profile",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="For --tree auto: what steps cost here and accept, as bench --calibrate measured it.",
    ),
    click.option(
        "--hysteresis",
        type=click.FloatRange(0, 1, max_open=True),
        default=HYSTERESIS,
        show_default=True,
        help="For --tree auto: the share by which another shape must promise more than the one before.",
    ),
)

trace_options = all_of(
    click.option(
        "--trace",
        type=click.Path(path_type=Path),
        envvar="SPECSCOPE_TRACE",
        show_envvar=True,
        help="Write a trace to this file.",
    ),
    click.option("--trace-level", type=click.Choice(TRACE_LEVELS), default="decisions", show_default=True),
    click.option("--trace-text", is_flag=True, help="Record text as well as token ids."),
    click.option(
        "--redact",
        metavar="KEY",
        envvar="SPECSCOPE_REDACT",
        show_envvar=True,
        help="Replace every token id in the trace by a permutation derived from this key; no text is recorded.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace an existing trace."),
)

rule_options = all_of(
    click.option(
        "--temperature",
        type=click.FloatRange(min=0),
        default=0.0,
        show_default=True,
        help="0: greedy. Above 0: draw the output from the teacher's distribution, losslessly.",
    ),
    click.option("--sample-top-k", type=click.IntRange(min=1), help="Draw only among the k best tokens."),
    click.option(
        "--top-p",
        type=click.FloatRange(0, 1, min_open=True),
        help="Draw only among the best tokens that together have this probability.",
    ),
    click.option(
        "--draft-sampling",
        is_flag=True,
        help="Draw the drafts too; requires a tree of fixed shape. Default: the drafter's best tokens.",
    ),
    click.option(
        "--block-verification",
        is_flag=True,
        help="Weigh a chain of drawn drafts as a whole: lossless, and accepts more. Requires --tree chain"
        " --draft-sampling.",
    ),
    click.option(
        "--typical",
        is_flag=True,
        help="Typical acceptance. Lossy: accepts more, but changes the distribution of the output.",
    ),
    click.option("--repetition-penalty", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True),
    click.option("--min-new-tokens", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--no-repeat-ngram", type=click.IntRange(min=0), default=0, show_default=True, help="0: off."),
    click.option("--bad-words", multiple=True, help="Never emit the tokens of this text one after another."),
)


def _policy(options: dict[str, Any], profile: ProfileFile | None) -> TreePolicy:
    budget, costs = options["budget"], options["costs"]
    if profile is not None:
        if options["tree"] != AUTO or budget == AUTO:
            raise UsageError(f"got --profile {profile.path}, wanted --tree auto with it, and no --budget auto")
        return auto_policy(profile.table(options["hysteresis"]))
    if budget != AUTO:
        if costs is not None:
            raise UsageError(f"got --costs {costs} and --budget {budget}, wanted --budget auto, which they are for")
        return parse_policy(options["tree"], options["depth"], options["top_k"], budget)
    policy = parse_policy(options["tree"], options["depth"], options["top_k"], AUTO_LIMIT)
    return replace(policy, sizing="measure" if costs is None else recorded_costs(costs))


def recorded_costs(path: Path) -> StepCosts:
    """What the trees of a trace were sized by.

    Raises:
        UsageError: where its trees were not sized by what they cost.
        TraceError: where it cannot be read.
    """
    with TraceReader(path) as reader:
        costs = reader.manifest.tree_policy.costs
    if costs is None:
        raise UsageError(f"{path} has no costs: wanted a trace that was recorded with --budget auto")
    return costs


def build_choice(**options: Any) -> ModelChoice:
    """What ``model_options``, ``tree_options`` and ``rule_options`` say, as one choice.

    Raises:
        UsageError: where they contradict each other.
    """
    given_mode = options["mode"]
    mode, baseline_attention, kernel = choose_attention(SYNONYMS.get(given_mode, given_mode), options["attention"])
    rule = _rule(options)
    profile = read_profile(options["profile"]) if options["profile"] is not None else None
    policy = _policy(options, profile)
    if options["teacher"] != "demo":
        check_teacher_path(options["teacher"])
    if mode != "baseline":
        parse_drafter(options["drafter"], options["teacher"])
        if rule.draft == "sampled":
            refuse_drawn(policy)
    return ModelChoice(
        teacher=options["teacher"],
        drafter=options["drafter"],
        mode=mode,
        dtype=options["dtype"],
        device=options["device"],
        policy=policy,
        rule=rule,
        baseline_attention=baseline_attention,
        kernel=kernel,
        self_check=options["self_check"],
        graph=GRAPHS[options["graph"]],
        products=options["products"],
        allow_remote_code=options["allow_remote_code"],
        allow_download=options["allow_download"],
        allow_nonfinite=options["allow_nonfinite"],
        drafter_window=options["drafter_window"],
        drafter_quantization=options["drafter_quantization"],
        profile=None if profile is None else profile.profile,
        num_ranks=options.get("tensor_parallel", 1),
    )


def build_processors(options: dict[str, Any]) -> ProcessorChoice:
    """What ``rule_options`` say of logits processors."""
    return ProcessorChoice(
        repetition_penalty=options["repetition_penalty"],
        min_new_tokens=options["min_new_tokens"],
        no_repeat_ngram=options["no_repeat_ngram"],
    )


def _rule(options: dict[str, Any]) -> SamplingRule:
    temperature, typical = options["temperature"], options["typical"]
    if temperature == 0:
        drawing = ("sample_top_k", "top_p", "draft_sampling", "block_verification", "typical")
        given = [f"--{name.replace('_', '-')}" for name in drawing if options[name]]
        if given:
            raise UsageError(
                f"got {', '.join(given)} with temperature 0, which draws nothing: give --temperature above 0"
            )
        return GREEDY
    if typical and options["draft_sampling"]:
        raise UsageError("typical acceptance judges drafts one by one and draws none: drop --draft-sampling")
    if typical and options["block_verification"]:
        raise UsageError("got --typical and --block-verification, which are two acceptance rules: drop one of them")
    return SamplingRule(
        "typical" if typical else "block" if options["block_verification"] else "sampling",
        temperature=temperature,
        top_k=options["sample_top_k"],
        top_p=options["top_p"],
        draft="sampled" if options["draft_sampling"] else "point-mass",
    )
