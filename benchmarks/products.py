"""How much of a step are matrix products: what remains of it however little surrounds them.

    python -m benchmarks.products [--limit N] [--steps N] [--rounds N] [--threads N] [--products plain|packed]

The products of some steps, each with its own weights and in its own order, are noted while a turn is decoded; then the
same steps and the noted products alone are timed in turn. Weights come from memory in both, so that what is left of a
step besides its products is all that fewer calls, fewer frames and fused kernels could ever save.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import click
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from specscope.engine.lab.bench.suites import SUITES, load_suite, sample
from specscope.engine.load.models import Models, load_models
from specscope.engine.loop.phases import Decoding
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.loop.turns import TurnRequest
from specscope.engine.settings import DEFAULT_TREE, ModelChoice
from specscope.engine.tree.policy import TreePolicy

MODES: tuple[Literal["baseline"], Literal["fused"]] = ("baseline", "fused")


#: The operations that multiply by a layer's weights: torch's own, and oneDNN's by packed ones.
MULTIPLYING = (torch.ops.aten.linear.default, torch.ops.mkldnn._linear_pointwise.default)


class Product(NamedTuple):
    """One call."""

    operation: Any
    rows: torch.Tensor
    others: tuple[Any, ...]  # the weight, and what follows it


class Noting(TorchDispatchMode):
    """Notes every matrix product with a layer's weights."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation."""
        if func in MULTIPLYING:
            rows, *others = args
            self.products.append(Product(func, rows.clone(), tuple(others)))
        return func(*args, **(kwargs or {}))


@dataclass
class Times:
    """Of one prompt after the other, in ns."""

    steps: list[float] = field(default_factory=list)
    products: list[float] = field(default_factory=list)
    num_products: list[float] = field(default_factory=list)  # per step


class Turn:
    """The first steps of a turn, which can be decoded again and again."""

    def __init__(self, models: Models, prompt_ids: list[int], num_steps: int) -> None:
        self._models, self._prompt_ids, self._num_steps = models, prompt_ids, num_steps
        noting = Noting()
        session = self._begin()
        with torch.inference_mode(), noting:
            self._run(session)
        self.products = noting.products

    def _begin(self) -> Session:
        session = Session(self._models.teacher, self._models.drafter, Decoding(checks="deferred"))
        session.begin(0, TurnRequest(self._prompt_ids, StopRules(10_000, [], [])))
        session.step()  # which takes the prompt in
        return session

    def _run(self, session: Session) -> None:
        for _ in range(self._num_steps):
            session.step()

    def time_steps(self) -> float:
        """ns per step."""
        session = self._begin()
        begun = time.perf_counter_ns()
        self._run(session)
        return (time.perf_counter_ns() - begun) / self._num_steps

    @torch.inference_mode()
    def time_products(self) -> float:
        """ns per step."""
        begun = time.perf_counter_ns()
        for operation, rows, others in self.products:
            operation(rows, *others)
        return (time.perf_counter_ns() - begun) / self._num_steps


def table(times: dict[str, Times]) -> list[str]:
    """One row per mode, in Markdown."""
    lines = ["| mode | products per step | ms per step | ms of products | share |", "|---|---|---|---|---|"]
    for mode, of_mode in times.items():
        step, products = statistics.median(of_mode.steps), statistics.median(of_mode.products)
        lines.append(
            f"| {mode} | {statistics.mean(of_mode.num_products):.0f} | {step / 1e6:.2f} | {products / 1e6:.2f} "
            f"| {products / step:.0%} |"
        )
    return lines


@click.command()
@click.option("--suite", type=click.Choice(SUITES), default="demo240", show_default=True)
@click.option("--limit", default=4, show_default=True, help="Prompts, of which the first turn is decoded.")
@click.option("--steps", "num_steps", default=12, show_default=True, help="Steps of each turn.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--products", type=click.Choice(["plain", "packed"]), default="plain", show_default=True)
@click.option("--budget", default=DEFAULT_TREE.budget, show_default=True)
def main(
    suite: str, limit: int, num_steps: int, rounds: int, threads: int, products: Literal["plain", "packed"], budget: int
) -> None:
    """Print a table in Markdown."""
    torch.set_num_threads(threads)
    policy = TreePolicy("dynamic", depth=DEFAULT_TREE.depth, top_k=DEFAULT_TREE.top_k, budget=budget)
    times: dict[str, Times] = {}
    for mode in MODES:
        drafter = "none" if mode == "baseline" else "eagle3"
        models = load_models(
            ModelChoice(mode=mode, drafter=drafter, policy=policy, products=products, self_check=False)
        )
        tokenizer, of_mode = models.teacher.tokenizer, times.setdefault(mode, Times())
        assert tokenizer is not None
        for prompt in sample(load_suite(suite), limit):
            turn = Turn(models, list(tokenizer(prompt.turns[0]).input_ids), num_steps)
            of_mode.num_products.append(len(turn.products) / num_steps)
            for _ in range(rounds):
                of_mode.steps.append(turn.time_steps())
                of_mode.products.append(turn.time_products())
    click.echo("\n".join(table(times)))


if __name__ == "__main__":
    main()
