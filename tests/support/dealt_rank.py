"""One of four ranks that deal batches among one, two and four of them. Started once per rank by ``gloo_ranks``.

The first rank writes, as JSON, what differed from the acceptance of all rows by one: it should be nothing.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from specscope.engine.accept.sampling import Coins, draw_coins
from specscope.engine.loop.phases import AcceptInputs, accept
from specscope.engine.parallel.acceptance import sharded
from specscope.engine.parallel.group import RankGroup
from specscope.engine.settings import GREEDY, SamplingRule
from support.gloo_ranks import join
from support.slow_acceptance import batch_of, random_case

RULES = {
    "greedy": GREEDY,
    "point-mass": SamplingRule("sampling"),
    "drawn": SamplingRule("sampling", draft="sampled"),
    "top-p": SamplingRule("sampling", temperature=0.8, top_p=0.9),
    "typical": SamplingRule("typical"),
}
BATCHES = (1, 2, 3, 4, 5, 7)


def inputs_of(num_rows: int, rule: SamplingRule, generators: list[torch.Generator]) -> AcceptInputs:
    """Random trees of as many rows, the same on every rank; each row's coins from its own generator."""
    rng = random.Random(num_rows)
    batch = batch_of([random_case(rng) for _ in range(num_rows)])
    coins = []
    for row, generator in enumerate(generators):
        drawn = draw_coins(generator, batch.tree.num_slots[row])
        missing = batch.tree.padded_slots - batch.tree.num_slots[row]
        coins.append(Coins(torch.nn.functional.pad(drawn.slots, (0, missing)), drawn.bonus))
    return AcceptInputs(
        tree=batch.tree,
        argmax=batch.target.argmax(dim=-1),
        logits=batch.target.log(),
        child_probs=batch.draft if rule.draft == "sampled" else None,
        coins=None if rule.rule == "greedy" else coins,
        rule=rule,
        max_children=4,
    )


def differing(ours: Any, wanted: Any) -> list[str]:
    """The names of the tensors that are not equal to the bit."""
    names = []
    for field in fields(wanted):
        a, b = getattr(ours, field.name), getattr(wanted, field.name)
        if isinstance(b, torch.Tensor):
            same = a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
            names += [] if same else [field.name]
        elif field.name == "trials" and b is not None:
            names += differing(a, b)
    return names


def main() -> None:
    rank, output = join(*sys.argv[1:4]), Path(sys.argv[4])
    groups = {size: dist.new_group(list(range(size))) for size in (1, 2, 4)}
    problems: list[str] = []
    for size, process_group in groups.items():
        if rank >= size:
            continue
        group = RankGroup.of(process_group)
        for num_rows in BATCHES:
            generators = [torch.Generator().manual_seed(row) for row in range(num_rows)]
            for name, rule in RULES.items():
                inputs = inputs_of(num_rows, rule, generators)
                wrong = differing(sharded(accept, group)(inputs), accept(inputs))
                states = [int(generator.get_state().sum()) for generator in generators]
                same_states = group.exchange(states) == [states] * size
                problems += [f"{size} ranks, {num_rows} rows, {name}: {wrong}, generators equal: {same_states}"] * (
                    bool(wrong) or not same_states
                )
    counts = RankGroup.of().exchange([len(problems)])
    if rank == 0:
        output.write_text(json.dumps({"problems": problems, "counts": counts}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
