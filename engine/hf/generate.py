"""Tree speculation inside transformers' ``generate``: the same output, with fewer forwards.

    model.generate(**inputs, custom_generate=tree_generate, specscope=TreeGenerate("eagle3:PATH"))

``generate`` prepares ids, processors and stopping criteria as ever, and leaves the loop to ``tree_generate``. Greedy
where ``do_sample`` is off, else lossless sampling. All processors and criteria count, along the accepted path, token by
token. Stop strings are given as ``stopping_criteria=[StopStringCriteria(tokenizer, [...])]``: with a callable
``custom_generate``, ``generate`` (5.17 to 5.24) drops its ``tokenizer`` argument and refuses its ``stop_strings``.

What differs from plain ``generate``: a custom processor or criterion sees one row at a time, and a processor branches
of it that may be rejected, so it must not remember its calls, and is refused where it is caught at that; a row that
ended is padded though no end-of-text token is set; no cache is given back.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation.utils import GenerateDecoderOnlyOutput

from specscope.engine.accept.processors import Processors
from specscope.engine.backends.choice import ChosenAttention, checked, kernel_of
from specscope.engine.backends.kernels import BUILT_IN, check_kernel_name
from specscope.engine.drafters.base import Drafter
from specscope.engine.hf.asked import check_asked, count_padding, given_to_generate
from specscope.engine.hf.memory import refuse_memory
from specscope.engine.hf.rules import (
    RowCriterion,
    RowProcessors,
    Stops,
    Warped,
    described,
    split_criteria,
    split_warpers,
)
from specscope.engine.hf.teacher import GivenTeacher, check_once, own_attention
from specscope.engine.hf.words import own_words
from specscope.engine.load.decoding import decoding_of
from specscope.engine.load.models import Models, load_drafter
from specscope.engine.loop.session import Session
from specscope.engine.loop.turns import TurnRequest, check_turn
from specscope.engine.record.manifest import RunFacts
from specscope.engine.record.recorder import TurnLabel
from specscope.engine.record.target import TraceTarget, ending
from specscope.engine.run.runner import turn_seed
from specscope.engine.settings import (
    GREEDY,
    TRACE_LEVELS,
    GraphChoice,
    ModelChoice,
    SamplingRule,
    Settings,
    check_name,
)
from specscope.engine.teacher.files import refuse_unsupported
from specscope.engine.teacher.model import Teacher, TeacherOptions, check_transformers_version
from specscope.engine.tree.policy import TreePolicy
from specscope.schemas.manifest import TraceLevel
from specscope.tracer.errors import UsageError
from specscope.tracer.files.ring import TraceRing


@dataclass(frozen=True)
class TreeGenerate:
    """How to speculate, in the words of ``specscope run``.

    ``drafter`` is a name as ``--drafter`` takes it, loaded at every call, or a drafter, which brings its own policy;
    ``loaded`` makes the one of the other, and keeps the name for the trace. ``policy`` may be a text as ``--tree``
    takes it: "chain" or "static:bush-16"; the text "dynamic" stands for five levels of four children and 16 nodes.
    Depth, children per node (top-k) and nodes per tree (budget) are set by a policy of your own:

        TreeGenerate("eagle3:PATH", policy=TreePolicy("dynamic", depth=7, top_k=8, budget=48))
        TreeGenerate("ngram", policy=chain_policy(8))

    with ``from specscope.engine.tree.policy import TreePolicy, chain_policy``.

    Without a ``seed``, sampling takes one from torch's global generator, as plain ``generate`` does.
    """

    drafter: Drafter | str = "ngram"
    policy: TreePolicy | str = "dynamic"
    attention: str = "fused"  # as --attention takes it; a kernel of your own is named, see docs/your-kernel.md
    self_check: bool = field(
        default=True, kw_only=True
    )  # compare what is not eager with the eager attention before it is used
    graph: GraphChoice = field(default="auto", kw_only=True)  # on, off: as --graph, --no-graph
    cache_strategy: str = "in-place"
    seed: int | None = None
    trace: Path | str | TraceRing | None = None
    trace_level: TraceLevel = "decisions"
    redact: str | None = None  # the key by which the trace's token ids are replaced
    overwrite: bool = False  # of an existing trace
    allow_nonfinite: bool = False  # weights that are NaN or infinite
    drafter_name: str = ""  # of a drafter that is given, for the trace

    def __post_init__(self) -> None:
        if self.attention not in BUILT_IN:
            check_kernel_name(self.attention)
        check_name("trace level", self.trace_level, TRACE_LEVELS)

    def loaded(self, model: PreTrainedModel) -> TreeGenerate:
        """The same with the drafter loaded for ``model``: load it once, generate often.

        Raises:
            UsageError: where there is none of that name, or it does not fit the model.
        """
        with own_words(), own_attention(model, self.chosen(model).runs):
            name = self.drafter if isinstance(self.drafter, str) else self.drafter_name
            return replace(self, drafter=self.models(model).drafter, drafter_name=name)

    def chosen(self, model: PreTrainedModel) -> ChosenAttention:
        """The attention that runs: the one that was asked for, unless it differs from the eager one.

        Raises:
            UsageError: where there is none of that name.
        """
        kernel = kernel_of(self.attention, torch.device(model.device))
        return checked(self.attention, kernel, model, check=self.self_check)

    def models(self, model: PreTrainedModel) -> Models:
        """``model`` as a teacher, and the drafter.

        Raises:
            UsageError: where the drafter cannot be loaded or does not fit, weights are no finite numbers, or the model
                cannot verify trees.
        """
        teacher = GivenTeacher(model)
        teacher.attention = self.chosen(model)
        check_once(teacher, allow_nonfinite=self.allow_nonfinite)
        if not isinstance(self.drafter, str):
            return Models(teacher, self.drafter)
        options = TeacherOptions(
            dtype=teacher.dtype,
            device=teacher.device,
            attention=teacher.attention.runs,
            allow_nonfinite=self.allow_nonfinite,
        )
        return Models(teacher, load_drafter(self.choice(teacher, GREEDY), teacher, options))

    def choice(self, teacher: GivenTeacher, rule: SamplingRule) -> ModelChoice:
        """The options as the command line would have chosen them."""
        settings = Settings.of(
            teacher=teacher.source,
            drafter=self.drafter if isinstance(self.drafter, str) else self.drafter_name,
            attention=self.attention,
            self_check=self.self_check,
            graph=self.graph,
            dtype=str(teacher.dtype).removeprefix("torch."),
            policy=self.policy,
            rule=rule,
            allow_nonfinite=self.allow_nonfinite,
        )
        return replace(settings.choice, device=teacher.device.type)


def tree_generate(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    specscope: TreeGenerate | None = None,
    streamer: Any = None,
    **model_kwargs: Any,
) -> torch.Tensor | GenerateDecoderOnlyOutput:
    """The loop for ``generate(..., custom_generate=tree_generate, specscope=TreeGenerate(...))``.

    Returns:
        ``input_ids`` (B, T) with the output after them, padded on the right; in a ``GenerateDecoderOnlyOutput`` where
        ``return_dict_in_generate`` is on.

    Raises:
        UsageError: for a model that cannot verify trees, and for what ``generate`` was asked beyond greedy search and
            sampling.
    """
    with own_words():
        return _generate(
            model,
            _given_options(specscope),
            Given(
                input_ids=input_ids,
                processors=logits_processor,
                criteria=stopping_criteria,
                config=generation_config,
                model_kwargs=model_kwargs,
                streamer=streamer,
            ),
        )


class Given(NamedTuple):
    """What ``generate`` hands over."""

    input_ids: torch.Tensor  # (B, T)
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    config: GenerationConfig
    model_kwargs: dict[str, Any]
    streamer: Any


def _given_options(specscope: object) -> TreeGenerate:
    """The argument ``specscope`` of ``generate``.

    Raises:
        UsageError: where it is anything but options.
    """
    if specscope is None:
        return TreeGenerate()
    if isinstance(specscope, TreeGenerate):
        return specscope
    drafter = specscope if isinstance(specscope, str) else "ngram"
    got = repr(specscope) if isinstance(specscope, str) else type(specscope).__name__
    raise UsageError(f"got specscope={got}, wanted options: specscope=TreeGenerate({drafter!r})")


def _generate(model: PreTrainedModel, options: TreeGenerate, given: Given) -> torch.Tensor | GenerateDecoderOnlyOutput:
    input_ids, generation_config, model_kwargs = given.input_ids, given.config, given.model_kwargs
    check_transformers_version()
    refuse_unsupported(model.config, str(model.name_or_path) or type(model).__name__)
    check_asked(model, generation_config, model_kwargs)
    streamer = given.streamer if given.streamer is not None else given_to_generate("streamer")
    if streamer is not None and len(input_ids) > 1:
        raise UsageError(
            f"got a streamer and {len(input_ids)} rows, which end at different times: stream one row alone"
        )
    asked = _Asked(
        input_ids,
        count_padding(input_ids, model_kwargs),
        split_warpers(given.processors, do_sample=bool(generation_config.do_sample)),
        split_criteria(given.criteria, input_ids.shape[1]),
    )
    padding = generation_config._pad_token_tensor
    if padding is None and len(input_ids) > 1 and (asked.stops.rules.eos_token_ids or asked.stops.others):
        raise UsageError(
            f"got {len(input_ids)} rows and no pad_token_id: give one, for a row may end before the others"
        )
    with own_attention(model, options.chosen(model).runs):
        outputs = _decode(asked, options, model, streamer)
    longest = max(map(len, outputs))
    fill = int(padding) if padding is not None else 0
    new_ids = input_ids.new_tensor([output + [fill] * (longest - len(output)) for output in outputs])
    sequences = torch.cat([input_ids, new_ids], dim=1)
    if generation_config.return_dict_in_generate:
        return GenerateDecoderOnlyOutput(sequences=sequences)  # type: ignore[arg-type]
    return sequences


class _Asked(NamedTuple):
    """What ``generate`` was asked for."""

    input_ids: torch.Tensor  # (B, T)
    num_padding: list[int]  # ids in front of each row's prompt
    warped: Warped
    stops: Stops

    def turn(self, row: int, seed: int) -> TurnRequest:
        """One row as a turn."""
        ids, padding, others = self.input_ids[row], self.num_padding[row], self.stops.others
        processors = None
        if self.warped.processors:
            processors = RowProcessors(self.warped.processors, row, len(self.input_ids), ids[:padding])
        return TurnRequest(
            ids[padding:].tolist(),
            self.stops.rules,
            generator_seed=turn_seed(seed, _prompt_id(row), 0),
            criterion=RowCriterion(others, ids) if others else None,
            processors=processors,
        )


def _prompt_id(row: int) -> str:
    return f"row-{row}"


def _decode(asked: _Asked, options: TreeGenerate, model: PreTrainedModel, streamer: Any) -> list[list[int]]:
    """The output of each row, cut where it ends."""
    models, rule = options.models(model), asked.warped.rule
    seed = options.seed if options.seed is not None else 0
    if options.seed is None and rule.rule != "greedy":
        seed = int(torch.randint(2**63 - 1, ()))
    requests = [asked.turn(row, seed) for row in range(len(asked.input_ids))]
    if requests[0].processors is not None:
        refuse_memory(requests[0].processors, asked.input_ids[0], models.teacher.vocab_size)
    for request in requests:
        _check_fits(models.teacher, request)
    assert isinstance(models.teacher, GivenTeacher)
    settings = Settings(
        choice=options.choice(models.teacher, rule),
        max_new_tokens=asked.stops.rules.max_new_tokens,
        stop_strings=tuple(asked.stops.rules.stop_strings),
        batch_size=len(requests),
        cache_strategy=options.cache_strategy,
        seed=seed,
    )
    session = Session(models.teacher, models.drafter, decoding_of(settings, models.teacher), len(requests))
    target = _target(options)
    writer = target.open(lambda text: warnings.warn(text, stacklevel=2)) if target is not None else None
    with ending(session, writer):
        if target is not None and writer is not None:
            recorder = target.record(writer, _facts(asked, settings, options.trace_level), models)
            labels = [TurnLabel(row, _prompt_id(row), 0, None) for row in range(len(requests))]
            requests = [replace(r, observer=recorder.turn(label)) for r, label in zip(requests, labels, strict=True)]
        return _run(session, requests, streamer)


def _target(options: TreeGenerate) -> TraceTarget | None:
    if options.trace is None:
        return None
    place = options.trace if isinstance(options.trace, TraceRing) else Path(options.trace)
    return TraceTarget(place, options.trace_level, overwrite=options.overwrite, redact=options.redact)


def _check_fits(teacher: Teacher, request: TurnRequest) -> None:
    kept = check_turn(teacher, request.prompt_ids, request.rules)
    if kept.max_new_tokens < request.rules.max_new_tokens:
        raise UsageError(
            f"got a prompt of {len(request.prompt_ids)} tokens and up to {request.rules.max_new_tokens} new ones, the "
            f"model has {teacher.max_positions} positions: give max_new_tokens of at most {kept.max_new_tokens}"
        )


def _facts(asked: _Asked, settings: Settings, level: TraceLevel) -> RunFacts:
    given = asked.warped.processors
    processors = Processors(lambda _: LogitsProcessorList(), described(given)) if given else None
    return RunFacts(settings, level, asked.stops.rules, processors)


def _run(session: Session, requests: list[TurnRequest], streamer: Any) -> list[list[int]]:
    """Decodes all rows to their ends; those that ended leave the batch."""
    results = [session.begin(row, request) for row, request in enumerate(requests)]
    heard = 0
    while True:
        if streamer is not None:
            for token in results[0].output_ids[heard:]:
                streamer.put(torch.tensor([token]))
            heard = len(results[0].output_ids)
        for row in reversed(range(len(session.rows))):
            if session.rows[row].turn is None:
                session.drop_row(row)
        if not session.rows:
            break
        session.step()
        session.end_stopped()
    if streamer is not None:
        streamer.end()
    return [result.output_ids for result in results]
