"""The manifest: line 1 of a trace. Who ran what, with what, and what this writer can supply."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, model_validator

from specscope.schemas.base import Digest, Float, Record, Section, TokenId
from specscope.schemas.guided import Grammar
from specscope.schemas.pipeline import Pipeline
from specscope.schemas.ranks import TensorParallel
from specscope.schemas.shapes import ShapeTable

Mode = Literal["fused", "eager", "baseline"]
Attention = Literal["fused", "eager"]
RuleName = Literal["greedy", "sampling", "block", "typical"]
TraceLevel = Literal["lengths", "decisions", "scores", "tensors"]


class Device(Section):
    """Where the teacher ran."""

    backend: str = Field(description="Torch's type of the device: cpu, cuda, npu, mps and so on.")
    name: str = Field(description="What the device calls itself.")
    num_threads: int | None = Field(default=None, description="Threads of the CPU backend.")
    instructions: dict[str, str] | None = Field(
        default=None, description="Instruction sets that the CPU's libraries were let use, by library."
    )


class SelfCheck(Section):
    """Whether a kernel computed what the eager attention computes, before it was used."""

    outcome: Literal["passed", "failed", "skipped"] = Field(
        description="failed: eager attention ran instead; skipped: nothing was compared, and the kernel ran."
    )
    num_cases: int | None = Field(default=None, description="Cases that were compared.")
    failed_cases: list[str] | None = Field(
        default=None, description="Those in which they differed, in the order compared."
    )


class Kernel(Section):
    """What was to compute attention, where that is not the eager reference."""

    name: str = Field(description="Its name; what really ran stands in verify.dispatch.")
    origin: str | None = Field(default=None, description="Where it came from: built-in, an entry point, a module.")
    file: str | None = Field(default=None, description="Name of the file that defines it, without its folder.")
    file_digest: Digest | None = Field(default=None, description="Over that file's bytes.")
    self_check: SelfCheck | None = Field(
        default=None, description="What comparing it with the eager attention came to."
    )

    @property
    def fell_back(self) -> bool:
        """Whether eager attention ran instead."""
        return self.self_check is not None and self.self_check.outcome == "failed"


class Teacher(Section):
    """The model whose output must be preserved."""

    name: str = Field(description="For people: the last part of where it was loaded from.")
    source: str | None = Field(
        default=None, description="What it was loaded from, as the user named it: demo, a folder, an id."
    )
    architecture: str = Field(description="Its class in transformers, such as LlamaForCausalLM.")
    config_digest: Digest | None = Field(default=None, description="Over the configuration file's bytes.")
    weights_digest: Digest | None = Field(
        default=None, description="Over the weight files' names and bytes, in name order."
    )
    num_layers: int | None = Field(default=None, description="Decoder layers.")
    hidden_size: int | None = Field(default=None, description="Width of its hidden states.")
    vocab_size: int = Field(description="Width of its logits; every token id lies in 0..vocab_size - 1.")
    max_positions: int | None = Field(default=None, description="Positions that it was made for.")
    sliding_windows: list[int | None] | None = Field(
        default=None,
        description="Per layer, how many of the last positions it sees, its own among them; null where it sees all."
        " Absent: all layers see all.",
    )
    rope_theta: Float | None = Field(default=None, description="Base of its rotary embedding.")
    quantization: str | None = Field(
        default=None, description="Of its weights, such as Q4_K_M or fp8; absent: not known."
    )
    parameters: dict[str, Digest] | None = Field(
        default=None, description="Of each parameter and buffer as it was loaded, by its name in the model."
    )


class Drafter(Section):
    """What proposes tokens."""

    kind: str = Field(
        description="eagle3, ngram, early-exit, model or none. Where several propose one tree, their names joined by +,"
        " first the one whose levels are recorded: eagle3+ngram."
    )
    name: str | None = Field(default=None, description="For people.")
    source: str | None = Field(
        default=None, description="What it was loaded from, as the user named it, such as eagle3:PATH."
    )
    config_digest: Digest | None = Field(default=None, description="Over the configuration file's bytes.")
    weights_digest: Digest | None = Field(
        default=None, description="Over the weight files' names and bytes, in name order."
    )
    quantization: str | None = Field(
        default=None,
        description="Of its weights as they ran, such as int8; none: as in its files. Absent: not known.",
    )
    num_layers: int | None = Field(default=None, description="Decoder layers of a head.")
    hidden_state_indices: list[int] | None = Field(
        default=None,
        description="Indices into transformers' hidden_states (each the input of that layer), low to high.",
    )
    rope_theta: Float | None = Field(default=None, description="Base of its rotary embedding.")
    rope_theta_source: str | None = Field(default=None, description="Which configuration field it was read from.")
    draft_vocab_size: int | None = Field(default=None, description="Width of its logits, where it has its own ids.")
    vocab_mapping: Literal["identity", "offset"] | None = Field(
        default=None, description="How draft ids map to teacher ids."
    )
    max_positions: int | None = Field(default=None, description="Positions that the drafter was made for.")
    settings: dict[str, int] | None = Field(default=None, description="What else decides its drafts, by name.")
    parameters: dict[str, Digest] | None = Field(
        default=None,
        description="Of each of its own parameters and buffers as it was loaded, by its name in the model.",
    )

    @property
    def names(self) -> list[str]:
        """The drafters that propose a tree, first the one whose levels are recorded."""
        return self.kind.split("+")


class Tokenizer(Section):
    """The tokenizer."""

    digest: Digest = Field(description="Over its tokenizer.json's bytes.")
    vocab_size: int = Field(description="Ids that it can give.")


class StepCosts(Section):
    """What a step takes where it ran: the size of every tree follows from this and from the drafter's probabilities."""

    fixed_ms: Float = Field(description="Of taking in what was committed and proposing the first level.")
    level_ms: Float = Field(description="Of each level after the first.")
    verify_slots: list[int] = Field(description="Slots of all rows together, ascending, that a verification had.")
    verify_ms: list[Float] = Field(description="Of the verification, one for each of verify_slots.")

    @model_validator(mode="after")
    def _is_a_curve(self) -> StepCosts:
        slots, times = self.verify_slots, self.verify_ms
        ascending = all(a < b for a, b in pairwise(slots))
        if not slots or len(slots) != len(times) or slots[0] < 1 or not ascending:
            raise ValueError("wanted verify_slots ascending from 1, and a time for each of them")
        if not all(0 < value < float("inf") for value in (*times, self.fixed_ms, self.level_ms)):
            raise ValueError("wanted times above 0")
        return self

    def step_ms(self, num_levels: int, num_slots: int) -> float:
        """Of a step that proposes ``num_levels`` levels and verifies ``num_slots`` slots of all rows together."""
        return self.fixed_ms + max(0, num_levels - 1) * self.level_ms + self._verification_ms(num_slots)

    def _verification_ms(self, num_slots: int) -> float:
        """Between two that were measured and after the last, along the line through its neighbours."""
        slots, times = self.verify_slots, self.verify_ms
        if num_slots <= slots[0] or len(slots) == 1:
            return times[0]
        right = min(bisect_left(slots, num_slots), len(slots) - 1)
        slope = (times[right] - times[right - 1]) / (slots[right] - slots[right - 1])
        return times[right - 1] + slope * (num_slots - slots[right - 1])


class TreePolicy(Section):
    """How draft trees are grown, as resolved."""

    kind: Literal["dynamic", "static", "chain", "none", "auto"] = Field(
        description="dynamic: the best nodes of all levels; static: a fixed shape; chain: one path; none: the root;"
        " auto: one of shapes, chosen for each step."
    )
    depth: int = Field(description="Deepest level, in edges from the root.")
    top_k: int = Field(description="Children proposed by each frontier node, and nodes kept as the next frontier.")
    budget: int = Field(description="Drafted nodes of a tree at most; the root is not one.")
    name: str | None = Field(default=None, description="Name of the static tree.")
    choices: list[list[int]] | None = Field(
        default=None, description="Nodes of a static tree or a chain, each the child ranks from the root."
    )
    adaptive: bool | None = Field(
        default=None, description="Whether a step may draft fewer nodes than the policy allows; absent: not known."
    )
    costs: StepCosts | None = Field(
        default=None, description="What trees are sized by; absent: they are not sized by what they cost."
    )
    shapes: ShapeTable | None = Field(
        default=None,
        description="What the shape of each step is chosen from and by; absent: all steps have this policy.",
    )


class Sampling(Section):
    """The acceptance rule."""

    rule: RuleName | Literal["match", "unknown"] = Field(
        description="How drafted tokens are accepted; block: a chain that was drawn is weighed as a whole; match: the"
        " teacher draws at every node, and a child that has the token drawn is accepted; unknown: the writer cannot"
        " know."
    )
    lossless: bool | None = Field(default=None, description="Whether the output has the teacher's own distribution.")
    temperature: Float | None = Field(default=None, description="Logits are divided by it; absent: 1.")
    top_k: int | None = Field(default=None, description="Only the k best tokens are drawn from; absent: all.")
    top_p: Float | None = Field(
        default=None, description="Only the best tokens of this mass are drawn from; absent: all."
    )
    draft: Literal["point-mass", "sampled"] | None = Field(
        default=None, description="Whether the drafted tokens are the best ones, or were drawn from the drafter."
    )
    epsilon: Float | None = Field(default=None, description="Typical acceptance: threshold at most.")
    delta: Float | None = Field(
        default=None, description="Typical acceptance: threshold = min(epsilon, delta exp(-entropy))."
    )
    processors: dict[str, Any] | None = Field(
        default=None,
        description="What changes the teacher's logits before they decide, by name; the records hold the result.",
    )


class StopRules(Section):
    """When a turn ends."""

    max_new_tokens: int = Field(description="Output tokens of a turn at most.")
    eos_token_ids: list[TokenId] = Field(description="A turn ends with the first of these.")
    stop_strings: list[str] = Field(description="A turn ends with the token that completes one of these.")


class Conventions(Section):
    """How this writer counts; engines differ."""

    accepted_length: Literal["excludes-root-and-bonus"] = Field(
        default="excludes-root-and-bonus",
        description="Accepted drafted nodes; the root was emitted before, the bonus is extra.",
    )
    tokens_per_step: Literal["accepted-length-plus-one"] = Field(
        default="accepted-length-plus-one", description="The accepted nodes and the bonus token."
    )
    draft_position: Literal["pair-index"] = Field(
        default="pair-index",
        description="A drafter position is its pair's index: one less than the token's own position.",
    )
    steps: Literal["all", "drafting"] | None = Field(
        default=None,
        description="drafting: the engine does not report steps that verified no draft, so that steps are missing"
        " between those recorded, and nobody knows how many. Absent: all are recorded.",
    )


#: What noise can be counted in.
DTYPES = ("float64", "float32", "float16", "bfloat16")


class Manifest(Record):
    """Line 1 of every trace."""

    kind: Literal["manifest"] = Field(default="manifest", description="What record this is.")
    schema_: str = Field(alias="schema", description="specscope.trace/MAJOR.MINOR.")
    original_schema: str | None = Field(
        default=None,
        description="What an upgraded trace was written as; absent where it never was another major version.",
    )
    run_id: str = Field(description="Tells this run from every other.")
    created: str = Field(description="UTC, ISO 8601.")
    engine: str = Field(description="Name and version of the engine that wrote this.")
    versions: dict[str, str] = Field(description="Versions of the libraries that computed.")
    mode: str = Field(
        description="The mode asked for: fused, eager, baseline, or what another engine calls its own. What was"
        " dispatched stands in prefill.dispatch and verify.dispatch."
    )
    attention: str = Field(description="The attention implementation that was asked for: eager, fused, or a kernel.")
    kernel: Kernel | None = Field(
        default=None, description="What was to compute attention; absent: eager, or not known."
    )
    graph: str | None = Field(
        default=None,
        description="How verify forwards are captured and replayed: none, cuda-graph, or emulated, operation by"
        " operation on the same tensors; see verify.graph. Absent: not known.",
    )
    products: str | None = Field(
        default=None,
        description="What multiplied by the weights of linear layers: plain, the library's own, or packed, oneDNN on a"
        " copy of them that is laid out for it. Absent: not known.",
    )
    dtype: str = Field(description="Of the teacher's weights and logits: float32, bfloat16, float16 or float64.")
    kv_dtype: str | None = Field(
        default=None, description="Of its keys and values, where that is another; absent: not known."
    )
    device: Device = Field(description="Where the teacher ran.")
    teacher: Teacher = Field(description="The model whose output must be preserved.")
    drafter: Drafter = Field(description="What proposes tokens.")
    tokenizer: Tokenizer | None = Field(default=None, description="The teacher's tokenizer.")
    tree_policy: TreePolicy = Field(description="How draft trees are grown, as resolved.")
    sampling: Sampling = Field(description="The acceptance rule.")
    grammar: Grammar | None = Field(
        default=None, description="What the output of every turn is a text of; absent: it is free."
    )
    stop_rules: StopRules | None = Field(
        default=None, description="When a turn ends; absent where each turn has its own."
    )
    cache_strategy: str | None = Field(default=None, description="The commit strategy asked for.")
    cache: str | None = Field(
        default=None,
        description="dense: a row's committed keys and values lie one after another; paged: in blocks that it finds by"
        " its block table. Absent: not known.",
    )
    block_size: int | None = Field(
        default=None,
        ge=1,
        description="Positions of a block, where the cache is paged. Absent: it is not, or not known.",
    )
    batch_size: int | None = Field(default=None, ge=1, description="Rows decoded side by side at most; absent: 1.")
    arrivals_clock: Literal["seconds"] | None = Field(
        default=None,
        description="What the times of requests were counted by: seconds since the run began, so that who joined at"
        " which step depended on how fast it was; absent: steps.",
    )
    seed: int | None = Field(default=None, description="Of all that is drawn; absent where the run has none.")
    level: TraceLevel = Field(
        description="How much is recorded; lengths: only how many tokens each step drafted and accepted."
    )
    capabilities: list[str] = Field(
        description="Step sections, or section.field, that this writer supplies. What is not listed cannot be judged."
    )
    not_known: list[str] | None = Field(
        default=None,
        description="Fields of this manifest, dotted, that the writer could not know: what they hold says nothing,"
        " and is not compared. Absent: it knows all that it gives.",
    )
    conventions: Conventions = Field(default=Conventions(), description="How this writer counts.")
    pipeline: Pipeline | None = Field(
        default=None,
        description="How the teacher was split into stages that verify while they draft; absent: it was not.",
    )
    tensor_parallel: TensorParallel | None = Field(
        default=None, description="How the teacher is divided among ranks; absent: one process has all of it."
    )
    fault: str | None = Field(default=None, description="Id of a deliberately injected fault; absent in an honest run.")
    replay_of: str | None = Field(
        default=None,
        description="The run_id of the trace whose steps were run again, each from equal state; see step.forced.",
    )
    redaction: Digest | None = Field(
        default=None,
        description="Token ids are replaced by those of a keyed permutation; this tells one key from another.",
    )

    def knows(self, field: str) -> bool:
        """Whether what stands at ``field``, dotted, says something of the run."""
        return not any(f"{field}.".startswith(f"{name}.") for name in self.not_known or ())

    @property
    def omits_idle_steps(self) -> bool:
        """Whether steps that verified no draft are missing."""
        return self.conventions.steps == "drafting"

    @property
    def supplies_lengths(self) -> bool:
        """Whether the writer says how many tokens each step accepted."""
        return not {"accept", "lengths"}.isdisjoint(name.partition(".")[0] for name in self.capabilities)
