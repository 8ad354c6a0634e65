"""What a pipelined run may be set to do besides the settings of every run, and what of those it refuses. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from specscope.engine.drafters.names import UNTRAINED, demo_exit_heads, parse_drafter, stated_number
from specscope.engine.ppsd.split import check_stages, split_layers
from specscope.engine.settings import DEMO_MODELS, NO_PROCESSORS, Settings
from specscope.tracer.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class PipelineChoice:
    """The pipeline that a run asks for."""

    num_stages: int
    exit_layer: int | None = None  # None: where the exit head was trained; of the demo's heads, the one after layer 4
    window: int | None = None  # items in flight at most; None: as many as pay, one per stage at most
    patience_s: float = 7.0  # without a sign of life, a stage counts as hung
    carrier: str | None = None  # of hidden states; None: what the stages' devices have

    def __post_init__(self) -> None:
        check_stages(self.num_stages)
        if self.window is not None and self.window < 1:
            raise UsageError(f"got a window of {self.window}, wanted at least 1 item in flight")
        if self.patience_s <= 0:
            raise UsageError(f"got a stage timeout of {self.patience_s:g} s, wanted more than 0")

    @property
    def items_in_flight(self) -> int:
        """At most."""
        return self.window if self.window is not None else self.num_stages


def check_settings(settings: Settings, choice: PipelineChoice) -> None:
    """Refuses what the pipeline cannot do.

    Raises:
        UsageError: naming it, and what to do.
    """
    model = settings.choice
    drafts = model.mode != "baseline"
    kind, path = parse_drafter(model.drafter, model.teacher) if drafts else ("none", "")
    refused = {
        f"drafter {model.drafter}": drafts and kind != "early-exit",
        f"batch size {settings.batch_size}": settings.batch_size != 1,
        f"--cache {settings.cache}": settings.cache != "dense",
        "typical acceptance": model.rule.rule == "typical",
        "--draft-sampling": model.rule.draft == "sampled",
        "logits processors": settings.processors != NO_PROCESSORS or bool(settings.bad_words),
        f"--tensor-parallel {model.num_ranks}": model.num_ranks > 1,
        f"--drafter-quantization {model.drafter_quantization}": model.drafter_quantization != "none",
        f"--drafter-window {model.drafter_window}": model.drafter_window is not None,
        f"--overlap {settings.overlap}": settings.overlap != "auto",
        "a grammar": settings.grammar is not None,
    }
    for what, is_refused in refused.items():
        if is_refused:
            raise UsageError(f"got {what} with --engine ppsd, which does not support it: {_INSTEAD}")
    if path == UNTRAINED and choice.exit_layer is None:
        raise UsageError("got drafter early-exit:untrained without a layer to exit after: give --exit-layer E")


def check_split(settings: Settings, choice: PipelineChoice) -> None:
    """Refuses a split that does not fit, as far as the configurations tell without torch: several processes would load
    for seconds first. What cannot be read here is refused where it is loaded.

    Raises:
        UsageError: where it does not fit.
    """
    model = settings.choice
    folder = DEMO_MODELS / "teacher" if model.teacher == "demo" else Path(model.teacher)
    num_layers = stated_number(folder / "config.json", "num_hidden_layers")
    trained = None
    if model.mode != "baseline" and (path := parse_drafter(model.drafter, model.teacher).path) != UNTRAINED:
        head = head_folder(path, choice.exit_layer)
        trained = stated_number(head / "config.json", "exit_layer")
        check_exit_layer(choice, trained, head)
    exit_layer = trained if trained is not None else choice.exit_layer
    if num_layers is not None and exit_layer is not None:
        split_layers(num_layers, exit_layer, choice.num_stages)


def head_folder(path: str, exit_layer: int | None) -> Path:
    """Where the exit head lies: at ``path``, or, where that is empty, among the demo's, the one after ``exit_layer``.

    Raises:
        UsageError: where the demo has none after that layer, naming those that it has.
    """
    if path:
        return Path(path)
    if exit_layer is None:
        return DEMO_MODELS / "exit_head"
    heads = demo_exit_heads()
    if exit_layer not in heads:
        raise UsageError(
            f"got --exit-layer {exit_layer}, but the demo has no exit head trained after that layer, only after "
            f"{', '.join(map(str, heads))}: give one of these, --drafter early-exit:PATH with a head of your own "
            f"(specscope train --teacher demo --exit-layer {exit_layer} trains one), or --drafter early-exit:untrained"
        )
    return heads[exit_layer]


def check_exit_layer(choice: PipelineChoice, trained: int | None, folder: Path) -> None:
    """Refuses a head that was trained for another exit than the one asked for.

    Raises:
        UsageError: naming both.
    """
    asked = choice.exit_layer
    if None not in (asked, trained) and asked != trained:
        raise UsageError(
            f"got --exit-layer {asked}, but the exit head at {folder} was trained after layer {trained}: leave the "
            "option out, or give --drafter early-exit:PATH with a head for it, or --drafter early-exit:untrained"
        )


_INSTEAD = (
    "it runs one conversation at a time with drafter early-exit, greedy or with --temperature; "
    "drop the option, or leave out --engine ppsd"
)
