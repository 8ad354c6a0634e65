"""Two runs of which one records only how many tokens its steps drafted and accepted: that much is compared.

Knows no tokens. Equal lengths prove no decision equal, so that a pair without a difference is not judged. Lengths that
differ are a difference only where nothing else explains them: both runs are known to be greedy and to have the same
teacher, dtype, drafter and tree policy, and the shorter side could have accepted more. Every step keeps its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from specscope.schemas import Drafter, Manifest, Step, Teacher
from specscope.schemas.verdict import Difference, Impact, Place
from specscope.tracer.compare.align import TurnPair
from specscope.tracer.compare.manifests import same_policy
from specscope.tracer.compare.sides import Sides
from specscope.tracer.compare.turns import Walk, name_of, place_in
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.places import turns_name
from specscope.tracer.naming.text import counted

MORE_THAN_LENGTHS = "both sides' trees and acceptance would tell which is wrong: see docs/record-your-engine.md"

#: Kinds of drafters that are the same wherever their kind and policy are.
WITHOUT_WEIGHTS = ("ngram", "none")


def are_lengths(a: Manifest, b: Manifest) -> bool:
    """Whether one of two runs records only lengths."""
    return "lengths" in (a.level, b.level)


class _Outcome(NamedTuple):
    """What a step drafted and accepted."""

    step: Step
    accepted: int
    drafted: int | None  # None: not known
    most: int | None  # that it could have accepted; None: not known


class LengthWalk:
    """Compares the lengths of two runs, step by step, and puts what it finds into ``walk``."""

    def __init__(self, sides: Sides, walk: Walk, *, judged: bool) -> None:
        """``judged``: whether the two are comparable; off: they are only counted."""
        self._sides, self._walk, self._judged = sides, walk, judged
        self._unlike = _why_unlike(sides.a.manifest, sides.b.manifest)
        self._is_chain = sides.a.manifest.tree_policy.kind == "chain"
        self._omits_idle = sides.a.manifest.omits_idle_steps or sides.b.manifest.omits_idle_steps
        self._num_equal = self._num_other_drafts = 0

    def compare(self, pairs: list[TurnPair]) -> None:
        """Compares every pair of turns, and says what that came to."""
        walk = self._walk
        walk.tokens.compared = False
        for turns in pairs:
            if self._judged:
                self._compare_turn(turns)
        if not self._judged:
            return
        if not pairs:
            walk.uncovered.append("no turn is in both traces")
        equal = f"{self._num_equal} of {counted(walk.num_steps, 'pair of steps')}"
        walk.uncovered.insert(
            0, f"only lengths are recorded: {equal} accepted equally many tokens; no token is compared"
        )
        if self._omits_idle:
            walk.unjudged.append(
                "a side does not record steps that verified no draft: only the others are compared, in their order"
            )
        if self._num_other_drafts:
            pairs_text = counted(self._num_other_drafts, "pair of steps")
            walk.unjudged.append(f"in {pairs_text} the two drafted different numbers of tokens")

    def _compare_turn(self, turns: TurnPair) -> None:
        """Compares the steps of a turn in order, up to the first that accepts otherwise, or that is not known to accept
        alike: after it, steps of the same number begin at different positions."""
        findings = self._walk.findings
        findings.close()
        a, b = self._sides.a, self._sides.b
        starts = a.turn_start(turns.a), b.turn_start(turns.b)
        if starts[0].lacks_beginning or starts[1].lacks_beginning:
            side = "baseline" if starts[0].lacks_beginning else "candidate"
            words = f"the {side} may lack its first steps, so that none is compared"
            self._walk.unjudged.append(f"{name_of(turns)}: {words}")
            self._walk.num_steps += min(len(turns.a.steps), len(turns.b.steps))
            self._note_alone(turns, (len(turns.a.steps), len(turns.b.steps)), all_alike=False)
            return
        position = None if self._omits_idle else starts[0].prompt_length
        num_alike, ended = 0, False
        for step_a, step_b in zip_longest(self._steps(a, turns.a), self._steps(b, turns.b)):
            if step_a is None or step_b is None:
                break
            of_a, of_b = _outcome(step_a, a.manifest), _outcome(step_b, b.manifest)
            if of_a is None or of_b is None:
                self._note_unrecorded(turns, step_a, in_baseline=of_a is None)
                ended = True
                break
            if not self._alike(place_in(turns, position, step_a.step, step_b.step), of_a, of_b):
                ended = True
                break
            position = None if position is None else position + of_a.accepted + 1
            num_alike += 1
        self._num_equal += num_alike
        counts = self._count(a, turns.a), self._count(b, turns.b)
        for _ in range(min(counts) - num_alike - 1 if findings.is_open else 0):
            findings.inherit()
        self._walk.num_steps += min(counts)
        if counts[0] != counts[1]:
            self._note_alone(turns, counts, all_alike=not ended)

    def _steps(self, reader: TraceReader, turn: TurnEntry) -> Iterator[Step]:
        """The steps that both sides would have recorded."""
        steps = reader.steps(turn)
        return (step for step in steps if step.num_drafted != 0) if self._omits_idle else steps

    def _count(self, reader: TraceReader, turn: TurnEntry) -> int:
        return sum(1 for _ in self._steps(reader, turn)) if self._omits_idle else len(turn.steps)

    def _note_unrecorded(self, turns: TurnPair, step: Step, *, in_baseline: bool) -> None:
        side = "baseline" if in_baseline else "candidate"
        words = f"the {side} does not record what it accepted at step {step.step}"
        self._walk.unjudged.append(f"{name_of(turns)}: {words}; what follows is not compared")

    def _note_alone(self, turns: TurnPair, counts: tuple[int, int], *, all_alike: bool) -> None:
        """Counts the steps that only one of the two has."""
        self._walk.num_regrouped += abs(counts[0] - counts[1])
        if all_alike:
            words = f"{counts[0]} -> {counts[1]} steps; those that both have accept alike"
            self._walk.unjudged.append(f"{name_of(turns)}: {words}")

    def _alike(self, place: Place, a: _Outcome, b: _Outcome) -> bool:
        """Whether two steps accept equally many tokens; files them, or says why other lengths prove nothing."""
        self._num_other_drafts += None not in (a.drafted, b.drafted) and a.drafted != b.drafted
        blame = self._sides.blame(a.step, b.step)
        if a.accepted == b.accepted:
            self._walk.findings.file(place, [], blame)
            return True
        why = self._excuse(a, b)
        if why is not None:
            name = turns_name(place.turn, place.turn_b, place.prompt_id)
            words = f"accepted length {a.accepted} -> {b.accepted} at step {a.step.step}"
            self._walk.unjudged.append(f"{name}: {words}, {why}; what follows is not compared")
            return False
        difference = Difference(
            phase="accept",
            field="accepted_length",
            a=str(a.accepted),
            b=str(b.accepted),
            kind="structural",
            inputs_equal=False,
        )
        self._walk.findings.file(place, [difference], blame)
        return False

    def _excuse(self, a: _Outcome, b: _Outcome) -> str | None:
        """Why two lengths may differ although the two runs decide alike; None where they may not."""
        if self._unlike is not None:
            return self._unlike
        shorter = min(a, b, key=lambda outcome: outcome.accepted)
        if shorter.most is None:
            return "where it is not known how much the shorter side drafted"
        if shorter.accepted >= shorter.most:
            return "where one side drafted no more"
        if not self._is_chain and (a.drafted is None or a.drafted != b.drafted):
            return "of trees that are not known to be of one size"
        return None


def with_known_tokens(impact: Impact, sides: Sides, pairs: list[TurnPair]) -> Impact:
    """``impact`` with as many output tokens as each side says it put out; None where a turn does not say."""
    return impact.model_copy(
        update={
            "num_tokens_a": _num_tokens(sides.a, [pair.a for pair in pairs]),
            "num_tokens_b": _num_tokens(sides.b, [pair.b for pair in pairs]),
        }
    )


def _num_tokens(reader: TraceReader, turns: list[TurnEntry]) -> int | None:
    total = 0
    for turn in turns:
        end = reader.turn_end(turn)
        known = end is not None and (end.num_output_tokens is not None or not reader.turn_start(turn).without_ids)
        if end is None or not known:
            return None
        total += end.output_length
    return total


def _outcome(step: Step, manifest: Manifest) -> _Outcome | None:
    """What a step came to; None where it does not record what it accepted."""
    if step.accepted_length is None:
        return None
    policy = manifest.tree_policy
    depth = policy.depth if manifest.knows("tree_policy.depth") else None
    deepest = max(step.tree.depths, default=0) if step.tree is not None else None
    limits = [limit for limit in (step.num_drafted, depth, deepest) if limit is not None]
    most = None if step.num_drafted is None else min(limits)
    return _Outcome(step, step.accepted_length, step.num_drafted, most)


def _why_unlike(a: Manifest, b: Manifest) -> str | None:
    """Why any two lengths of the runs may differ; None where both are known to be greedy, and set up alike."""
    if not all(manifest.sampling.rule == "greedy" and manifest.knows("sampling.rule") for manifest in (a, b)):
        return "which chance may explain where a rule draws, or is not known"
    other = _set_up_otherwise(a, b)
    return f"which may follow from fields not known to be the same: {', '.join(other)}" if other else None


def _set_up_otherwise(a: Manifest, b: Manifest) -> list[str]:
    """The fields that decide how much is accepted, and are not known to be the same."""
    fields: dict[str, tuple[str | None, str | None]] = {}
    fields |= {"dtype": (a.dtype, b.dtype), "drafter.kind": (a.drafter.kind, b.drafter.kind)}
    fields["teacher.name"] = (_named_model(a.teacher, b.teacher), _named_model(b.teacher, a.teacher))
    if a.drafter.kind not in WITHOUT_WEIGHTS:
        fields["drafter.name"] = (_named_model(a.drafter, b.drafter), _named_model(b.drafter, a.drafter))
    other = [name for name, values in fields.items() if not _known_same(name, (a, b), values)]
    return other + _policies_otherwise(a, b)


def _named_model(model: Teacher | Drafter, other: Teacher | Drafter) -> str | None:
    """What tells a model from another: the digest of its weights, where both have one, else its name."""
    return model.name if None in (model.weights_digest, other.weights_digest) else model.weights_digest


def _policies_otherwise(a: Manifest, b: Manifest) -> list[str]:
    """The fields of the tree policy that are not known to be the same. A chain is as deep as it is large."""
    kinds = (a.tree_policy.kind, b.tree_policy.kind)
    if not _known_same("tree_policy.kind", (a, b), kinds):
        return ["tree_policy.kind"]
    same = {
        name: _known_same(f"tree_policy.{name}", (a, b), (getattr(a.tree_policy, name), getattr(b.tree_policy, name)))
        for name in ("depth", "top_k", "budget")
    }
    if kinds[0] == "chain":
        return [] if same["depth"] or same["budget"] else ["tree_policy.depth"]
    other = [f"tree_policy.{name}" for name, is_same in same.items() if not is_same]
    return other if other or same_policy(a.tree_policy, b.tree_policy) else ["tree_policy"]


def _known_same(name: str, manifests: tuple[Manifest, Manifest], values: tuple[object, object]) -> bool:
    known = all(manifest.knows(name) for manifest in manifests) and values[0] not in (None, "", "unknown")
    return known and values[0] == values[1]
