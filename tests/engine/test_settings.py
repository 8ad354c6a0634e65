"""Settings go from names to a manifest and back, and every name stands once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.tiny_models import tiny_models
from support.traces import FUSED

from specscope.engine import decode
from specscope.engine.accept.processors import build_processors
from specscope.engine.cache.strategies import STRATEGIES
from specscope.engine.load.models import DRAFTERS, DTYPES
from specscope.engine.loop.stopping import StopRules
from specscope.engine.record.manifest import RunFacts, build_manifest, settings_of
from specscope.engine.settings import (
    CACHE_STRATEGIES,
    DRAFTER_NAMES,
    DTYPE_NAMES,
    ModelChoice,
    ProcessorChoice,
    SamplingRule,
    Settings,
)
from specscope.engine.tree.policy import chain_policy, parse_policy
from specscope.tracer import TraceReader
from specscope.tracer.errors import UsageError

EVERYTHING = Settings(
    choice=ModelChoice(
        teacher="a/teacher",
        drafter="eagle3:a/head",
        mode="eager",
        dtype="float32",
        device="cpu",
        policy=chain_policy(3),
        rule=SamplingRule("sampling", temperature=0.7, top_k=5, top_p=0.9),
        baseline_attention="eager",
        graph="off",
        products="plain",
    ),
    max_new_tokens=17,
    stop_strings=("END", "\n\n"),
    batch_size=3,
    arrivals_clock="seconds",
    cache_strategy="replicate",
    processors=ProcessorChoice(repetition_penalty=1.2, no_repeat_ngram=3),
    seed=11,
    fault="F16",
)


@pytest.mark.parametrize(
    "settings",
    [
        EVERYTHING,
        replace(EVERYTHING, choice=replace(EVERYTHING.choice, policy=parse_policy("static:bush-16", 1, 1, 1))),
        replace(EVERYTHING, choice=replace(EVERYTHING.choice, rule=SamplingRule("typical", temperature=0.5))),
        Settings.of(teacher="a/teacher", drafter="eagle3:a/head", device="cpu", graph="off", products="plain"),
        Settings.of(teacher="a/teacher", drafter="eagle3:a/head", device="cpu", graph="off", products="packed"),
        Settings.of(teacher="a/teacher", drafter="eagle3:a/head", device="cpu", graph="on", products="plain"),
        Settings.of(
            teacher="a/teacher",
            drafter="eagle3:a/head",
            device="cpu",
            graph="off",
            products="plain",
            cache="paged",
            block_size=8,
        ),
        Settings.of(
            teacher="a/teacher",
            drafter="eagle3:a/head",
            device="cpu",
            attention="a.module:kernel",
            graph="off",
            products="plain",
        ),
        Settings.of(
            teacher="a/teacher",
            drafter="eagle3:a/head",
            device="cpu",
            attention="a.module:kernel",
            self_check=False,
            graph="off",
            products="plain",
        ),
        Settings.of(
            teacher="a/teacher",
            drafter="none",
            mode="baseline",
            device="cpu",
            attention="a.module:kernel",
            graph="off",
            products="plain",
        ),
    ],
    ids=[
        "everything",
        "static",
        "typical",
        "defaults",
        "packed",
        "graphs",
        "paged",
        "a kernel",
        "no self-check",
        "a baseline's kernel",
    ],
)
def test_settings_come_back_from_the_manifest(settings: Settings, teacher_folder: Any, head_folder: Any) -> None:
    products = settings.choice.products
    models = tiny_models(teacher_folder, head_folder, policy=settings.choice.policy, products=products)
    rules = StopRules(settings.max_new_tokens, [0], list(settings.stop_strings))
    processors = build_processors(settings.processors, [0], models.teacher.device)
    facts = RunFacts(settings, "decisions", rules, processors)
    assert settings_of(build_manifest("run", facts, models.teacher, models.drafter)) == settings


def test_graphs_that_were_chosen_by_themselves_come_back_as_what_was_chosen(
    teacher_folder: Any, head_folder: Any
) -> None:
    models = tiny_models(teacher_folder, head_folder)
    facts = RunFacts(Settings.of(device="cpu"), "decisions", StopRules(3, [0], []), None)
    manifest = build_manifest("run", facts, models.teacher, models.drafter)
    assert (manifest.graph, settings_of(manifest).choice.graph) == ("none", "off")


def test_settings_of_a_recorded_run_are_those_of_its_command() -> None:
    with TraceReader(FUSED) as reader:
        settings = settings_of(reader.manifest)
    assert (settings.choice.mode, settings.choice.teacher, settings.choice.drafter) == ("fused", "demo", "eagle3")
    assert settings.choice.policy == ModelChoice().policy


def test_the_names_of_settings_are_those_that_are_implemented() -> None:
    assert set(CACHE_STRATEGIES) == set(STRATEGIES)
    assert set(DTYPE_NAMES) == set(DTYPES)
    assert set(DRAFTER_NAMES) == set(DRAFTERS)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"mod": "fused"}, "did you mean mode?"),
        ({"mode": "fussed"}, "wanted one of fused, eager, baseline"),
        ({"dtype": "float8"}, "wanted one of float32"),
        ({"cache_strategy": "none"}, "wanted one of in-place"),
        ({"batch_size": 0}, "wanted 1 to 1024"),
        ({"stop_strings": ""}, "empty stop string"),
        ({"policy": "bush"}, "bush"),
        ({"device": "cuda:x"}, "wanted auto, cpu, or a name that torch knows"),
        ({"graph": "yes"}, "got graph 'yes', wanted one of auto, on, off"),
        ({"graph": "on", "cache_strategy": "replicate"}, "got --graph with cache strategy replicate"),
        ({"mode": "eager", "attention": "a:kernel"}, "the mode says the attention"),
    ],
)
def test_a_mistake_in_a_setting_is_named(named: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.of(**named)
    assert words in str(caught.value)


def test_a_trace_level_that_there_is_not_is_named(tmp_path: Path) -> None:
    level: Any = "all"
    with pytest.raises(UsageError, match="got trace level 'all', wanted one of decisions, scores, tensors"):
        decode("a", trace=tmp_path / "never.jsonl", trace_level=level)
    assert not (tmp_path / "never.jsonl").exists()


def test_a_single_stop_string_is_one() -> None:
    assert Settings.of(stop_strings="END").stop_strings == ("END",)
    assert Settings.of(bad_words=["a", "b"]).bad_words == ("a", "b")
