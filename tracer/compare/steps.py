"""Two aligned steps, and what a difference between them is made of. What is compared is in ``phases``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from specscope.schemas import Manifest, Step, TreePolicy
from specscope.schemas.phases import Phase
from specscope.schemas.verdict import Contender, Difference, DifferenceKind, Quantity
from specscope.tracer.compare.allowed import NOTHING_FOLLOWS, Consequences
from specscope.tracer.compare.capped import cut_to_depth, shared_depth
from specscope.tracer.compare.coverage import in_part
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.manifests import same_exit_head, same_policy, trees_alike
from specscope.tracer.compare.nodes import PathKey, StepNodes, fed_in_same_slots, key_tokens, numbered_alike
from specscope.tracer.compare.roundings import spacing
from specscope.tracer.compare.said import Said
from specscope.tracer.compare.token_values import tokens_of
from specscope.tracer.oracle.invariants.proposers import levels_of
from specscope.tracer.shapes import policy_of_step


class RecordedSteps(NamedTuple):
    """Two steps as they are recorded, each with the one before it in its turn."""

    a: Step
    b: Step
    previous_a: Step | None
    previous_b: Step | None
    regrouped: bool = False  # the steps before were not the same blocks
    reused_more: int = 0  # tokens that the candidate's turn reused beyond the baseline's; of a turn's first step only


@dataclass(frozen=True, kw_only=True)
class StepPair:
    """Two steps that begin at the same position after the same tokens."""

    a: StepNodes
    b: StepNodes
    previous_a: StepNodes | None
    previous_b: StepNodes | None
    judge: FloatJudge
    trees_compared: bool  # off where one run's steps have no drafted trees and the other's do
    same_engine: bool = False  # on where the same code wrote both: what it names alike means the same
    same_exit_head: bool = False  # on where both runs are pipelined, with one exit head after the same layer
    same_policy: bool = True  # off where trees were meant to differ: then common nodes alone are compared
    same_table: bool = False  # on where both choose the shape of each step from the same table
    sized: TreePolicy | None = None  # of both, where trees are sized by what they cost
    fixed_shape: bool = False  # the policy names child ranks, and takes no candidate for its score
    order_matters: bool = False  # of siblings: where they are tried one after another, or the tree's shape names ranks
    regrouped: bool = False  # the steps before were not the same blocks, so the pairs fed are not either
    reused_more: int = 0  # as ``RecordedSteps`` has it: so many pairs fewer was the candidate's drafter fed
    expected: Consequences = NOTHING_FOLLOWS  # what need not be equal, since the user let manifest fields differ
    in_part: frozenset[str] = frozenset()  # sections of which a writer lists single fields: absent says nothing there

    @classmethod
    def of(
        cls,
        steps: RecordedSteps,
        a: Manifest,
        b: Manifest,
        *,
        judge: FloatJudge,
        expected: Consequences = NOTHING_FOLLOWS,
    ) -> StepPair:
        """What ``compare_steps`` takes, for two steps of runs with the manifests ``a`` and ``b``.

        Args:
            steps: the two, and the ones before them.
            a: of the baseline's run.
            b: of the candidate's.
            judge: holds floats against the floors of the pair.
            expected: what need not be equal, since the user let manifest fields differ.
        """
        depth = shared_depth(steps.a, steps.b)
        step_a, step_b = (step if depth is None else cut_to_depth(step, depth) for step in (steps.a, steps.b))
        policy_a, policy_b = policy_of_step(a.tree_policy, step_a), policy_of_step(b.tree_policy, step_b)
        fixed_shape = policy_a.kind in ("static", "chain")
        sized = a.tree_policy if a.tree_policy.costs is not None else None
        # Rows of a batch are sized together, by what one row's records do not show.
        decidable = sized is None or max(a.batch_size or 1, b.batch_size or 1) == 1
        return cls(
            a=StepNodes(step_a, levels_of(a)),
            b=StepNodes(step_b, levels_of(b)),
            previous_a=None if steps.previous_a is None else StepNodes(steps.previous_a),
            previous_b=None if steps.previous_b is None else StepNodes(steps.previous_b),
            judge=judge,
            trees_compared=trees_alike(a, b),
            same_engine=a.engine == b.engine,
            same_exit_head=same_exit_head(a, b),
            same_policy=same_policy(policy_a, policy_b) and expected.same_trees and decidable,
            same_table=a.tree_policy.shapes is not None and a.tree_policy.shapes == b.tree_policy.shapes,
            sized=sized,
            fixed_shape=fixed_shape,
            order_matters=fixed_shape or a.sampling.rule != "greedy",
            regrouped=steps.regrouped,
            reused_more=steps.reused_more,
            expected=expected,
            in_part=in_part(a) | in_part(b),
        )

    @cached_property
    def in_same_slots(self) -> bool:
        """As ``fed_in_same_slots`` has it."""
        return fed_in_same_slots(self.a, self.b)

    @cached_property
    def numbered_alike(self) -> bool:
        """As ``nodes.numbered_alike`` has it."""
        return numbered_alike(self.a, self.b)

    @cached_property
    def common(self) -> list[PathKey]:
        """Nodes of both trees, in the baseline's slot order."""
        return [key for key in self.a.keys if key in self.b.slots]

    def floor(self, quantity: Quantity) -> float:
        """The noise floor of ``quantity``."""
        return self.judge.floors[quantity]


def difference(
    phase: Phase,
    field: str,
    a: Any,
    b: Any,
    *,
    kind: DifferenceKind,
    inputs_equal: bool,
    node: PathKey | None = None,
    floor: float | None = None,
) -> Difference:
    """The difference as it is reported; ``a`` and ``b`` are shortened to what a card can show."""
    tokens = None if node is None else key_tokens(node)
    return Difference(
        phase=phase,
        field=field,
        node=tokens,
        a=_text(a),
        b=_text(b),
        kind=kind,
        inputs_equal=inputs_equal,
        floor=floor,
        tokens_a=tokens_of(field, a),
        tokens_b=tokens_of(field, b),
    )


def choice(
    judge: FloatJudge, field: str, ours: Said, theirs: Said, *, inputs_equal: bool, node: PathKey | None = None
) -> Difference:
    """Two choices of the teacher that differ.

    A tie is exact where neither side can tell the two apart, near where noise on both may have put either first. A
    token that one side did not record there lies behind all that it did: where noise may have moved even the last of
    those to the front, it may have moved that token too.
    """
    size = max(ours.size, theirs.size)
    margins = [_margin(side, other.best) for side, other in ((ours, theirs), (theirs, ours))]
    kind: DifferenceKind = "real"
    if all(margin is not None and judge.tied("logits", margin, spacing(size)) for margin in margins):
        known = ours.logit_of(theirs.best) is not None and theirs.logit_of(ours.best) is not None
        kind = "exact-tie" if known and margins == [0, 0] else "near-tie"
    differing = difference(
        "verify",
        field,
        ours.best,
        theirs.best,
        kind=kind,
        inputs_equal=inputs_equal,
        node=node,
        floor=judge.allowance("logits", spacing(size)),
    )
    broken = None
    if kind == "exact-tie":
        lower = "baseline" if ours.best < theirs.best else "candidate"
        broken = f"both logits are equal on both sides; the {lower} took the lower id"
    scores = [Contender(token=t, a=ours.logit_of(t), b=theirs.logit_of(t)) for t in (ours.best, theirs.best)]
    return differing.model_copy(
        update={"margin_a": margins[0], "margin_b": margins[1], "contenders": scores, "tie_break": broken}
    )


def _margin(side: Said, other: int) -> float | None:
    """From the best logit to that of the token that the other side chose, or to the last one recorded."""
    if len(side.logits) < 2:
        return None
    logit = side.logit_of(other)
    return max(side.logits) - (min(side.logits) if logit is None else logit)


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:119] + "…"


def path_tokens(nodes: StepNodes) -> list[Any]:
    """The accepted path in tokens, by which it can be compared across slot orders."""
    assert nodes.step.accept is not None
    keys = [nodes.key_of(slot) for slot in nodes.step.accept.path]
    return ["no such slot" if key is None else key_tokens(key)[-1] if key else "root" for key in keys]


def same_path(pair: StepPair) -> bool:
    """Whether both steps accepted the same tokens."""
    a, b = pair.a.step.accept, pair.b.step.accept
    if a is not None and b is not None and a.path == b.path and pair.numbered_alike:
        return True
    return path_tokens(pair.a) == path_tokens(pair.b)


def slot_keys(nodes: StepNodes, slots: list[int]) -> list[Any]:
    """Slots as path keys; a slot that is not one stands as its number."""
    keys = ((slot, nodes.key_of(slot)) for slot in slots)
    return [slot if key is None else key_tokens(key) for slot, key in keys]
