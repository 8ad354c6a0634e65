"""What an invariant is, and what it may look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from specscope.schemas import GrammarState, Manifest, Step, TreePolicy, TurnStart
from specscope.schemas.phases import Phase
from specscope.tracer.files.candidates import Candidate, CandidateColumns, candidates_of, columns_of
from specscope.tracer.shapes import policy_of_step

#: Binary digits of a number, the first included.
HALF_DIGITS = {"float16": 11, "bfloat16": 8}
Subject = TypeVar("Subject")
Value = TypeVar("Value")


def _always(_: Any) -> bool:
    return True


def _has_digits(value: float, digits: int) -> bool:
    """Whether so many binary digits are enough for it."""
    return not math.isfinite(value) or math.ldexp(math.frexp(value)[0], digits).is_integer()


@dataclass(frozen=True, kw_only=True)
class Invariant(Generic[Subject]):
    """One rule, on subjects of one kind."""

    id: str  # stable: phase, dot, rule
    statement: str  # what holds in an honest run
    check: Callable[[Subject], str | None]  # the witness of a violation, or None
    # "section", "section.field", "manifest.field", or a property of the context; without them it is skipped
    needs: tuple[str, ...] = ()
    applies: Callable[[Subject], bool] = _always  # where it says nothing of a subject, it is not even skipped
    needs_if_drawn: str | None = None  # likewise where the rule draws, unless the manifest promises the whole section
    across_steps: bool = False  # it looks at earlier steps too, so that what came before may be the cause
    phase: Phase | None = None  # that it judges, where its id begins with another word


@dataclass(frozen=True, kw_only=True)
class Context:
    """A step and what came before it in its turn."""

    manifest: Manifest
    turn: TurnStart
    previous: Step | None  # None at the turn's first step, and where its record cannot be read
    step: Step
    prefixes: Mapping[int, str] = field(default_factory=dict)  # by layer, the digest of its prefix that was taken last
    text: Sequence[int] | None = None  # all tokens of the turn up to the root, where they are kept for the judgement
    previous_is_lost: bool = False  # there is a step before, whose record cannot be read: what it left is not known

    @cached_property
    def policy(self) -> TreePolicy:
        """How the step's tree is grown: by the run's policy, or by that of the shape that was chosen for the step."""
        return policy_of_step(self.manifest.tree_policy, self.step)

    @cached_property
    def half_digits(self) -> int | None:
        """Binary digits of what the drafter computes in, where its log-probabilities, and so their sums, are numbers of
        the run's half-precision dtype; None where they are finer, as this engine's are, or were not recorded."""
        digits, draft, tree = HALF_DIGITS.get(self.manifest.dtype), self.step.draft, self.step.tree
        summed = [level.logprobs for level in draft.levels] if draft is not None and draft.levels else []
        if tree is not None and tree.logprobs is not None:
            summed.append(tree.logprobs)
        if digits is None or not all(_has_digits(value, digits) for values in summed for value in values):
            return None
        return digits if summed else None

    @property
    def rule(self) -> str:
        """The acceptance rule that the step followed; where it does not say, the run's."""
        return self.step.accept.rule if self.step.accept is not None else self.manifest.sampling.rule

    @cached_property
    def candidates(self) -> list[Candidate]:
        """What the step's drafter proposed.

        Raises:
            ValueError: where its levels were not recorded, or are malformed.
        """
        return candidates_of(present(present(self.step.draft).levels))

    @cached_property
    def columns(self) -> CandidateColumns:
        """The same in columns.

        Raises:
            ValueError: as ``candidates``.
        """
        return columns_of(present(present(self.step.draft).levels))

    @property
    def kept_cache(self) -> str | None:
        """Of what the drafter's cache held when the step before was drafted."""
        return None if self.previous is None or self.previous.draft is None else self.previous.draft.kv_digest_after

    @property
    def found_prefixes(self) -> dict[int, str] | None:
        """By layer, of the committed prefix as the step found it: of all layers, or before format 1.4 of the one whose
        turn it was."""
        commit = self.step.commit
        if commit is None:
            return None
        if commit.kv_digests_before is not None:
            return dict(enumerate(commit.kv_digests_before))
        if commit.prefix_layer is None or commit.prefix_since is None:
            return None
        return {commit.prefix_layer: commit.prefix_since}

    @property
    def left_prefixes(self) -> dict[int, str] | None:
        """By layer, what ``found_prefixes`` must be."""
        commit = self.step.commit
        if commit is None or commit.kv_digests_before is None:
            layer = None if commit is None else commit.prefix_layer
            return None if layer is None or layer not in self.prefixes else {layer: self.prefixes[layer]}
        if self.previous is None:
            left = self.turn.prefill.prefix_digests if self.step.step == 0 else None
        else:
            left = None if self.previous.commit is None else self.previous.commit.kv_digests_after
        return None if left is None else dict(enumerate(left))

    @property
    def ids_as_decoded(self) -> bool | None:
        """True; None where redaction put other ids in their place, of which no digest taken before can be made."""
        return True if self.manifest.redaction is None else None

    @property
    def table_before(self) -> list[int] | None:
        """The block table that the step before left, or the prefill."""
        if self.previous is None:
            return self.turn.prefill.block_table if self.step.step == 0 else None
        blocks = None if self.previous.commit is None else self.previous.commit.blocks
        return None if blocks is None else blocks.table

    @property
    def logits_of_trials(self) -> bool | None:
        """Whether a visit says how its logits were cut; None where none does."""
        visited = self.step.accept.visited if self.step.accept is not None else None
        return True if any(visit.cut is not None for visit in visited or ()) else None

    @property
    def appended(self) -> list[int] | None:
        """The tokens that the engine appended to its text, where these are recorded."""
        stop = self.step.stop
        return None if stop is None or stop.emitted_from is not None else stop.emitted

    @property
    def emitted_before(self) -> list[int] | None:
        """The tokens that the drafter has not taken in when the step begins: those last emitted, of a turn's first step
        what of the prompt was not reused."""
        if self.previous is None:
            prompt = [*self.turn.prompt_ids[self.turn.reused_length + 1 :], *self.turn.first_output]
            return None if self.previous_is_lost else prompt
        return None if self.previous.stop is None else self.previous.stop.emitted

    @property
    def path_before(self) -> list[int] | None:
        """The slots that the step before committed, without the root; of a turn's first step none."""
        if self.previous is None:
            return None if self.previous_is_lost else []
        return committed_path(self.previous)

    @property
    def root_before(self) -> int | None:
        """The token that the step must begin with."""
        if self.previous is None:
            return None if self.previous_is_lost else self.turn.root
        return next_root(self.previous)

    @property
    def committed_before(self) -> int | None:
        """The committed length that the step before, or the prompt, says that it left."""
        if self.previous is None:
            return None if self.previous_is_lost else self.turn.num_committed
        return None if self.previous.commit is None else self.previous.commit.committed_after

    @property
    def cached_before(self) -> int | None:
        """The committed length that follows from what the step before was fed and accepted, or from the prompt."""
        if self.previous is None:
            return None if self.previous_is_lost else self.turn.num_committed
        tensors, path = self.previous.tensors, committed_path(self.previous)
        return None if tensors is None or path is None else tensors.committed_length + len(path) + 1

    @property
    def pairs_before(self) -> int | None:
        """How many pairs the step before says that it left in the drafter's cache."""
        if self.previous is None:
            return None
        return None if self.previous.draft is None else self.previous.draft.kv_after

    @property
    def grammar_before(self) -> GrammarState | None:
        """Where the step before, or the prompt's first token, says that it left the grammar."""
        if self.previous is not None:
            return None if self.previous.guided is None else self.previous.guided.after
        return self.turn.prefill.guided if self.step.step == 0 else None

    @property
    def features_digest(self) -> str | None:
        """Of the teacher's features that the step's drafter is to be fed: those of what was committed last."""
        if self.previous is not None:
            return self.previous.commit.features_digest if self.previous.commit is not None else None
        return self.turn.prefill.features_digest if self.step.step == 0 else None


def promises(manifest: Manifest, section: str) -> bool:
    """Whether the writer supplies a whole section. Else what is absent there was not recorded, and says nothing."""
    return section in manifest.capabilities


def committed_path(step: Step) -> list[int] | None:
    """The accepted slots that the step committed, without the root: in a replay those that were forced."""
    if step.forced is not None:
        return step.forced.path
    return None if step.accept is None else step.accept.path


def next_root(step: Step) -> int | None:
    """The token that the next step begins with: in a replay the one that was forced."""
    if step.forced is not None:
        return step.forced.bonus_token
    return None if step.accept is None else step.accept.bonus_token


def takes_features(c: Context) -> bool:
    """Whether the drafter is fed features of the teacher."""
    return c.manifest.drafter.hidden_state_indices is not None


def is_captured(c: Context) -> bool:
    """Whether the verify forward ran by a graph."""
    graph = c.step.verify.graph if c.step.verify is not None else None
    return graph is not None and graph.fallback is None


def tree_is_recorded(step: Step) -> bool:
    """Whether a replay put the recorded tree in place of the one that its drafter found."""
    return step.forced is not None and step.forced.tree


def present(value: Value | None) -> Value:
    """``value``, which the invariant's ``needs`` have made sure of."""
    if value is None:
        raise ValueError("a section that the invariant needs is missing")
    return value


def first_mismatch(got: list[int], wanted: list[int], unit: str) -> str | None:
    """The first place where two lists differ, in words; ``unit`` names an entry."""
    if got == wanted:
        return None
    for index, (g, w) in enumerate(zip(got, wanted, strict=False)):
        if g != w:
            return f"{unit} {index}: got {g}, wanted {w}"
    if len(got) != len(wanted):
        return f"got {len(got)} entries, wanted {len(wanted)}"
    return None
