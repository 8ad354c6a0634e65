"""How fast the pipeline is beside sequential decoding on the same stages, and beside what is possible on paper.

    python -m benchmarks.ppsd --stages 2
    python -m benchmarks.ppsd --stages 2 --exit-layer 5 --untrained --tokens 96
    python -m benchmarks.ppsd --stages 2 --keep measured

``specscope bench --suite ppsd`` measures the same, on two stages with the demo's exit head. Each prompt is decoded in
turn, in the same processes: sequentially, with the exit head, with drafts that always hold, and with drafts that never
do; then by the whole teacher in the first process. So every ratio is of the same minutes. The costs of stages, head,
hops and words are medians of what the stages recorded meanwhile. From them come the closed form and the simulation,
also for more stages than this machine has cores; the share of drafts that must hold there for the pipeline to be as
fast as EAGLE-3 in one process, which is measured on the same prompts; and draft-then-verify.

With ``--keep FOLDER``, each prompt of each round is put there as soon as it is measured, and is not measured again.
Times of another machine or another state of the code do not belong into the same folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from specscope.engine.lab.bench.pipeline.plan import PipelinePlan
from specscope.engine.lab.bench.pipeline.ranks import run_plan
from specscope.tracer.errors import SpecScopeError


def main() -> None:
    """Launches the ranks, or is one of them."""
    try:
        run_plan(_plan(), ["-m", "benchmarks.ppsd", *sys.argv[1:]])
    except SpecScopeError as error:
        sys.exit(f"error: {error}")


def _plan() -> PipelinePlan:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--exit-layer", type=int)
    parser.add_argument("--untrained", action="store_true", help="no exit head: the teacher's norm reads the exit")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens per prompt")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="page to draw the speed-up on")
    parser.add_argument("--keep", type=Path, help="folder for what is measured; what is there is not measured again")
    options = parser.parse_args()
    return PipelinePlan(
        num_stages=options.stages,
        exit_layer=options.exit_layer,
        untrained=options.untrained,
        num_tokens=options.tokens,
        num_prompts=options.prompts,
        num_rounds=options.rounds,
        plot=options.plot,
        keep=options.keep,
    )


if __name__ == "__main__":
    main()
