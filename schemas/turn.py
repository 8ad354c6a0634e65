"""The records around the steps: a turn's start and end, a failure, the end of the run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from specscope.schemas.base import Digest, Float, Record, Section, TokenId
from specscope.schemas.phases import FailedPhase
from specscope.schemas.step import BonusDraw


class Prefill(Section):
    """The forward over the prompt."""

    num_tokens: int = Field(description="Tokens fed; the prompt less what was already committed.")
    dispatch: dict[str, int] | None = Field(
        None, description="Attention implementation that ran -> calls, one per layer and chunk."
    )
    last_hidden_digest: Digest | None = Field(None, description="Of the teacher's features of the last token fed.")
    features_digest: Digest | None = Field(
        None, description="Of the teacher's features of all tokens fed, as the drafter is to be fed them."
    )
    pending_token: TokenId = Field(description="The first emitted token: the first step's root.")
    top_tokens: list[TokenId] | None = Field(
        None, description="The best tokens at the last prompt position, best first; as many as in verify.top_tokens."
    )
    top_logits: list[Float] | None = Field(None, description="Their logits.")
    draw: BonusDraw | None = Field(None, description="How the first token was drawn; absent where greedy.")
    prefix_digests: list[Digest] | None = Field(
        None, description="Per layer, of the keys and values of the whole prompt, reused tokens included."
    )
    duration_ns: int | None = Field(None, description="Wall time of the prefill, in nanoseconds.")


class TurnStart(Record):
    """A prompt, or a further turn of one."""

    kind: Literal["turn_start"] = Field("turn_start", description="What record this is.")
    turn: int = Field(description="Number of the turn in the run, from 0.")
    prompt_id: str = Field(description="Name of the prompt, by which two runs are paired.")
    prompt_turn: int = Field(description="Number of the turn in its prompt, from 0.")
    prompt_ids: list[TokenId] = Field(description="The whole context, earlier turns included.")
    reused_length: int = Field(description="Leading tokens whose KV was committed by an earlier turn.")
    prompt_text: str | None = Field(None, description="Only with --trace-text.")
    row: int | None = Field(None, description="The batch row that it ran in; absent: 0.")
    generator_seed: int | None = Field(
        None, description="Seed of the turn's own generator, made from the run's seed, the prompt's id and the turn."
    )
    prefill: Prefill = Field(description="The forward over the prompt.")


class TurnEnd(Record):
    """What a turn came to."""

    kind: Literal["turn_end"] = Field("turn_end", description="What record this is.")
    turn: int = Field(description="Number of the turn in the run.")
    output_ids: list[TokenId] = Field(description="The pending token of the prefill, and what each step kept.")
    reason: Literal["eos", "length", "stop_string", "criterion", "interrupted", "failed"] = Field(
        description="What ended the turn."
    )
    num_steps: int = Field(description="Steps of the turn.")
    num_drafted: int = Field(description="Drafted nodes over all steps; roots are not counted.")
    num_accepted: int = Field(description="Accepted nodes over all steps; roots and bonus tokens are not counted.")
    num_fallbacks: int | None = Field(
        None, description="Commits that did not follow the strategy asked for; absent: 0."
    )
    accepted_by_depth: list[int] = Field(description="[d] = steps whose accepted length was at least d + 1.")
    duration_ns: int = Field(
        description="Wall time from the turn's start to its end, prefill included, in nanoseconds."
    )


class FailureState(Section):
    """Where the turn stood when the prefill or the step that failed began: enough to start from there again."""

    context_ids: list[TokenId] = Field(
        description="In a prefill the prompt; in a step the committed tokens, and the pending one last."
    )
    num_emitted: int = Field(ge=0, description="How many of the last of them are output.")
    source_rows: list[int] | None = Field(
        None, description="Of the pairs that the drafter was fed next, as in draft.inputs; absent in a prefill."
    )
    generator_seed: int | None = Field(None, description="In a prefill that draws: seed of the turn's generator.")
    generator_state: str | None = Field(
        None, description="In a step that draws: the generator's state in base64, as torch gives it."
    )


class Failure(Record):
    """Written before an exception leaves the engine: enough to reproduce the step."""

    kind: Literal["failure"] = Field("failure", description="What record this is.")
    turn: int | None = Field(None, description="Number of the turn in the run.")
    step: int | None = Field(None, description="Number of the step in its turn; absent in a prefill.")
    row: int | None = Field(None, description="The batch row that it ran in; absent: 0.")
    phase: FailedPhase = Field(description="What ran when it failed.")
    error: str = Field(description="Type of the exception.")
    message: str = Field(description="What the exception says.")
    inputs: dict[str, Any] = Field(description="The inputs of the phase, by name.")
    state: FailureState | None = Field(None, description="What ``specscope repro`` runs the step again from.")


class RunEnd(Record):
    """The last line. A file without it is a truncated run."""

    kind: Literal["run_end"] = Field("run_end", description="What record this is.")
    reason: Literal["complete", "interrupted", "failed"] = Field(description="How the run ended.")
    counts: dict[str, int] = Field(description="Records before this one, by kind.")
    digest: Digest = Field(description="xxh3_128 of every byte before this line.")
