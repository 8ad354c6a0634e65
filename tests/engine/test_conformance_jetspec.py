"""``benchmarks/conformance_jetspec.py``: what it compares it compares, and each kind of difference is found.

JetSpec is not here: a stand-in has its interface, and each mutant of it does one thing otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.jetspec_stand_in import Accepted, Builder, DraftTree, Layer
from support.traces import ROOT

from benchmarks.conformance_jetspec import (
    CandidateSet,
    Nodes,
    Outcome,
    compare_builders,
    compare_layers,
    expanded_nodes,
    num_within_reach,
    our_nodes,
    our_tree,
    table,
    their_tree,
)

COMPARED = {
    "nodes taken",
    "sums of log-probabilities",
    "mask",
    "positions",
    "acceptance",
    "acceptance, all slots at once",
}
NUM_SETS = 25


def test_a_layer_that_does_the_same_differs_nowhere() -> None:
    outcome = compare_layers(Layer(), NUM_SETS, seed=1)
    assert set(outcome.compared) == COMPARED
    assert not outcome.differing.total()
    assert outcome.num_accepted > 0
    assert outcome.num_lessened > 0
    assert outcome.num_tied == 0


class Oldest(Layer):
    """Expands nodes in the order in which they came."""

    class OldestFirst(Builder):
        def choose(self, scores: list[float], open_slots: list[int]) -> int:
            return open_slots[0]

    def get_algorithm(self, name: str) -> Builder:
        return self.OldestFirst()


class OtherSums(Layer):
    """Says that everything is a little more likely."""

    class Surer(Builder):
        def build(self, *arguments: Any, **named: Any) -> DraftTree:
            tree = super().build(*arguments, **named)
            assert tree.cum_logprob is not None
            tree.cum_logprob = tree.cum_logprob * 0.999
            return tree

    def get_algorithm(self, name: str) -> Builder:
        return self.Surer()


class SeesASibling(Layer):
    """Lets the last slot see the one before it in place of its parent."""

    def build_ancestor_matrix(self, tree: Any) -> torch.Tensor:
        seen, last = super().build_ancestor_matrix(tree), tree.num_nodes - 1
        seen[last, tree.parent_indices[last]] = False
        seen[last, last - 1] = True
        return seen


class SeesTooMuch(Layer):
    """Lets the root see the first node."""

    def build_ancestor_matrix(self, tree: Any) -> torch.Tensor:
        seen = super().build_ancestor_matrix(tree)
        seen[0, 1] = True
        return seen


class StopsEarly(Layer):
    """Accepts one node less, where it accepts any."""

    def tree_accept(self, tree: Any, target_logits: torch.Tensor) -> Accepted:
        path, length, correction = super().tree_accept(tree, target_logits)
        return Accepted(path[:-1], length - 1, correction) if length else Accepted(path, length, correction)


class OtherCorrection(Layer):
    """Says another token after the accepted ones."""

    def gpu_tree_accept(self, *given: torch.Tensor) -> Any:
        path, length, correction = super().gpu_tree_accept(*given)
        return path, length, correction + 1


@pytest.mark.parametrize(
    ("layer", "differing"),
    [
        (Oldest(), {"nodes taken"}),
        (OtherSums(), {"sums of log-probabilities"}),
        (SeesASibling(), {"mask"}),
        (SeesTooMuch(), {"mask", "positions"}),
        (StopsEarly(), {"acceptance"}),
        (OtherCorrection(), {"acceptance, all slots at once"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Layer) else "",
)
def test_each_difference_is_found_and_no_other(layer: Layer, differing: set[str]) -> None:
    outcome = compare_layers(layer, NUM_SETS, seed=1)
    assert {what for what, times in outcome.differing.items() if times} == differing


def test_nodes_below_one_that_is_not_fed_are_beyond_reach() -> None:
    scores = {(1,): -0.1, (2,): -0.2, (3,): -0.3, (1, 5): -0.4, (3, 5): -0.5, (1, 6): -0.6}
    assert num_within_reach(Nodes(scores), top_k=2) == 4  # (3,) is the third of its level, so (3, 5) is not proposed
    assert num_within_reach(Nodes(scores), top_k=3) == 6


def test_sums_that_rounding_makes_equal_are_a_tie_and_others_are_not() -> None:
    close, apart = Outcome(), Outcome()
    compare_builders(Nodes({(1,): -1.0, (2,): -3.0}), Nodes({(1,): -1.0, (3,): -3.000001}), close)
    compare_builders(Nodes({(1,): -1.0, (2,): -3.0}), Nodes({(1,): -1.0, (3,): -3.01}), apart)
    assert (close.num_tied, close.differing.total()) == (1, 0)
    assert (apart.num_tied, apart.differing["nodes taken"]) == (0, 1)


def test_what_theirs_expands_is_what_ours_takes() -> None:
    logits = torch.tensor([[3.0, 2.0, -9.0], [1.0, 0.9, -9.0], [0.0, 0.0, 0.0]])
    given = CandidateSet(logits=logits, root=7, top_k=2, budget=3)
    assert our_nodes(our_tree(given)).scores.keys() == {(0,), (0, 0), (0, 1)}
    assert expanded_nodes(their_tree(Layer(), given)).scores.keys() == {(0,), (0, 0), (0, 1)}


@pytest.mark.parametrize(("name", "code"), [("Layer", 0), ("Broken", 1)])
def test_the_command_reads_a_checkout_and_fails_by_its_exit_code(tmp_path: Path, name: str, code: int) -> None:
    package = tmp_path / "jetspec"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tree.py").write_text(
        "from support.jetspec_stand_in import Layer\n"
        "class Broken(Layer):\n"
        "    def build_ancestor_matrix(self, tree):\n"
        "        return ~super().build_ancestor_matrix(tree)\n"
        f"layer = {name}()\n"
        "get_algorithm, DraftTree = layer.get_algorithm, Layer.DraftTree\n"
        "build_ancestor_matrix = layer.build_ancestor_matrix\n"
        "tree_accept, gpu_tree_accept = layer.tree_accept, layer.gpu_tree_accept\n"
    )
    command = [sys.executable, "-m", "benchmarks.conformance_jetspec", "--jetspec", str(tmp_path), "--sets", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert f"| mask | 6 | {6 * code} |" in done.stdout


def test_the_table_says_what_was_left_out() -> None:
    outcome = compare_layers(Layer(), 4, seed=1)
    assert f"Of {outcome.num_lessened} sets fewer nodes were taken" in table(outcome)[-1]
