"""The records around the steps: a turn's start and end, a failure, the end of the run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from specscope.schemas.accept import BonusDraw
from specscope.schemas.base import Digest, Float, Record, Section, TokenId
from specscope.schemas.guided import GrammarState
from specscope.schemas.phases import FailedPhase
from specscope.schemas.pipeline import PipelineSection, StageEvents
from specscope.schemas.ranks import RankDecisions


class Prefill(Section):
    """The forward over the prompt."""

    num_tokens: int = Field(
        description="Tokens fed; the prompt less what was already committed, and less its last token where"
        " pending_token is absent."
    )
    dispatch: dict[str, int] | None = Field(
        default=None, description="Attention implementation that ran -> calls, one per layer and chunk."
    )
    last_hidden_digest: Digest | None = Field(
        default=None, description="Of the teacher's features of the last token fed."
    )
    features_digest: Digest | None = Field(
        default=None, description="Of the teacher's features of all tokens fed, as the drafter is to be fed them."
    )
    pending_token: TokenId | None = Field(
        default=None,
        description="The first emitted token: the first step's root. Absent where the engine drafts before it has"
        " one: then the root is the prompt's last token.",
    )
    top_tokens: list[TokenId] | None = Field(
        default=None,
        description="The best tokens at the last prompt position, best first; as many as in verify.top_tokens.",
    )
    top_logits: list[Float] | None = Field(default=None, description="Their logits.")
    draw: BonusDraw | None = Field(default=None, description="How the first token was drawn; absent where greedy.")
    prefix_digests: list[Digest] | None = Field(
        default=None, description="Per layer, of the keys and values of the whole prompt, reused tokens included."
    )
    block_table: list[int] | None = Field(
        default=None, description="Blocks of the whole prompt, in order, where the cache is paged."
    )
    guided: GrammarState | None = Field(
        default=None, description="Only where a grammar guides the run: where it is after the pending token."
    )
    duration_ns: int | None = Field(default=None, description="Wall time of the prefill, in nanoseconds.")


class HeldSection(Section):
    """What a row holds when a turn is about to take its prompt in: what it reuses, and nothing of another request.

    Where a turn may reuse tokens that another row left, as with a cache shared by prefix, it is not recorded.
    """

    committed_length: int = Field(description="Positions in the teacher's cache.")
    num_pairs: int | None = Field(
        default=None,
        description="Pairs in the drafter's cache, each of a token and the features before it, so that of a prompt's"
        " first n tokens, n have theirs. Absent: the drafter has no cache, or counts in another way.",
    )


class TurnStart(Record):
    """A prompt, or a further turn of one."""

    kind: Literal["turn_start"] = Field(default="turn_start", description="What record this is.")
    turn: int = Field(description="Number of the turn in the run, from 0.")
    prompt_id: str = Field(description="Name of the prompt, by which two runs are paired.")
    prompt_turn: int = Field(description="Number of the turn in its prompt, from 0.")
    prompt_ids: list[TokenId] = Field(description="The whole context, earlier turns included.")
    reused_length: int = Field(description="Leading tokens whose KV was committed by an earlier turn.")
    prompt_text: str | None = Field(default=None, description="Only with --trace-text.")
    row: int | None = Field(default=None, description="The batch row that it began in; absent: 0.")
    arrived_at: int | None = Field(
        default=None,
        ge=0,
        description="From when its request waited for a row, in steps that the rows had taken together; absent: 0.",
    )
    joined_at: int | None = Field(
        default=None,
        ge=0,
        description="When it began in its row, by the same count; it ends num_steps later. Absent: not known.",
    )
    waited_ns: int | None = Field(
        default=None,
        ge=0,
        description="From its request's arrival until it took a row, in nanoseconds; only in a request's first turn,"
        " where arrivals_clock is seconds.",
    )
    held: HeldSection | None = Field(
        default=None, description="What the row held before the prompt was taken in; absent: not known."
    )
    generator_seed: int | None = Field(
        default=None,
        description="Seed of the turn's own generator, made from the run's seed, the prompt's id and the turn.",
    )
    generator_digest: Digest | None = Field(
        default=None, description="Of that generator's state before the turn's first draw."
    )
    without_ids: Literal[True] | None = Field(
        default=None,
        description="Only at level lengths: no token ids are recorded, so that prompt_ids, output_ids and the prefill"
        " say nothing. Absent: they are.",
    )
    num_prompt_tokens: int | None = Field(
        default=None, ge=0, description="Where no ids are recorded: how many tokens the prompt has; absent: not known."
    )
    lacks_beginning: Literal[True] | None = Field(
        default=None,
        description="Only at level lengths: what was recorded begins within the turn, or may, so that its first step"
        " here need not be its first. Absent: it is.",
    )
    prefill: Prefill = Field(description="The forward over the prompt.")
    pipeline: PipelineSection | None = Field(
        default=None,
        description="Only in a pipelined run: of the prompt's last position, whose token is the pending one.",
    )

    @model_validator(mode="after")
    def _has_a_root(self) -> TurnStart:
        if self.prefill.pending_token is None and not self.prompt_ids and not self.without_ids:
            raise ValueError("wanted prefill.pending_token, or a prompt whose last token is the first step's root")
        return self

    @property
    def root(self) -> int:
        """The first step's root."""
        pending = self.prefill.pending_token
        return self.prompt_ids[-1] if pending is None else pending

    @property
    def prompt_length(self) -> int | None:
        """Tokens of the prompt; None where that is not known."""
        return self.num_prompt_tokens if self.without_ids else len(self.prompt_ids)

    @property
    def known_row(self) -> int | None:
        """The batch row that it began in; None where the writer says nothing of rows."""
        return 0 if self.row is None and (self.joined_at, self.held) != (None, None) else self.row

    @property
    def waited_steps(self) -> int | None:
        """Steps that its request waited for a row; None where that is not known, or it had one from an earlier turn."""
        return None if self.joined_at is None or self.prompt_turn else self.joined_at - (self.arrived_at or 0)

    def could_wait(self, rows: int) -> bool:
        """Whether its request may have waited for one of so many rows, and the trace says how long. Prompts that are
        all there from the start and take one row, one after another, are no requests that wait."""
        return self.joined_at is not None and (rows > 1 or bool(self.arrived_at) or self.waited_ns is not None)

    @property
    def num_committed(self) -> int:
        """Tokens in the teacher's cache before the first step."""
        return len(self.prompt_ids) - (self.prefill.pending_token is None)

    @property
    def first_output(self) -> list[int]:
        """What was emitted before the first step: the pending token, where there is one."""
        pending = self.prefill.pending_token
        return [] if pending is None else [pending]


class TurnEnd(Record):
    """What a turn came to."""

    kind: Literal["turn_end"] = Field(default="turn_end", description="What record this is.")
    turn: int = Field(description="Number of the turn in the run.")
    row: int | None = Field(
        default=None,
        description="The batch row that it was moved to after its last step, and left; absent: that of its last step.",
    )
    output_ids: list[TokenId] = Field(description="The prefill's pending token, if any, and what each step kept.")
    output_from: Literal["steps"] | None = Field(
        default=None,
        description="steps: what the engine put out is not recorded, and output_ids was put together from the pending"
        " token and what each step kept. Absent: it is what the engine put out.",
    )
    num_output_tokens: int | None = Field(
        default=None, ge=0, description="Where no ids are recorded: how many tokens were put out; absent: not known."
    )
    reason: Literal["eos", "length", "stop_string", "criterion", "cancelled", "interrupted", "failed", "unknown"] = (
        Field(
            description="What ended the turn; cancelled: its request was withdrawn, and the run went on; unknown: at"
            " level lengths, where that was not recorded."
        )
    )
    num_steps: int = Field(description="Steps of the turn.")
    num_drafted: int = Field(description="Drafted nodes over all steps; roots are not counted.")
    num_accepted: int = Field(description="Accepted nodes over all steps; roots and bonus tokens are not counted.")
    num_fallbacks: int | None = Field(
        default=None, description="Commits that did not follow the strategy asked for; absent: 0."
    )
    accepted_by_depth: list[int] = Field(description="[d] = steps whose accepted length was at least d + 1.")
    counts_from: Literal["steps"] | None = Field(
        default=None,
        description="steps: the engine's own counts are not recorded, and these were added up from the steps. Absent:"
        " they are the engine's.",
    )
    generator_digest: Digest | None = Field(
        default=None, description="Of the state of the turn's own generator after its last draw."
    )
    duration_ns: int = Field(
        description="Wall time from the turn's start to its end, prefill included, in nanoseconds; 0: not measured."
    )
    pipeline: StageEvents | None = Field(
        default=None, description="Only in a pipelined run: what became known of the stages after its last step."
    )

    @property
    def output_length(self) -> int:
        """Tokens that were put out, as far as they were recorded."""
        return len(self.output_ids) if self.num_output_tokens is None else self.num_output_tokens


class FailureState(Section):
    """Where the turn stood when the prefill or the step that failed began: enough to start from there again."""

    context_ids: list[TokenId] = Field(
        description="In a prefill the prompt; in a step the committed tokens, and the pending one last."
    )
    num_emitted: int = Field(ge=0, description="How many of the last of them are output.")
    source_rows: list[int] | None = Field(
        default=None, description="Of the pairs that the drafter was fed next, as in draft.inputs; absent in a prefill."
    )
    generator_seed: int | None = Field(
        default=None, description="In a prefill that draws: seed of the turn's generator."
    )
    generator_state: str | None = Field(
        default=None, description="In a step that draws: the generator's state in base64, as torch gives it."
    )


#: In place of a message, where the trace is redacted.
WITHHELD = "withheld: the trace is redacted"


class Failure(Record):
    """Written before an exception leaves the engine: enough to reproduce the step."""

    kind: Literal["failure"] = Field(default="failure", description="What record this is.")
    turn: int | None = Field(default=None, description="Number of the turn in the run.")
    step: int | None = Field(default=None, description="Number of the step in its turn; absent in a prefill.")
    row: int | None = Field(default=None, description="The batch row that it ran in; absent: 0.")
    phase: FailedPhase | None = Field(default=None, description="What ran when it failed; absent: not known.")
    error: str = Field(description="Type of the exception.")
    message: str = Field(description="What the exception says.")
    inputs: dict[str, Any] = Field(description="The inputs of the phase, by name.")
    state: FailureState | None = Field(default=None, description="What ``specscope repro`` runs the step again from.")
    ranks: list[RankDecisions] | None = Field(
        default=None, description="Where several ranks computed the step: what each had decided, in their order."
    )


class RunEnd(Record):
    """The last line. A file without it is a truncated run."""

    kind: Literal["run_end"] = Field(default="run_end", description="What record this is.")
    reason: Literal["complete", "interrupted", "failed"] = Field(description="How the run ended.")
    counts: dict[str, int] = Field(description="Records before this one, by kind.")
    digest: Digest | None = Field(
        default=None, description="xxh3_128 of every byte before this line; absent where the writer has no xxh3."
    )
