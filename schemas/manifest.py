"""The manifest: line 1 of a trace. Who ran what, with what, and what this writer can supply."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from specscope.schemas.base import Digest, Float, Record, Section, TokenId

Mode = Literal["fused", "eager", "baseline"]
Attention = Literal["fused", "eager"]
RuleName = Literal["greedy", "sampling", "typical"]
TraceLevel = Literal["decisions", "scores", "tensors"]


class Device(Section):
    """Where the teacher ran."""

    backend: str = Field(description="Torch's type of the device: cpu, cuda, npu, mps and so on.")
    name: str = Field(description="What the device calls itself.")
    num_threads: int | None = Field(None, description="Threads of the CPU backend.")
    instructions: dict[str, str] | None = Field(
        None, description="Instruction sets that the CPU's libraries were let use, by library."
    )


class SelfCheck(Section):
    """Whether a kernel computed what the eager attention computes, before it was used."""

    outcome: Literal["passed", "failed", "skipped"] = Field(
        description="failed: eager attention ran instead; skipped: nothing was compared, and the kernel ran."
    )
    num_cases: int | None = Field(None, description="Cases that were compared.")
    failed_cases: list[str] | None = Field(None, description="Those in which they differed, in the order compared.")


class Kernel(Section):
    """What was to compute attention, where that is not the eager reference."""

    name: str = Field(description="Its name; what really ran stands in verify.dispatch.")
    origin: str | None = Field(None, description="Where it came from: built-in, an entry point, a module.")
    file: str | None = Field(None, description="Name of the file that defines it, without its folder.")
    file_digest: Digest | None = Field(None, description="Over that file's bytes.")
    self_check: SelfCheck | None = Field(None, description="What comparing it with the eager attention came to.")

    @property
    def fell_back(self) -> bool:
        """Whether eager attention ran instead."""
        return self.self_check is not None and self.self_check.outcome == "failed"


class Teacher(Section):
    """The model whose output must be preserved."""

    name: str = Field(description="For people: the last part of where it was loaded from.")
    source: str | None = Field(
        None, description="What it was loaded from, as the user named it: demo, a folder, an id."
    )
    architecture: str = Field(description="Its class in transformers, such as LlamaForCausalLM.")
    config_digest: Digest | None = Field(None, description="Over the configuration file's bytes.")
    weights_digest: Digest | None = Field(None, description="Over the weight files' names and bytes, in name order.")
    num_layers: int | None = Field(None, description="Decoder layers.")
    hidden_size: int | None = Field(None, description="Width of its hidden states.")
    vocab_size: int = Field(description="Width of its logits; every token id lies in 0..vocab_size - 1.")
    max_positions: int | None = Field(None, description="Positions that it was made for.")
    rope_theta: Float | None = Field(None, description="Base of its rotary embedding.")
    parameters: dict[str, Digest] | None = Field(
        None, description="Of each parameter and buffer as it was loaded, by its name in the model."
    )


class Drafter(Section):
    """What proposes tokens."""

    kind: str = Field(description="eagle3, ngram, early-exit, model or none.")
    name: str | None = Field(None, description="For people.")
    source: str | None = Field(None, description="What it was loaded from, as the user named it, such as eagle3:PATH.")
    config_digest: Digest | None = Field(None, description="Over the configuration file's bytes.")
    weights_digest: Digest | None = Field(None, description="Over the weight files' names and bytes, in name order.")
    hidden_state_indices: list[int] | None = Field(
        None, description="Indices into transformers' hidden_states (each the input of that layer), low to high."
    )
    rope_theta: Float | None = Field(None, description="Base of its rotary embedding.")
    rope_theta_source: str | None = Field(None, description="Which configuration field it was read from.")
    draft_vocab_size: int | None = Field(None, description="Width of its logits, where it has its own ids.")
    vocab_mapping: Literal["identity", "offset"] | None = Field(None, description="How draft ids map to teacher ids.")
    max_positions: int | None = Field(None, description="Positions that the drafter was made for.")
    settings: dict[str, int] | None = Field(None, description="What else decides its drafts, by name.")
    parameters: dict[str, Digest] | None = Field(
        None, description="Of each of its own parameters and buffers as it was loaded, by its name in the model."
    )


class Tokenizer(Section):
    """The tokenizer."""

    digest: Digest = Field(description="Over its tokenizer.json's bytes.")
    vocab_size: int = Field(description="Ids that it can give.")


class TreePolicy(Section):
    """How draft trees are grown, as resolved."""

    kind: Literal["dynamic", "static", "chain", "none"] = Field(
        description="dynamic: the best nodes of all levels; static: a fixed shape; chain: one path; none: the root."
    )
    depth: int = Field(description="Deepest level, in edges from the root.")
    top_k: int = Field(description="Children proposed by each frontier node, and nodes kept as the next frontier.")
    budget: int = Field(description="Drafted nodes of a tree at most; the root is not one.")
    name: str | None = Field(None, description="Name of the static tree.")
    choices: list[list[int]] | None = Field(
        None, description="Nodes of a static tree or a chain, each the child ranks from the root."
    )
    adaptive: bool | None = Field(
        None, description="Whether a step may draft fewer nodes than the policy allows; absent: not known."
    )


class Sampling(Section):
    """The acceptance rule."""

    rule: RuleName = Field(description="How drafted tokens are accepted.")
    lossless: bool | None = Field(None, description="Whether the output has the teacher's own distribution.")
    temperature: Float | None = Field(None, description="Logits are divided by it; absent: 1.")
    top_k: int | None = Field(None, description="Only the k best tokens are drawn from; absent: all.")
    top_p: Float | None = Field(None, description="Only the best tokens of this mass are drawn from; absent: all.")
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

    max_new_tokens: int = Field(description="Output tokens of a turn at most.")
    eos_token_ids: list[TokenId] = Field(description="A turn ends with the first of these.")
    stop_strings: list[str] = Field(description="A turn ends with the token that completes one of these.")


class Conventions(Section):
    """How this writer counts; engines differ."""

    accepted_length: Literal["excludes-root-and-bonus"] = Field(
        "excludes-root-and-bonus",
        description="Accepted drafted nodes; the root was emitted before, the bonus is extra.",
    )
    tokens_per_step: Literal["accepted-length-plus-one"] = Field(
        "accepted-length-plus-one", description="The accepted nodes and the bonus token."
    )
    draft_position: Literal["pair-index"] = Field(
        "pair-index", description="A drafter position is its pair's index: one less than the token's own position."
    )


class Manifest(Record):
    """Line 1 of every trace."""

    kind: Literal["manifest"] = Field("manifest", description="What record this is.")
    schema_: str = Field(alias="schema", description="specscope.trace/MAJOR.MINOR.")
    original_schema: str | None = Field(
        None, description="What an upgraded trace was written as; absent where it never was another major version."
    )
    run_id: str = Field(description="Tells this run from every other.")
    created: str = Field(description="UTC, ISO 8601.")
    engine: str = Field(description="Name and version of the engine that wrote this.")
    versions: dict[str, str] = Field(description="Versions of the libraries that computed.")
    mode: Mode = Field(
        description="The mode asked for. What was dispatched stands in prefill.dispatch and verify.dispatch."
    )
    attention: str = Field(description="The attention implementation that was asked for: eager, fused, or a kernel.")
    kernel: Kernel | None = Field(None, description="What was to compute attention; absent: eager, or not known.")
    dtype: str = Field(description="Of the teacher's weights and logits: float32, bfloat16, float16 or float64.")
    device: Device = Field(description="Where the teacher ran.")
    teacher: Teacher = Field(description="The model whose output must be preserved.")
    drafter: Drafter = Field(description="What proposes tokens.")
    tokenizer: Tokenizer | None = Field(None, description="The teacher's tokenizer.")
    tree_policy: TreePolicy = Field(description="How draft trees are grown, as resolved.")
    sampling: Sampling = Field(description="The acceptance rule.")
    stop_rules: StopRules | None = Field(None, description="When a turn ends; absent where each turn has its own.")
    cache_strategy: str | None = Field(None, description="The commit strategy asked for.")
    batch_size: int | None = Field(None, ge=1, description="Rows decoded side by side at most; absent: 1.")
    seed: int | None = Field(None, description="Of all that is drawn; absent where the run has none.")
    level: TraceLevel = Field(description="How much is recorded.")
    capabilities: list[str] = Field(
        description="Step sections, or section.field, that this writer supplies. What is not listed cannot be judged."
    )
    conventions: Conventions = Field(Conventions(), description="How this writer counts.")
    fault: str | None = Field(None, description="Id of a deliberately injected fault; absent in an honest run.")
    replay_of: str | None = Field(
        None, description="The run_id of the trace whose steps were run again, each from equal state; see step.forced."
    )
    redaction: Digest | None = Field(
        None, description="Token ids are replaced by those of a keyed permutation; this tells one key from another."
    )
