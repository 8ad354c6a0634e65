"""The step: one tree drafted, verified, accepted and committed; a section for each phase.

Lists "per slot" have one entry per slot, the root being slot 0; padding slots come last. A section that the writer
cannot supply is absent, and whatever needs it is skipped, never passed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from specscope.schemas.accept import AcceptSection
from specscope.schemas.base import Digest, Float, Record, Section, TokenId
from specscope.schemas.guided import GuidedSection
from specscope.schemas.paging import BlocksSection
from specscope.schemas.pipeline import PipelineSection
from specscope.schemas.ranks import RankDecisions
from specscope.schemas.shapes import ShapeSection


class DraftInputs(Section):
    """The pairs (teacher hidden state of one token, the next token) that the drafter was fed in this step."""

    source_rows: list[int] = Field(
        description="Where each pair's hidden state was read: the row of the forward before (prefill row, or slot)."
    )
    tokens: list[TokenId] = Field(description="Per pair, the token after the one whose hidden state it is.")
    positions: list[int] = Field(description="Drafter positions: pair indices.")
    hidden_digest: Digest | None = Field(
        default=None, description="Of the hidden states of all pairs, as they were fed."
    )
    hidden_norms: list[Float] | None = Field(default=None, description="L2 norm of each pair's hidden state.")


class DraftLevel(Section):
    """One forward of the drafter and what it proposed. Candidates are numbered in order over all levels."""

    frontier: list[int] = Field(description="Candidates that were fed; empty at the first level, which uses the pairs.")
    positions: list[int] = Field(description="Drafter positions of the rows that proposed.")
    tokens: list[TokenId] = Field(description="top-k proposals of each row, rows in order, best first.")
    logprobs: list[Float] = Field(description="Their log-probabilities given the parent.")
    finite: bool = Field(description="Whether every score was finite, before any clean-up.")
    logsumexp: list[Float] | None = Field(
        default=None,
        description="Per row that proposed, the log of the sum of exp(logit), at the drafting temperature where tokens"
        " are drawn: a log-probability and this one add up to the logit, whose size says how it was rounded.",
    )
    perturbed: list[Float] | None = Field(
        default=None,
        description="Where tokens are drawn: the log-probabilities with the noise that ranked them, in the order of"
        " tokens.",
    )


class DraftSection(Section):
    """Phase draft."""

    inputs: DraftInputs | None = Field(default=None, description="What the drafter was fed.")
    kv_before: int | None = Field(default=None, description="Pairs in the drafter's cache before this step's were fed.")
    kv_after: int | None = Field(default=None, description="Pairs after; the tree's own entries are dropped again.")
    levels: list[DraftLevel] | None = Field(
        default=None, description="Absent where the drafter has none: a lookup proposes whole paths at once."
    )
    num_candidates: int = Field(description="Proposals over all levels, of which the tree was chosen.")
    kv_digest_before: Digest | None = Field(
        default=None,
        description="Of the keys and values of the pairs in the drafter's cache, before this step's were fed.",
    )
    kv_digest_after: Digest | None = Field(
        default=None, description="The same with this step's pairs, after the draft: what the next step must find."
    )


class TreeSection(Section):
    """Phase draft, its result: the tree."""

    tokens: list[TokenId] = Field(description="Per slot; the root's is the last token so far.")
    parents: list[int] = Field(description="Per slot, in 0..M; the root is its own parent.")
    depths: list[int] = Field(description="Per slot: edges from the root.")
    logprobs: list[Float] | None = Field(default=None, description="Per slot, given the parent; the root's is 0.")
    scores: list[Float] | None = Field(default=None, description="Per slot: sum of log-probabilities from the root.")
    depth_limit: int | None = Field(
        default=None,
        ge=0,
        description="Deepest level that was drafted for, where no more tokens may be emitted than its depth and the"
        " bonus token; absent: the policy's depth.",
    )
    proposed_by: list[str] | None = Field(
        default=None,
        description="Per slot, which of several drafters proposed it, joined by + where more than one did; the root's"
        " is empty. A node's score is the best that its proposers give it, its log-probability what that adds to its"
        " parent's.",
    )


class TensorsSection(Section):
    """Phase tensorize: what the verify forward was really given."""

    committed_length: int = Field(description="Tokens in the teacher's cache before the step.")
    num_slots: int = Field(description="Real slots, the root included.")
    padded_slots: int = Field(description="Rows of the tensors; equal to num_slots without padding.")
    mask_rows: list[Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$")]] = Field(
        description="Per row, the visible tree columns as bits: byte b, bit i (lowest first) is column 8b + i."
    )
    mask_from: Literal["causal"] | None = Field(
        default=None,
        description="causal: no mask was given, and mask_rows are what the attention's causal flag stands for. Absent:"
        " they are the mask that was given.",
    )
    prefix_visible: list[int] = Field(description="Per row, how many of the committed columns are visible.")
    positions: list[int] = Field(description="Per row, the position id used.")
    token_ids: list[TokenId] = Field(description="Per row, the token id fed.")
    index_tensors: dict[str, list[int]] = Field(description="Every index tensor used, flattened, by name.")
    input_digest: Digest | None = Field(default=None, description="Of token ids, positions and mask together.")


class GraphReplay(Section):
    """The graph by which a verify forward ran."""

    slots: int | None = Field(
        default=None, description="Slots that it computes: the step's and more that nothing is read of."
    )
    columns: int | None = Field(
        default=None, description="Columns of its mask: the positions of the cache that it reads."
    )
    replays: int | None = Field(
        default=None, description="How often it has run, this time included; 1: captured in this step."
    )
    committed_length: int | None = Field(
        default=None, description="The length in its own memory: behind so many positions it wrote keys and values."
    )
    fallback: str | None = Field(
        default=None, description="Why the forward ran without a graph; absent where it ran by one."
    )


class SlidingWindow(Section):
    """What the slots saw in layers with a sliding window, read from the mask that their attention was given."""

    size: int = Field(description="Positions that a slot may see, its own among them.")
    layers: list[int] = Field(description="The layers that had this window.")
    first_positions: list[int] = Field(description="Per real slot, the lowest position that it saw.")
    num_seen: list[int] = Field(description="Per real slot, how many positions it saw.")


class VerifySection(Section):
    """Phase verify: what the teacher said. Slot k's logits predict the children of k."""

    dispatch: dict[str, int] | None = Field(default=None, description="Attention implementation that ran -> calls.")
    graph: GraphReplay | None = Field(
        default=None,
        description="The graph that was replayed; its own memory is what tensors shows. Absent: not captured.",
    )
    windows: list[SlidingWindow] | None = Field(
        default=None,
        description="One for each size of a sliding window among the layers. Absent: none slid, or not recorded.",
    )
    block_table: list[int] | None = Field(
        default=None,
        description="The blocks that the forward read the committed prefix from, in order. Absent: the cache is not"
        " paged, or not recorded.",
    )
    argmax: list[TokenId] = Field(description="Per real slot, the teacher's best token.")
    top_tokens: list[list[TokenId]] | None = Field(
        default=None,
        description="Per real slot, the best tokens, best first: at least two, and all that rounding may have put"
        " first, 16 at most. Judged where top_logits stands, too.",
    )
    top_logits: list[list[Float]] | None = Field(
        default=None,
        description="Their logits; where only log-probabilities are known, these, with a logsumexp of 0: they are"
        " logits, too, all moved by one number. A margin between the best two is none of these: leave it out.",
    )
    logsumexp: list[Float] | None = Field(default=None, description="Per real slot: log of the sum of exp(logit).")
    entropy: list[Float] | None = Field(default=None, description="Per real slot, nats.")
    nonfinite_slots: list[int] | None = Field(
        default=None, description="Slots with a logit that is not finite, before any clean-up."
    )
    logits_digest: Digest | None = Field(default=None, description="Of the logits of the real slots, in slot order.")
    input_digest: Digest | None = Field(
        default=None, description="Of what the forward received; equals tensors.input_digest."
    )
    feature_layers: list[int] | None = Field(
        default=None,
        description="The transformers hidden_states indices that the features were really read from, in order.",
    )
    target_logprobs: list[list[Float]] | None = Field(
        default=None, description="Level scores: per slot, log-probabilities of target_tokens."
    )
    target_tokens: list[list[TokenId]] | None = Field(
        default=None, description="Level scores: per slot, the best tokens."
    )

    def best_tokens(self, slot: int) -> list[int]:
        """The best tokens at ``slot``, two at least; empty where they were not recorded."""
        return self.top_tokens[slot] if self.top_tokens is not None else []

    def best_logits(self, slot: int) -> list[float]:
        """Their logits; empty where they were not recorded."""
        return self.top_logits[slot] if self.top_logits is not None else []


class CommitSection(Section):
    """Phase commit."""

    strategy: str = Field(description="What was done; where it is not what was asked for, fallback says why.")
    fallback: str | None = Field(default=None, description="Why the strategy asked for was not followed.")
    committed_before: int = Field(description="Tokens in the teacher's cache before the step.")
    committed_after: int = Field(description="Tokens in the teacher's cache after the step.")
    source_slots: list[int] = Field(description="Tree slots whose KV was kept: the root, then the path.")
    destination_rows: list[int] = Field(description="Cache rows that they were written to.")
    source_checksums: list[Digest] | None = Field(
        default=None, description="Per layer, keys and values of the sources, before the move."
    )
    written_checksums: list[Digest] | None = Field(
        default=None, description="Per layer, keys and values of the destinations, after the move."
    )
    prefix_layer: int | None = Field(
        default=None, description="The layer whose committed prefix was checksummed in this step."
    )
    prefix_before: Digest | None = Field(
        default=None, description="Of that layer's committed prefix, before the commit."
    )
    prefix_after: Digest | None = Field(default=None, description="Of the same rows, after the commit.")
    prefix_committed: Digest | None = Field(
        default=None, description="Of that layer's whole committed prefix after the commit, the rows written included."
    )
    prefix_since: Digest | None = Field(
        default=None,
        description="Of the rows that this layer had when its turn came last, before this commit: what that step gives"
        " as prefix_committed, or where its turn comes first, what the prefill gives.",
    )
    kv_digests_before: list[Digest] | None = Field(
        default=None,
        description="Per layer, of the keys and values of the committed prefix as the step found them, before anything "
        "was fed.",
    )
    kv_digests_after: list[Digest] | None = Field(
        default=None, description="The same of the prefix as the commit leaves it: what the next step must find."
    )
    features_digest: Digest | None = Field(
        default=None,
        description="Of the teacher's features at the source slots, in order, as the drafter is to be fed them.",
    )
    blocks: BlocksSection | None = Field(default=None, description="Where the cache is paged; absent: it is not.")
    drafter_before: int | None = Field(default=None, description="Pairs in the drafter's cache before the step.")
    drafter_after: int | None = Field(default=None, description="Pairs in the drafter's cache after the step.")


class StopSection(Section):
    """What of the step's tokens was emitted."""

    emitted: list[TokenId] = Field(description="The accepted tokens and the bonus token.")
    emitted_from: Literal["path"] | None = Field(
        default=None,
        description="path: what the engine appended is not recorded, and emitted was put together from accept.path and"
        " accept.bonus_token. Absent: it is what the engine appended.",
    )
    kept: int = Field(description="How many of them were kept; the rest was cut by a stop rule.")
    reason: Literal["eos", "length", "stop_string", "criterion"] | None = Field(
        default=None, description="What ended the turn with this step; absent where it goes on."
    )


#: No step drafts so many tokens; a damaged file may hold a number of any size.
MOST_DRAFTED = 1 << 20


class LengthsSection(Section):
    """Level lengths: all that was recorded of a step."""

    drafted: int | None = Field(
        default=None,
        ge=0,
        le=MOST_DRAFTED,
        description="Drafted tokens that were verified; absent: not known.",
    )
    accepted: int = Field(le=MOST_DRAFTED, description="Of them, accepted; excludes root and bonus.")


class InvariantFailure(Section):
    """A violated invariant."""

    id: str = Field(description="The invariant's.")
    witness: str = Field(description="Where and how, in words.")


class InvariantsSection(Section):
    """What the engine itself checked in this step."""

    passed: list[str] = Field(description="Ids of the invariants that held.")
    failed: list[InvariantFailure] = Field(description="Those that did not.")
    skipped: list[str] = Field(description="Ids of those that could not be judged.")


class TimingSection(Section):
    """Nanoseconds per phase; of all rows together where rows are decoded side by side."""

    begun_ns: int | None = Field(
        default=None, description="When the step began, since its turn began; absent: right after what came before."
    )
    branch_ns: int | None = Field(
        default=None, description="Copying the cache for the step, where the strategy does that."
    )
    draft_ns: int = Field(description="Drafting the tree.")
    deliver_ns: int | None = Field(
        default=None,
        description="Delivering the results of the step before, while the device drafts; absent: they were "
        "delivered before this step began.",
    )
    tensorize_ns: int = Field(description="Making the forward's tensors.")
    check_ns: int = Field(description="Checking them.")
    verify_ns: int = Field(description="The teacher's forward.")
    accept_ns: int = Field(description="The acceptance walk.")
    commit_ns: int = Field(description="Committing the accepted rows.")
    synchronised: bool = Field(description="Whether the device was synchronised at each phase's end.")


class TensorFiles(Section):
    """Level tensors: where the step's tensors are stored."""

    file: str = Field(description="A safetensors file, relative to the trace's folder.")
    digest: Digest = Field(description="xxh3_128 of the file.")
    names: list[str] = Field(description="The tensors in it.")


class ForcedSection(Section):
    """In a replay: what was put in place of the step's own outcome, so that the next step begins as it did then.

    The other sections hold what the replay itself found; commit and stop follow what was forced.
    """

    tree: bool = Field(description="Whether the recorded tree replaced the one that the drafter found.")
    path: list[int] = Field(description="Accepted slots that were committed, without the root.")
    bonus_token: TokenId = Field(description="The next step's root.")


class Step(Record):
    """One step of one turn."""

    kind: Literal["step"] = Field(default="step", description="What record this is.")
    turn: int = Field(description="Number of the turn in the run.")
    step: int = Field(description="Number of the step in its turn, from 0.")
    row: int | None = Field(
        default=None,
        description="The batch row that its turn was moved to before it; absent: that of the record before it.",
    )
    shape: ShapeSection | None = Field(
        default=None, description="Only where the run chooses a shape for each step: which, and why."
    )
    draft: DraftSection | None = Field(default=None, description="What the drafter was fed and proposed.")
    tree: TreeSection | None = Field(default=None, description="The tree that was chosen of it.")
    tensors: TensorsSection | None = Field(default=None, description="What the verify forward was really given.")
    verify: VerifySection | None = Field(default=None, description="What the teacher said.")
    guided: GuidedSection | None = Field(
        default=None, description="Only where a grammar guides the run: what it allowed, slot by slot."
    )
    accept: AcceptSection | None = Field(default=None, description="The acceptance walk.")
    commit: CommitSection | None = Field(default=None, description="What was kept in the caches.")
    stop: StopSection | None = Field(default=None, description="What was emitted.")
    lengths: LengthsSection | None = Field(
        default=None, description="At level lengths, in place of the sections above."
    )
    invariants: InvariantsSection | None = Field(default=None, description="What the engine checked itself.")
    ranks: list[RankDecisions] | None = Field(
        default=None, description="Only where several ranks computed the step: what each decided, in their order."
    )
    timing: TimingSection | None = Field(default=None, description="Nanoseconds per phase.")
    pipeline: PipelineSection | None = Field(default=None, description="Only in a pipelined run.")
    forced: ForcedSection | None = Field(default=None, description="Only in a replay.")
    texts: dict[str, str] | None = Field(
        default=None,
        description="Only with --trace-text: text by token id, for every id in this step's tree and verify.",
    )
    tensor_files: TensorFiles | None = Field(default=None, description="Only at level tensors.")

    @property
    def accepted_length(self) -> int | None:
        """Accepted nodes, without root and bonus token; None where that was not recorded."""
        if self.accept is not None:
            return self.accept.accepted_length
        return None if self.lengths is None else self.lengths.accepted

    @property
    def committed_length(self) -> int | None:
        """Tokens in the teacher's cache before the step; None where that was not recorded."""
        if self.commit is not None:
            return self.commit.committed_before
        return None if self.tensors is None else self.tensors.committed_length

    @property
    def num_drafted(self) -> int | None:
        """Drafted nodes that were verified; None where that was not recorded."""
        if self.tree is not None:
            return len(self.tree.tokens) - 1
        return None if self.lengths is None else self.lengths.drafted
