"""A pipeline's stages in words: who holds which layers, where, and what carries hidden states between them."""

from __future__ import annotations

from specscope.schemas import Pipeline, PipelineStage


def stages_text(pipeline: Pipeline) -> str:
    """``2 stages: layers 0 to 3 on cuda:0, 4 to 9 on cuda:1; hidden states carried by nccl``."""
    stages = ", ".join(map(_stage, pipeline.stages))
    return f"{len(pipeline.stages)} stages: layers {stages}; hidden states {carried_text(pipeline)}"


def carried_text(pipeline: Pipeline) -> str:
    """``carried by gloo through the host's memory``; of the way only what the trace says."""
    return f"carried by {pipeline.backend}{THROUGH_HOST if pipeline.staged else ''}"


def _stage(stage: PipelineStage) -> str:
    where = f" on {stage.device}" if stage.device is not None else ""
    return f"{stage.first_layer} to {stage.last_layer}{where}"


THROUGH_HOST = " through the host's memory"
