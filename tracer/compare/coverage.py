"""What could not be compared: because it is missing, or because a writer never promised it."""

from __future__ import annotations

from specscope.schemas import Manifest
from specscope.tracer.reader import TraceReader
from specscope.tracer.text import counted

#: The sections that a diff compares, in the order of the phases.
COMPARED = ("draft", "tree", "tensors", "verify", "accept", "commit", "stop")
#: Without these in both runs no decision can be compared.
DECISIVE = ("tree", "accept", "stop")


def coverage_problems(reader: TraceReader, name: str) -> list[str]:
    """What is missing of a run that was begun."""
    problems = []
    if reader.truncated:
        problems.append(f"the {name} is truncated: it has no run_end")
    if reader.index.torn_bytes:
        problems.append(f"the {name} ends in a torn record of {counted(reader.index.torn_bytes, 'byte')}")
    end = reader.run_end()
    problems += [f"the {name} was {end.reason}"] if end is not None and end.reason != "complete" else []
    problems += [f"the {name} failed in phase {f.phase}: {f.error}: {f.message}" for f in reader.failures()]
    return problems


def not_supplied(manifest: Manifest, name: str) -> list[str]:
    """What the writer says that it does not supply, of that which a diff compares."""
    missing = [section for section in COMPARED if section not in _supplied(manifest)]
    return [f"the {name} does not record {', '.join(missing)}"] if missing else []


def is_decisive(manifest: Manifest) -> bool:
    """Whether the writer supplies what decisions are read from."""
    return _supplied(manifest) >= set(DECISIVE)


def _supplied(manifest: Manifest) -> set[str]:
    return {capability.split(".")[0] for capability in manifest.capabilities}
