"""The manifest: line 1 of a trace. Who ran what, with what, and what this writer can supply."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from specscope.schemas.base import Digest, Float, Record, Section


class Device(Section):
    """Where the teacher ran."""

    backend: str = Field(description="cpu, cuda or npu.")
    name: str = Field(description="What the device calls itself.")
    num_threads: int | None = Field(None, description="Threads of the CPU backend.")


class Teacher(Section):
    """The model whose output must be preserved."""

    name: str
    source: str | None = Field(
        None, description="What it was loaded from, as the user named it: demo, a folder, an id."
    )
    architecture: str
    config_digest: Digest | None = None
    weights_digest: Digest | None = Field(None, description="Over the weight files' bytes, in name order.")
    num_layers: int
    hidden_size: int
    vocab_size: int
    max_positions: int | None = None
    rope_theta: Float | None = None


class Drafter(Section):
    """What proposes tokens."""

    kind: str = Field(description="eagle3, ngram, early-exit, model or none.")
    name: str | None = None
    source: str | None = Field(None, description="What it was loaded from, as the user named it, such as eagle3:PATH.")
    config_digest: Digest | None = None
    weights_digest: Digest | None = None
    hidden_state_indices: list[int] | None = Field(
        None, description="Indices into transformers' hidden_states (each the input of that layer), low to high."
    )
    rope_theta: Float | None = None
    rope_theta_source: str | None = Field(None, description="Which configuration field it was read from.")
    draft_vocab_size: int | None = None
    vocab_mapping: Literal["identity", "offset"] | None = Field(None, description="How draft ids map to teacher ids.")
    max_positions: int | None = Field(None, description="Positions that the drafter was made for.")
    settings: dict[str, int] | None = Field(None, description="What else decides its drafts, by name.")


class Tokenizer(Section):
    """The tokenizer."""

    digest: Digest
    vocab_size: int


class TreePolicy(Section):
    """How draft trees are grown, as resolved."""

    kind: Literal["dynamic", "static", "chain", "none"]
    depth: int = Field(description="Deepest level, in edges from the root.")
    top_k: int = Field(description="Children proposed by each frontier node, and nodes kept as the next frontier.")
    budget: int = Field(description="Drafted nodes of a tree at most; the root is not one.")
    name: str | None = Field(None, description="Name of the static tree.")
    choices: list[list[int]] | None = Field(
        None, description="Nodes of a static tree or a chain, each the child ranks from the root."
    )


class Sampling(Section):
    """The acceptance rule."""

    rule: Literal["greedy", "sampling", "typical"]
    lossless: bool | None = Field(None, description="Whether the output has the teacher's own distribution.")
    temperature: Float | None = None
    top_k: int | None = None
    top_p: Float | None = None
    draft: Literal["point-mass", "sampled"] | None = Field(
        None, description="Whether the drafted tokens are the best ones, or were drawn from the drafter."
    )
    epsilon: Float | None = Field(None, description="Typical acceptance: threshold at most.")
    delta: Float | None = Field(None, description="Typical acceptance: threshold = min(epsilon, delta exp(-entropy)).")
    processors: dict[str, Any] | None = Field(
        None, description="What changes the teacher's logits before they decide, by name; the records hold the result."
    )


class StopRules(Section):
    """When a turn ends."""

    max_new_tokens: int
    eos_token_ids: list[int]
    stop_strings: list[str]


class Conventions(Section):
    """How this writer counts; engines differ."""

    accepted_length: Literal["excludes-root-and-bonus"] = "excludes-root-and-bonus"
    tokens_per_step: Literal["accepted-length-plus-one"] = "accepted-length-plus-one"
    draft_position: Literal["pair-index"] = Field(
        "pair-index", description="A drafter position is its pair's index: one less than the token's own position."
    )


class Manifest(Record):
    """Line 1 of every trace."""

    kind: Literal["manifest"] = "manifest"
    schema_: str = Field(alias="schema", description="specscope.trace/MAJOR.MINOR.")
    run_id: str
    created: str = Field(description="UTC, ISO 8601.")
    engine: str = Field(description="Name and version of the engine that wrote this.")
    versions: dict[str, str] = Field(description="Versions of the libraries that computed.")
    mode: Literal["fused", "eager", "baseline"] = Field(
        description="The mode asked for. What was dispatched stands in prefill.dispatch and verify.dispatch."
    )
    attention: str = Field(description="The attention implementation that the mode asked for.")
    dtype: str
    device: Device
    teacher: Teacher
    drafter: Drafter
    tokenizer: Tokenizer | None = None
    tree_policy: TreePolicy
    sampling: Sampling
    stop_rules: StopRules
    cache_strategy: str | None = Field(None, description="The commit strategy asked for.")
    batch_size: int | None = Field(None, ge=1, description="Rows decoded side by side at most; absent: 1.")
    seed: int
    level: Literal["decisions", "scores", "tensors"]
    capabilities: list[str] = Field(
        description="Step sections, or section.field, that this writer supplies. What is not listed cannot be judged."
    )
    conventions: Conventions = Conventions()
    fault: str | None = Field(None, description="Id of a deliberately injected fault; absent in an honest run.")
    replay_of: str | None = Field(
        None, description="The run_id of the trace whose steps were run again, each from equal state; see step.forced."
    )
    redaction: Digest | None = Field(
        None, description="Token ids are replaced by those of a keyed permutation; this tells one key from another."
    )
