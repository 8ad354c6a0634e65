"""The commands to run next, after a diff."""

from __future__ import annotations

import shlex

from specscope.schemas import Manifest
from specscope.schemas.verdict import TIES, Blame, Root
from specscope.tracer.files.reader import TraceReader

#: Phases whose values come out of a forward that can be run again, layer by layer.
COMPUTED = ("draft", "verify")
#: Phases whose values follow from the step's own inputs, so that a replay finds them anew. A stop is forced.
DERIVED = ("tree", "tensors", "accept", "commit")
#: What a step that is run again takes from the recording, by the beginning of the field: coins, for they are drawn from
#: the recorded seed; the first token; and what the turn's caches held.
TAKEN = ("coins", "prefill.draw", "reused")


def next_commands(
    a: TraceReader, b: TraceReader, *, roots: list[Root], violations: list[Blame], incomparable: list[str]
) -> list[str]:
    """What to run next, as lines for a shell: nothing that this pair would be refused for."""
    baseline, candidate = shlex.quote(str(a.path)), shlex.quote(str(b.path))
    if incomparable:
        fields = [line.partition(":")[0] for line in incomparable]
        if any(" " in field for field in fields):  # what no option allows, such as other prompts
            return []
        return [" ".join([f"specscope diff {baseline} {candidate}", *(f"--allow {shlex.quote(f)}" for f in fields)])]
    first = roots[0] if roots else None
    if first is None or (first.difference.kind in TIES and violations):
        sides = {difference.side for difference in violations}
        checks = [f"specscope check {path}" for side, path in (("a", baseline), ("b", candidate)) if side in sides]
        return checks + [f"specscope repro {shlex.quote(str(run.path))}" for run in (a, b) if _failed_step_runs(run)]
    place, difference = first.place, first.difference
    commands = [
        f"specscope show {candidate} --turn {place.turn_b} --step {place.step_b}",
        f"specscope view {baseline} {candidate} --at {place.turn}/{place.step_a}",
    ]
    if (
        difference.kind not in TIES
        and not difference.field.startswith(TAKEN)
        and runs_again(a.manifest)
        and runs_again(b.manifest)
    ):
        if difference.phase in COMPUTED:
            commands.append(f"specscope bisect {baseline} {candidate} --at {place.turn}/{place.step_a}")
        elif difference.phase in DERIVED and first.wrong == "neither":
            commands.append(f"specscope replay {candidate} --mode eager --out replay.jsonl")
    return commands


def _failed_step_runs(reader: TraceReader) -> bool:
    """Whether a step failed that can be run again."""
    return runs_again(reader.manifest) and any(failure.state is not None for failure in reader.failures())


def runs_again(manifest: Manifest) -> bool:
    """Whether the trace says what it takes to run it again."""
    drafter = manifest.drafter.source is not None or manifest.drafter.kind == "none"
    holds_tokens = manifest.redaction is None and manifest.level != "lengths"
    return holds_tokens and manifest.teacher.source is not None and drafter
