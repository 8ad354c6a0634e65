"""What a step costs: ``benchmarks/steps.py`` counts its calls, ``benchmarks/products.py`` times its matrix products."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from support.traces import ROOT

from specscope.engine.backends.products import packing_problem

DRAFTERS = ("eagle3", "eagle3+ngram")
SHORT = ("--limit", "1")


def printed(program: str, *options: str) -> list[list[str]]:
    """The cells of the table's rows."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{program}", *options],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]


def test_the_table_has_what_each_drafters_steps_cost() -> None:
    chosen = [option for name in DRAFTERS for option in ("--drafter", name)]
    rows = printed("steps", *SHORT, *("--tokens", "8"), *chosen)
    assert [name for name, *_ in rows] == list(DRAFTERS)
    assert rows[0][2] == "1.00"
    for _, per_step, _, *counts in rows:
        assert float(per_step) >= 1
        for total, drafting in (map(int, cell.split(",")) for cell in counts):
            assert 0 < drafting < total


@pytest.mark.parametrize(("kind", "of_layer", "of_level"), [("plain", 7, 8), ("packed", 4, 5)])
def test_the_products_of_a_step_are_those_of_its_layers(kind: str, of_layer: int, of_level: int) -> None:
    if kind == "packed" and packing_problem(torch.device("cpu"), torch.float32) is not None:
        pytest.skip("this torch was built without oneDNN")
    steps = ("--steps", "2", "--rounds", "2", "--threads", "1")
    rows = printed("products", *SHORT, *steps, *("--products", kind))
    # Ten layers and the output matrix; a head for each of five levels, and what takes the features in. Packed, queries,
    # keys and values are one product, and so are the first two layers of an MLP.
    assert [(mode, int(count)) for mode, count, *_ in rows] == [
        ("baseline", 10 * of_layer + 1),
        ("fused", 10 * of_layer + 1 + 5 * of_level + 1),
    ]
    for _, _, *measured in rows:
        assert all(float(cell.strip("%")) > 0 for cell in measured)
