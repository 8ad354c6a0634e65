"""One of two ranks that decode with a tiny teacher divided between them. Started once per rank by ``gloo_ranks``.

Each scenario is a run of the same prompts; the first rank writes its trace, and what it ended with, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

from specscope.engine.lab.faults import find_fault, injecting
from specscope.engine.load.models import load_models
from specscope.engine.loop.agreement import RanksDifferError
from specscope.engine.parallel.group import RankGroup
from specscope.engine.parallel.rank import together
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import GREEDY, ModelChoice, SamplingRule, Settings
from support.gloo_ranks import join
from support.tiny_models import POLICY

PROMPTS = [Prompt(f"p{number}", ids=tuple(range(3 + number, 12 + 2 * number))) for number in range(3)]
TOKENS = 14
DRAWN = SamplingRule("sampling", temperature=0.9, top_k=20)
#: By name: the rule, and what else of the settings is not the default.
SCENARIOS: dict[str, tuple[SamplingRule, dict[str, Any]]] = {
    "greedy": (GREEDY, {"batch_size": 3}),
    "drawn": (DRAWN, {"batch_size": 3}),
    "sharded": (DRAWN, {"batch_size": 3, "acceptance": "sharded"}),
    "paged": (GREEDY, {"cache": "paged", "block_size": 4}),
    "F40.generator": (DRAWN, {"fault": "F40.generator"}),
    "F40.tie": (GREEDY, {"fault": "F40.tie"}),
    "F40.draft": (GREEDY, {"fault": "F40.draft", "batch_size": 3}),
}


def settings_of(name: str, teacher: str, head: str, num_ranks: int) -> Settings:
    """Of a scenario, with the tiny models of these folders; one process has no shares."""
    rule, more = SCENARIOS[name]
    more = {setting: value for setting, value in more.items() if num_ranks > 1 or setting != "acceptance"}
    choice = ModelChoice(
        teacher=teacher, drafter=f"eagle3:{head}", device="cpu", policy=POLICY, rule=rule, num_ranks=num_ranks
    )
    return Settings(choice=choice, max_new_tokens=TOKENS, seed=7, **more)


def main() -> None:
    rank, (teacher, head, folder) = join(*sys.argv[1:4]), sys.argv[4:]
    group, ended = RankGroup.of(), {}
    models = load_models(settings_of("greedy", teacher, head, group.size).choice)
    for name in SCENARIOS:
        settings = settings_of(name, teacher, head, group.size)
        target = TraceTarget(Path(folder) / f"{name}.jsonl") if rank == 0 else None
        request = RunRequest(settings, PROMPTS, target)
        faulty = injecting(None if settings.fault is None else find_fault(settings.fault))
        ranked = together(settings, group)
        try:
            writer = open_trace(request, models)
            for _ in run_turns(request, models, writer, change=lambda w, f=faulty, r=ranked: r(f(w))):  # type: ignore[misc]
                pass
            ended[name] = ""
        except RanksDifferError as error:
            ended[name] = str(error)
    (Path(folder) / f"ended-{rank}.json").write_text(json.dumps(ended))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
