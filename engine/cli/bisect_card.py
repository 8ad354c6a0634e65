"""What ``specscope bisect`` prints: the card of a bisection. Knows no traces; every value is in the bisection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from specscope.tracer.cli.console import echo_words
from specscope.tracer.naming.text import printable

if TYPE_CHECKING:
    from specscope.schemas.bisection import Bisection, OperationError, Recordings, SelfDifference
    from specscope.schemas.verdict import Difference

LAYERS_AROUND = 2  # the culprit's, shown above and below it


def print_card(found: Bisection) -> None:
    """The headline, the step, what was recorded and run again, operations, prefix, grafts, notes and commands."""
    print_line(None, _headline(found))
    print_line("step", f"turn {found.turn} step {found.step}, {found.committed} tokens committed")
    print_line("baseline", f"{found.baseline}: {found.baseline_settings}")
    print_line("candidate", f"{found.candidate}: {found.candidate_settings}")
    _print_records(found)
    _print_operations(found)
    _print_prefix(found)
    for number, graft in enumerate(found.grafts):
        errors = f"{_amount(graft.before)} -> {_amount(graft.after)} (floor {graft.floor:.2e})"
        what = f"{graft.what}: {graft.measure} error {errors}"
        print_line("grafts" if number == 0 else "", f"{what}, {'heals' if graft.heals else 'does not heal'}")
    for note in found.notes:
        print_line("note", note)
    for number, command in enumerate(found.next):
        print_line("next" if number == 0 else "", command)


def _amount(error: float) -> str:
    return "other values altogether" if math.isinf(error) else f"{error:.2e}"


def _print_records(found: Bisection) -> None:
    """What was recorded of the step, what came of it now, and what the re-run lacks."""
    recorded = found.recordings
    if recorded is not None and not recorded.aligned:
        print_line("recorded", "the candidate has no step after the same tokens")
    elif recorded is not None:
        print_line("recorded", _differing(recorded.difference))
    print_line("run again", _differing(found.difference))
    if recorded is not None:
        for name, other in (("baseline", recorded.baseline), ("candidate", recorded.candidate)):
            if other is not None:
                print_line(
                    "", f"the {name} is not as recorded: phase {other.phase}, {other.field}: {other.a} | {other.b}"
                )
        for violation in recorded.violations:
            again = "and so does its re-run" if violation.again else "its re-run does not"
            print_line("", f"the {violation.side} violates {violation.invariant}, {again}: {violation.witness}")
    for part in found.unsteady:
        print_line(
            "unsteady", f"the {part.side} differs from itself: {_part(part)}, error {part.error:.2e} between two runs"
        )
    if found.outcome == "not-reproduced" and recorded is not None:
        for number, text in enumerate(recorded.lacking):
            print_line("lacking" if number == 0 else "", text)
    print_line("inputs", f"the verify forwards were given {'the same' if found.inputs_equal else 'different inputs'}")


def _differing(first: Difference | None) -> str:
    if first is None:
        return "no difference in any phase"
    return f"differ first in phase {first.phase}, {first.field}: {first.a} | {first.b}"


def _part(own: SelfDifference) -> str:
    if own.operation is None:
        return "logits"
    return own.operation if own.layer is None else f"layer {own.layer} {own.operation}"


def print_line(name: str | None, text: str) -> None:
    """One line of the card, under ``name``; a headline without."""
    echo_words(printable(text if name is None else f"  {name:<10} {text}"))


def _headline(found: Bisection) -> str:
    culprit, prefix, recorded = found.culprit, found.prefix, found.recordings
    if found.outcome == "unsteady":
        worst = max(found.unsteady, key=lambda own: own.error)
        return f"unsteady: the {worst.side}'s {_part(worst)} does not repeat itself"
    if culprit is not None and culprit.in_place:
        return f"different: {_named(culprit)}, seen in the whole forward; by itself every operation is right"
    if culprit is not None:
        return f"different: {_named(culprit)}"
    if found.outcome == "prefix" and prefix is not None:
        return f"different: the committed keys and values, from layer {prefix.first_layer} on"
    if found.outcome == "phase" and found.difference is not None:
        return f"different: phase {found.phase}, {found.difference.field}"
    if found.outcome == "violation" and recorded is not None:
        first = next(violation for violation in recorded.violations if violation.again)
        return f"different: the {first.side} violates {first.invariant}, recorded and run again"
    if found.outcome == "not-reproduced" and recorded is not None:
        return f"not reproduced{_beside(found)}: {_not_reproduced(recorded)}"
    return "equal: every operation is within its noise floor" if found.operations else "equal: no phase differs"


def _beside(found: Bisection) -> str:
    """Whether the step ran by itself."""
    if found.neighbours == 0:
        return " alone"
    return f" with {found.neighbours} {'row' if found.neighbours == 1 else 'rows'} beside it"


def _not_reproduced(recorded: Recordings) -> str:
    if not recorded.aligned:
        return "the candidate recorded no step after the same tokens, and run again the two sides agree"
    if recorded.difference is not None:
        first = recorded.difference
        if first.phase == "stop":
            return f"the recordings differ in stop, {first.field}, which a re-run is forced to and cannot decide"
        return f"the recordings differ in {first.phase}, {first.field}; run again, the two sides agree"
    if recorded.baseline is None and recorded.candidate is None and recorded.violations:
        first_violation = recorded.violations[0]
        return f"the {first_violation.side} violates {first_violation.invariant}; run again, it does not"
    return "run again, the two sides agree, but not with what was recorded"


def _named(operation: OperationError) -> str:
    if operation.level is not None:
        return f"draft level {operation.level} {operation.operation}"
    return operation.operation if operation.layer is None else f"layer {operation.layer} {operation.operation}"


def _print_operations(found: Bisection) -> None:
    culprit = found.culprit
    if not found.operations:
        return
    if culprit is None:
        worst = max(found.operations, key=lambda o: o.error / o.floor)
        nearest = f"{_named(worst)}: error {worst.error:.2e} of {worst.floor:.2e}"
        print_line(
            "operations", f"{len(found.operations)} run on equal inputs, none above its floor; nearest {nearest}"
        )
        return
    where = "in place" if culprit.in_place else _sample(culprit)
    print_line("operation", f"{_named(culprit)}: error {culprit.error:.2e}, floor {culprit.floor:.2e} ({where})")
    if found.also:
        print_line("", f"{found.also} more above their floors")
    _print_layers(found, culprit)


def _sample(operation: OperationError) -> str:
    """What the floor was made of."""
    others = f"{operation.sample_size} other {'layers' if operation.level is None else 'levels'}"
    if operation.at_ceiling:
        return f"64 roundings, the ceiling: the {others} are off by more"
    if operation.sample_size == 0:
        return "8 roundings"
    return f"8 medians of {others}, one rounding at least"


def _print_layers(found: Bisection, culprit: OperationError) -> None:
    """The operations around the culprit, a layer a line."""
    if culprit.level is not None or culprit.in_place:
        return
    layers = sorted({o.layer for o in found.operations if o.layer is not None})
    if not layers:
        return
    centre = layers[0] if culprit.layer is None else culprit.layer
    names = list(dict.fromkeys(o.operation for o in found.operations if o.layer is not None))
    print_line("layer", "  ".join(f"{name:>19}" for name in names))
    for layer in layers:
        if abs(layer - centre) > LAYERS_AROUND:
            continue
        errors = {o.operation: o for o in found.operations if o.layer == layer}
        cells = [_cell(errors.get(name)) for name in names]
        print_line(f"{layer:>5}", "  ".join(f"{cell:>19}" for cell in cells))


def _cell(operation: OperationError | None) -> str:
    """An operation's error, marked where it is above its floor; empty where the layer has no such operation."""
    if operation is None:
        return ""
    return f"{operation.error:.2e}{'*' if operation.error > operation.floor else ' '}"


def _print_prefix(found: Bisection) -> None:
    prefix = found.prefix
    if prefix is None:
        return
    worst = max(prefix.errors, default=0.0)
    if prefix.first_layer is None:
        print_line("prefix", f"committed keys and values are equal (error {worst:.2e}, floor {prefix.floor:.2e})")
        return
    where = f"from layer {prefix.first_layer} on (error {worst:.2e}, floor {prefix.floor:.2e})"
    if prefix.first_position is not None:
        maker = "the prefill" if prefix.committed_by is None else f"step {prefix.committed_by}"
        where += f", from position {prefix.first_position}, which {maker} committed"
    print_line("prefix", f"committed keys and values differ {where}")
