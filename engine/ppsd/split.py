"""Which of the teacher's layers each stage holds. Knows no model and no torch.

The first stage holds the layers before the exit, whatever their number: a draft exists only after all of them, so that
finer cuts there would gain nothing. The layers after the exit are dealt evenly to the other stages, the earlier ones of
which get one more where they do not divide: the last stage has the output matrix to multiply as well.
"""

from __future__ import annotations

from specscope.tracer.errors import UsageError


def check_stages(num_stages: int) -> None:
    """Refuses a number of stages that cannot be a pipeline.

    Raises:
        UsageError: where it is below 2.
    """
    if num_stages < 2:
        raise UsageError(f"got {num_stages} stages, wanted at least 2: one drafts, the others verify")


def split_layers(num_layers: int, exit_layer: int, num_stages: int) -> list[range]:
    """The layers of each stage, in order; none is empty.

    Raises:
        UsageError: where the exit or the number of stages does not fit the number of layers.
    """
    check_stages(num_stages)
    if not 1 <= exit_layer < num_layers:
        raise UsageError(
            f"got exit layer {exit_layer}, wanted 1 to {num_layers - 1}, as the teacher has {num_layers} layers"
        )
    left = num_layers - exit_layer
    if num_stages - 1 > left:
        raise UsageError(
            f"got {num_stages} stages, wanted at most {left + 1}: {left} layers follow exit layer {exit_layer}, and "
            "each stage after the first needs one; give fewer stages or an earlier --exit-layer"
        )
    share, extra = divmod(left, num_stages - 1)
    stages, start = [range(exit_layer)], exit_layer
    for number in range(num_stages - 1):
        end = start + share + (number < extra)
        stages.append(range(start, end))
        start = end
    return stages
