"""The options that ``run`` and ``bench`` share: models, trees, acceptance. Imports nothing heavy before it must."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import click

from specscope.engine.backends.kernels import BUILT_IN, check_kernel_name
from specscope.engine.drafters.names import parse_drafter
from specscope.engine.settings import (
    DEFAULT_TREE,
    DRAFTER_NAMES,
    DTYPE_NAMES,
    GREEDY,
    MODES,
    ModelChoice,
    ProcessorChoice,
    SamplingRule,
    check_device_name,
    choose_attention,
)
from specscope.engine.teacher.names import check_teacher_path
from specscope.engine.tree.policy import PRESETS, parse_policy, refuse_drawn
from specscope.tracer.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])
#: The paper's words for the modes, as synonyms.
SYNONYMS = {"reference": "eager", "performance": "fused"}


#: The sections of a help text that lists the options below.
CHOICE_SECTIONS = {
    "Models": (
        *("teacher", "drafter", "mode", "attention", "self_check", "dtype", "device"),
        *("drafter_window", "allow_download", "allow_remote_code", "allow_nonfinite"),
    ),
    "Draft tree": ("tree", "depth", "top_k", "budget"),
    "Acceptance": ("temperature", "sample_top_k", "top_p", "draft_sampling", "typical"),
    "Logits processors": ("repetition_penalty", "min_new_tokens", "no_repeat_ngram", "bad_words"),
}


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@cache
def warn_once(text: str) -> None:
    """A warning on standard error, the first time that it is given."""
    click.echo(f"warning: {text}", err=True)


class DeviceName(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """A device by its name; whether it is there is found out where torch is loaded."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, refused where it can be none."""
        check_device_name(str(value))
        return str(value)


class AttentionName(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # as above
    """``eager``, ``fused``, or the name of a kernel."""

    name = "attention"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, refused where there can be no such kernel."""
        if value not in BUILT_IN:
            check_kernel_name(str(value))
        return str(value)


DEVICE = DeviceName()
ATTENTION_NAME = AttentionName()
device_option = click.option(
    "--device",
    type=DEVICE,
    metavar="NAME",
    default="auto",
    show_default=True,
    envvar="SPECSCOPE_DEVICE",
    show_envvar=True,
    help="cpu, cuda, cuda:1, npu, mps, or another device that torch knows by name.",
)
self_check_option = click.option(
    "--no-self-check",
    "self_check",
    flag_value=False,
    default=True,
    help="Run the kernel without comparing it with the eager attention first.",
)

model_options = _all(
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
        "--mode",
        type=click.Choice([*MODES, *SYNONYMS]),
        envvar="SPECSCOPE_MODE",
        show_envvar=True,
        help="fused (performance), eager (reference), or baseline: no drafts, only the teacher. Default: fused.",
    ),
    click.option(
        "--attention",
        type=ATTENTION_NAME,
        metavar="NAME",
        envvar="SPECSCOPE_ATTENTION",
        show_envvar=True,
        help="eager, fused, or a kernel of your own: MODULE:FUNCTION, or an installed name. Without --mode it chooses "
        "the mode. Default: fused.",
    ),
    self_check_option,
    click.option(
        "--dtype",
        type=click.Choice(DTYPE_NAMES),
        default="float32",
        show_default=True,
        envvar="SPECSCOPE_DTYPE",
        show_envvar=True,
    ),
    device_option,
    click.option(
        "--drafter-window",
        type=click.IntRange(min=1),
        help="Pairs that each row of an eagle3 head sees at most, the last ones.  [default: all]",
    ),
    click.option("--allow-download", is_flag=True, help="Let transformers download a model that is not in the cache."),
    click.option("--allow-remote-code", is_flag=True, help="Run code that comes with a model's folder."),
    click.option("--allow-nonfinite", is_flag=True, help="Run even if weights contain NaN or infinity."),
)

tree_options = _all(
    click.option(
        "--tree",
        default="dynamic",
        show_default=True,
        help=f"dynamic, chain, static:NAME ({', '.join(PRESETS)}), or static:FILE, a JSON list of child-rank paths.",
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
        "--budget", default=DEFAULT_TREE.budget, show_default=True, help="Drafted nodes per tree; the root is not one."
    ),
)

rule_options = _all(
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
        "--typical",
        is_flag=True,
        help="Typical acceptance. Lossy: accepts more, but changes the distribution of the output.",
    ),
    click.option("--repetition-penalty", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True),
    click.option("--min-new-tokens", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--no-repeat-ngram", type=click.IntRange(min=0), default=0, show_default=True, help="0: off."),
    click.option("--bad-words", multiple=True, help="Never emit the tokens of this text one after another."),
)


def build_choice(**options: Any) -> ModelChoice:
    """What ``model_options``, ``tree_options`` and ``rule_options`` say, as one choice.

    Raises:
        UsageError: where they contradict each other.
    """
    given_mode = options["mode"]
    mode, baseline_attention, kernel = choose_attention(SYNONYMS.get(given_mode, given_mode), options["attention"])
    rule = _rule(options)
    policy = parse_policy(options["tree"], options["depth"], options["top_k"], options["budget"])
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
        allow_remote_code=options["allow_remote_code"],
        allow_download=options["allow_download"],
        allow_nonfinite=options["allow_nonfinite"],
        drafter_window=options["drafter_window"],
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
        drawing = ("sample_top_k", "top_p", "draft_sampling", "typical")
        given = [f"--{name.replace('_', '-')}" for name in drawing if options[name]]
        if given:
            raise UsageError(
                f"got {', '.join(given)} with temperature 0, which draws nothing: give --temperature above 0"
            )
        return GREEDY
    if typical and options["draft_sampling"]:
        raise UsageError("typical acceptance judges drafts one by one and draws none: drop --draft-sampling")
    return SamplingRule(
        "typical" if typical else "sampling",
        temperature=temperature,
        top_k=options["sample_top_k"],
        top_p=options["top_p"],
        draft="sampled" if options["draft_sampling"] else "point-mass",
    )
