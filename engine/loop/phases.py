"""What a loop is set to do, and what it reports: settings, the seams of its phases, results, the observer.

Knows no transformers. Of the file format it uses how a shape is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch

from specscope.engine.accept.block import accept_block
from specscope.engine.accept.greedy import Acceptance, accept_greedy
from specscope.engine.accept.processors import Processors, process_tree
from specscope.engine.accept.sampling import Coins, accept_sampling, accept_typical, target_probs
from specscope.engine.backends.graphs import GraphPolicy
from specscope.engine.cache.blocks import BlockNote
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.cache.commit import Commit, RowCustody, commit_step
from specscope.engine.drafters.base import Draft, DraftPairs
from specscope.engine.guided.grammar import Grammar
from specscope.engine.guided.guide import Guide, GuideState
from specscope.engine.guided.logits import forbid
from specscope.engine.guided.walk import SlotMasks, walk_tree
from specscope.engine.host import moved, sent
from specscope.engine.loop.rows import HeldByRow, TakenRow, new_generator, take_row
from specscope.engine.loop.stopping import StopDecision, StopWatch
from specscope.engine.settings import GREEDY, SamplingRule
from specscope.engine.tree.checks import CheckReport, InputSnapshot
from specscope.engine.tree.tensors import TreeTensors, additive_mask, tensorize
from specscope.schemas import ShapeSection, ShapeTable
from specscope.schemas.manifest import RuleName
from specscope.schemas.phases import FailedPhase

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

    from specscope.engine.backends.attention import DispatchLog, WindowNote

PhaseName = FailedPhase
EndReason = Literal["eos", "length", "stop_string", "criterion", "cancelled", "interrupted", "failed"]


class ForwardInputs(NamedTuple):
    """What the verify forward is given: of this the trace tells, not of what it was made from."""

    token_ids: torch.Tensor  # (B, P)
    position_ids: torch.Tensor  # (B, P)
    mask: torch.Tensor  # (B, 1, P, S) additive


class StaticInputs(NamedTuple):
    """What a captured forward reads, at one place for ever. P slots and S columns are at least those of a step."""

    token_ids: torch.Tensor  # (B, P)
    position_ids: torch.Tensor  # (B, P)
    mask: torch.Tensor  # (B, 1, P, S) additive
    lengths: torch.Tensor  # (B,) committed: behind them the keys and values are written


def refresh(static: StaticInputs, given: ForwardInputs, lengths: list[int]) -> None:
    """Writes a step's inputs where a captured forward reads them. Slots and columns that the step does not have are
    not seen; such a slot itself sees the first committed position, so that its softmax is not empty."""
    slots, columns = given.mask.shape[2:]
    static.token_ids[:, :slots] = given.token_ids
    static.position_ids[:, :slots] = given.position_ids
    static.mask.fill_(-torch.inf)
    static.mask[..., 0] = 0
    static.mask[:, :, :slots, :columns] = given.mask
    static.lengths.copy_(sent(lengths, static.lengths.device))


class GraphUse(NamedTuple):
    """The graph by which a verify forward ran, where forwards are captured."""

    num_slots: int | None = None  # of the graph
    num_columns: int | None = None
    replays: int | None = None  # of this graph so far, this step's included
    lengths: torch.Tensor | None = None  # (B,) committed lengths that it read
    fallback: str | None = None  # why the forward ran without one


class Verification(NamedTuple):
    """What the teacher said of the trees. Where it was captured, the tensors hold it until the next step."""

    logits: torch.Tensor  # (B, P, V), padding slots included: what decides
    raw_logits: torch.Tensor  # (B, P, V) the same before processors changed them
    features: torch.Tensor  # (B, P, 3E)
    argmax: torch.Tensor  # (B, P)
    inputs: ForwardInputs
    feature_layers: tuple[int, ...]  # that the features were read from
    dispatch: DispatchLog  # empty without an observer
    windows: list[WindowNote] | None  # of the layers that slide; empty without an observer. None: none does
    graph: GraphUse | None = None  # None where forwards are not captured
    # (B, P, V) the logits before the rows' grammars forbade tokens; None where no row has one
    unguided_logits: torch.Tensor | None = None


class AcceptInputs(NamedTuple):
    """What the acceptance looks at."""

    tree: TreeTensors
    argmax: torch.Tensor  # (B, P)
    logits: torch.Tensor  # (B, P, V)
    child_probs: torch.Tensor | None  # (B, N, V) where the drafts were drawn
    coins: list[Coins] | None  # a row each, where the rule draws
    rule: SamplingRule
    max_children: int


def accept(inputs: AcceptInputs) -> Acceptance:
    """The acceptance that the rule names."""
    if inputs.coins is None:
        return accept_greedy(inputs.tree, inputs.argmax)
    probs = target_probs(inputs.logits, inputs.rule)
    device = probs.device
    bonus = moved(torch.stack([c.bonus for c in inputs.coins]), device)
    if inputs.rule.rule == "typical":
        return accept_typical(inputs.tree, probs, inputs.rule, bonus)
    coins = moved(torch.stack([c.slots for c in inputs.coins]), device)
    if inputs.rule.rule == "block":
        assert inputs.child_probs is not None
        return accept_block(inputs.tree, probs, inputs.child_probs, coins, bonus_coins=bonus)
    return accept_sampling(
        inputs.tree, probs, inputs.child_probs, coins, bonus_coins=bonus, max_children=inputs.max_children
    )


def tensorize_draft(draft: Draft, committed_lengths: list[int], max_depth: int) -> TreeTensors:
    """The tensors of the draft's trees."""
    return tensorize(draft.tree, committed_lengths, max_depth)


def forward_inputs(tensors: TreeTensors, dtype: torch.dtype) -> ForwardInputs:
    """Ids and positions as they were made, and the additive mask of what each slot sees."""
    return ForwardInputs(tensors.token_ids, tensors.position_ids, additive_mask(tensors, dtype))


class HandOver(NamedTuple):
    """What one row's drafter is to be fed of a forward of the teacher."""

    phase: Literal["prefill", "step"]
    features: torch.Tensor  # (R, 3E) of all rows of the forward: the tokens of the prompt, or the slots
    source_rows: list[int]  # those that were committed, in order
    tokens: list[int]  # the token that follows each of them; the last is pending
    device: torch.device


def hand_over(committed: HandOver) -> DraftPairs:
    """The features of what was committed, each with the token that follows."""
    features, rows, tokens = committed.features, committed.source_rows, committed.tokens
    # Of a prompt, all of them.
    chosen = features if committed.phase == "prefill" else features.index_select(0, sent(rows, features.device))
    return DraftPairs(rows, chosen, sent(tokens, committed.device), tokens)


def accepted_length(accepted: RowAcceptance) -> int:
    """What a step adds to its turn's accepted lengths."""
    return accepted.accepted_length


def advance_guide(guide: Guide, decision: StopDecision) -> int:
    """Takes in what a step emitted and kept, as far as the grammar allows it; how many tokens that were."""
    return guide.take_all(decision.emitted[: decision.kept])


class RankDecided(NamedTuple):
    """Digests, as int64, of what one rank decided in a step of one row."""

    tree: int
    path: int | None = None  # None as long as nothing is accepted
    emitted: int | None = None


#: Of this rank's numbers, those of every rank, in their order. All ranks call it equally often, with as many numbers.
Exchange = Callable[[list[int]], list[list[int]]]
ProcessTree = Callable[["list[LogitsProcessorList | None]", list[list[int]], TreeTensors, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Phases:
    """The phases that can be replaced one by one: the seams where a deliberate fault goes in."""

    take_row: Callable[[TakenRow], int] = field(default=take_row, kw_only=True)
    new_generator: Callable[[int, int], torch.Generator] = field(default=new_generator, kw_only=True)
    tensorize: Callable[[Draft, list[int], int], TreeTensors] = tensorize_draft
    inputs: Callable[[TreeTensors, torch.dtype], ForwardInputs] = forward_inputs
    refresh: Callable[[StaticInputs, ForwardInputs, list[int]], None] = refresh
    processors: ProcessTree = process_tree
    walk: Callable[[Guide, list[int], list[int]], SlotMasks] = field(default=walk_tree, kw_only=True)
    forbid: Callable[[torch.Tensor, Sequence[SlotMasks | None]], torch.Tensor] = field(default=forbid, kw_only=True)
    accept: Callable[[AcceptInputs], Acceptance] = accept
    commit: Callable[[TreeCache, TreeCache, list[list[int]], list[RowCustody | None]], list[Commit]] = commit_step
    stop: Callable[[StopWatch, list[int]], StopDecision] = StopWatch.take
    advance: Callable[[Guide, StopDecision], int] = field(default=advance_guide, kw_only=True)
    pairs: Callable[[HandOver], DraftPairs] = hand_over
    tally: Callable[[RowAcceptance], int] = accepted_length
    exchange: Exchange | None = field(default=None, kw_only=True)  # None: one rank computes the step
    stop_on_violation: bool = True


@dataclass(frozen=True)
class Decoding:
    """How a session decodes.

    ``checks``: ``before`` looks at every tree on the host before a kernel runs on it; ``deferred`` looks on the device
    and raises at the acceptance, so that the step waits for the device once. ``overlaps``: the session's caller is to
    deliver a step's results while the next step drafts.
    """

    rule: SamplingRule = GREEDY
    cache_strategy: str = "in-place"
    block_size: int | None = None  # positions of a block where the prefix is paged; None: the cache is dense
    checks: Literal["before", "deferred"] = "before"
    overlaps: bool = False
    processors: Processors | None = None
    phases: Phases = Phases()
    graphs: GraphPolicy | None = None  # how verify forwards are captured; None: they are not
    grammar: Grammar | None = None  # that every turn's output follows; None: it is free
    shapes: ShapeTable | None = None  # what the shape of each step is chosen from; None: it is the drafter's


class RowAcceptance(NamedTuple):
    """What one row accepted, on the host."""

    rule: RuleName
    path: list[int]  # accepted slots in order, without the root
    tokens: list[int]  # theirs
    bonus_token: int  # the next pending token
    bonus_slot: int  # where it was read

    @property
    def accepted_length(self) -> int:
        """Accepted nodes; excludes root and bonus."""
        return len(self.path)


class Custody(NamedTuple):
    """Position sums (L,) of what a row's caches held when the step began."""

    teacher: torch.Tensor
    drafter: torch.Tensor | None  # None where it keeps nothing
    drafter_length: int  # positions that the drafter kept
    drafter_after: torch.Tensor | None = None  # after the draft


class GuidedStep(NamedTuple):
    """What a row's grammar allowed in a step, and where the step left it."""

    masks: SlotMasks
    after: GuideState


class StepTensors(NamedTuple):
    """What one step of all rows computed."""

    draft: Draft
    tensors: TreeTensors
    verification: Verification
    acceptance: Acceptance
    coins: list[Coins] | None
    snapshot: InputSnapshot | None  # of the inputs before the forward; None without an observer


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Everything one step decided for one row."""

    step: int
    row: int  # of ``shared``
    shape: ShapeSection | None  # None where none was chosen
    shared: StepTensors
    report: CheckReport
    custody: Custody | None  # None without an observer
    acceptance: RowAcceptance
    commit: Commit
    blocks: BlockNote | None  # None where the cache is dense, or nobody observes
    drafter_pairs: int  # in the drafter's cache after the step
    stop: StopDecision
    guided: GuidedStep | None  # None where no grammar guides the turn
    ranks: list[RankDecided] | None  # what each rank decided; None where there is one
    durations_ns: dict[str, int]  # by phase, of all rows together
    synchronised: bool  # whether each phase was waited for; else the times of a device's phases are those of launching


@dataclass(frozen=True, kw_only=True)
class TurnStarted:
    """A turn whose prompt has been taken in."""

    prompt_ids: list[int]
    reused_length: int
    row: int
    held: HeldByRow  # before the prompt was taken in
    generator_seed: int | None  # None where nothing is drawn
    generator_state: torch.Tensor | None  # as the turn begins; None where nothing is drawn
    dispatch: Counter[str]
    features: torch.Tensor  # (R, 3E) of the tokens that were taken in; 3E is 0 where the drafter wants none
    last_logits: torch.Tensor  # (V,)
    pending_token: int
    draw: PendingDraw | None
    guided: GuideState | None  # behind the pending token; None where no grammar guides the turn
    prefix_digests: list[str]  # a layer each, of the prompt's keys and values
    block_table: list[int] | None  # None where the cache is dense
    duration_ns: int


class PendingDraw(NamedTuple):
    """How the first token was drawn: its share of the distribution holds the coin."""

    coin: float
    low: float
    high: float


@dataclass
class TurnResult:
    """What a turn came to; filled while it runs."""

    output_ids: list[int] = field(default_factory=list)
    reason: EndReason = "failed"
    accepted_lengths: list[int] = field(default_factory=list)
    num_drafted: int = 0
    num_fallbacks: int = 0  # commits that fell back to the full reorder
    commit_ns: list[int] = field(default_factory=list)  # branch and commit, a step each, of all rows together
    duration_ns: int = 0
    prefill_ns: int = 0
    row: int = 0  # that it ended in
    generator_state: torch.Tensor | None = None  # as it was left; None where nothing is drawn

    @property
    def mean_accepted_length(self) -> float:
        """Accepted nodes per step; excludes root and bonus. 0 without a step."""
        return sum(self.accepted_lengths) / max(1, len(self.accepted_lengths))

    @property
    def tokens_per_s(self) -> float:
        """Output tokens over the turn's wall time, prefill included."""
        return len(self.output_ids) / max(self.duration_ns / 1e9, 1e-9)


@dataclass(frozen=True, kw_only=True)
class TurnState:
    """Where a turn stood when its prefill or a step of it began: enough to start from there again."""

    step: int | None = None  # None in a prefill
    context_ids: list[int]  # in a prefill the prompt; in a step the committed tokens, and the pending one last
    num_emitted: int = 0  # how many of the last of them are output
    pairs: DraftPairs | None = None  # what the drafter is fed next; None in a prefill
    generator_seed: int | None = None  # in a prefill
    generator_state: torch.Tensor | None = None  # in a step that draws


@dataclass(frozen=True, kw_only=True)
class InFlight:
    """What one row was working on when its turn failed: the products of the phases that were over."""

    phase: PhaseName  # that failed
    row: int
    state: TurnState
    shape: ShapeSection | None = None  # None where none was chosen
    draft: Draft | None = None
    tensors: TreeTensors | None = None
    verification: Verification | None = None
    acceptance: RowAcceptance | None = None
    ranks: list[RankDecided] | None = None  # None where one rank computes the step, or did not get so far


class Observer(Protocol):
    """Is told what happens to one turn, and changes nothing."""

    def turn_started(self, turn: TurnStarted) -> None:
        """After the prefill."""

    def step_done(self, result: StepResult) -> None:
        """After each step."""

    def turn_ended(self, result: TurnResult) -> None:
        """After the last step, or when the turn was interrupted or failed."""

    def failed(self, in_flight: InFlight, error: Exception) -> None:
        """Before an exception leaves the loop."""
