"""The options that ``run`` and ``bench`` share: models, trees, acceptance. Imports nothing heavy before it must."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from specscope.engine.drafters.names import parse_drafter
from specscope.engine.teacher.names import check_teacher_path
from specscope.engine.tree.policy import parse_policy, refuse_drawn
from specscope.tracer.errors import UsageError

if TYPE_CHECKING:
    from specscope.engine.load.models import ModelChoice

Command = TypeVar("Command", bound=Callable[..., Any])
#: The paper's words for the modes, as synonyms.
SYNONYMS = {"reference": "eager", "performance": "fused"}


#: The sections of a help text that lists the options below.
CHOICE_SECTIONS = {
    "Models": (
        *("teacher", "drafter", "mode", "attention", "dtype", "device"),
        *("allow_download", "allow_remote_code", "allow_nonfinite"),
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


device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "npu"]),
    default="auto",
    show_default=True,
    envvar="SPECSCOPE_DEVICE",
    show_envvar=True,
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
        help="eagle3[:PATH], ngram, early-exit[:PATH], model:PATH or none.",
    ),
    click.option(
        "--mode",
        type=click.Choice(["fused", "eager", "baseline", *SYNONYMS]),
        envvar="SPECSCOPE_MODE",
        show_envvar=True,
        help="fused (performance), eager (reference), or baseline: the teacher alone. Default: fused.",
    ),
    click.option(
        "--attention",
        type=click.Choice(["fused", "eager"]),
        envvar="SPECSCOPE_ATTENTION",
        show_envvar=True,
        help="The baseline's attention; without --mode it chooses the mode. Default: fused.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16", "float64"]),
        default="float32",
        show_default=True,
        envvar="SPECSCOPE_DTYPE",
        show_envvar=True,
    ),
    device_option,
    click.option("--allow-download", is_flag=True, help="Let transformers fetch a model id that is not cached."),
    click.option("--allow-remote-code", is_flag=True, help="Run code that a model's folder brings along."),
    click.option("--allow-nonfinite", is_flag=True, help="Run weights that hold NaN or infinity all the same."),
)

tree_options = _all(
    click.option(
        "--tree",
        default="dynamic",
        show_default=True,
        help="dynamic, chain, static:NAME (pair-6, bush-16, bush-25), or static:FILE, a JSON list of child-rank paths.",
    ),
    click.option("--depth", default=5, show_default=True, help="Deepest level of a tree, in edges from the root."),
    click.option("--top-k", default=4, show_default=True, help="Children a node, and nodes kept a level."),
    click.option("--budget", default=16, show_default=True, help="Drafted nodes a tree; the root is not one."),
)

rule_options = _all(
    click.option(
        "--temperature",
        type=click.FloatRange(min=0),
        default=0.0,
        show_default=True,
        help="0: greedy. Above: the output is drawn from the teacher's distribution, losslessly.",
    ),
    click.option("--sample-top-k", type=click.IntRange(min=1), help="Draw among the k best tokens alone."),
    click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Draw among the best of this mass."),
    click.option(
        "--draft-sampling", is_flag=True, help="Draw the drafts too; wants a tree of fixed shape. Default: the best."
    ),
    click.option("--typical", is_flag=True, help="Typical acceptance. Lossy: longer blocks, another distribution."),
    click.option("--repetition-penalty", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True),
    click.option("--min-new-tokens", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--no-repeat-ngram", type=click.IntRange(min=0), default=0, show_default=True, help="0: off."),
    click.option("--bad-words", multiple=True, help="Never emit this text's tokens in a row."),
)


def build_choice(
    *,
    teacher: str,
    drafter: str,
    mode: str | None,
    attention: Any,
    dtype: str,
    device: str,
    tree: str,
    depth: int,
    top_k: int,
    budget: int,
    temperature: float,
    sample_top_k: int | None,
    top_p: float | None,
    draft_sampling: bool,
    typical: bool,
    allow_download: bool,
    allow_remote_code: bool,
    allow_nonfinite: bool,
    **_: Any,
) -> ModelChoice:
    """The options as one choice.

    Raises:
        UsageError: where they contradict each other.
    """
    mode = SYNONYMS.get(mode, mode) if mode else attention or "fused"
    if mode != "baseline" and attention not in (None, mode):
        raise UsageError(f"got mode {mode} and attention {attention}: the mode says the attention; drop one of them")
    drawn = {"--sample-top-k": sample_top_k, "--top-p": top_p, "--draft-sampling": draft_sampling, "--typical": typical}
    if temperature == 0 and any(drawn.values()):
        given = ", ".join(name for name, value in drawn.items() if value)
        raise UsageError(f"got {given} with temperature 0, which draws nothing: give --temperature above 0")
    if typical and draft_sampling:
        raise UsageError("typical acceptance judges drafts one by one and draws none: drop --draft-sampling")
    policy = parse_policy(tree, depth, top_k, budget)
    if draft_sampling and mode != "baseline":
        refuse_drawn(policy)
    if teacher != "demo":
        check_teacher_path(teacher)
    if mode != "baseline":
        parse_drafter(drafter, teacher)

    # What could be said without torch has been said.
    from specscope.engine.accept.sampling import SamplingRule
    from specscope.engine.load.models import ModelChoice

    name: Any = "greedy" if temperature == 0 else "typical" if typical else "sampling"
    rule = SamplingRule(
        name,
        temperature=temperature or 1.0,
        top_k=sample_top_k,
        top_p=top_p,
        draft="sampled" if draft_sampling else "point-mass",
    )
    choice: Any = mode
    return ModelChoice(
        teacher,
        drafter,
        choice,
        dtype,
        device,
        policy,
        rule,
        attention or "fused",
        allow_remote_code,
        allow_download,
        allow_nonfinite,
    )
