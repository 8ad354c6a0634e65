"""What a pipeline's benchmark measures. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from specscope.engine.ppsd.choice import PipelineChoice
from specscope.engine.settings import ModelChoice, Settings

MODES = ("sequential", "head", "always", "never")
PATIENCE_S = 60  # of the stages with each other: a loaded machine is slow, and its times are said to say little


@dataclass(frozen=True, kw_only=True)
class PipelinePlan:
    """What is measured, how often, and where it goes."""

    num_stages: int = 2
    exit_layer: int | None = None  # None: the demo head's own
    untrained: bool = False  # no exit head: the teacher's norm reads the exit
    num_tokens: int = 64  # new ones, per prompt
    num_prompts: int = 4  # of the demo's
    num_rounds: int = 3
    plot: Path | None = None  # page to draw the speed-up on
    keep: Path | None = None  # folder for what is measured; what is there is not measured again

    @property
    def settings(self) -> Settings:
        """Of each rank's models."""
        drafter = "early-exit:untrained" if self.untrained else "early-exit"
        return Settings(choice=ModelChoice(drafter=drafter, device="cpu"), max_new_tokens=self.num_tokens)

    @property
    def choice(self) -> PipelineChoice:
        """Of the stages."""
        return PipelineChoice(num_stages=self.num_stages, exit_layer=self.exit_layer, patience_s=PATIENCE_S)
