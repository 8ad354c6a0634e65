"""Invariants are in the file that their ids begin with."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

from specscope.tracer.oracle import invariants
from specscope.tracer.oracle.invariants import ALL_INVARIANTS, Invariant
from specscope.tracer.oracle.invariants.registry import looks_across_steps, phase_of
from specscope.tracer.oracle.invariants.run import RUN_RULES

MODULES = {
    module.name: import_module(f"{invariants.__name__}.{module.name}")
    for module in pkgutil.iter_modules(invariants.__path__)
    if module.name != "registry"
}


def defined(module: ModuleType) -> set[str]:
    """The ids of the invariants in a module's tables."""
    ids: set[str] = set()
    for value in vars(module).values():
        entries = value if isinstance(value, tuple) else (value,)
        ids |= {entry.id for entry in entries if isinstance(entry, Invariant)}
    return ids


def test_each_is_in_the_file_that_its_id_begins_with() -> None:
    for name, module in MODULES.items():
        assert {invariant.partition(".")[0] for invariant in defined(module)} <= {name}
    assert {rule.partition(".")[0] for rule in RUN_RULES} == {"run"}


def test_every_one_is_registered_once() -> None:
    registered = [invariant.id for invariant in ALL_INVARIANTS]
    assert sorted(registered) == sorted(set().union(*map(defined, MODULES.values())))
    assert len(registered) == len(set(registered))


def test_what_looks_across_steps_says_which_phase_it_judges() -> None:
    across = {invariant.id: phase_of(invariant.id) for invariant in ALL_INVARIANTS if invariant.across_steps}
    assert across == {
        "sequence.root-is-last-bonus": "tree",
        "sequence.committed-continues": "commit",
        "sequence.length-continues": "tensors",
        "sequence.pairs-continue": "draft",
        "commit.drafter-length": "commit",
        "guided.state-continues": "verify",
    }
    assert all(map(looks_across_steps, across))


def test_the_phase_of_an_id() -> None:
    phases = {
        name: phase_of(name) for name in ("draft.positions", "turn.end", "run.digest", "tensors.new", "of.no.phase")
    }
    assert phases == {
        "draft.positions": "draft",
        "turn.end": "stop",
        "run.digest": "stop",
        "tensors.new": "tensors",
        "of.no.phase": "stop",
    }
