"""What a run may be set to do, in the words of the command line: only data. Loads no torch: mistakes show early.

One shape from the command line (``cli/choices.py``) to the manifest and back (``record/manifest.py``). A setting is a
field here, an option there, and a field of the manifest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from specscope.engine.tree.policy import TreePolicy, parse_policy
from specscope.schemas.manifest import Attention, Mode, RuleName, TraceLevel
from specscope.schemas.profile import Profile
from specscope.schemas.unknown import nearest_name
from specscope.tracer.errors import UsageError

Dtype = Literal["float32", "bfloat16", "float16", "float64"]
CacheStrategy = Literal["in-place", "fast-reorder", "full-reorder", "replicate"]
CacheName = Literal["dense", "paged"]
DraftName = Literal["point-mass", "sampled"]
#: auto: where the device's backend captures by itself.
GraphChoice = Literal["auto", "on", "off"]
GrammarKind = Literal["lark", "json-schema", "regex"]
#: auto: packed where that is faster.
ProductsChoice = Literal["auto", "plain", "packed"]
#: auto: on where the device works beside the host.
OverlapChoice = Literal["auto", "on", "off"]
#: Of a drafter's weights: as in its files, all linear layers in int8, or those of its MLPs in int4.
QuantizationName = Literal["none", "int8", "int4-mlp"]
#: replicated: every rank accepts for all rows; sharded: each for its share.
AcceptanceChoice = Literal["replicated", "sharded"]
#: What the times of requests are counted by: steps that the rows have taken together, or seconds since the run began.
ArrivalsClock = Literal["steps", "seconds"]

MODES: tuple[str, ...] = get_args(Mode)
ATTENTIONS: tuple[str, ...] = get_args(Attention)
#: What a device may be called: ``auto``, or a type that torch knows with or without a number, such as ``cuda:1``.
DEVICE_NAME = re.compile(r"[a-z][a-z0-9_]*(:\d{1,4})?")
DTYPE_NAMES: tuple[str, ...] = get_args(Dtype)
CACHE_STRATEGIES: tuple[str, ...] = get_args(CacheStrategy)
PRODUCTS: tuple[str, ...] = get_args(ProductsChoice)
QUANTIZATIONS: tuple[str, ...] = get_args(QuantizationName)
OVERLAPS: tuple[str, ...] = get_args(OverlapChoice)
ARRIVALS_CLOCKS: tuple[ArrivalsClock, ...] = get_args(ArrivalsClock)
ACCEPTANCES: tuple[AcceptanceChoice, ...] = get_args(AcceptanceChoice)
CACHES: tuple[str, ...] = get_args(CacheName)
#: Level lengths is of other engines, which record no more.
TRACE_LEVELS: tuple[TraceLevel, ...] = tuple(level for level in get_args(TraceLevel) if level != "lengths")
#: The drafters that ``--drafter`` can name, and what follows the colon where something may.
DRAFTER_NAMES = {
    "eagle3": "[:PATH]",
    "eagle3+ngram": "[:PATH]",
    "ngram": "[:MIN-MAX]",
    "early-exit": "[:PATH]",
    "model": ":PATH",
    "none": "",
}

#: Where the bundled models lie.
DEMO_MODELS = Path(__file__).parent / "demo_models"
MAX_BATCH_SIZE = 1024
BLOCK_SIZE = 16  # positions of a block where none is asked for
MAX_BLOCK_SIZE = 1024
DEFAULT_TREE = TreePolicy(kind="dynamic", depth=5, top_k=4, budget=16)


def check_name(what: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuses a name that is not ``allowed``.

    Raises:
        UsageError: where it is not.
    """
    if value not in allowed:
        raise UsageError(f"got {what} {value!r}, wanted one of {', '.join(allowed)}")


def check_device_name(name: str) -> None:
    """Refuses what cannot name a device. Whether it is there, only torch can tell.

    Raises:
        UsageError: where it cannot.
    """
    if not DEVICE_NAME.fullmatch(name):
        raise UsageError(
            f"got device {name!r}, wanted auto, cpu, or a name that torch knows, such as cuda, cuda:1 or npu"
        )


class AttentionChoice(NamedTuple):
    """What a mode and an attention come to, together."""

    mode: Mode
    baseline_attention: Attention
    kernel: str | None


def choose_attention(mode: str | None, attention: str | None) -> AttentionChoice:
    """The mode, and the kernel where ``attention`` names one: it takes the fused attention's place.

    Raises:
        UsageError: where the two contradict each other.
    """
    path: Any = attention if attention in ATTENTIONS else "fused"
    chosen: Any = mode or path
    check_name("mode", chosen, MODES)
    if attention is not None and chosen not in ("baseline", path):
        raise UsageError(f"got mode {chosen} and attention {attention}: the mode says the attention; drop one of them")
    return AttentionChoice(chosen, path, None if attention in (None, *ATTENTIONS) else attention)


@dataclass(frozen=True)
class SamplingRule:
    """How tokens are chosen. The defaults of ``epsilon`` and ``delta`` are Medusa's published ones."""

    rule: RuleName
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    epsilon: float = 0.09  # typical: the probability that always suffices
    delta: float = 0.3  # typical: the share of exp(-entropy) that suffices
    draft: DraftName = "point-mass"  # the drafter's best tokens, or tokens drawn from its distribution

    def __post_init__(self) -> None:
        check_name("rule", self.rule, get_args(RuleName))
        check_name("draft", self.draft, get_args(DraftName))
        if self.rule == "block" and self.draft != "sampled":
            raise UsageError(
                "block verification weighs drafts by the probabilities that they were drawn with: give --draft-sampling"
            )
        if not 1e-4 <= self.temperature <= 1e4:
            raise UsageError(
                f"got temperature {self.temperature}, wanted 0.0001 to 10000; the teacher's best token is rule greedy"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"got top_k {self.top_k}, wanted at least 1, or none to keep all tokens")
        for name, share in (("top_p", self.top_p), ("epsilon", self.epsilon), ("delta", self.delta)):
            if share is not None and not 0 < share <= 1:
                raise UsageError(f"got {name} {share}, wanted above 0 and at most 1")

    @property
    def lossless(self) -> bool:
        """Whether the tokens are distributed as the teacher's own."""
        return self.rule != "typical"


GREEDY = SamplingRule("greedy")


@dataclass(frozen=True)
class ProcessorChoice:
    """The logits processors to run, with the values that make them do nothing."""

    repetition_penalty: float = 1.0
    min_new_tokens: int = 0
    no_repeat_ngram: int = 0
    bad_words_ids: list[list[int]] = field(default_factory=list)


NO_PROCESSORS = ProcessorChoice()


@dataclass(frozen=True)
class GrammarChoice:
    """What the output must be a text of: ``GrammarChoice("regex", "[a-z]+ = [0-9]+")``."""

    kind: GrammarKind
    text: str = field(repr=False)

    def __post_init__(self) -> None:
        check_name("kind of grammar", self.kind, get_args(GrammarKind))


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What to load, and how it drafts and accepts."""

    teacher: str = "demo"  # demo, a folder, or an id in the local cache
    drafter: str = "eagle3"  # one of DRAFTER_NAMES, with :PATH where it has weights
    mode: Mode = "fused"
    dtype: str = "float32"  # one of DTYPE_NAMES
    device: str = "auto"  # a DEVICE_NAME
    policy: TreePolicy = DEFAULT_TREE
    rule: SamplingRule = GREEDY
    baseline_attention: Attention = "fused"  # the baseline's; the other modes name their own
    # A kernel in place of the fused attention, by its name; None: the device's own.
    kernel: str | None = None
    # Compare what is not eager with the eager attention before it is used.
    self_check: bool = True
    graph: GraphChoice = "auto"  # whether verify forwards are captured in graphs and replayed
    products: ProductsChoice = "auto"  # what multiplies by the weights of linear layers on a CPU
    allow_remote_code: bool = False
    allow_download: bool = False
    allow_nonfinite: bool = False  # weights that are NaN or infinite
    profile: Profile | None = field(
        default=None, repr=False
    )  # by which the shape of each step is chosen, to be checked
    drafter_window: int | None = None  # pairs that each row of an eagle3 head sees at most; None: all
    drafter_quantization: QuantizationName = "none"  # of an eagle3 head's weights
    num_ranks: int = 1  # processes that the teacher is divided among

    def __post_init__(self) -> None:
        if self.drafter_window is not None and self.drafter_window < 1:
            raise UsageError(f"got a drafter window of {self.drafter_window}, wanted at least 1")
        if self.num_ranks < 1:
            raise UsageError(f"got {self.num_ranks} ranks, wanted at least 1")
        check_name("graph", self.graph, get_args(GraphChoice))
        check_name("products", self.products, PRODUCTS)
        check_name("drafter quantization", self.drafter_quantization, QUANTIZATIONS)
        if self.rule.rule == "block" and self.policy.kind not in ("chain", "none"):
            raise UsageError(
                f"got a {self.policy.kind} tree with block verification, which is of chains, because branches would be "
                "weighed by one another: give --tree chain, or drop --block-verification"
            )

    @property
    def drafter_source(self) -> str:
        """What the drafter is loaded from: the baseline has none, whatever was named."""
        return "none" if self.mode == "baseline" else self.drafter

    @property
    def attention(self) -> str:
        """The attention that the mode asks for: ``eager``, ``fused``, or the name of the kernel in its place."""
        path = self.baseline_attention if self.mode == "baseline" else self.mode
        return self.kernel if path == "fused" and self.kernel is not None else path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what a run decodes; nothing of its prompts, or of where its trace goes."""

    choice: ModelChoice = ModelChoice()
    max_new_tokens: int = 64
    stop_strings: tuple[str, ...] = ()
    batch_size: int = 1
    arrivals_clock: ArrivalsClock = "steps"  # what the times of requests are counted by
    cache_strategy: str = "in-place"  # one of CACHE_STRATEGIES
    cache: str = "dense"  # one of CACHES: how committed keys and values lie
    block_size: int | None = None  # positions of a paged cache's block; None: BLOCK_SIZE
    processors: ProcessorChoice = NO_PROCESSORS
    bad_words: tuple[str, ...] = ()  # texts; the teacher's tokenizer makes ids of them
    grammar: GrammarChoice | None = None  # that every turn's output follows; None: it is free
    acceptance: AcceptanceChoice = "replicated"  # who accepts for which rows, where there are several ranks
    overlap: OverlapChoice = "auto"  # whether a step's results are delivered while the next one is drafted
    seed: int | None = 0  # None: not known, of a run that was recorded elsewhere
    strict: bool = False  # end at the first violated invariant, even where a fault was injected
    fault: str | None = None  # the catalogue's id of the fault that was injected

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(f"got {self.max_new_tokens} new tokens, wanted at least 1")
        if not 1 <= self.batch_size <= MAX_BATCH_SIZE:
            raise UsageError(f"got batch size {self.batch_size}, wanted 1 to {MAX_BATCH_SIZE}")
        if "" in self.stop_strings:
            raise UsageError("got an empty stop string, which every text contains: leave it out")
        if self.grammar is not None and not isinstance(self.grammar, GrammarChoice):
            raise UsageError(f"got a grammar of type {type(self.grammar).__name__}, wanted GrammarChoice(kind, text)")
        check_name("cache strategy", self.cache_strategy, CACHE_STRATEGIES)
        check_name("acceptance", self.acceptance, ACCEPTANCES)
        check_name("overlap", self.overlap, OVERLAPS)
        check_name("clock of arrivals", self.arrivals_clock, ARRIVALS_CLOCKS)
        if self.acceptance == "sharded" and self.choice.num_ranks == 1:
            raise UsageError("got acceptance sharded and one process, which has no shares: give --tensor-parallel")
        if self.choice.graph == "on" and self.cache_strategy != "in-place":
            raise UsageError(
                f"got --graph with cache strategy {self.cache_strategy}, which moves the cache in every step away from "
                "where a graph reads it: use in-place, or drop --graph"
            )
        self._check_cache()

    @property
    def paged_by(self) -> int | None:
        """Positions of a block; None where the cache is dense."""
        return None if self.cache == "dense" else self.block_size or BLOCK_SIZE

    def _check_cache(self) -> None:
        check_name("cache", self.cache, CACHES)
        if self.cache == "dense":
            if self.block_size is not None:
                raise UsageError("got a block size, and a dense cache has no blocks: give --cache paged, or drop it")
            return
        if self.block_size is not None and not 1 <= self.block_size <= MAX_BLOCK_SIZE:
            raise UsageError(f"got a block size of {self.block_size}, wanted 1 to {MAX_BLOCK_SIZE} positions")
        if self.cache_strategy != "in-place":
            raise UsageError(
                f"got --cache paged with cache strategy {self.cache_strategy}, which copies the whole cache: a paged "
                "one copies the accepted path alone. Use in-place, or --cache dense"
            )
        if self.choice.graph == "on":
            raise UsageError(
                "got --graph with --cache paged, where what attention reads is gathered anew in every step: use "
                "--cache dense, or drop --graph"
            )
        if self.choice.policy.shapes is not None or self.choice.policy.sizing == "measure":
            raise UsageError(
                "got --cache paged with trees that are sized or chosen by what a step costs, which is measured with a "
                "dense cache: give --tree and --budget, or --cache dense"
            )

    @classmethod
    def of(cls, **named: Any) -> Settings:
        """Settings by name, whether they are fields of ``Settings`` or of ``ModelChoice``; the others keep their
        defaults. ``policy`` may be a text, as ``--tree`` takes it, and ``attention`` is as ``--attention`` takes it.

        Raises:
            UsageError: for a name or a value that there is not.
        """
        return cls().changed(**named)

    def changed(self, **named: Any) -> Settings:
        """The same with the settings named, as ``of`` takes them."""
        names = {f.name for f in fields(Settings)} - {"choice"}
        choice_names = {f.name for f in fields(ModelChoice)}
        if named.get("attention") is not None:
            named |= choose_attention(named.get("mode"), named["attention"])._asdict()
        named.pop("attention", None)
        unknown = [name for name in named if name not in names | choice_names]
        if unknown:
            known = sorted(names | choice_names | {"attention"})
            near = nearest_name(unknown[0], known)
            hint = f"did you mean {near}?" if near is not None else f"wanted one of {', '.join(known)}"
            raise UsageError(f"got unknown setting {unknown[0]!r}: {hint}")
        policy = named.get("policy")
        if isinstance(policy, str):
            tree = DEFAULT_TREE
            named["policy"] = parse_policy(policy, tree.depth, tree.top_k, tree.budget)
        for name, allowed in (("mode", MODES), ("dtype", DTYPE_NAMES)):
            if name in named:
                check_name(name, named[name], allowed)
        if "device" in named:
            check_device_name(named["device"])
        for name in ("stop_strings", "bad_words"):
            if name in named:
                named[name] = (named[name],) if isinstance(named[name], str) else tuple(named[name])
        choice = replace(self.choice, **{name: named.pop(name) for name in list(named) if name in choice_names})
        return replace(self, choice=choice, **named)
