"""What follows, by itself, from manifest fields that were allowed to differ: that is compared no further.

Knows manifests alone. A field that is not named here changes no decision by itself, such as the digest of weights
that were stored in another file; where decisions differ all the same, they are judged.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import NamedTuple, get_args

from specscope.schemas import Manifest, Section
from specscope.schemas.phases import Phase
from specscope.tracer.errors import UsageError

#: By which reasons a turn may end on one side alone, where a field below this name may differ.
ENDS: dict[str, tuple[str, ...]] = {
    "stop_rules.max_new_tokens": ("length",),
    "teacher.max_positions": ("length",),
    "stop_rules.eos_token_ids": ("eos",),
    "stop_rules.stop_strings": ("stop_string",),
}
#: Of what decides which tokens a drafter proposes; its name, source and configuration file do not.
DRAFTS = (
    *("drafter.kind", "drafter.weights_digest", "drafter.quantization", "drafter.hidden_state_indices"),
    *("drafter.num_layers", "drafter.rope_theta"),
    *("drafter.draft_vocab_size", "drafter.vocab_mapping", "drafter.settings", "sampling.draft"),
)
#: What forbids tokens, or weighs them otherwise, before the teacher's logits are recorded.
BEFORE_LOGITS = ("sampling.processors", "grammar")
#: Of what decides which tokens are accepted or drawn, beside the teacher's logits; the seed is another one.
DRAWS = tuple(f"sampling.{name}" for name in ("temperature", "top_k", "top_p", "epsilon", "delta"))
DECISIONS: tuple[Phase, ...] = ("accept", "commit", "stop")
#: Objects of the manifest whose names are free.
FREE_NAMES = ("sampling.processors", "drafter.settings", "versions")


class Consequences(NamedTuple):
    """What need not be equal."""

    ends: frozenset[str] = frozenset()  # reasons by which one side may end a turn before the other
    phases: frozenset[Phase] = frozenset()  # that are not compared
    same_trees: bool = True  # off: of the trees, common nodes alone are compared

    @property
    def outputs_may_differ(self) -> bool:
        """Whether the tokens of a turn may be others."""
        return "accept" in self.phases


NOTHING_FOLLOWS = Consequences()


def consequences(a: Manifest, b: Manifest, let: Iterable[str]) -> Consequences:
    """What follows from the fields ``let``, dotted, which differ and may."""
    fields = list(let)
    ends = [reason for field in fields for name, reasons in ENDS.items() if _touch(field, name) for reason in reasons]
    phases: set[Phase] = set()
    draws = a.sampling.rule != "greedy" or b.sampling.rule != "greedy"
    coins = draws and "seed" in fields
    same_rule = a.sampling.rule == b.sampling.rule  # two rules are never equal, and the first decision says so
    if same_rule and (coins or _any(fields, BEFORE_LOGITS) or (draws and _any(fields, DRAWS))):
        phases |= set(DECISIONS)
    if _any(fields, BEFORE_LOGITS):
        phases.add("verify")  # its logits are those behind processors and grammar
    other_drafts = _any(fields, (*DRAFTS, "grammar"))
    if other_drafts:
        phases.add("draft")
    drawn_drafts = coins and "sampled" in (a.sampling.draft, b.sampling.draft)
    return Consequences(frozenset(ends), frozenset(phases), not (other_drafts or drawn_drafts))


def _any(fields: list[str], names: Iterable[str]) -> bool:
    return any(_touch(field, name) for field in fields for name in names)


def _touch(field: str, name: str) -> bool:
    """Whether one of the two names is the other, or lies below it."""
    return f"{field}.".startswith(f"{name}.") or f"{name}.".startswith(f"{field}.")


def check_allowed(names: Iterable[str]) -> None:
    """Raises UsageError for a name that no field of a manifest has."""
    known = list(_fields(Manifest, ""))
    for name in names:
        if name in known or any(name.startswith(f"{free}.") for free in FREE_NAMES):
            continue
        last = name.rpartition(".")[2]
        same_last = [field for field in known if field.rpartition(".")[2] == last]
        near = same_last or difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise UsageError(f"got --allow {name[:80]}, wanted a field of the manifest; the nearest: {', '.join(near)}")


def _fields(model: type[Section], above: str) -> Iterator[str]:
    """Every field below ``model``, dotted, by the names that a verdict calls them."""
    for name, field in model.model_fields.items():
        yield above + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from _fields(kind, f"{above}{name}.")
